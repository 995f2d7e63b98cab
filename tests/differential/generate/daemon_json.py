"""daemon.json: valid keys, invalid keys and values, and damaged JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.differential.generate.environment import Environments
from tests.differential.generate.tree import ETC


class DaemonJson(Environments):
    """Generates daemon.json."""

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
                ("debug", True), ("live-restore", True), ("log-driver", "json-file"), ("log-opts", {"max-size": "10m"}),
                ("storage-driver", "vfs"), ("insecure-registries", ["10.0.0.0/8"]),
                ("registry-mirrors", ["https://m.example.com"]), ("dns", ["8.8.8.8"]), ("bip", "172.17.0.1/16"),
                ("data-root", "/var/lib/docker"), ("mtu", 1450), ("icc", False),
                ("exec-opts", ["native.cgroupdriver=systemd"]), ("experimental", False), ("labels", ["a=b"]),
                ("group", "docker"), ("iptables", False), ("userland-proxy", False), ("max-concurrent-downloads", 3),
                ("default-ulimits", {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}}),
                ("features", {"buildkit": True}), ("default-address-pools", [{"base": "10.10.0.0/16", "size": 24}]),
                ("metrics-addr", "127.0.0.1:9323"), ("runtimes", {"foo": {"path": "/usr/bin/runc"}}),
                ("builder", {"gc": {"enabled": True}}), ("proxies", {"http-proxy": "x"}),
                ("containerd", "/run/containerd/containerd.sock"), ("ipv6", False), ("log-level", "warn"),
                ("pidfile", "/run/docker.pid"),
            ))
            value[key] = content
        if self.chance(0.18):
            key, content = self.one((
                ("host", ["tcp://0.0.0.0:2375"]), ("Hosts", ["tcp://0.0.0.0:2375"]), ("HOSTS", []), ("-H", ["fd://"]),
                ("foo", 1), ("hosts", None), ("hosts", "tcp://0.0.0.0:2375"), ("hosts", {"a": "b"}), ("hosts", [1]),
                ("hosts", [None]), ("hosts", [""]), ("hosts", [["fd://"]]), ("x", {"hosts": ["tcp://0.0.0.0:2375"]}),
                ("tls", "true"), ("tls", 1), ("tlsverify", None), ("tls", None), ("debug", "yes"), ("", 1),
                ("comment", "x"), ("_comment", "x"), ("tlscert", None), ("tlscacert", ""), ("tlscacert", 5),
                ("live-restore", "true"), ("mtu", "1450"), ("mtu", 1.5), ("label", ["a=b"]), ("labels", "a=b"),
                ("log-opts", {"max-file": 3}), ("dns", "8.8.8.8"), ("insecure-registry", ["x"]), ("DEBUG", True),
                ("Debug", True), ("tlsVerify", True), ("TLS", True), ("tlsverify", False), ("daemon", {"tls": True}),
                ("storage-opts", {}), ("cluster-store", "consul://x"), ("graph", "/srv"), ("version", True),
                ("help", True), ("validate", True), ("config-file", "/x"), ("api-cors-header", "*"), ("labels", ["a"]),
                ("dns", ["x"]), ("registry-mirrors", ["m.example.com"]), ("max-concurrent-downloads", 0),
                ("max-concurrent-downloads", -1), ("shutdown-timeout", -2), ("log-level", "loud"), ("bip", "x"),
                ("default-runtime", "foo"), ("features", []), ("hosts", True), ("runtimes", {"runc": {"path": "/x"}}),
                ("metrics-addr", ":9323"), ("tls", {"a": 1}), ("tlskey", ["x"]),
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
        damages: tuple[Callable[[], bytes], ...] = (
            lambda: b"\xef\xbb\xbf" + data, lambda: text.encode("utf-16"), lambda: text.replace("}", ",}", 1).encode(),
            lambda: text.replace('"', "'").encode(), f"// comment\n{text}".encode, f"# comment\n{text}".encode,
            lambda: data + b"x", lambda: data + data, lambda: data.replace(b"{", b"", 1), lambda: data.rstrip()[:-1],
            lambda: text.replace("{", '{"hosts": ["unix:///run/docker.sock"],', 1).encode(),
            lambda: text.replace("{", '{"tls": false,', 1).encode(),
            lambda: text.replace('"hosts"', '"h\\u006fsts"').encode(),
            lambda: text.replace("tcp", "tc\xff").encode("latin-1", "replace"),
            lambda: text.replace(":", ";", 1).encode(), lambda: text.replace("\n", "\r\n").encode(),
            lambda: text.replace(",", "", 1).encode(), lambda: b"\0" + data,
            lambda: text.replace("true", "True").encode(), lambda: text.replace("]", ",]", 1).encode(),
            lambda: text.replace("fd", "\\/fd").encode(),
            lambda: text.replace("{", '{"x": {"a": {"hosts": 1}},', 1).encode(),
            lambda: text.replace("\"", "“").encode(), lambda: text.replace("{", "{\t\x0b", 1).encode(),
            lambda: text.replace("{", "{ ", 1).encode(), lambda: text.replace("{", '{"hosts": [],', 1).encode(),
            lambda: text.replace("{", '{"debug": false, "debug": true,', 1).encode(),
            lambda: text.replace("{", '{"x": ' + "[" * 50 + "]" * 50 + ",", 1).encode(),
        )
        return self.one(damages)()

    def move_hosts(self) -> None:
        """Apply the common guide: hosts in daemon.json, and a drop-in that removes -H."""
        self.put("/etc/docker/daemon.json", json.dumps({"hosts": self.hosts()}))
        self.put(f"{ETC}/docker.service.d/override.conf", f"[Service]\nExecStart=\nExecStart={self.executable}\n")
