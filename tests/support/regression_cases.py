"""What the differential test (tests/differential) found wrong once, each as small as it gets."""

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
    """A drop-in that gives dockerd other arguments."""
    return {DROP_IN: f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n".encode()}


class Case(NamedTuple):
    """`files`: content, a link's target as str, or None for a file taken away. `expected`: the
    addresses listened at, or who refuses and a part of the reason."""

    name: str
    files: dict[str, bytes | str | None]
    expected: tuple[str, ...] | tuple[str, str]
    releases: tuple[tuple[int, str], ...] = ALL


def refused(by: str, reason: str) -> tuple[str, str]:
    return by, reason


CASES = (
    # systemd.unit(5), Requires=: a unit that cannot be started takes the one that requires it along.
    Case("a required socket unit is masked", {"/etc/systemd/system/docker.socket": "/dev/null"},
         refused("systemd", "Unit docker.socket is masked")),
    Case("a required socket unit is missing", {SOCKET: None}, refused("systemd", "Unit docker.socket not found")),
    Case("a required socket unit listens nowhere", {SOCKET_DROP_IN: b"[Socket]\nListenStream=\n"},
         refused("systemd", "Unit docker.socket has a bad unit file setting")),
    # socket_start() in src/core/socket.c: "Socket service %s not loaded, refusing."
    Case("a required socket unit is for a service that is not there",
         {SOCKET_DROP_IN: b"[Socket]\nService=other.service\n"},
         refused("systemd", "Socket service other.service not loaded, refusing")),
    # process_deps() in src/core/load-dropin.c: looked for as drop-ins are, by all names of the unit and its type.
    *(Case(f"a socket unit that cannot start is required by {directory}",
           {SERVICE: "/usr/lib/systemd/system/moby.service",
            "/usr/lib/systemd/system/moby.service": PLAIN[SERVICE], SECOND: b"[Socket]\nListenStream=2375,2376\n",
            f"/etc/systemd/system/{directory}/docker-tcp.socket": "../docker-tcp.socket"},
           refused("systemd", "Unit docker-tcp.socket has a bad unit file setting"))
      for directory in ("docker.service.requires", "moby.service.requires", "service.requires")),
    Case("a required socket unit that cannot start, and the link to it masked",
         {SECOND: b"[Socket]\nListenStream=2375,2376\n",
          "/usr/lib/systemd/system/docker.service.requires/docker-tcp.socket": "../docker-tcp.socket",
          "/etc/systemd/system/docker.service.requires/docker-tcp.socket": "/dev/null"},
         ("unix:///run/docker.sock",)),
    Case("Sockets= names a socket unit whose own service is not there",
         {SECOND: b"[Socket]\nListenStream=2375\n", DROP_IN: b"[Service]\nSockets=docker-tcp.socket\n"},
         ("unix:///run/docker.sock",)),
    Case("Sockets= names a socket unit whose own service is there",
         {SECOND: b"[Socket]\nListenStream=2375\n", DROP_IN: b"[Service]\nSockets=docker-tcp.socket\n",
          "/etc/systemd/system/docker-tcp.service": b"[Service]\nExecStart=/bin/true\n"},
         ("tcp://[::]:2375", "unix:///run/docker.sock")),

    # systemd.service(5), Type=oneshot: one command after the other has ended, and dockerd does not end.
    Case("of several commands the first dockerd is the one that runs",
         {DROP_IN: b"[Service]\nType=oneshot\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"},
         ("unix:///run/docker.sock",)),
    Case("of several commands the first dockerd is the one that runs, after others have ended",
         {DROP_IN: b"[Service]\nType=oneshot\nExecStart=\nExecStart=/bin/mkdir -p /x\n"
                   b"ExecStart=/usr/bin/dockerd -H unix://\nExecStart=/bin/rm /x\n"},
         ("unix:///var/run/docker.sock",)),

    *(Case(f"of several commands the first dockerd is the one that runs, by way of a shell that {first}",
           {DROP_IN: "[Service]\nType=oneshot\nExecStart=\n"
                     f"ExecStart=/bin/sh -c '{first}; exec /usr/bin/dockerd -H unix://'\n"
                     "ExecStart=/bin/bash -c 'exec dockerd -H tcp://127.0.0.1:2375'\n".encode()},
           ("unix:///var/run/docker.sock",)) for first in ("unset A", "PATH=$$PATH:/opt/bin", "export PATH=/x:$$PATH")),

    # ip(7), SO_REUSEADDR: of two listeners at one port one may be the wildcard only where the families differ.
    Case("a socket unit listens twice at one address",
         {SOCKET_DROP_IN: b"[Socket]\n" + b"ListenStream=[::1]:2376\n" * 2},
         refused("systemd", "Address already in use")),
    Case("a socket unit listens at a wildcard and at an address",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2376\nListenStream=192.168.1.10:2376\n"},
         refused("systemd", "Address already in use")),
    Case("a socket unit listens at both families, each for itself",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=[::]:2376\nListenStream=0.0.0.0:2376\nBindIPv6Only=ipv6-only\n"},
         ("tcp://0.0.0.0:2376", "tcp://[::]:2376", "unix:///run/docker.sock")),
    Case("a socket unit listens at the loopback of both families",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=[::1]:2376\nListenStream=127.0.0.1:2376\n"},
         ("tcp://127.0.0.1:2376", "tcp://[::1]:2376", "unix:///run/docker.sock")),
    Case("dockerd listens at a wildcard and at an address", starting("-H tcp://0.0.0.0:2375 -H tcp://127.0.0.1:2375"),
         refused("dockerd", "address already in use")),
    Case("dockerd listens twice at a name, which is one in any case",
         starting("-H tcp://LOCALHOST:2375 -H tcp://localhost:2375"), refused("dockerd", "address already in use")),
    Case("dockerd listens where docker.socket does, which it is passed even without fd://",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2375\n", **starting("-H tcp://0.0.0.0:2375")},
         refused("dockerd", "address already in use")),

    Case("dockerd listens where a socket unit wants to, which fails over itself",
         {SECOND: b"[Socket]\nListenStream=2375\nListenStream=[::]:2375\nService=docker.service\n",
          **starting("-H tcp://localhost:2375")}, ("tcp://localhost:2375",)),

    # systemd.exec(5), PassEnvironment=: what the manager does not have is not set, and `$X` alone is no word.
    Case("PassEnvironment= of what the manager has not",
         {DROP_IN: b"[Service]\nPassEnvironment=DOCKER_OPTS\nExecStart=\n"
                   b"ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n"},
         ("unix:///run/docker.sock",)),

    # build_environment() in src/core/exec-invoke.c (execute.c in 252) and service_spawn() in src/core/service.c.
    Case("LISTEN_FDS is not set where nothing is passed, and is no word then",
         {SERVICE: b"[Service]\nExecStart=/usr/bin/dockerd -H unix:///x.sock $LISTEN_FDS\n", SOCKET: None},
         ("unix:///x.sock",)),
    Case("LISTEN_FDS is not set where nothing is passed, and a flag goes without its argument",
         {SERVICE: b"[Service]\nExecStart=/usr/bin/dockerd -H $LISTEN_FDS\n", SOCKET: None},
         refused("dockerd", "flag needs an argument: 'H' in -H")),
    Case("LISTEN_FDS is how many are passed",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2376\n", **starting("-H tcp://127.0.0.1:${LISTEN_FDS}")},
         ("tcp://127.0.0.1:2",)),
    Case("LISTEN_FDS is unset, so that dockerd is passed nothing it could find",
         {DROP_IN: b"[Service]\nUnsetEnvironment=LISTEN_FDS\n"}, refused("dockerd", "no sockets found")),
    Case("LISTEN_PID is unset, and dockerd takes nothing that is passed to somebody else",
         {DROP_IN: b"[Service]\nUnsetEnvironment=LISTEN_PID\n"}, refused("dockerd", "no sockets found")),
    *(Case(f"EnvironmentFile= with {pattern}",
           {DROP_IN: "[Service]\nEnvironmentFile=/etc/docker/env.d/[!0-9]*\nExecStart=\n"
                     f"EnvironmentFile=/etc/docker/env.d/{pattern}\nExecStart=/usr/bin/dockerd -H $A\n".encode(),
            "/etc/docker/env.d/B.env": b"A=unix:///b\n", "/etc/docker/env.d/z.env": b"A=unix:///z\n"}, (f"unix:///{found}",))
      for pattern, found in (("[[:upper:]].env", "b"), ("[[:alpha:]x]*", "z"), ("[![:lower:]]*", "b"))),
    *(Case(f"{wrapper} takes away that descriptors are passed",
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
    *(Case(f"{name} is not set without its setting, and is no word then",
           starting(f"-H unix:///x.sock ${name}"), ("unix:///x.sock",))
      for name in ("WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE", "MAINPID", "MANAGERPID", "REMOTE_ADDR")),
    Case("MEMORY_PRESSURE_WATCH came with 254", starting("-H unix:///x.sock $MEMORY_PRESSURE_WATCH"),
         ("unix:///x.sock",), (BOOKWORM,)),

    # moby daemon/listeners/listeners_linux.go, listenFD().
    Case("fd://4 where one socket is passed", starting("-H fd://4"),
         refused("dockerd", "too few socket activated files")),
    Case("fd://3 where two sockets are passed",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=2375\n", **starting("-H fd://3")},
         ("unix:///run/docker.sock",)),
    Case("fd://0, which stands before the first", starting("-H fd://0"), refused("dockerd", "index out of range")),
    Case("fd:// by name", starting("-H fd://docker.socket"), refused("dockerd", "should be a number: docker.socket")),
    # go-systemd activation/files_unix.go: the first look takes LISTEN_FDS out of the environment.
    Case("fd:// twice, in two ways", starting("-H fd:// -H fd://3"), refused("dockerd", "no sockets found")),

    Case("fd:// where OpenFile= passes a file as well, which is no socket",
         {DROP_IN: b"[Service]\nOpenFile=/etc/hostname\n"},
         refused("dockerd", "panic: runtime error: invalid memory address"), (TRIXIE, SID)),
    Case("OpenFile= is nothing to 252", {DROP_IN: b"[Service]\nOpenFile=/etc/hostname\n"}, ("unix:///run/docker.sock",),
         (BOOKWORM,)),

    # net.FileListener makes a listener of a UNIX datagram socket, which accepts nothing, and of other kinds none:
    # fd:// takes the nil and serves on it.
    Case("fd:// where only a datagram socket is passed, which is a descriptor all the same",
         {SOCKET: b"[Socket]\nListenDatagram=/run/x.sock\n"}, refused("dockerd", "shutting down due to ServeAPI")),
    Case("fd:// where a datagram socket is passed as well, to 20.10",
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
    Case("a sequential-packet socket is listened at as well",
         {SOCKET: b"[Socket]\nListenStream=/run/docker.sock\nListenSequentialPacket=/run/seq.sock\n"},
         ("unix:///run/docker.sock", "unix:///run/seq.sock")),

    # ipv6(7), sin6_scope_id: only link-local addresses have an interface.
    Case("a wildcard with an interface", {SOCKET: b"[Socket]\nListenStream=[::]:2375%%lo\n"}, ("tcp://[::]:2375",)),

    # Every flag is a key of daemon.json, and dockerd 23 and later have --validate.
    Case("daemon.json says validate", {JSON: b'{"validate": true}'}, refused("dockerd", "validate"), (TRIXIE, SID)),

    Case("env -i takes away what systemd says of the sockets it passes",
         {DROP_IN: b"[Service]\nExecStart=\nExecStart=/usr/bin/env -i /usr/bin/dockerd -H fd://\n"},
         refused("dockerd", "no sockets found")),
    Case("fd:// with more digits than a number has", starting("-H fd://" + "9" * 5000),
         refused("dockerd", "should be a number")),

    # A link to /dev/null is how a file is put out of play; 20.10 wants JSON in it all the same.
    Case("daemon.json is /dev/null", {JSON: "/dev/null"}, ("unix:///run/docker.sock",), (TRIXIE, SID)),
    Case("daemon.json is /dev/null, to 20.10", {JSON: "/dev/null"}, refused("dockerd", "EOF"), (BOOKWORM,)),

    # systemd.service(5), `@`: argv[0] is any word, and dockerd takes no notice of it.
    *(Case(f"dockerd goes by the name of {name}",
           {DROP_IN: f"[Service]\nExecStart=\nExecStart=@/usr/bin/dockerd {name} -H tcp://127.0.0.1:2375\n".encode()},
           ("tcp://127.0.0.1:2375",)) for name in ("any", "docker", "/bin/sh", "env")),
    Case("a shell goes by the name of dockerd",
         {DROP_IN: b"[Service]\nExecStart=\nExecStart=@/bin/sh dockerd -c 'exec dockerd -H tcp://127.0.0.1:2375'\n"},
         ("tcp://127.0.0.1:2375",)),

    # sockaddr_pretty() in src/basic/socket-util.c shows paths escaped; they are not made so.
    Case("a socket's path has a backslash",
         {SOCKET_DROP_IN: b"[Socket]\nListenStream=\nListenStream=/run/d\\x20e.sock\n"},
         ("unix:///run/d\\x20e.sock",)),
)


def layout(files: dict[str, bytes | str | None]) -> Layout:
    """These files beside the plain ones."""
    files = {**PLAIN, **files}
    return Layout({path: content for path, content in files.items() if isinstance(content, bytes)},
                  {path: target for path, target in files.items() if isinstance(target, str)})


UNTOLD: tuple[tuple[str, dict[str, bytes | str | None], str], ...] = (
    # u->aliases in src/core/unit.c: b.service was read in three boots of six, docker.service in the other three.
    ("two aliases have a drop-in of one name",
     {"/run/systemd/system/docker.service": "/usr/lib/systemd/system/b.service",
      "/run/systemd/system/b.service": "c.service", "/usr/lib/systemd/system/c.service": PLAIN[SERVICE],
      "/etc/systemd/system/b.service.d/x.conf": b"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n",
      DROP_IN: b"[Service]\nEnvironment=A=b\n"}, "from boot to boot"),
    ("the first of several commands may be a dockerd, but is too intricate to be read",
     {DROP_IN: b"[Service]\nType=oneshot\nExecStart=\nExecStart=/bin/sh -c 'if true; then exec dockerd; fi'\n"
               b"ExecStart=/usr/bin/dockerd -H tcp://127.0.0.1:2375\n"}, "cannot be told"),
    ("how many descriptors are passed, where two socket units want one address",
     {SOCKET_DROP_IN: b"[Socket]\nListenStream=2376\n",
      SECOND: b"[Socket]\nListenStream=127.0.0.1:2376\nService=docker.service\n",
      **starting("-H tcp://127.0.0.1:${LISTEN_FDS}")}, "cannot be told"),
    ("how many descriptors are passed, where one is of a vsock that may not be there",
     {SOCKET_DROP_IN: b"[Socket]\nListenStream=vsock:2:1\n", **starting("-H tcp://127.0.0.1:${LISTEN_FDS}")},
     "cannot be told"),
    ("a shell puts in what no file tells",
     {DROP_IN: b"[Service]\nExecStart=\nExecStart=/bin/sh -c 'exec dockerd -H unix://$$HOME/docker.sock'\n"},
     "cannot be told"),
)
