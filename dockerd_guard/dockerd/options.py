"""The flags of each dockerd release, and the types of its daemon.json keys.

From cmd/dockerd/{options,docker,config,config_unix}.go and daemon/config/{config,config_linux}.go of the
releases, hidden and deprecated flags included; compared with `dockerd --help` of 20.10, 26.1 and 28.5.
`since` is the first release with the option, `until` the first without it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from dockerd_guard.dockerd.version import Version


class Option(NamedTuple):
    """A flag. `key` is its name in daemon.json if that differs (moby: opts.NamedOption)."""

    name: str
    kind: str
    short: str = ""
    key: str = ""
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = (10_000,)


class Options(NamedTuple):
    """The options of one release: flags by name and by letter, NamedOption names, fields of daemon.json."""

    by_name: dict[str, Option]
    by_letter: dict[str, Option]
    keys: frozenset[str]
    fields: dict[str, str]


_OPTIONS = (
    # From before dockerd was a separate program (`docker -d`, `docker daemon`).
    Option("exec-driver", "string", "e", until=(1, 13)),
    Option("api-enable-cors", "bool", until=(1, 13)),
    Option("disable-legacy-registry", "bool", until=(19, 3)),
    Option("deprecated-key-path", "string", until=(20, 10)),
    # docker.go and options.go
    Option("help", "bool", "h"),
    Option("version", "bool", "v"),
    Option("config-file", "string"),
    Option("debug", "bool", "D"),
    Option("validate", "bool", since=(23,)),
    Option("log-level", "string", "l"),
    Option("log-format", "string", since=(25,)),
    Option("tls", "bool"),
    Option("tlsverify", "bool"),
    Option("tlscacert", "quoted", until=(23,)),
    Option("tlscert", "quoted", until=(23,)),
    Option("tlskey", "quoted", until=(23,)),
    Option("tlscacert", "string", since=(23,)),
    Option("tlscert", "string", since=(23,)),
    Option("tlskey", "string", since=(23,)),
    Option("host", "host", "H", "hosts"),
    # config.go
    Option("allow-nondistributable-artifacts", "index", key="allow-nondistributable-artifacts", until=(29,)),
    Option("registry-mirror", "mirror", key="registry-mirrors"),
    Option("insecure-registry", "index", key="insecure-registries"),
    Option("storage-opt", "list", key="storage-opts"),
    Option("authorization-plugin", "list", key="authorization-plugins"),
    Option("exec-opt", "list", key="exec-opts"),
    Option("pidfile", "string", "p"),
    Option("graph", "string", "g", until=(24,)),
    Option("data-root", "string"),
    Option("exec-root", "string"),
    Option("containerd", "string"),
    Option("cri-containerd", "bool"),
    Option("restart", "bool", "r"),
    Option("feature", "feature", key="features", since=(28,)),
    Option("default-network-opt", "mapmap", key="default-network-opts", since=(24,)),
    Option("mtu", "int"),
    Option("network-control-plane-mtu", "int"),
    Option("network-diagnostic-port", "int"),
    Option("raw-logs", "bool"),
    Option("dns", "dns", until=(25,)),
    Option("dns", "ips", since=(25,), until=(29,)),
    Option("dns", "addr", key="dns", since=(29,)),
    Option("dns-opt", "list", key="dns-opts"),
    Option("dns-search", "dns-search"),
    Option("host-gateway-ip", "ip", since=(20, 10), until=(28,)),
    Option("host-gateway-ip", "addr", key="host-gateway-ips", since=(28,)),
    Option("label", "label", key="labels"),
    Option("log-driver", "string"),
    Option("log-opt", "map", key="log-opts"),
    Option("cluster-advertise", "string", until=(23,)),
    Option("cluster-store", "string", until=(23,)),
    Option("cluster-store-opt", "map", key="cluster-store-opts", until=(23,)),
    Option("api-cors-header", "string", until=(29,)),
    Option("max-concurrent-downloads", "int"),
    Option("max-concurrent-uploads", "int"),
    Option("max-download-attempts", "int", since=(20, 10)),
    Option("shutdown-timeout", "int"),
    Option("swarm-default-advertise-addr", "string"),
    Option("experimental", "bool"),
    Option("metrics-addr", "string"),
    Option("node-generic-resource", "resource", key="node-generic-resources"),
    Option("containerd-namespace", "string", since=(20, 10)),
    Option("containerd-plugins-namespace", "string", since=(20, 10)),
    Option("http-proxy", "string", since=(23,)),
    Option("https-proxy", "string", since=(23,)),
    Option("no-proxy", "string", since=(23,)),
    Option("cdi-spec-dir", "list", key="cdi-spec-dirs", since=(25,)),
    Option("nri-opts", "nri", key="nri-opts", since=(29,)),
    # config_unix.go
    Option("add-runtime", "runtime", key="runtimes"),
    Option("default-runtime", "string"),
    Option("group", "string", "G"),
    Option("storage-driver", "string", "s"),
    Option("selinux-enabled", "bool"),
    Option("default-ulimit", "ulimit", key="default-ulimits"),
    Option("iptables", "bool"),
    Option("ip6tables", "bool", since=(20, 10)),
    Option("ip-forward", "bool"),
    Option("ip-forward-no-drop", "bool", since=(28,)),
    Option("ip-masq", "bool"),
    Option("ipv6", "bool"),
    Option("icc", "bool"),
    Option("bip", "string"),
    Option("bip6", "string", since=(28,)),
    Option("bridge", "string", "b"),
    Option("bridge-accept-fwmark", "string", since=(29,)),
    Option("fixed-cidr", "string"),
    Option("fixed-cidr-v6", "string"),
    Option("default-gateway", "ip"),
    Option("default-gateway-v6", "ip"),
    Option("ip", "ip"),
    Option("userland-proxy", "bool"),
    Option("userland-proxy-path", "string"),
    Option("allow-direct-routing", "bool", since=(28,)),
    Option("cgroup-parent", "string"),
    Option("userns-remap", "string"),
    Option("live-restore", "bool"),
    Option("oom-score-adjust", "int", until=(25,)),
    Option("init", "bool"),
    Option("init-path", "string"),
    Option("cpu-rt-period", "int"),
    Option("cpu-rt-runtime", "int"),
    Option("seccomp-profile", "string"),
    Option("default-shm-size", "bytes"),
    Option("no-new-privileges", "bool"),
    Option("default-ipc-mode", "string"),
    Option("default-address-pool", "pools", key="default-address-pools"),
    Option("default-cgroupns-mode", "string", since=(20, 10)),
    Option("firewall-backend", "string", since=(29,)),
    Option("rootless", "bool"),
)

_FIELDS = (
    # type, names, since, until: the json tags of config.Config
    ("bool", "debug tls tlsverify live-restore raw-logs experimental cri-containerd selinux-enabled init "
             "rootless no-new-privileges ipv6 iptables ip-forward ip-masq icc userland-proxy", (), ()),
    ("bool", "ip6tables", (20, 10), ()),
    ("bool", "ip-forward-no-drop allow-direct-routing", (28,), ()),
    ("bool", "disable-legacy-registry", (), (19, 3)),
    ("string", "storage-driver pidfile data-root exec-root group log-level tlscacert tlscert tlskey "
               "log-driver swarm-default-advertise-addr metrics-addr containerd bridge fixed-cidr fixed-cidr-v6 "
               "bip userland-proxy-path cgroup-parent userns-remap init-path seccomp-profile default-ipc-mode "
               "default-runtime default-init resolv-conf", (), ()),
    ("string", "graph", (), (24,)),
    ("string", "deprecated-key-path", (), (24,)),
    ("string", "cluster-store cluster-advertise", (), (23,)),
    ("string", "api-cors-header", (), (29,)),
    ("string", "default-cgroupns-mode containerd-namespace containerd-plugin-namespace", (20, 10), ()),
    ("string", "log-format", (25,), ()),
    ("string", "bip6", (28,), ()),
    ("string", "bridge-accept-fwmark firewall-backend min-api-version", (29,), ()),
    ("int", "mtu network-diagnostic-port max-concurrent-downloads max-concurrent-uploads shutdown-timeout "
            "network-control-plane-mtu cpu-rt-period cpu-rt-runtime", (), ()),
    ("int", "oom-score-adjust", (), (25,)),
    ("int", "max-download-attempts", (20, 10), ()),
    ("uint32", "swarm-raft-heartbeat-tick swarm-raft-election-tick", (), ()),
    ("strings", "hosts authorization-plugins exec-opts storage-opts labels dns-opts dns-search "
                "registry-mirrors insecure-registries node-generic-resources", (), ()),
    ("strings", "allow-nondistributable-artifacts", (), (28,)),
    ("strings", "dns", (), (25,)),
    ("ips", "dns", (25,), (29,)),
    ("addrs", "dns", (29,), ()),
    ("ip", "host-gateway-ip", (20, 10), ()),
    ("ip", "ip default-gateway default-gateway-v6", (), ()),
    ("addrs", "host-gateway-ips", (28,), ()),
    ("strings", "cdi-spec-dirs", (25,), ()),
    ("map of string", "log-opts", (), ()),
    ("map of string", "cluster-store-opts", (), (23,)),
    ("map of bool", "features", (), ()),
    ("map of map", "default-network-opts", (24,), ()),
    ("bytes", "default-shm-size", (), ()),
    ("map of ulimit", "default-ulimits", (), ()),
    ("map of runtime", "runtimes", (), ()),
    ("pools", "default-address-pools", (), ()),
    ("builder", "builder", (), ()),
    ("proxies", "proxies", (23,), ()),
    ("nri", "nri-opts", (29,), ()),
)


@lru_cache(maxsize=8)
def options_of(version: Version | None) -> Options:
    """Return the options of a release; for an unknown one (None) those of all releases with their newest types."""
    by_name: dict[str, Option] = {}
    fields: dict[str, str] = {}
    for option in _OPTIONS:
        if version is None or option.since <= version < option.until:
            by_name[option.name] = option
    for kind, names, since, until in _FIELDS:
        if version is None or (since <= version and (not until or version < until)):
            for name in names.split():
                fields[name] = kind
    return Options(by_name, {option.short: option for option in by_name.values() if option.short},
                   frozenset(option.key for option in by_name.values() if option.key), fields)
