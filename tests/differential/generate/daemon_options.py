"""Command line options of dockerd: addresses, TLS, and valid and invalid flags."""

from __future__ import annotations

from tests.differential.generate.tree import Tree

TCP_HOSTS = (
    "tcp://0.0.0.0:2375", "tcp://127.0.0.1:2375", "tcp://0.0.0.0:2376", "tcp://127.0.0.1:2376",
    "tcp://192.168.1.10:2375", "tcp://10.0.0.5:2376", "tcp://:2375", "tcp://localhost:2375", "tcp://[::]:2375",
    "tcp://[::1]:2376", "0.0.0.0:2375", "127.0.0.1:4243", ":2375", "tcp://docker-host:2376", "tcp://0.0.0.0:4243",
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
    "tcp://127.0.0.1:2375 ", "tcp://127.0.0.1 :2375", "", "unix", "unix:", "unix:/run/docker.sock", "fd", "fd:", "fd:/",
    "=fd://", "'fd://'", '"fd://"', "tcp://127.0.0.1:2375,unix:///run/docker.sock", "tcp://$HOST:2375",
    "/var/run/docker.sock", "/run/docker.sock", "tcp://127.1:2375", "tcp://0:2375", "tcp://[fe80::1%25eth0]:2375",
    "tcp://[fe80::1%eth0]:2375", "tcp://1.2.3.4.5:2375", "tcp://256.1.1.1:2375", "tcp://[::1:2375", "tcp://::1]:2375",
    "tcp://[]:2375", "tcp://[127.0.0.1]:2375", "tcp://Localhost:2375", "tcp://LOCALHOST:2375", "tcp://0x7f.1:2375",
    "tcp://127.0.0.1:2375\t", "tcp://docker_host:2375", "tcp://%31:2375", "tcp://a%20b:2375", "tcp://0.0.0.0:2375:2376",
    "tcp://-H:2375", "--debug", "-", "0", "tcp://1:2375", "tcp://\u00e4:2375", "tcp://0.0.0.0:\u0661", "fd://*:1",
)
UNIX_HOSTS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock", "unix://", "unix:///run/docker2.sock",
              "unix://@docker", "unix:///run/../run/docker.sock", "unix://rel.sock", "unix:////run/docker.sock")
FD_HOSTS = ("fd://", "fd://*", "fd://3", "fd://4", "fd://2", "fd://docker.socket", "fd://0", "fd://03")
HARMLESS_FLAGS = (
    ("-D",), ("--debug",), ("-r",), ("--restart=false",), ("--icc=false",), ("--log-level=warn",), ("-l", "warn"),
    ("-lwarn",), ("-l=warn",), ("--log-level", "info"), ("--label=a=b",), ("--label", "zone=eu"), ("--dns", "8.8.8.8"),
    ("--dns=1.1.1.1",), ("--mtu=1450",), ("--mtu", "1400"), ("--selinux-enabled",), ("--selinux-enabled=false",),
    ("--live-restore",), ("--live-restore=true",), ("--experimental",), ("--experimental=false",),
    ("--storage-driver=vfs",), ("-s", "vfs"), ("--insecure-registry=10.0.0.0/8",),
    ("--insecure-registry", "reg.example.com:5000"), ("--registry-mirror=https://mirror.example.com",),
    ("--bip=172.17.0.1/16",), ("-G", "docker"), ("-Gdocker",), ("--group=docker",),
    ("--exec-opt", "native.cgroupdriver=systemd"), ("--log-opt", "max-size=10m"), ("--userland-proxy=false",),
    ("--iptables=false",), ("--ip-forward=false",), ("--default-ulimit=nofile=1024:2048",),
    ("--data-root=/var/lib/docker",), ("--data-root", "/srv/docker"), ("-p", "/run/docker.pid"),
    ("--pidfile=/run/docker.pid",), ("--default-runtime=runc",), ("--add-runtime", "foo=/usr/bin/runc"), ("--init",),
    ("--ipv6=false",), ("--raw-logs",), ("--metrics-addr=127.0.0.1:9323",),
    ("--containerd=/run/containerd/containerd.sock",), ("--cgroup-parent=docker.slice",), ("--no-new-privileges",),
    ("--fixed-cidr=172.17.0.0/24",), ("--max-concurrent-downloads=3",), ("--shutdown-timeout", "10"), ("--tls=false",),
    ("--api-cors-header=*",), ("--userns-remap=",), ("--seccomp-profile=",), ("-b", "docker0"), ("--bridge=none",),
    ("--ip=127.0.0.1",), ("--default-shm-size=64M",), ("--network-control-plane-mtu=1400",),
    ("--min-api-version=1.24",), ("--feature=containerd-snapshotter=false",), ("--dns-search=example.com",),
    ("--host-gateway-ip=10.0.0.1",), ("--log-format=json",), ("--swarm-default-advertise-addr=eth0",),
)
BAD_FLAGS = (
    ("--foo",), ("-x",), ("-host", "tcp://0.0.0.0:2375"), ("--hosts=tcp://0.0.0.0:2375",), ("-tls",), ("--Debug",),
    ("daemon",), ("--tls", "false"), ("--tls=no",), ("--tls=",), ("--debug=yes",), ("--mtu=abc",), ("--mtu",), ("-H",),
    ("--host",), ("--label=a",), ("--dns=foo",), ("--", "-H", "fd://"), ("--",), ("-",), ("---debug",), ("--=x",),
    ("-DHfd://",), ("-DH", "fd://"), ("-DH=fd://",), ("-Dx",), ("-GH", "fd://"), ("-HD",), ("-H", "--debug"),
    ("--version",), ("-v",), ("--help",), ("-h",), ("--validate",), ("#", "comment"), ("--graph=/srv",), ("-g", "/srv"),
    ("--storage-opt=dm.fs=xfs",), ("&",), ("|", "tee", "/x"), (">", "/dev/null"),
    ("--registry-mirror=mirror.example.com",), ("--registry-mirror=http://a/b/",), ("--bip=abc",),
    ("--default-ulimit=x",), ("--insecure-registry=-x-",), ("--log-level=loud",), ("-l=",),
    ("--cluster-store=consul://x:8500",), ("--disable-legacy-registry",), ("--ip=x",),
    ("--allow-nondistributable-artifacts=x",), ("--config-file",), ("--icc", "true"), ("--max-concurrent-downloads=x",),
    ("-b=none", "x"), ("\u2013debug",), ("\u2014H", "fd://"), ("-H", "fd://", "unix://"),
    ("--default-address-pool=base=10.0.0.0/8,size=24",), ("--default-network-opt=bridge=mtu=1400",), ("--mtu=0x10",),
    ("--live-restore", "true"), ("-H=",), ("--host=",), ("-H", ""), ("completion",), ("--ipv6=2",),
    ("--tlsverify=maybe",),
)


class DaemonOptions(Tree):
    """Generates dockerd's arguments."""

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
