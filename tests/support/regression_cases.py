"""Regressions that the differential test (tests/differential) has found, each reduced to a minimal case."""

from __future__ import annotations

from typing import NamedTuple

from tests.differential.layout import Layout

BOOKWORM, TRIXIE, SID = (252, "20.10.24+dfsg1-1"), (257, "26.1.5+dfsg1-9"), (262, "28.5.2+dfsg3-2")
ALL = (BOOKWORM, TRIXIE, SID)

SERVICE, SOCKET = "/usr/lib/systemd/system/docker.service", "/usr/lib/systemd/system/docker.socket"
DROP_IN, SOCKET_DROP_IN = "/etc/systemd/system/docker.service.d/x.conf", "/etc/systemd/system/docker.socket.d/x.conf"
SECOND = "/etc/systemd/system/docker-tcp.socket"
JSON = "/etc/docker/daemon.json"

PLAIN = {
    SERVICE: b"[Unit]\nRequires=docker.socket\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H fd://\n",
    SOCKET: b"[Socket]\nListenStream=/run/docker.sock\n",
}


def starting(arguments: str) -> dict[str, bytes | str | None]:
    """Return a drop-in that starts dockerd with these arguments."""
    return {DROP_IN: f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n".encode()}


class Case(NamedTuple):
    """A configuration and what the real systemd and dockerd make of it.

    `files`: content as bytes, the target of a symlink as str, None for a removed file. `expected`: the addresses of
    the API, or the program that refuses to start and a part of its error.
    """

    name: str
    files: dict[str, bytes | str | None]
    expected: tuple[str, ...] | tuple[str, str]
    releases: tuple[tuple[int, str], ...] = ALL


def refused(by: str, reason: str) -> tuple[str, str]:
    return by, reason


CASES = (
    # systemd.unit(5), Requires=: a unit fails if a unit that it requires cannot be started.
    Case("a required socket unit is masked", {"/etc/systemd/system/docker.socket": "/dev/null"},
         refused("systemd", "Unit docker.socket is masked")),
    Case("a required socket unit is missing", {SOCKET: None}, refused("systemd", "Unit docker.socket not found")),
    Case("a required socket unit has no ListenStream=", {SOCKET_DROP_IN: b"[Socket]\nListenStream=\n"},
         refused("systemd", "Unit docker.socket has a bad unit file setting")),
    # socket_start() in src/core/socket.c: "Socket service %s not loaded, refusing."
    Case("the service of a required socket unit is missing",
         {SOCKET_DROP_IN: b"[Socket]\nService=other.service\n"},
         refused("systemd", "Socket service other.service not loaded, refusing")),
    # process_deps() in src/core/load-dropin.c: same search as for drop-ins, by all names of the unit and its type.
    *(Case(f"a socket unit that cannot start is required by {directory}",
           {SERVICE: "/usr/lib/systemd/system/moby.service",
            "/usr/lib/systemd/system/moby.service": PLAIN[SERVICE], SECOND: b"[Socket]\nListenStream=2375,2376\n",
            f"/etc/systemd/system/{directory}/docker-tcp.socket": "../docker-tcp.socket"},
           refused("systemd", "Unit docker-tcp.socket has a bad unit file setting"))
      for directory in ("docker.service.requires", "moby.service.requires", "service.requires")),
    Case("the link to a required socket unit that cannot start is masked",
         {SECOND: b"[Socket]\nListenStream=2375,2376\n",
          "/usr/lib/systemd/system/docker.service.requires/docker-tcp.socket": "../docker-tcp.socket",
          "/etc/systemd/system/docker.service.requires/docker-tcp.socket": "/dev/null"},
         ("unix:///run/docker.sock",)),
    Case("Sockets= names a socket unit whose own service is missing",
         {SECOND: b"[Socket]\nListenStream=2375\n", DROP_IN: b"[Service]\nSockets=docker-tcp.socket\n"},
         ("unix:///run/docker.sock",)),
    Case("Sockets= names a socket unit whose own service exists",
         {SECOND: b"[Socket]\nListenStream=2375\n", DROP_IN: b"[Service]\nSockets=docker-tcp.socket\n",
          "/etc/systemd/system/docker-tcp.service": b"[Service]\nExecStart=/bin/true\n"},
         ("tcp://[::]:2375", "unix:///run/docker.sock")),

    # systemd.service(5), Type=oneshot: a command starts when the previous one has exited, and dockerd does not exit.
    Case("the first dockerd of several commands runs",
         {DROP_IN: b"[Service]\nType=oneshot\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"},
         ("unix:///run/docker.sock",)),
    Case("the first dockerd of several commands runs after the commands before it",
         {DROP_IN: b"[Service]\nType=oneshot\nExecStart=\nExecStart=/bin/mkdir -p /x\n"
                   b"ExecStart=/usr/bin/dockerd -H unix://\nExecStart=/bin/rm /x\n"},
         ("unix:///var/run/docker.sock",)),

    *(Case(f"the first dockerd of several commands runs from a shell with {first}",
           {DROP_IN: "[Service]\nType=oneshot\nExecStart=\n"
                     f"ExecStart=/bin/sh -c '{first}; exec /usr/bin/dockerd -H unix://'\n"
                     "ExecStart=/bin/bash -c 'exec dockerd -H tcp://127.0.0.1:2375'\n".encode()},
           ("unix:///var/run/docker.sock",)) for first in ("unset A", "PATH=$$PATH:/opt/bin", "export PATH=/x:$$PATH")),

    # ip(7), SO_REUSEADDR: a wildcard and an address can share a port only if their families differ.
    Case("a socket unit listens twice on one address",
         {SOCKET_DROP_IN: b"[Socket]\n" + b"ListenStream=[::1]:2376\n" * 2},
         refused("systemd", "Address already in use")),
    Case("a socket unit listens on a wildcard and on an address",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2376\nListenStream=192.168.1.10:2376\n"},
         refused("systemd", "Address already in use")),
    Case("a socket unit listens on the wildcards of both families, with ipv6-only",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=[::]:2376\nListenStream=0.0.0.0:2376\nBindIPv6Only=ipv6-only\n"},
         ("tcp://0.0.0.0:2376", "tcp://[::]:2376", "unix:///run/docker.sock")),
    Case("a socket unit listens on the loopback addresses of both families",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=[::1]:2376\nListenStream=127.0.0.1:2376\n"},
         ("tcp://127.0.0.1:2376", "tcp://[::1]:2376", "unix:///run/docker.sock")),
    Case("dockerd listens on a wildcard and on an address", starting("-H tcp://0.0.0.0:2375 -H tcp://127.0.0.1:2375"),
         refused("dockerd", "address already in use")),
    Case("dockerd listens twice on a host name, in upper and lower case",
         starting("-H tcp://LOCALHOST:2375 -H tcp://localhost:2375"), refused("dockerd", "address already in use")),
    Case("dockerd listens on the port of docker.socket, which systemd passes even without fd://",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2375\n", **starting("-H tcp://0.0.0.0:2375")},
         refused("dockerd", "address already in use")),

    Case("dockerd listens on the port of a socket unit that fails to start",
         {SECOND: b"[Socket]\nListenStream=2375\nListenStream=[::]:2375\nService=docker.service\n",
          **starting("-H tcp://localhost:2375")}, ("tcp://localhost:2375",)),

    # systemd.exec(5), PassEnvironment=: a variable that the manager lacks is not set, and `$X` expands to no argument.
    Case("PassEnvironment= of a variable that the manager lacks",
         {DROP_IN: b"[Service]\nPassEnvironment=DOCKER_OPTS\nExecStart=\n"
                   b"ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n"},
         ("unix:///run/docker.sock",)),

    # build_environment() in src/core/exec-invoke.c (execute.c in 252) and service_spawn() in src/core/service.c.
    Case("LISTEN_FDS is not set without passed descriptors and expands to no argument",
         {SERVICE: b"[Service]\nExecStart=/usr/bin/dockerd -H unix:///x.sock $LISTEN_FDS\n", SOCKET: None},
         ("unix:///x.sock",)),
    Case("LISTEN_FDS is not set without passed descriptors and a flag lacks its argument",
         {SERVICE: b"[Service]\nExecStart=/usr/bin/dockerd -H $LISTEN_FDS\n", SOCKET: None},
         refused("dockerd", "flag needs an argument: 'H' in -H")),
    Case("LISTEN_FDS is the number of passed descriptors",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2376\n", **starting("-H tcp://127.0.0.1:${LISTEN_FDS}")},
         ("tcp://127.0.0.1:2",)),
    Case("UnsetEnvironment= of LISTEN_FDS hides the passed descriptors",
         {DROP_IN: b"[Service]\nUnsetEnvironment=LISTEN_FDS\n"}, refused("dockerd", "no sockets found")),
    Case("UnsetEnvironment= of LISTEN_PID hides the passed descriptors",
         {DROP_IN: b"[Service]\nUnsetEnvironment=LISTEN_PID\n"}, refused("dockerd", "no sockets found")),
    *(Case(f"EnvironmentFile= with {pattern}",
           {DROP_IN: "[Service]\nEnvironmentFile=/etc/docker/env.d/[!0-9]*\nExecStart=\n"
                     f"EnvironmentFile=/etc/docker/env.d/{pattern}\nExecStart=/usr/bin/dockerd -H $A\n".encode(),
            "/etc/docker/env.d/B.env": b"A=unix:///b\n", "/etc/docker/env.d/z.env": b"A=unix:///z\n"}, (f"unix:///{found}",))
      for pattern, found in (("[[:upper:]].env", "b"), ("[[:alpha:]x]*", "z"), ("[![:lower:]]*", "b"))),
    *(Case(f"{wrapper} hides the passed descriptors",
           {DROP_IN: f"[Service]\nExecStart=\nExecStart={wrapper} /usr/bin/dockerd -H fd://\n".encode()},
           refused("dockerd", "no sockets found"))
      for wrapper in ("/usr/bin/env -u LISTEN_PID", "/usr/bin/env --unset=LISTEN_FDS", "/usr/bin/env LISTEN_FDS=",
                      "/bin/dash -c 'LISTEN_FDS=; exec \"$$0\" \"$$@\"'",
                      "/bin/sh -c 'unset LISTEN_PID; exec \"$$0\" \"$$@\"'")),
    *(Case(f"NOTIFY_SOCKET is set with {setting}",
           {DROP_IN: f"[Service]\nType=simple\n{setting}\nExecStart=\n"
                     "ExecStart=/usr/bin/dockerd -H unix://${NOTIFY_SOCKET}\n".encode()}, ("unix://" + socket,))
      for setting, socket in (("Type=simple", "/var/run/docker.sock"), ("NotifyAccess=none", "/var/run/docker.sock"),
                              ("WatchdogSec=0", "/var/run/docker.sock"), ("Type=notify", "/run/systemd/notify"),
                              ("NotifyAccess=all", "/run/systemd/notify"), ("WatchdogSec=1min", "/run/systemd/notify"),
                              ("FileDescriptorStoreMax=1", "/run/systemd/notify"))),
    *(Case(f"{name} is not set without its setting and expands to no argument",
           starting(f"-H unix:///x.sock ${name}"), ("unix:///x.sock",))
      for name in ("WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE", "MAINPID", "MANAGERPID", "REMOTE_ADDR")),
    Case("MEMORY_PRESSURE_WATCH is not set before 254", starting("-H unix:///x.sock $MEMORY_PRESSURE_WATCH"),
         ("unix:///x.sock",), (BOOKWORM,)),

    # moby daemon/listeners/listeners_linux.go, listenFD().
    Case("fd://4 where one socket is passed", starting("-H fd://4"),
         refused("dockerd", "too few socket activated files")),
    Case("fd://3 where two sockets are passed",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2375\n", **starting("-H fd://3")},
         ("unix:///run/docker.sock",)),
    Case("fd://0, below the first descriptor", starting("-H fd://0"), refused("dockerd", "index out of range")),
    Case("fd:// by name", starting("-H fd://docker.socket"), refused("dockerd", "should be a number: docker.socket")),
    # go-systemd activation/files_unix.go: the first call removes LISTEN_FDS from the environment.
    Case("fd:// and fd://3", starting("-H fd:// -H fd://3"), refused("dockerd", "no sockets found")),

    Case("fd:// where OpenFile= passes a regular file as well",
         {DROP_IN: b"[Service]\nOpenFile=/etc/hostname\n"},
         refused("dockerd", "panic: runtime error: invalid memory address"), (TRIXIE, SID)),
    Case("systemd 252 ignores OpenFile=", {DROP_IN: b"[Service]\nOpenFile=/etc/hostname\n"}, ("unix:///run/docker.sock",),
         (BOOKWORM,)),

    # net.FileListener returns a listener for a UNIX datagram socket, and accept(2) fails on it. For other kinds it
    # returns nil, and fd:// serves on the nil.
    Case("fd:// where only a datagram socket is passed",
         {SOCKET: b"[Socket]\nListenDatagram=/run/x.sock\n"}, refused("dockerd", "shutting down due to ServeAPI")),
    Case("fd:// where a datagram socket is passed as well, in 20.10",
         {SOCKET_DROP_IN: b"[Socket]\nListenDatagram=@x\n"},
         refused("dockerd", "shutting down due to ServeAPI"), (BOOKWORM,)),
    Case("fd:// where a datagram socket is passed as well", {SOCKET_DROP_IN: b"[Socket]\nListenDatagram=@x\n"},
         ("unix:///run/docker.sock",), (TRIXIE, SID)),
    *(Case(f"fd:// where {listen} is passed as well", {SOCKET_DROP_IN: f"[Socket]\n{listen}\n".encode()},
           refused("dockerd", "panic: runtime error: invalid memory address"))
      for listen in ("ListenDatagram=999", "ListenFIFO=/run/x", "ListenStream=vsock::2375")),
    Case("fd://3 where the first socket is a datagram socket",
         {SOCKET: b"[Socket]\nListenDatagram=/run/x.sock\nListenStream=/run/docker.sock\n", **starting("-H fd://3")},
         refused("dockerd", "shutting down due to ServeAPI")),
    Case("fd://3 where the first is a FIFO",
         {SOCKET: b"[Socket]\nListenFIFO=/run/x\nListenStream=/run/docker.sock\n", **starting("-H fd://3")},
         refused("dockerd", "failed to listen on systemd activated file: fd 3")),

    # net.FileListener in Go's net/file_unix.go.
    Case("dockerd serves on a sequential-packet socket",
         {SOCKET: b"[Socket]\nListenStream=/run/docker.sock\nListenSequentialPacket=/run/seq.sock\n"},
         ("unix:///run/docker.sock", "unix:///run/seq.sock")),

    # ipv6(7), sin6_scope_id: only link-local addresses have an interface.
    Case("a wildcard with an interface", {SOCKET: b"[Socket]\nListenStream=[::]:2375%%lo\n"}, ("tcp://[::]:2375",)),

    # Every flag is a key of daemon.json, and dockerd 23 and later have --validate.
    Case("daemon.json contains validate", {JSON: b'{"validate": true}'}, refused("dockerd", "validate"), (TRIXIE, SID)),

    Case("env -i hides the passed descriptors",
         {DROP_IN: b"[Service]\nExecStart=\nExecStart=/usr/bin/env -i /usr/bin/dockerd -H fd://\n"},
         refused("dockerd", "no sockets found")),
    Case("fd:// with a number that is too long", starting("-H fd://" + "9" * 5000),
         refused("dockerd", "should be a number")),

    # A symlink to /dev/null masks a file. dockerd 20.10 reads it and expects JSON.
    Case("daemon.json is /dev/null", {JSON: "/dev/null"}, ("unix:///run/docker.sock",), (TRIXIE, SID)),
    Case("daemon.json is /dev/null, in 20.10", {JSON: "/dev/null"}, refused("dockerd", "EOF"), (BOOKWORM,)),

    # systemd.service(5), `@`: argv[0] is any string, and dockerd ignores it.
    *(Case(f"dockerd has the argv[0] {name}",
           {DROP_IN: f"[Service]\nExecStart=\nExecStart=@/usr/bin/dockerd {name} -H tcp://127.0.0.1:2375\n".encode()},
           ("tcp://127.0.0.1:2375",)) for name in ("any", "docker", "/bin/sh", "env")),
    Case("a shell has the argv[0] dockerd",
         {DROP_IN: b"[Service]\nExecStart=\nExecStart=@/bin/sh dockerd -c 'exec dockerd -H tcp://127.0.0.1:2375'\n"},
         ("tcp://127.0.0.1:2375",)),

    # sockaddr_pretty() in src/basic/socket-util.c prints paths escaped; the socket file has the unescaped name.
    Case("a socket's path has a backslash",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=\nListenStream=/run/d\\x20e.sock\n"},
         ("unix:///run/d\\x20e.sock",)),
)


def layout(files: dict[str, bytes | str | None]) -> Layout:
    """Return a layout of the plain files and these files."""
    files = {**PLAIN, **files}
    return Layout({path: content for path, content in files.items() if isinstance(content, bytes)},
                  {path: target for path, target in files.items() if isinstance(target, str)})


UNKNOWN: tuple[tuple[str, dict[str, bytes | str | None], str], ...] = (
    # u->aliases in src/core/unit.c: b.service was read in three boots of six, docker.service in the other three.
    ("two aliases have a drop-in of one name",
     {"/run/systemd/system/docker.service": "/usr/lib/systemd/system/b.service",
      "/run/systemd/system/b.service": "c.service", "/usr/lib/systemd/system/c.service": PLAIN[SERVICE],
      "/etc/systemd/system/b.service.d/x.conf": b"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n",
      DROP_IN: b"[Service]\nEnvironment=A=b\n"}, "from boot to boot"),
    ("the first of several commands may be a dockerd, in a script that is not parsed",
     {DROP_IN: b"[Service]\nType=oneshot\nExecStart=\nExecStart=/bin/sh -c 'if true; then exec dockerd; fi'\n"
               b"ExecStart=/usr/bin/dockerd -H tcp://127.0.0.1:2375\n"}, "cannot determine"),
    ("the number of passed descriptors, where two socket units have the same address",
     {SOCKET_DROP_IN: b"[Socket]\nListenStream=2376\n",
      SECOND: b"[Socket]\nListenStream=127.0.0.1:2376\nService=docker.service\n",
      **starting("-H tcp://127.0.0.1:${LISTEN_FDS}")}, "cannot determine"),
    ("the number of passed descriptors, where one is a vsock that the host may not have",
     {SOCKET_DROP_IN: b"[Socket]\nListenStream=vsock:2:1\n", **starting("-H tcp://127.0.0.1:${LISTEN_FDS}")},
     "cannot determine"),
    ("a shell expands a variable that no file sets",
     {DROP_IN: b"[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec dockerd -H unix://$$HOME/docker.sock'\n"},
     "cannot determine"),
)
