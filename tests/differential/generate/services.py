"""docker.service: the unit of the distribution, copies of it, and drop-ins (systemd.service(5))."""

from __future__ import annotations

from tests.differential.generate.sockets import SOCKETS, Sockets
from tests.differential.generate.tree import ATTACHED, ETC, GENERATED, LATE, LIB, LOCAL, RUN

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
SETS_VARIABLES = ("NotifyAccess=all", "NotifyAccess=none", "NotifyAccess=x", "WatchdogSec=1min", "WatchdogSec=0",
                  "FileDescriptorStoreMax=2", "FileDescriptorStoreMax=0", "FileDescriptorStoreMax=x", "User=root",
                  "User=0", "User=", "Group=root", "SetLoginEnvironment=yes", "SetLoginEnvironment=no",
                  "RuntimeDirectory=docker", "RuntimeDirectory=b a/b", "StateDirectory=docker x", "LogsDirectory=/x",
                  "PIDFile=/run/docker.pid", "PIDFile=docker.pid", "WorkingDirectory=~", "WorkingDirectory=/tmp",
                  "StandardOutput=null", "OpenFile=/etc/hostname", "ExecSearchPath=/opt/bin:/usr/bin",
                  "UnsetEnvironment=LISTEN_FDS", "UnsetEnvironment=NOTIFY_SOCKET LISTEN_PID", "UnsetEnvironment=PATH")
"""Settings that decide which variables systemd sets."""


class Services(Sockets):
    """Generates service units."""

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
        self.put(f"{self.drop_in_directory('docker.service')}/{self.drop_in_name()}", self.damaged(body))

    def service_lines(self) -> str:  # noqa: PLR0911, PLR0912
        """Return the text of a drop-in of docker.service."""
        kind = self.weighted({"hosts": 40, "environment": 14, "file": 8, "forgot": 7, "type": 4, "reset only": 2,
                              "unset": 4, "pass": 2, "sockets": 2, "proxy": 4, "oneshot": 3, "several": 6,
                              "requires": 2, "reset env": 3, "odd": 4, "pre": 2, "sets": 6, "env files": 4})
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
            names = self.one(("DOCKER_OPTS", "OPTIONS A", "A=1", "PATH", "DOCKER_OPTS=", '"A=x y"', "A=a", "-", "HOME"))
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

    def own_fragment(self) -> None:
        """Add an edited copy of the vendor's unit, or edit it in place."""
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
                 self.damaged("\n".join(lines)))

    def by_another_program(self) -> None:
        """Let a shell, nice(1) or a similar program start dockerd."""
        self.put(f"{ETC}/docker.service.d/wrapped.conf",
                 f"[Service]\nExecStart=\nExecStart={self.wrapped(self.arguments())}\n")

    def rootless(self) -> None:
        """Let a system unit start dockerd-rootless.sh."""
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
