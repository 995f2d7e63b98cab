"""Values of daemon.json that replace what a template does not say: of the kind that dockerd accepts for the key."""

from __future__ import annotations

import re

_BOOLEANS = frozenset((
    "debug", "tls", "tlsverify", "live-restore", "ipv6", "iptables", "ip6tables", "icc", "ip-masq", "ip-forward",
    "userland-proxy", "experimental", "selinux-enabled", "no-new-privileges", "raw-logs", "rootless", "init",
    "cri-containerd", "ip-forward-no-drop", "allow-direct-routing", "buildkit", "containerd-snapshotter", "cdi",
    "enabled",
))
_LISTS = frozenset((
    "dns", "dns-opts", "dns-search", "registry-mirrors", "insecure-registries", "exec-opts", "storage-opts", "labels",
    "authorization-plugins", "hosts", "default-address-pools", "host-gateway-ips", "node-generic-resources",
    "cdi-spec-dirs", "allow-nondistributable-artifacts",
))
_NUMBERS = frozenset((
    "mtu", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "shutdown-timeout",
    "network-control-plane-mtu", "network-diagnostic-port", "cpu-rt-period", "cpu-rt-runtime", "oom-score-adjust",
    "Hard", "Soft",
))
MAPS = frozenset((
    "log-opts", "default-ulimits", "runtimes", "features", "builder", "proxies", "gc", "default-network-opts",
    "nri-opts", "cluster-store-opts",
))
DECIDES = frozenset(("hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"))
"""Keys of daemon.json that decide where dockerd listens and who may connect."""

_ADDRESSES = frozenset(("ip", "dns", "default-gateway", "host-gateway-ip", "host-gateway-ips"))
_NETWORKS = frozenset(("bip", "fixed-cidr", "base"))
_NETWORKS_V6 = frozenset(("bip6", "fixed-cidr-v6"))
_WORDS = {
    "log-level": "info", "log-format": "text", "default-ipc-mode": "private", "default-cgroupns-mode": "private",
    "firewall-backend": "iptables", "default-runtime": "runc", "userns-remap": "default", "storage-driver": "overlay2",
    "default-gateway-v6": "2001:db8::1", "metrics-addr": "127.0.0.1:9323", "default-shm-size": "64M",
    "bridge-accept-fwmark": "1", "containerd": "/run/containerd/containerd.sock", "labels": "unknown=0",
    "exec-opts": "unknown=0", "node-generic-resources": "unknown=0", "registry-mirrors": "https://unknown",
}
_AFTER = {("insecure-registries", ":"): "443", ("insecure-registries", "/"): "24", ("registry-mirrors", ":"): "443",
          ("exec-opts", "="): "systemd", ("metrics-addr", ":"): "9323"}
"""After some character within a text."""

_BEFORE = {"metrics-addr": "127.0.0.1", "default-shm-size": "64"}
"""Before the rest of a text."""

_TAG = re.compile(r"\{\{[^}]{0,80}\}\}|\$\{[^}]{0,80}\}|<%[^%]{0,80}%>")
_SEPARATORS = re.compile(r"[,\s]*,[,\s]*")


def text_of(key: str, before: str, following: str, number: int) -> str:
    """What replaces an expression within a text, which has `before` and is followed by some of the source."""
    rest = _TAG.sub("0", following).partition('"')[0]
    unknown = f"unknown{number}"
    if key in _ADDRESSES or key in _NETWORKS:
        return _part_of_address(before, rest, is_network=key in _NETWORKS)
    if key in _NETWORKS_V6:
        return "64" if before.endswith("/") else "2001:db8::1" + "/64" * (not rest)
    if before:
        return _AFTER.get((key, before[-1]), unknown)
    if key == "registry-mirrors":
        return "https" if rest.startswith("://") else f"https://{unknown}"
    return (_BEFORE if rest else _WORDS).get(key, unknown)


def _part_of_address(before: str, rest: str, *, is_network: bool) -> str:
    """The numbers of an address that are not beside it: `192.0.2` before `.1/24`."""
    if before.endswith("/"):
        return "24"
    others = before.count(".") + rest.partition("/")[0].count(".")
    if is_network and not others:
        return "10.0.0.0" + "/8" * ("/" not in rest)
    return ".".join(("192", "0", "2", "1")[:max(1, 4 - others)])


def value_of(key: str) -> str:
    """What replaces an expression after a key."""
    if key in _LISTS:
        return "[]"
    if key in _ADDRESSES | _NETWORKS | _NETWORKS_V6 or key in _WORDS:
        return f'"{text_of(key, "", "", 1)}"'
    return ("false" if key in _BOOLEANS else "{}" if key in MAPS else "0" if key in _NUMBERS
            else "24" if key == "size" else '""')


def is_separator(texts: str) -> bool:
    """Whether the texts of an expression are what separates the elements of a list."""
    return _SEPARATORS.fullmatch(texts) is not None


def is_list(key: str) -> bool:
    return key in _LISTS
