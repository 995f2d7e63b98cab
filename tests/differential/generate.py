"""Configuration trees from a seed: what people write, what they get wrong, and a long tail of what nobody should.

A tree is what (seed, number) says, on every release and for ever, as long as this file stays as it is.
It begins as a distribution's own units; then stories happen to it: somebody adds a drop-in, an
environment file, a second socket, a link, a mask, and the text slips here and there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.differential.layout import Layout

T = TypeVar("T")

ETC, RUN, LIB, LOCAL = (
    "/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system")
CONTROL, RUN_CONTROL = "/etc/systemd/system.control", "/run/systemd/system.control"
GENERATED, EARLY, LATE = "/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late"
ATTACHED = "/etc/systemd/system.attached"

SERVICES = {
    "debian": """[Unit]
Description=Docker Application Container Engine
After=network-online.target docker.socket containerd.service
Wants=containerd.service
Requires=docker.socket

[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStartSec=0
RestartSec=2
Restart=always
KillMode=process

[Install]
WantedBy=multi-user.target
""",
    "ce": """[Unit]
Description=Docker Application Container Engine
After=docker.socket containerd.service
Wants=containerd.service
Requires=docker.socket

[Service]
Type=notify
# the default is not to use systemd for cgroups because the delegate issues still
# exists and systemd currently does not support the cgroup feature set required
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock
ExecReload=/bin/kill -s HUP $MAINPID
RestartSec=2
Restart=always

[Install]
WantedBy=multi-user.target
""",
    "ce-17": """[Unit]
Description=Docker Application Container Engine

[Service]
Type=notify
ExecStart=/usr/bin/dockerd
ExecReload=/bin/kill -s HUP $MAINPID
""",
    "ce-18": """[Unit]
Wants=docker.socket

[Service]
Type=notify
ExecStart=/usr/bin/dockerd -H unix://
""",
    "fedora": """[Unit]
Description=Docker Application Container Engine
Requires=docker.socket

[Service]
Type=notify
EnvironmentFile=-/etc/sysconfig/docker
EnvironmentFile=-/etc/sysconfig/docker-storage
EnvironmentFile=-/etc/sysconfig/docker-network
ExecStart=/usr/bin/dockerd \\
          --host=fd:// \\
          --exec-opt native.cgroupdriver=systemd \\
          $OPTIONS \\
          $DOCKER_STORAGE_OPTIONS \\
          $DOCKER_NETWORK_OPTIONS
""",
    "flatcar": """[Unit]
Requires=docker.socket

[Service]
Type=notify
EnvironmentFile=-/run/flannel/flannel_docker_opts.env
Environment=DOCKER_SELINUX=--selinux-enabled=true
ExecStart=/usr/bin/dockerd --host=fd:// --containerd=/run/containerd/containerd.sock \\
          $DOCKER_SELINUX $DOCKER_OPTS $DOCKER_CGROUPS
""",
    "rhel": """[Service]
Type=notify
Environment=GOTRACEBACK=crash
EnvironmentFile=-/etc/sysconfig/docker
ExecStart=/usr/bin/dockerd-current --default-runtime=runc $OPTIONS $ADD_REGISTRY $INSECURE_REGISTRY
""",
}
SOCKETS = {
    "stock": "[Unit]\nDescription=Docker Socket for the API\n\n[Socket]\nListenStream=/run/docker.sock\n"
             "SocketMode=0660\nSocketUser=root\nSocketGroup=docker\n\n[Install]\nWantedBy=sockets.target\n",
    "old": "[Unit]\nDescription=Docker Socket for the API\nPartOf=docker.service\n\n[Socket]\n"
           "ListenStream=/var/run/docker.sock\nSocketMode=0660\n",
    "tcp": "[Socket]\nListenStream=/run/docker.sock\nListenStream=2375\n",
}
LIKELY_ENVIRONMENT_FILES = ("/etc/default/docker", "/etc/sysconfig/docker", "/run/flannel/flannel_docker_opts.env",
                            "/etc/docker/docker.env", "/etc/sysconfig/docker-network")
OPTION_VARIABLES = ("DOCKER_OPTS", "OPTIONS", "DOCKER_STORAGE_OPTIONS", "DOCKER_NETWORK_OPTIONS", "OPTS",
                    "DOCKER_HOSTS")

TCP_HOSTS = (
    "tcp://0.0.0.0:2375", "tcp://127.0.0.1:2375", "tcp://0.0.0.0:2376", "tcp://127.0.0.1:2376",
             "tcp://192.168.1.10:2375",
    "tcp://10.0.0.5:2376", "tcp://:2375", "tcp://localhost:2375", "tcp://[::]:2375", "tcp://[::1]:2376",
    "0.0.0.0:2375", "127.0.0.1:4243", ":2375", "tcp://docker-host:2376", "tcp://0.0.0.0:4243",
)
ODD_HOSTS = (
    "tcp://", "tcp://0.0.0.0", "0.0.0.0", "0.0.0.0:", "2375", "tcp:2375", "tcp:/0.0.0.0:2375", "tcp:0.0.0.0:2375",
    "tcp//0.0.0.0:2375", "tcp://0.0.0.0:2375/", "tcp://0.0.0.0:2375/path", "tcp://user:pw@0.0.0.0:2375",
    "tcp://0.0.0.0:2375?x=1", "tcp://127.0.0.1:2375#frag", "TCP://0.0.0.0:2375", "http://0.0.0.0:2375",
    "https://0.0.0.0:2376", "tcp4://0.0.0.0:2375", "ssh://host", "vsock://2:2375", "npipe:////./pipe/docker_engine",
    "::", "::1", "[::]:2375", "[::1]:", "tcp://::1:2375", "tcp://:::2375", "tcp://[::ffff:0.0.0.0]:2375",
    "tcp://[::ffff:127.0.0.1]:2375", "tcp://0.0.0.0:02375", "tcp://0.0.0.0:0", "tcp://0.0.0.0:65536",
    "tcp://0.0.0.0:99999", "tcp://0.0.0.0:-1", "tcp://0.0.0.0:+2375", "tcp://0.0.0.0:2375-2380", "tcp://0.0.0.0:http",
    "tcp://*:2375", "*:2375", "localhost", "docker-host", "docker.example.com:2376", " tcp://127.0.0.1:2375",
    "tcp://127.0.0.1:2375 ", "tcp://127.0.0.1 :2375", "", "unix", "unix:", "unix:/run/docker.sock", "fd", "fd:",
    "fd:/", "=fd://", "'fd://'", '"fd://"', "tcp://127.0.0.1:2375,unix:///run/docker.sock", "tcp://$HOST:2375",
    "/var/run/docker.sock", "/run/docker.sock", "tcp://127.1:2375", "tcp://0:2375", "tcp://[fe80::1%25eth0]:2375",
    "tcp://[fe80::1%eth0]:2375", "tcp://1.2.3.4.5:2375", "tcp://256.1.1.1:2375", "tcp://[::1:2375", "tcp://::1]:2375",
    "tcp://[]:2375", "tcp://[127.0.0.1]:2375", "tcp://Localhost:2375", "tcp://LOCALHOST:2375", "tcp://0x7f.1:2375",
    "tcp://127.0.0.1:2375\t", "tcp://docker_host:2375", "tcp://%31:2375", "tcp://a%20b:2375",
             "tcp://0.0.0.0:2375:2376",
    "tcp://-H:2375", "--debug", "-", "0", "tcp://1:2375", "tcp://\u00e4:2375", "tcp://0.0.0.0:\u0661", "fd://*:1",
)
UNIX_HOSTS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock", "unix://", "unix:///run/docker2.sock",
              "unix://@docker", "unix:///run/../run/docker.sock", "unix://rel.sock", "unix:////run/docker.sock")
FD_HOSTS = ("fd://", "fd://*", "fd://3", "fd://4", "fd://2", "fd://docker.socket", "fd://0", "fd://03")

LISTEN = ("/run/docker.sock", "/var/run/docker.sock", "2375", "0.0.0.0:2375", "127.0.0.1:2375", "[::]:2375",
          "[::1]:2376",
          "@docker", "/run/docker2.sock", "192.168.1.10:2376", "2376")
ODD_LISTEN = ("tcp://0.0.0.0:2375", "unix:///run/docker.sock", "*:2375", "localhost:2375", '"/run/docker.sock"',
              "/run/docker.sock # api", "run/docker.sock", "0", "02375", "65536", "0.0.0.0", "::1", "[::1]", ":2375",
              "0.0.0.0:", "vsock:2:2375", "vsock::2375", "vsock:-1:2375", "/run//docker.sock",
              "/run/docker dir/d.sock",
              "%t/docker.sock", "/run/%n.sock", "/run/%p-%i.sock", "%z", "0.0.0.0:+2375", " 2375 ", "[::]:2375%lo",
              "[::]:2375%%lo", "/run/docker.sock/", "/run/./docker.sock", "/run/../run/docker.sock", "/", "@", "@a b",
              "/run/" + "x" * 120, "127.1:2375", "0x94f", "2375 2376", "2375,2376", "0.0.0.0:2375/tcp",
              "[::ffff:127.0.0.1]:2377",
              "[::1%lo]:2375", "[fe80::1]:2375", "::ffff:1.2.3.4", "0.0.0.0:65535", "[0:0:0:0:0:0:0:1]:2378",
              "/run/d\\x20e.sock", "vsock-stream:2:99", "vsock:host:7", "vsock:any:8", "vsock:local:9",
              "vsock:4294967295:99", "vsock:2:", "+2375", "@%n", "%%t")

PREFIXES = ("-", "@", ":", "+", "!", "!!", "-:", ":-", "+-", "@-", "-@", ":@", "|", "-|", "!+", "!!!", "--", "::",
            "++", "|:")
SPECIFIERS = ("%n", "%N", "%p", "%i", "%t", "%S", "%C", "%L", "%E", "%T", "%V", "%h", "%s", "%u", "%U", "%g", "%G",
              "%H",
              "%l", "%m", "%%", "%f", "%j", "%J", "%I", "%P", "%y", "%Y", "%d", "%D", "%o", "%w", "%W", "%B", "%A",
              "%M", "%a",
              "%z", "%k", "%q", "%c", "%r", "%R", "%1", "%_", "%", "% ", "%{x}", "%é", "%X", "%e", "%x")
ESCAPES = ("\\n", "\\t", "\\s", "\\x41", "\\101", "\\u00e9", "\\U0001F433", "\\\\", '\\"', "\\'", "\\q", "\\x4", "\\0",
           "\\000",
           "\\x00", "\\400", "\\;", "\\$", "\\ ", "\\a", "\\xff", "\\377", "\\ud800", "\\uffff", "\\u004", "\\v", "\\")
VALUES = ("a", "1", "x y", "--debug", "fd://", "tcp://127.0.0.1:2375", "-H fd://", "-H tcp://127.0.0.1:2375 -H fd://",
          "--tlsverify", "", "'-H fd://'", "-D --log-level=warn", "--label=a=b", "\"--label=a=b c\"",
          "-H unix:///run/docker.sock",
          "--label='x y'=z", "a\\b", "a\\ b", "-H=tcp://0.0.0.0:2375", "--host tcp://0.0.0.0:2376 --tls=false",
          "$HOME", "${A}",
          "é", "\t-D\t", "--label \"a b=c\" -D", "#x",
          "-H tcp://0.0.0.0:2376 --tlsverify --tlscacert=/etc/docker/ca.pem "
          "--tlscert=/etc/docker/cert.pem --tlskey=/etc/docker/key.pem", "--label=\"a=b", "--label=a=b\\")

WRAPPERS = (
    "/usr/bin/env", "/usr/bin/env A=b", "/usr/bin/env -u A", "/usr/bin/env -i", "/usr/bin/env - PATH=/usr/bin",
    "/usr/bin/env --", "/usr/bin/nice", "/usr/bin/nice -n 5", "/usr/bin/nice -n5", "/usr/bin/nice --adjustment=5",
    "/usr/bin/nohup", "/usr/bin/setsid", "/usr/bin/setsid -w", "/usr/bin/stdbuf -oL", "/usr/bin/stdbuf -o L",
    "/usr/bin/timeout 60", "/usr/bin/timeout -k 5 60", "/usr/bin/timeout --foreground 60", "/usr/bin/ionice -c 2 -n 7",
    "/usr/bin/ionice -c2", "/usr/bin/chrt -o 0", "/usr/bin/taskset 1", "/usr/bin/taskset -c 0",
    "/usr/bin/env nice -n 5", "/usr/bin/env A=b sh -c 'exec \"$$0\" \"$$@\"'", "/usr/bin/nice /usr/bin/env -u HOME",
    "/usr/bin/env -u LISTEN_FDS", "/usr/bin/env -uA B=c", "/usr/bin/env --unset=LISTEN_FDS", "/usr/bin/env -C /tmp",
    "/usr/bin/env --chdir=/tmp", "/usr/bin/env -S 'nice -n 5'", "/usr/bin/env -i nice", "/usr/bin/env -v",
    "/usr/bin/nice -5", "/usr/bin/nice --", "/usr/bin/nice nice", "/usr/bin/setsid -f", "/usr/bin/stdbuf --output=L",
    "/usr/bin/stdbuf -oL -eL", "/usr/bin/timeout -s KILL 60", "/usr/bin/timeout --signal=TERM 1m",
    "/usr/bin/timeout -k5 60", "/usr/bin/ionice -c 3", "/usr/bin/ionice", "/usr/bin/chrt --batch 0",
    "/usr/bin/taskset 0xff", "/usr/bin/taskset -a 1", "/usr/bin/prlimit -n512", "/usr/bin/systemd-cat",
    "/usr/bin/systemd-cat -t docker", "/usr/bin/flock /tmp/x.lock", "/usr/bin/choom -n 0 --", "/usr/bin/unshare -m",
    "/usr/sbin/chroot /", "/usr/bin/setpriv --nnp", "/usr/bin/xargs -a /dev/null",
)
SHELLS = ("/bin/sh -c", "/bin/sh -c", "/bin/sh -c", "/bin/bash -c", "/bin/sh -ec", "/bin/sh -e -c", "/bin/bash -lc",
          "/usr/bin/env sh -c", "/bin/sh -xc", "/bin/bash -o pipefail -c", "@/bin/sh any -c", "/bin/dash -c",
          "/bin/sh -euc", "/bin/sh -o errexit -c", "/bin/bash +x -c", "/bin/bash --norc -c", "/usr/bin/nice sh -c",
          "/bin/sh -c --", "sh -c",
          "/usr/bin/env -i sh -c", "/bin/bash -O extglob -c", "/bin/rbash -c")
BEFORE_IN_SCRIPT = (
    "", "", "exec ", "exec ", "exec ", "set -e; exec ", "export A=b; exec ", "A=b ", "A=b exec ", "A=b; exec ",
    "export A; ", "export A=b B='c d'; exec ", "true && exec ", "true; ", "mkdir -p /x && exec ", "[ -f /x ] || exec ",
    "if true; then ", "umask 022; exec ", ". /etc/default/docker; exec ", "false || ", "  exec  ", "# note\\nexec ",
    "cd / && exec ", "A='-H fd://'; exec ", "A=$$B; exec ", "unset A; exec ", "exec nice ", "exec env A=b ", "! ",
    "false && ", "(", "{ ", "set -- -D; exec ", "trap '' HUP; exec ",
    "PATH=$$PATH:/opt/bin; exec ", "export PATH=/usr/bin:$$PATH; exec ", "PATH=/usr/bin:$$PATH exec ",
    "unset LISTEN_FDS; exec ", "unset A B && exec ", "exec nohup ", "command exec ", "exec -a any ",
    "env -u LISTEN_FDS ", "nohup ", "eval exec ", "sleep 0; exec ", "ulimit -n 1024; exec ",
    "test -d / || exit 1; exec ", "A=b || exec ", "export A=b || exec ", "A=b & exec ", "for h in 1; do exec ",
    "A=b exec env ", "echo $$A >/dev/null; exec ", "unset 1A; exec ", "LISTEN_FDS=; exec ", "exec /usr",
    "A=$$HOME/x; exec ", "readonly A=b; exec ", "mkdir -p /x;exec ", "exec;exec ", "exec 2>&1; exec ", ":; exec ",
)
AFTER_IN_SCRIPT = ("", "", "", "", "", "", " 2>&1", " >/dev/null 2>&1", " && true", " || true", " # note", " &",
                   "; true", " | cat", ";", " ;;", "; fi", ")", "; }", "\\n", " &&", ' "$$@"', " $$*",
                   "; exec dockerd -D")

HARMLESS_FLAGS = (
    ("-D",), ("--debug",), ("-r",), ("--restart=false",), ("--icc=false",), ("--log-level=warn",), ("-l", "warn"),
                  ("-lwarn",),
    ("-l=warn",), ("--log-level", "info"), ("--label=a=b",), ("--label", "zone=eu"), ("--dns", "8.8.8.8"),
                  ("--dns=1.1.1.1",),
    ("--mtu=1450",), ("--mtu", "1400"), ("--selinux-enabled",), ("--selinux-enabled=false",), ("--live-restore",),
    ("--live-restore=true",), ("--experimental",), ("--experimental=false",), ("--storage-driver=vfs",), ("-s", "vfs"),
    ("--insecure-registry=10.0.0.0/8",), ("--insecure-registry", "reg.example.com:5000"),
    ("--registry-mirror=https://mirror.example.com",), ("--bip=172.17.0.1/16",), ("-G", "docker"), ("-Gdocker",),
    ("--group=docker",), ("--exec-opt", "native.cgroupdriver=systemd"), ("--log-opt", "max-size=10m"),
    ("--userland-proxy=false",), ("--iptables=false",), ("--ip-forward=false",),
                  ("--default-ulimit=nofile=1024:2048",),
    ("--data-root=/var/lib/docker",), ("--data-root", "/srv/docker"), ("-p", "/run/docker.pid"),
                  ("--pidfile=/run/docker.pid",),
    ("--default-runtime=runc",), ("--add-runtime", "foo=/usr/bin/runc"), ("--init",), ("--ipv6=false",),
                  ("--raw-logs",),
    ("--metrics-addr=127.0.0.1:9323",), ("--containerd=/run/containerd/containerd.sock",),
                  ("--cgroup-parent=docker.slice",),
    ("--no-new-privileges",), ("--fixed-cidr=172.17.0.0/24",), ("--max-concurrent-downloads=3",),
                  ("--shutdown-timeout", "10"),
    ("--tls=false",), ("--api-cors-header=*",), ("--userns-remap=",), ("--seccomp-profile=",), ("-b", "docker0"),
    ("--bridge=none",), ("--ip=127.0.0.1",), ("--default-shm-size=64M",), ("--network-control-plane-mtu=1400",),
    ("--min-api-version=1.24",), ("--feature=containerd-snapshotter=false",), ("--dns-search=example.com",),
    ("--host-gateway-ip=10.0.0.1",), ("--log-format=json",), ("--swarm-default-advertise-addr=eth0",),
)
BAD_FLAGS = (
    ("--foo",), ("-x",), ("-host", "tcp://0.0.0.0:2375"), ("--hosts=tcp://0.0.0.0:2375",), ("-tls",), ("--Debug",),
             ("daemon",),
    ("--tls", "false"), ("--tls=no",), ("--tls=",), ("--debug=yes",), ("--mtu=abc",), ("--mtu",), ("-H",), ("--host",),
    ("--label=a",), ("--dns=foo",), ("--", "-H", "fd://"), ("--",), ("-",), ("---debug",), ("--=x",), ("-DHfd://",),
             ("-DH", "fd://"),
    ("-DH=fd://",), ("-Dx",), ("-GH", "fd://"), ("-HD",), ("-H", "--debug"), ("--version",), ("-v",), ("--help",),
             ("-h",),
    ("--validate",), ("#", "comment"), ("--graph=/srv",), ("-g", "/srv"), ("--storage-opt=dm.fs=xfs",), ("&",),
             ("|", "tee", "/x"),
    (">", "/dev/null"), ("--registry-mirror=mirror.example.com",), ("--registry-mirror=http://a/b/",), ("--bip=abc",),
    ("--default-ulimit=x",), ("--insecure-registry=-x-",), ("--log-level=loud",), ("-l=",),
             ("--cluster-store=consul://x:8500",),
    ("--disable-legacy-registry",), ("--ip=x",), ("--allow-nondistributable-artifacts=x",), ("--config-file",),
             ("--icc", "true"),
    ("--max-concurrent-downloads=x",), ("-b=none", "x"), ("\u2013debug",), ("\u2014H", "fd://"),
             ("-H", "fd://", "unix://"),
    ("--default-address-pool=base=10.0.0.0/8,size=24",), ("--default-network-opt=bridge=mtu=1400",), ("--mtu=0x10",),
    ("--live-restore", "true"), ("-H=",), ("--host=",), ("-H", ""), ("completion",), ("--ipv6=2",),
             ("--tlsverify=maybe",),
)

OVERRIDE_NAMES = ("override.conf", "docker.conf", "hosts.conf", "10-hosts.conf", "http-proxy.conf", "10-docker.conf",
                  "99-local.conf",
                  "tcp.conf", "startup_options.conf", "options.conf", "zz.conf", "90-a.conf", "9.conf", "Foo.conf",
                  "_x.conf", "~i.conf",
                  "sp ace.conf", "10-machine.conf", "20-listen.conf", "é.conf", "x.rpmnew.conf", "#a.conf", "a#.conf")
IGNORED_NAMES = (".hidden.conf", "override.conf.bak", "override.conf~", "override.CONF", "override.conf.dpkg-old",
                 "override",
                 "override.conf.swp", ".override.conf.swp", "override.conf.rpmsave", "override.txt", "#override.conf#",
                 "x.conf.orig",
                 "override.conf.disabled", "override.conf ")


SET_BY_SYSTEMD = ("MAINPID", "LISTEN_FDS", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID",
                  "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "USER", "LOGNAME", "SHELL",
                  "MEMORY_PRESSURE_WATCH",
                  "SYSTEMD_EXEC_PID", "MANAGERPID", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "PIDFILE", "REMOTE_ADDR")
SETS_VARIABLES = ("NotifyAccess=all", "NotifyAccess=none", "NotifyAccess=x", "WatchdogSec=1min", "WatchdogSec=0",
                  "FileDescriptorStoreMax=2", "FileDescriptorStoreMax=0", "FileDescriptorStoreMax=x", "User=root",
                  "User=0", "User=", "Group=root", "SetLoginEnvironment=yes", "SetLoginEnvironment=no",
                  "RuntimeDirectory=docker", "RuntimeDirectory=b a/b", "StateDirectory=docker x", "LogsDirectory=/x",
                  "PIDFile=/run/docker.pid", "PIDFile=docker.pid", "WorkingDirectory=~", "WorkingDirectory=/tmp",
                  "StandardOutput=null", "OpenFile=/etc/hostname", "ExecSearchPath=/opt/bin:/usr/bin",
                  "UnsetEnvironment=LISTEN_FDS", "UnsetEnvironment=NOTIFY_SOCKET LISTEN_PID", "UnsetEnvironment=PATH")
"""Settings that make systemd set variables, or not."""


class Generator:
    """A tree in the making. All chance comes from `random`."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(f"dockerd-guard differential {seed} {number}")
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.directories: list[str] = []
        self.full = False
        self.service = "docker.service"
        self.executable = "/usr/bin/dockerd"

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, choices: Sequence[T]) -> T:
        return self.random.choice(choices)

    def weighted(self, choices: dict[str, float]) -> str:
        return self.random.choices(list(choices), list(choices.values()))[0]

    def put(self, path: str, text: str | bytes) -> None:
        self.take_away(path)
        self.files[path] = text.encode() if isinstance(text, str) else text

    def link(self, path: str, target: str) -> None:
        self.take_away(path)
        self.links[path] = target

    def take_away(self, path: str) -> None:
        self.files.pop(path, None)
        self.links.pop(path, None)

    def layout(self) -> Layout:
        """All of it, but what has something below a thing that is no directory, or stands twice."""
        taken = set(self.files) | set(self.links)
        beneath = {path for path in taken | set(self.directories)
                   if any(path[:at] in taken for at in range(1, len(path)) if path[at] == "/")}
        taken_names = {path for path in taken - beneath
                       if any(other.startswith(path + "/") for other in [*taken, *self.directories])}
        return Layout({path: content for path, content in self.files.items() if path not in beneath | taken_names},
                      {path: to for path, to in self.links.items() if path not in beneath | taken_names},
                      tuple(path for path in dict.fromkeys(self.directories) if path not in beneath | taken),
                      self.full)

    # ---- where things lie

    def search_directory(self) -> str:
        return self.weighted({ETC: 50, LIB: 18, RUN: 10, LOCAL: 5, CONTROL: 3, RUN_CONTROL: 2, GENERATED: 3, LATE: 2,
                              EARLY: 2,
                              ATTACHED: 1})

    def drop_in_directory(self, unit: str) -> str:
        suffix = unit.rpartition(".")[2]
        stem = self.weighted({unit: 90, suffix: 5, "docker-." + suffix: 1, "docker@." + suffix: 0.5, unit.upper(): 0.3,
                              "alias-of." + suffix: 2})
        return f"{self.search_directory()}/{stem}.d"

    def drop_in_name(self) -> str:
        return self.one(OVERRIDE_NAMES if self.chance(0.93) else IGNORED_NAMES)

    # ---- words of a command line

    def hosts(self) -> list[str]:
        return [self.host() for _ in range(self.random.choices((1, 2, 3), (55, 38, 7))[0])]

    def host(self) -> str:
        kind = self.weighted({"fd": 40, "tcp": 26, "unix": 18, "odd": 10, "odd fd": 3})
        if kind == "fd":
            return "fd://"
        return self.one({"tcp": TCP_HOSTS, "unix": UNIX_HOSTS, "odd": ODD_HOSTS, "odd fd": FD_HOSTS}[kind])

    def host_flags(self) -> list[str]:
        words: list[str] = []
        for host in self.hosts():
            words += {"-H x": ["-H", host], "-H=x": [f"-H={host}"], "-Hx": [f"-H{host}"], "--host x": ["--host", host],
                      "--host=x": [f"--host={host}"], "-DHx": [f"-DH{host}"], "-DH x": ["-DH", host]}[
                self.weighted({"-H x": 60, "-H=x": 8, "-Hx": 4, "--host x": 5, "--host=x": 16, "-DHx": 1, "-DH x": 1})]
        return words

    def tls_flags(self) -> list[str]:
        self.certificates()
        kind = self.weighted({"verify": 50, "tls": 12, "verify=false": 6, "tls=false": 12, "files": 6, "both": 5,
                              "odd": 9})
        switch = {"verify": [self.one(("--tlsverify", "--tlsverify=true", "--tlsverify=1"))], "tls": ["--tls"],
                  "verify=false": ["--tlsverify=false"], "tls=false": ["--tls=false"], "files": [],
                  "both": ["--tls", "--tlsverify"],
                  "odd": self.one((["--tlsverify", "false"], ["--tls=false", "--tlsverify"],
                                   ["--tls", "--tlsverify=false"],
                                   ["--tls=true", "--tls=false"], ["--tlsverify=TRUE"], ["--tls=0"],
                                   ["--tlsverify="]))}[kind]
        files = [] if kind == "tls=false" and self.chance(0.7) else self.tls_files()
        if kind in ("verify", "tls", "verify=false", "both"):
            self.full = self.full or self.chance(0.6)
        return self.one((switch + files, files + switch))

    def tls_files(self) -> list[str]:
        directory = "/etc/docker"
        words: list[str] = []
        for flag, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
            if self.chance(0.95):
                path = f"{directory}/{name}"
                words += [f"--{flag}={path}"] if self.chance(0.7) else [f"--{flag}", path]
        return words

    def certificates(self) -> None:
        for name in ("ca", "cert", "key"):
            self.put(f"/etc/docker/{name}.pem", f"@{name}")
        if self.chance(0.2):
            for name in ("ca", "cert", "key"):
                self.put(f"/root/.docker/{name}.pem", f"@{name}")

    def arguments(self) -> list[str]:
        groups: list[list[str]] = []
        if self.chance(0.85):
            groups.append(self.host_flags())
        if self.chance(0.22):
            groups.append(self.tls_flags())
        elif self.chance(0.5) and any("0.0" in word or "192" in word for group in groups for word in group):
            groups.append(["--tls=false"])
        groups += [list(self.one(HARMLESS_FLAGS)) for _ in range(self.random.choices((0, 1, 2, 3),
            (40, 35, 18, 7))[0])]
        if self.chance(0.12):
            groups.append(list(self.one(BAD_FLAGS)))
        if self.chance(0.08):
            groups.append([self.one(("--config-file=/etc/docker/daemon.json", "--config-file=/srv/docker.json",
                                     "--config-file=", "--config-file=etc/docker/daemon.json"))])
        self.random.shuffle(groups)
        if self.chance(0.5):
            groups.insert(self.random.randrange(len(groups) + 1), ["--containerd=/run/containerd/containerd.sock"])
        return [word for group in groups for word in group]

    # ---- systemd's command lines

    def quoted(self, word: str) -> str:  # noqa: PLR0911
        """A word as somebody would write it in ExecStart=, which may not be what it was."""
        if not word:
            return self.one(('""', "''"))
        needs = any(each in word for each in " \t\"'\\;$%") or word.startswith("#")
        if not needs and self.chance(0.9):
            return word
        kind = self.weighted({"bare": 3 if needs else 1, "double": 6, "single": 3, "within": 2, "escaped": 2})
        if kind == "bare":
            return word
        if kind == "double":
            return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if kind == "single":
            return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"
        at = self.random.randrange(len(word))
        if kind == "within":
            return word[:at] + '"' + word[at:].replace('"', "'") + '"'
        return word[:at] + f"\\x{ord(word[at]) & 0x7F:02x}" + word[at + 1:]

    def command(self, arguments: list[str] | None = None) -> str:
        """What stands behind ExecStart=."""
        plain = self.arguments() if arguments is None else arguments
        if self.chance(0.1):
            return self.wrapped(plain)
        words = [self.quoted(word) for word in plain]
        for _ in range(self.random.choices((0, 1, 2), (70, 22, 8))[0]):
            words.insert(self.random.randrange(len(words) + 1), self.oddity())
        executable = self.program()
        if self.chance(0.07):
            executable = self.one(PREFIXES) + executable
            if "@" in executable:
                words.insert(0, self.one(("dockerd", "docker-daemon", "docker", "any", "/bin/sh", "/usr/bin/dockerd",
                                           "$A", "%n")))
        separator = self.weighted({" ": 80, "  ": 4, "\t": 2, " \\\n": 6, " \\\n    ": 6, " \\\n# comment\n  ": 1.5,
                                   "\\\n": 0.3,
                                   " \\ \n": 0.6, " \\\n\n": 0.4, " \\\n  ; not\n  ": 0.5, " \\\r\n": 0.3,
                                   " \\\\\n": 0.2})
        if separator == " " or len(words) < 2:
            return " ".join([executable, *words])
        at = self.random.randrange(1, len(words) + 1)
        return " ".join([executable, *words[:at]]) + separator + " ".join(words[at:])

    def wrapped(self, words: list[str]) -> str:
        """dockerd by way of another program: one that takes it as its arguments, or a shell."""
        if self.chance(0.3):
            return " ".join([self.one(WRAPPERS), self.executable, *map(self.quoted, words)])
        variable = self.one((*OPTION_VARIABLES, "A", "UNSET", "HOME", "LISTEN_FDS", "INVOCATION_ID"))
        words = [self.one((word, word, word, f"'{word}'", f'"{word}"')) for word in words]
        for _ in range(self.random.choices((0, 1, 2), (60, 30, 10))[0]):
            words.insert(self.random.randrange(len(words) + 1), self.one((
                f"$${variable}", f"$${{{variable}}}", f'"$${variable}"', f"${variable}", f"${{{variable}}}",
                f"$${{{variable}:---debug}}", f"--label=v=$${variable}", "$$1", '"$$@"', "$$(echo -D)", "\\$$A", "''",
                "2>&1", ">/dev/null", "</dev/null", "--label=*", "~", "--label={a,b}=c", "--label=a\\ b=c")))
        script = self.one(BEFORE_IN_SCRIPT) + " ".join([self.executable, *words]) + self.one(AFTER_IN_SCRIPT)
        script = script.replace("\\", "\\\\") if self.chance(0.2) else script
        script = f"'{script}'" if "'" not in script and self.chance(0.5) else '"{}"'.format(script.replace('"', '\\"'))
        return f"{self.one(SHELLS)} {script}" + self.one(("", "", "", " -D", " sh -D --label=a=b", " sh $A"))

    def program(self) -> str:
        if self.chance(0.92):
            return self.executable
        if self.chance(0.2):
            return self.one(("/usr/bin/docker daemon", "/usr/bin/docker -d", "/usr/bin/docker -D daemon",
                             "docker daemon", "/usr/bin/docker --daemon", "/usr/bin/docker daemon -d",
                             "/usr/bin/docker -H fd:// -d", "/usr/bin/docker --tls daemon",
                             "/usr/bin/docker -l warn daemon", "/usr/bin/docker-current daemon",
                             "/usr/bin/docker -dH fd://", "/usr/bin/docker --host fd:// daemon",
                             "/usr/bin/docker dockerd"))
        return self.one(("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "dockerd",
                         "/usr/bin/docker daemon",
                         "/usr/bin/docker -d", "/usr/bin//dockerd", "/usr/bin/../bin/dockerd", "/usr/bin/./dockerd",
                         "bin/dockerd",
                         '"/usr/bin/dockerd"', "/usr/bin/dockerd/", "$DOCKERD", "${DOCKERD}", "/usr/bin/env dockerd",
                         "/usr/bin/env A=b dockerd", "/bin/sh -c 'exec /usr/bin/dockerd -H fd://'",
                         '/bin/sh -c "/usr/bin/dockerd $DOCKER_OPTS"', "/opt/bin/dockerd", "%p", "/usr/bin/%p",
                         "/usr/bin/%pd",
                         "/usr/bin/docker\\sdockerd", '"/usr/bin/docker dockerd"', "/usr/bin/docker", "./dockerd", "",
                         "/",
                         "/usr/bin/nice -n 5 /usr/bin/dockerd", "/usr/bin/dockerd\\s", "dockerd\\x2f",
                         "/usr/lib/coreos/dockerd",
                         "/usr/bin/env -i /usr/bin/dockerd", "/bin/bash -c 'exec dockerd -H tcp://127.0.0.1:2375'",
                         "/usr/bin/dockerd-current", "~/dockerd"))

    def oddity(self) -> str:  # noqa: PLR0911
        kind = self.weighted({"variable": 45, "specifier": 12, "escape": 10, "quote": 5, "semicolon": 6, "flag": 10,
                              "mixed": 6})
        if kind == "variable":
            name = self.one((*OPTION_VARIABLES, "A", "B", "EMPTY", "UNSET", "HOME", "PATH", *SET_BY_SYSTEMD))
            return self.one((f"${name}", f"${{{name}}}", f"-H ${name}", f"--label=v=${{{name}}}", f'"${name}"',
                             f"'${{{name}}}'",
                             f"$${name}", f"--label=v=${name}", f"${{{name}", f"${name}-x", f"${{{name}:-fd://}}",
                             f"${name}${name}",
                             f"x${{{name}}}y", f"$${{{name}}}", "$", "$$", "${}", "$1", "${1}", f"--host=${{{name}}}",
                             f"${{{name}:+fd://}}", f"${{{name}}}${{A}}", f"-H${{{name}}}", f"$({name})",
                             f"${{ {name} }}", f"`{name}`"))
        if kind == "specifier":
            return self.one(("--label=s=", "", "--label=")) + self.one(SPECIFIERS) + self.one(("", "x", "=y"))
        if kind == "escape":
            return "--label=e=" + self.one(ESCAPES) + self.one(("", "x", "41", " "))
        if kind == "quote":
            return self.one(('"', "'", '""', "''", '"--label=a=b c"', "--label='a=b c'", '"-D"x', "\"'\"", "'\"'",
                             'a"b', "-H '",
                             "'--label=q=\\\\'", '"--label=q=\\\\"'))
        if kind == "semicolon":
            return self.one((";", "\\;", '";"', "a;b", ";;", "; /bin/true", "\\;x", ";x", "--label=a=;", "\\073",
                             "';'", "; dockerd"))
        if kind == "flag":
            return " ".join(self.one(BAD_FLAGS))
        return self.one(SPECIFIERS) + self.one(ESCAPES) + self.one(("$A", "${A}", "x"))

    # ---- environments

    def assignment(self) -> str:
        """One word of Environment=."""
        name = self.one((*OPTION_VARIABLES, *OPTION_VARIABLES, "A", "B", "HTTP_PROXY", "DOCKER_TLS_VERIFY",
                         "DOCKER_HOST", "EMPTY",
                         "DOCKER_CERT_PATH", "HOME", "PATH", "1A", "A-B", "a.b", "DOCKERD", "XDG_RUNTIME_DIR",
                         "DOCKER_CONFIG",
                         "TMPDIR", "LANG", "Ä", ""))
        value = self.value_for(name)
        whole = f"{name}={value}"
        return self.weighted({
            f'"{whole}"': 50, f"'{whole}'": 12, whole: 25, f'{name}="{value}"': 10, name: 1, f"export {whole}": 0.7,
            f'"{whole}': 0.7, f"{name} = {value}": 0.8, f"{whole}{self.one(ESCAPES)}": 2,
                              f"{whole}{self.one(SPECIFIERS)}": 3,
        })

    def value_for(self, name: str) -> str:  # noqa: PLR0911
        if name in ("DOCKER_CERT_PATH", "DOCKER_CONFIG"):
            return self.one(("/etc/docker", "/root/.docker", "/nonexistent"))
        if name == "HOME":
            return self.one(("/root", "/home/x", ""))
        if name == "DOCKERD":
            return "/usr/bin/dockerd"
        if name == "DOCKER_TLS_VERIFY":
            return self.one(("1", "0", "", "true"))
        if name in ("PATH", "TMPDIR", "XDG_RUNTIME_DIR"):
            return {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": "/run/user/0"}[name]
        if self.chance(0.6):
            return self.one(VALUES)
        return " ".join(self.arguments())

    def environment_file(self) -> bytes:
        """The text of one, shell-like as people think it is."""
        lines: list[str] = []
        for _ in range(self.random.choices((1, 2, 3, 5), (40, 30, 20, 10))[0]):
            name = self.one((*OPTION_VARIABLES, "DOCKER_OPTS", "DOCKER_OPTS", "A", "B", "EMPTY", "HOME",
                             "DOCKER_CERT_PATH"))
            value = self.value_for(name)
            lines.append(self.weighted({
                f'{name}="{value}"': 50, f"{name}='{value}'": 14, f"{name}={value}": 18, f"{name} = {value}": 2,
                f'export {name}="{value}"': 3, f'{name} ="{value}"': 1, f"# {name}={value}": 5,
                                        f"#{name}={value} \\": 1.5,
                f'{name}="{value}': 1.5, f'{name}="{value} \\\n  -D"': 2, f"{name}={value} \\\n-D": 2,
                                        f"{name}={value}  ": 1.5,
                f'  {name}="{value}"': 1.5, f'{name}="${{{name}}} {value}"': 2, f'{name}+=" {value}"': 1,
                                        f'{name}="{value}" # note': 3,
                f"{name}={value} # note": 2, f'{name}="{value}"; B=2': 1, f"{name}=\"{value}\"'tail'": 1, f"{name}": 1,
                                        "": 3,
                f'{name}="{value}"\r': 1.5, f"{name}={value}\\": 1, f"{name}=a\\tb\\$c\\\"d": 1,
                                        f'{name}="a\\tb\\$c\\"d\\`"': 1,
                f"{name}='a\\tb'\\''c'": 1, f"; {name}={value}": 1, f'{name}=a"b c"d': 1, f"={value}": 0.5,
                                        f"{name}=\n{value}": 0.5,
                f"{name}=$'x'": 0.3, f"{name}=\t\"{value}\"": 0.5, f"{name}=x \"y": 0.3, f"{name}=x 'y' ": 0.3,
            }))
        text = "\n".join(lines) + self.one(("\n", "\n", "\n", ""))
        data = text.encode()
        if self.chance(0.03):
            at = self.random.randrange(len(data) + 1)
            data = data[:at] + self.one((b"\xff", b"\0", b"\xef\xbb\xbf", b"\xc3", b"\r")) + data[at:]
        return b"\xef\xbb\xbf" + data if self.chance(0.01) else data

    # ---- stories: systemd

    def base(self) -> None:
        kind = self.weighted({"debian": 40, "ce": 30, "ce-17": 6, "ce-18": 4, "fedora": 8, "flatcar": 5, "rhel": 4})
        text = SERVICES[kind]
        self.executable = next(word for word in text.split() if word.startswith("ExecStart=")).partition("=")[2]
        if self.chance(0.04):
            text = text.replace(self.executable + " -H fd://", self.executable)
        self.put(f"{LIB}/docker.service", text)
        socket = self.weighted({"stock": 80, "old": 10, "tcp": 3, "none": 7})
        if socket != "none":
            self.put(f"{LIB}/docker.socket", SOCKETS[socket])
        if kind in ("fedora", "rhel") and self.chance(0.6):
            self.put("/etc/sysconfig/docker", self.environment_file())
        if kind == "debian" and self.chance(0.3):
            self.put("/etc/default/docker", self.environment_file())

    def drop_in(self) -> None:
        body = self.service_lines()
        self.put(f"{self.drop_in_directory('docker.service')}/{self.drop_in_name()}", self.slipped(body))

    def service_lines(self) -> str:  # noqa: PLR0911, PLR0912
        """The text of a drop-in of docker.service."""
        kind = self.weighted({"hosts": 40, "environment": 14, "file": 8, "forgot": 7, "type": 4, "reset only": 2,
                              "unset": 4, "pass": 2,
                              "sockets": 2, "proxy": 4, "oneshot": 3, "several": 6, "requires": 2, "reset env": 3,
                              "odd": 4, "pre": 2, "sets": 6, "env files": 4})
        if kind == "sets":
            lines = "".join(f"{self.one(SETS_VARIABLES)}\n" for _ in range(self.random.randrange(1, 4)))
            return f"[Service]\n{lines}" + self.one(("", f"ExecStart=\nExecStart={self.command()}\n"))
        if kind == "env files":
            return f"[Service]\n{self.many_environment_files()}ExecStart=\nExecStart={self.executable} $DOCKER_OPTS\n"
        if kind == "hosts":
            return f"[Service]\nExecStart=\nExecStart={self.command()}\n"
        if kind == "environment":
            words = " ".join(self.assignment() for _ in range(self.random.choices((1, 2, 3), (70, 20, 10))[0]))
            second = f"Environment={self.assignment()}\n" if self.chance(0.3) else ""
            return f"[Service]\nEnvironment={words}\n{second}"
        if kind == "file":
            return "[Service]\n" + self.environment_file_line()
        if kind == "forgot":
            return f"[Service]\nExecStart={self.command()}\n"
        if kind == "type":
            kinds = ("simple", "exec", "notify", "oneshot", "idle", "notify-reload", "Notify", "forking", "")
            return f"[Service]\nType={self.one(kinds)}\n"
        if kind == "reset only":
            return "[Service]\nExecStart=\n"
        if kind == "unset":
            names = self.one(("DOCKER_OPTS", "OPTIONS A", "A=1", "PATH", "DOCKER_OPTS=", '"A=x y"', "A=a", "-",
                              "HOME"))
            return f"[Service]\nUnsetEnvironment={names}\n"
        if kind == "pass":
            return f"[Service]\nPassEnvironment={self.one(('PATH', 'LANG A', 'DOCKER_OPTS', 'container', 'A=1', ''))}\n"
        if kind == "sockets":
            names = self.one(("docker-tcp.socket", "docker.socket docker-tcp.socket", "missing.socket", "x.service",
                              ""))
            return f"[Service]\nSockets={names}\n"
        if kind == "proxy":
            return '[Service]\nEnvironment="HTTP_PROXY=http://proxy.example.com:80/" "NO_PROXY=localhost,127.0.0.1"\n'
        if kind == "oneshot":
            lines = "".join(f"ExecStart={self.command()}\n" for _ in range(self.random.randrange(1, 3)))
            return f"[Service]\nType=oneshot\nRestart={self.one(('no', 'on-failure', 'always', 'bogus', ''))}\n" + \
                self.one(("", "ExecStart=\n")) + lines
        if kind == "requires":
            return self.one(("[Unit]\nRequires=\n", "[Unit]\nRequires=docker-tcp.socket\n",
                             "[Unit]\nWants=docker.socket\n",
                             "[Unit]\nBindsTo=docker.socket\n", "[Unit]\nRequisite=docker.socket\n"))
        if kind == "reset env":
            return "[Service]\nEnvironment=\n" + self.one(("", "EnvironmentFile=\n",
                                                           f"Environment={self.assignment()}\n"))
        if kind == "pre":
            return self.one(("[Service]\nExecStartPre=/bin/true\n", "[Service]\nExecStartPre=-/bin/false\n",
                             "[Service]\nExecStartPre=\n", "[Service]\nExecStop=/bin/true\nExecStart=\n",
                             "[Unit]\nSuccessAction=none\n[Service]\nExecStart=\n"))
        if kind == "odd":
            return self.one((f"ExecStart=\nExecStart={self.command()}\n",
                             f"[service]\nExecStart=\nExecStart={self.command()}\n",
                             f"[Service]\nexecstart={self.command()}\n", f"[Service]\nExecStart = {self.command()}\n",
                             f"[Service]\nExecStart=\nExecStart {self.command()}\n",
                             f"[Service]\nexport DOCKER_OPTS=x\nExecStart=\n"
                             f"ExecStart={self.command()}\n", f"[Unit]\nExecStart=\nExecStart={self.command()}\n",
                             f"[X-Foo]\nA=b\n[Service]\nX-Bar=1\nExecStart=  \nExecStart={self.command()}\n",
                             f"[Service]\nExecStart=\nExecStart={self.command()}\n[Service]\nEnvironment={self.assignment()}\n",
                             f"[Service] # mine\nExecStart=\nExecStart={self.command()}\n", "\n", "#\n", "[Service]\n",
                             f"[Service]\nExecStart=\n\nExecStart=-\nExecStart={self.command()}\n",
                             "[Service]\nExecStart= ;\n",
                             f"[Service]\nExecStart=\nExecStart={self.command()}\n[Install]\nAlias=alias-of.service\n",
                             "[Service\nExecStart=\n", "[Ser\"vice]\nExecStart=\n", "[]\nExecStart=\n",
                             "=x\n[Service]\n=y\n"))
        parts = [self.service_lines() for _ in range(2)]
        return parts[0] + parts[1].removeprefix("[Service]\n")

    def environment_file_line(self) -> str:
        path = self.one(LIKELY_ENVIRONMENT_FILES)
        if self.chance(0.8):
            self.put(path, self.environment_file())
        written = self.weighted({f"-{path}": 55, path: 25, f"-{path.rpartition('/')[0]}/*.env": 3,
                                 f"{path.rpartition('/')[0]}/do*": 2, f"{path} # opts": 1, f'"{path}"': 1,
                                 f"-{path} {path}": 1,
                                 "-/etc/docker/missing.env": 2, "/etc/docker/missing.env": 2, path.lstrip("/"): 1,
                                 "": 2,
                                 f"-{path}\\": 0.5, f"- {path}": 0.7, f"--{path}": 0.5, "-/etc/%p/docker.env": 1,
                                 "/etc/docker": 0.7,
                                 path.replace("/docker", "/[d]ocker"): 1, path.replace("/docker", "//docker"): 1,
                                 path.replace("/etc/", "/etc/../etc/"): 0.7, "-/etc/%z": 0.5, "/etc/docker/*.env": 1,
                                 path.replace("docker", "do?ker"): 0.5, "-/nonexistent/*.env": 0.5, path + "/": 0.3})
        return f"EnvironmentFile={written}\n"

    def many_environment_files(self) -> str:
        """A directory of them, and patterns that match some."""
        directory = "/etc/docker/env.d"
        for name in self.random.sample(("10-a.env", "9-b.env", "20.env", "B.env", "a.env", ".hidden.env", "x.envs",
        "é.env",
                                        "[a].env", "a b.env", "z.env~", "~.env"), 4):
            self.put(f"{directory}/{name}", self.environment_file())
        patterns = ("*.env", "*", "[0-9]*.env", "[!0-9]*", "[^.]*.env", "?.env", "??-a.env", ".*.env", "[a-z].env",
                    "[].a]*", "*.env*", "\\[a\\].env", "[[]a].env", "*/x", "{a,B}.env", "[z-a].env", "[a", "é*",
                    "*b.env", "a b.env",
                    "[[:digit:]]*", "[[:alpha:]].env", "**", "*.e[n]v", "../env.d/*.env", "20.env")
        lines = (self.one((f"-{directory}/", f"-{directory}/", f"{directory}/", "-/etc/*/env.d/", "-/etc/d?cker/*/"))
                 + self.one(patterns) for _ in range(self.random.randrange(1, 4)))
        return "".join(f"EnvironmentFile={line}\n" for line in lines)

    def own_fragment(self) -> None:
        """Somebody copies the vendor's unit and edits it, or edits it in place."""
        text = self.one(list(SERVICES.values()))
        lines = text.split("\n")
        at = next(index for index, line in enumerate(lines) if line.startswith("ExecStart="))
        end = at
        while lines[end].endswith("\\"):
            end += 1
        self.executable = lines[at].split()[0].partition("=")[2]
        lines[at:end + 1] = [f"ExecStart={self.command()}"]
        if self.chance(0.1):
            lines.insert(at, f"ExecStart={self.command()}")
        if self.chance(0.2):
            lines.insert(at, f"Environment={self.assignment()}")
        if self.chance(0.1):
            lines.insert(at, self.environment_file_line().rstrip("\n"))
        if self.chance(0.1):
            del lines[self.random.randrange(len(lines))]
        self.put(f"{self.one((ETC, ETC, LIB, LIB, RUN, LOCAL, GENERATED, ATTACHED, LATE))}/{self.service}",
                 self.slipped("\n".join(lines)))

    def mask(self) -> None:
        kind = self.weighted({"drop-in": 60, "service": 6, "socket": 16, "hide": 18})
        if kind == "drop-in":
            targets = [path for path in self.files if ".d/" in path]
            name = self.one(targets).rpartition("/")[2] if targets and self.chance(0.9) else self.drop_in_name()
            unit = self.one(("docker.service", "docker.service", "docker.socket", "service"))
            self.nothing(f"{self.one((ETC, RUN, LIB, CONTROL, LOCAL))}/{unit}.d/{name}")
        elif kind == "hide":
            targets = [path for path in self.files if ".d/" in path]
            if targets:
                path = self.one(targets)
                directory, _, name = path.rpartition("/")
                other = f"{self.search_directory()}/{directory.rpartition('/')[2]}/{name}"
                if other != path:
                    self.put(other, self.slipped(self.service_lines()))
        else:
            self.nothing(f"{self.one((ETC, ETC, RUN, LOCAL, CONTROL))}/docker.{kind}")

    def nothing(self, path: str) -> None:
        kind = self.weighted({"null": 50, "empty": 20, "dangling": 12, "newline": 8, "directory": 5, "relative": 5})
        if kind == "null":
            self.link(path, "/dev/null")
        elif kind == "empty":
            self.put(path, "")
        elif kind == "dangling":
            self.link(path, self.one(("/nonexistent/x.conf", "gone.conf", "gone.service", "../gone")))
        elif kind == "newline":
            self.put(path, "\n")
        elif kind == "relative":
            self.link(path, "../../../../dev/null")
        else:
            self.take_away(path)
            self.directories.append(path)

    def links_(self) -> None:  # noqa: PLR0912
        """Aliases, linked units, linked drop-in directories."""
        kind = self.weighted({"alias": 24, "renamed": 18, "linked": 14, "directory": 14, "file": 12, "self": 4,
                              "gone": 4, "bad": 4,
                              "chain": 5, "alias socket": 4})
        where = self.one((ETC, ETC, RUN, LOCAL, LIB))
        if kind == "alias":
            self.link(f"{where}/alias-of.service",
                      self.one((f"{LIB}/docker.service", "docker.service", "/lib/systemd/system/docker.service",
                                                              "../../../usr/lib/systemd/system/docker.service")))
            self.put(f"{self.search_directory()}/alias-of.service.d/{self.drop_in_name()}",
                     self.slipped(self.service_lines()))
        elif kind == "renamed":
            real = self.one(("docker-ce.service", "moby.service", "container-engine.service"))
            content = self.files.get(f"{LIB}/docker.service")
            if content is not None:
                self.put(f"{LIB}/{real}", content)
                if self.chance(0.8):
                    self.take_away(f"{LIB}/docker.service")
                self.link(f"{where}/docker.service", self.one((f"{LIB}/{real}", real, f"/lib/systemd/system/{real}",
                                                               f"{ETC}/{real}", f"../system/{real}")))
                if self.chance(0.6):
                    unit = self.one((real, "docker.service", "docker-.service"))
                    self.put(f"{self.search_directory()}/{unit}.d/{self.drop_in_name()}",
                             self.slipped(self.service_lines()))
        elif kind == "linked":
            name = self.one(("docker.service", "docker.service", "my.service", "docker.txt"))
            text = self.one(list(SERVICES.values()))
            if self.chance(0.5):
                text = f"[Service]\nType=notify\nExecStart={self.command()}\n"
            self.put(f"/opt/docker/{name}", text)
            self.link(f"{where}/docker.service", f"/opt/docker/{name}")
            if self.chance(0.5):
                self.put(f"{where}/{name}.d/x.conf", self.service_lines())
        elif kind == "directory":
            target = self.one(("/opt/dropins", f"{ETC}/shared.d", f"{LIB}/docker.service.d"))
            self.put(f"{target}/{self.drop_in_name()}", self.slipped(self.service_lines()))
            self.link(f"{where}/{self.one(('docker.service', 'service', 'alias-of.service'))}.d",
                      self.one((target, "../../.." + target, "shared.d", "docker.service.d", "/nonexistent",
                                target.lstrip("/"))))
        elif kind == "file":
            self.put("/srv/shared.conf", self.slipped(self.service_lines()))
            self.link(f"{where}/docker.service.d/{self.drop_in_name()}",
                      self.one(("/srv/shared.conf", "../../../../srv/shared.conf", "../../../../../srv/shared.conf")))
        elif kind == "self":
            self.link(f"{where}/docker.service",
                      self.one(("docker.service", f"{where}/docker.service", f"{LIB}/docker.service")))
        elif kind == "gone":
            self.link(f"{where}/docker.service",
                      self.one((f"{LIB}/gone.service", "gone.service", "/opt/gone/docker.service",
                                                           "/nonexistent")))
        elif kind == "bad":
            self.link(f"{where}/docker.service",
                      self.one((f"{LIB}/docker.socket", "docker@.service", "docker.txt", "docker@x.service")))
        elif kind == "chain":
            self.link(f"{where}/docker.service", self.one(("b.service", f"{LIB}/b.service")))
            self.link(f"{self.one((ETC, LIB, RUN))}/b.service",
                      self.one(("c.service", f"{LIB}/c.service", "docker.service")))
            self.put(f"{self.one((LIB, ETC))}/c.service", self.one(list(SERVICES.values())))
            self.put(f"{ETC}/{self.one(('b', 'c', 'docker'))}.service.d/{self.drop_in_name()}",
                     self.slipped(self.service_lines()))
        else:
            self.link(f"{where}/alias-of.socket", self.one((f"{LIB}/docker.socket", "docker.socket")))
            self.put(f"{ETC}/alias-of.socket.d/10.conf", self.socket_lines())

    def socket_drop_in(self) -> None:
        self.put(f"{self.drop_in_directory('docker.socket')}/{self.drop_in_name()}", self.slipped(self.socket_lines()))

    def socket_lines(self) -> str:
        lines = ["[Socket]"]
        if self.chance(0.6):
            lines.append("ListenStream=")
        for _ in range(self.random.choices((0, 1, 2, 3, 9), (8, 62, 24, 6, 2))[0]):
            value = self.one(LISTEN if self.chance(0.72) else ODD_LISTEN)
            lines.append(f"ListenStream={value}")
        if self.chance(0.15):
            lines.append(self.one(("BindIPv6Only=both", "BindIPv6Only=ipv6-only", "BindIPv6Only=default",
                                   "SocketMode=0666", "Accept=yes",
                                   "Accept=no", "Accept=maybe", "Service=docker.service", "Service=other.service",
                                   "Service=docker",
                                   "Service=alias-of.service", "FileDescriptorName=api",
                                   "ListenDatagram=/run/dgram.sock",
                                   "ListenDatagram=2377", "ListenFIFO=/run/docker.fifo",
                                   "ListenSequentialPacket=/run/seq.sock",
                                   "ListenStream", "MaxConnections=5", "ListenDatagram=",
                                   "Accept=",
                                   "Service=", "Service=docker.service\nAccept=yes", "RemoveOnStop=yes",
                                   "SocketMode=999",
                                   "SocketGroup=docker", "FreeBind=yes",
                                   "FileDescriptorName=a:b",
                                   "Service=%p.service", "Symlinks=/run/link.sock", "PassFileDescriptorsToExec=yes")))
        return "\n".join(lines) + "\n"

    def socket_fragment(self) -> None:
        text = self.one(list(SOCKETS.values())) if self.chance(0.3) else self.socket_lines()
        self.put(f"{self.one((ETC, ETC, LIB, RUN))}/docker.socket", self.slipped(text))

    def second_socket(self) -> None:
        for _ in range(self.random.choices((1, 2, 4), (80, 15, 5))[0]):
            self.another_socket()

    def another_socket(self) -> None:
        name = self.one(("docker-tcp.socket", "docker-tcp.socket", "docker-tls-tcp.socket", "api.socket", "a.socket",
                         "docker-b.socket"))
        head = self.one(("[Unit]\nDescription=Docker Socket for the API\n", ""))
        lines = self.socket_lines().removeprefix("[Socket]\n").replace("ListenStream=/run/docker.sock",
            "ListenStream=2375")
        service = self.one(("Service=docker.service\n", "Service=docker.service\n", "Service=docker.service\n",
                            "Service=alias-of.service\n", "",
                            "Service=docker\n", "Service=docker-ce.service\n"))
        self.put(f"{self.one((ETC, ETC, LIB, RUN))}/{name}", self.slipped(f"{head}[Socket]\n{lines}{service}"))
        if self.chance(0.3):
            self.put(f"{ETC}/docker.service.d/sockets.conf",
                     f"[Service]\nSockets={self.one((name, name, 'docker.socket ' + name))}\n")
        if self.chance(0.3):
            self.link(f"{ETC}/sockets.target.wants/{name}", f"{ETC}/{name}")
        if self.chance(0.12):
            where = self.one((ETC, LIB, RUN))
            self.link(f"{where}/docker.service.{self.one(('requires', 'requires', 'wants'))}/{name}",
                      self.one((f"{ETC}/{name}", f"../{name}", "/nonexistent")))

    def slipped(self, text: str) -> bytes:  # noqa: PLR0911, PLR0912
        """The text as it arrives on disk: mostly as it is."""
        data = text.encode("utf-8", "surrogateescape")
        if self.chance(0.88):
            return data
        kind = self.weighted({"crlf": 12, "cr": 2, "lfcr": 1, "bom": 6, "bom2": 2, "nul": 3, "latin comment": 4,
                              "latin": 4, "latin last": 3,
                              "no newline": 6, "indented": 5, "blank at end": 8, "backslash": 4, "header": 4,
                              "no header": 3, "tab": 3,
                              "doubled": 3, "cut": 4, "long": 0.4, "nonchar": 1, "comment": 3, "nul end": 1,
                              "overlong": 1, "long comment": 0.3})
        lines = data.split(b"\n")
        at = self.random.randrange(len(lines))
        if kind == "crlf":
            return data.replace(b"\n", b"\r\n")
        if kind == "cr":
            return data.replace(b"\n", b"\r")
        if kind == "lfcr":
            return data.replace(b"\n", b"\n\r")
        if kind == "bom":
            return b"\xef\xbb\xbf" + data
        if kind == "bom2":
            return self.one((b"# \n\xef\xbb\xbf" + data, b"\xef\xbb\xbf\xef\xbb\xbf" + data,
                             b"\xef\xbb\xbf# c\n" + data))
        if kind == "nul":
            place = self.random.randrange(len(data) + 1)
            return data[:place] + b"\0" + data[place:]
        if kind == "nul end":
            return data + b"\0\0"
        if kind == "latin comment":
            lines.insert(at, b"# Gr\xfc\xdfe")
        elif kind == "latin":
            lines[at] += b" \xfc"
        elif kind == "latin last":
            lines.append(b"Description=Gr\xfc\xdfe")
        elif kind == "nonchar":
            lines[at] += "\ufdd0".encode() if self.chance(0.5) else "\uffff".encode()
        elif kind == "overlong":
            lines[at] += b" \xc0\x80"
        elif kind == "no newline":
            return data.rstrip(b"\n")
        elif kind == "indented":
            return b"\n".join(self.one((b"  ", b"\t")) + line for line in lines)
        elif kind == "blank at end":
            lines[at] += self.one((b" ", b"\t", b"  "))
        elif kind == "backslash":
            lines[at] += b"\\"
        elif kind == "header":
            lines.insert(at, self.one((b"[Service", b"[Service] # x", b"[Socket]", b"[Unit]", b"[ Service ]",
                                       b"[Service]]", b"[Foo]",
                                       b"Service]", b"[Servi\\ce]", b"[Install]", b"[X-Y]", b"[[Service]]",
                                       b"[Service ]")))
        elif kind == "no header":
            return b"\n".join(line for line in lines if not line.startswith(b"["))
        elif kind == "tab":
            return data.replace(b" ", b"\t")
        elif kind == "doubled":
            return data + data
        elif kind == "cut":
            return data[:self.random.randrange(len(data) + 1)]
        elif kind == "long":
            lines.insert(at, b"Environment=A=" + b"x" * ((1 << 20) + self.random.randrange(-20, 20)))
        elif kind == "long comment":
            lines.insert(at, b"#" + b"x" * ((1 << 20) + self.random.randrange(-20, 20)))
        elif kind == "comment":
            lines.insert(at, self.one((b"# a \\", b"; b", b"#", b"  # c", b"# d \\\\", b"// e", b"-- f")))
        return b"\n".join(lines)

    # ---- stories: dockerd

    def daemon_json(self) -> None:
        value: dict[str, object] = {}
        if self.chance(0.55):
            value["hosts"] = self.one((self.hosts, self.hosts, self.hosts, list, self.host))()
        if self.chance(0.3):
            self.certificates()
            kind = self.weighted({"verify": 45, "tls": 20, "tls=false": 12, "verify=false": 8, "files": 8, "both": 7})
            value |= {"verify": {"tlsverify": True}, "tls": {"tls": True}, "tls=false": {"tls": False},
                      "verify=false": {"tlsverify": False},
                      "files": {}, "both": {"tls": True, "tlsverify": self.chance(0.7)}}[kind]
            for key, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
                if self.chance(0.92):
                    value[key] = f"/etc/docker/{name}"
            self.full = self.full or self.chance(0.4)
        for _ in range(self.random.choices((0, 1, 2, 3), (25, 40, 25, 10))[0]):
            key, content = self.one((
                ("debug", True), ("live-restore", True), ("log-driver", "json-file"),
                                     ("log-opts", {"max-size": "10m"}),
                ("storage-driver", "vfs"), ("insecure-registries", ["10.0.0.0/8"]),
                                     ("registry-mirrors", ["https://m.example.com"]),
                ("dns", ["8.8.8.8"]), ("bip", "172.17.0.1/16"), ("data-root", "/var/lib/docker"), ("mtu", 1450),
                                     ("icc", False),
                ("exec-opts", ["native.cgroupdriver=systemd"]), ("experimental", False), ("labels", ["a=b"]),
                                     ("group", "docker"),
                ("iptables", False), ("userland-proxy", False), ("max-concurrent-downloads", 3), ("default-ulimits",
                {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}}), ("features", {"buildkit": True}),
                ("default-address-pools", [{"base": "10.10.0.0/16", "size": 24}]), ("metrics-addr", "127.0.0.1:9323"),
                ("runtimes", {"foo": {"path": "/usr/bin/runc"}}), ("builder", {"gc": {"enabled": True}}),
                                     ("proxies", {"http-proxy": "x"}),
                ("containerd", "/run/containerd/containerd.sock"), ("ipv6", False), ("log-level", "warn"),
                                     ("pidfile", "/run/docker.pid"),
            ))
            value[key] = content
        if self.chance(0.18):
            key, content = self.one((
                ("host", ["tcp://0.0.0.0:2375"]), ("Hosts", ["tcp://0.0.0.0:2375"]), ("HOSTS", []), ("-H", ["fd://"]),
                                     ("foo", 1), ("hosts", None),
                ("hosts", "tcp://0.0.0.0:2375"), ("hosts", {"a": "b"}), ("hosts", [1]), ("hosts", [None]),
                                     ("hosts", [""]), ("hosts", [["fd://"]]),
                ("x", {"hosts": ["tcp://0.0.0.0:2375"]}), ("tls", "true"), ("tls", 1), ("tlsverify", None),
                                     ("tls", None), ("debug", "yes"),
                ("", 1), ("comment", "x"), ("_comment", "x"), ("tlscert", None), ("tlscacert", ""), ("tlscacert", 5),
                                     ("live-restore", "true"),
                ("mtu", "1450"), ("mtu", 1.5), ("label", ["a=b"]), ("labels", "a=b"), ("log-opts", {"max-file": 3}),
                                     ("dns", "8.8.8.8"),
                ("insecure-registry", ["x"]), ("DEBUG", True), ("Debug", True), ("tlsVerify", True), ("TLS", True),
                                     ("tlsverify", False),
                ("daemon", {"tls": True}), ("storage-opts", {}), ("cluster-store", "consul://x"), ("graph", "/srv"),
                                     ("version", True),
                ("help", True), ("validate", True), ("config-file", "/x"), ("api-cors-header", "*"), ("labels", ["a"]),
                                     ("dns", ["x"]),
                ("registry-mirrors", ["m.example.com"]), ("max-concurrent-downloads", 0),
                                     ("max-concurrent-downloads", -1),
                ("shutdown-timeout", -2), ("log-level", "loud"), ("bip", "x"), ("default-runtime", "foo"),
                                     ("features", []), ("hosts", True),
                ("runtimes", {"runc": {"path": "/x"}}), ("metrics-addr", ":9323"), ("tls", {"a": 1}),
                                     ("tlskey", ["x"]),
            ))
            value[key] = content
        text = json.dumps(value, indent=self.one((2, 4, None)), ensure_ascii=self.chance(0.5))
        if not value and self.chance(0.7):
            text = self.one(("", " \n", "{}", "[]", "null", "{", '""', "1", "{}{}", "{} x", "\0", "# nothing"))
        data = text.encode("utf-8", "surrogatepass") + self.one((b"\n", b"\n", b""))
        if self.chance(0.15):
            data = self.broken_json(data)
        self.put(self.weighted({"/etc/docker/daemon.json": 95, "/srv/docker.json": 4, "/etc/docker/deamon.json": 1}),
                 data)
        if self.chance(0.03):
            self.take_away("/etc/docker/daemon.json")
            instead = self.one(("link", "elsewhere", "directory", "null"))
            if instead == "directory":
                self.directories.append("/etc/docker/daemon.json")
            elif instead == "elsewhere":
                self.put("/srv/docker.json", data)
            else:
                self.link("/etc/docker/daemon.json", "/srv/docker.json" if instead == "link" else "/dev/null")

    def broken_json(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogatepass")
        slips: tuple[Callable[[], bytes], ...] = (
            lambda: b"\xef\xbb\xbf" + data, lambda: text.encode("utf-16"), lambda: text.replace("}", ",}", 1).encode(),
            lambda: text.replace('"', "'").encode(), f"// comment\n{text}".encode,
            f"# comment\n{text}".encode,
            lambda: data + b"x", lambda: data + data, lambda: data.replace(b"{", b"", 1), lambda: data.rstrip()[:-1],
            lambda: text.replace("{", '{"hosts": ["unix:///run/docker.sock"],', 1).encode(),
            lambda: text.replace("{", '{"tls": false,', 1).encode(),
                         lambda: text.replace('"hosts"', '"h\\u006fsts"').encode(),
            lambda: text.replace("tcp", "tc\xff").encode("latin-1", "replace"),
                         lambda: text.replace(":", ";", 1).encode(),
            lambda: text.replace("\n", "\r\n").encode(), lambda: text.replace(",", "", 1).encode(),
                         lambda: b"\0" + data,
            lambda: text.replace("true", "True").encode(), lambda: text.replace("]", ",]", 1).encode(),
                         lambda: text.replace("fd", "\\/fd").encode(),
            lambda: text.replace("{", '{"x": {"a": {"hosts": 1}},', 1).encode(),
                         lambda: text.replace("\"", "“").encode(),
            lambda: text.replace("{", "{\t\x0b", 1).encode(), lambda: text.replace("{", "{ ", 1).encode(),
            lambda: text.replace("{", '{"hosts": [],', 1).encode(),
                         lambda: text.replace("{", '{"debug": false, "debug": true,', 1).encode(),
            lambda: text.replace("{", '{"x": ' + "[" * 50 + "]" * 50 + ",", 1).encode(),
        )
        return self.one(slips)()

    def environment_file_story(self) -> None:
        path = self.one(LIKELY_ENVIRONMENT_FILES)
        self.put(path, self.environment_file())

    def by_another_program(self) -> None:
        """Somebody has dockerd started by a shell, or by nice(1) and the like."""
        self.put(f"{ETC}/docker.service.d/wrapped.conf",
                 f"[Service]\nExecStart=\nExecStart={self.wrapped(self.arguments())}\n")

    def rootless(self) -> None:
        """The script for users, in a unit of the system."""
        lines = [f"User={self.one(('daemon', 'daemon', 'daemon', 'root', ''))}"]
        lines += [f"Environment=XDG_RUNTIME_DIR={self.one(('/tmp', '/tmp', '/tmp', '', '/root'))}"]
        if self.chance(0.15):
            lines.append(self.one(("Environment=HOME=", "Environment=HOME=/root", "Environment=USER=root",
                                   "SetLoginEnvironment=no", "Environment=DOCKERD=/usr/bin/dockerd",
                                   "Environment=DOCKERD=/bin/true", "Environment=DOCKERD=dockerd")))
        words = self.arguments()
        if self.chance(0.3):
            words.insert(self.random.randrange(len(words) + 1), self.one((
                "--label=a=b c", "--label=a b=c", "-H unix:///tmp/x.sock", "", "--label=*=x", "-D ", "check")))
        words = [self.quoted(word) for word in words if "containerd" not in word]
        program = self.one(("/usr/bin/dockerd-rootless.sh", "/usr/bin/dockerd-rootless.sh", "dockerd-rootless.sh",
                            "/bin/sh /usr/bin/dockerd-rootless.sh", "/usr/bin/nice dockerd-rootless.sh"))
        self.put(f"{ETC}/docker.service.d/rootless.conf",
                 "[Service]\n" + "\n".join([*lines, "ExecStart=", f"ExecStart={program} {' '.join(words)}", ""]))
        self.take_away("/etc/docker/daemon.json")

    def move_hosts(self) -> None:
        """What the guides say: hosts in daemon.json, and a drop-in that takes -H away."""
        self.put("/etc/docker/daemon.json", json.dumps({"hosts": self.hosts()}))
        self.put(f"{ETC}/docker.service.d/override.conf", f"[Service]\nExecStart=\nExecStart={self.executable}\n")


STORIES: dict[Callable[[Generator], None], float] = {
    Generator.drop_in: 34, Generator.own_fragment: 12, Generator.mask: 7, Generator.links_: 9,
                                                     Generator.socket_drop_in: 10,
    Generator.socket_fragment: 4, Generator.second_socket: 6, Generator.daemon_json: 22,
                                                     Generator.environment_file_story: 10,
    Generator.move_hosts: 3, Generator.rootless: 2, Generator.by_another_program: 5,
}


def generate(seed: int, number: int) -> Layout:
    """The tree that (seed, number) names."""
    made = Generator(seed, number)
    made.base()
    for _ in range(made.random.choices((1, 2, 3, 4, 6), (26, 32, 24, 12, 6))[0]):
        made.random.choices(list(STORIES), list(STORIES.values()))[0](made)
    return made.layout()
