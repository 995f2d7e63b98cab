"""Addresses on which the Docker API accepts connections. No I/O."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from dockerd_guard.model.location import Location


class Scope(StrEnum):
    """From where a binding can be reached, in increasing order."""

    UNIX = "unix"
    LOOPBACK = "loopback"
    ADDRESS = "address"
    WILDCARD = "wildcard"


class Tls(StrEnum):
    """TLS of a binding: none, server authentication only, or mutual with client certificates; weakest first.

    `unknown`: a running dockerd serves it, and nothing shows how. It counts as none.
    """

    NONE = "none"
    SERVER = "server"
    MUTUAL = "mutual"
    UNKNOWN = "unknown"

    def is_weaker(self, than: Tls) -> bool:
        """Whether this protects less."""
        return _STRENGTH[self] < _STRENGTH[than]


_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
"""Pattern of an IPv4 address as ipaddress accepts it: a file may have thousands of them, and ipaddress is slow."""
_IPV4 = re.compile(IPV4)

_STRENGTH = {Tls.UNKNOWN: 0, Tls.NONE: 0, Tls.SERVER: 1, Tls.MUTUAL: 2}


class Evidence(StrEnum):
    """What a statement about a running dockerd rests on."""

    KERNEL = "kernel"
    """The kernel's table of sockets."""
    PROBE = "probe"
    """An answer of this start of dockerd at the address."""
    PROC = "proc"
    """Arguments of the process, in /proc."""
    START_RECORD = "start-record"
    """daemon.json as it was recorded for this start."""
    UNCHANGED_FILES = "unchanged-files"
    """daemon.json, which has not changed since the start."""


class Via(StrEnum):
    """Where a binding comes from."""

    FLAG = "flag"
    DAEMON_JSON = "daemon.json"
    SOCKET_UNIT = "socket-unit"
    DEFAULT = "default"


class Binding(NamedTuple):
    """One address on which the API accepts connections, fully resolved.

    `address` is in dockerd's own syntax: `unix:///run/docker.sock`, `unix://@abstract`,
    `tcp://127.0.0.1:2375`, `tcp://[::]:2375`, `vsock://2:2375`. It is never `fd://`.
    `source` is None for a default, which is written in no file. `evidence` and `tls_evidence` are what the address
    and the TLS rest on, None where nothing shows it and in layers that describe files. `namespace` is the network
    namespace of the port, "" for the host's own.
    """

    address: str
    scope: Scope
    tls: Tls
    via: Via
    source: Location | None = None
    evidence: Evidence | None = None
    tls_evidence: Evidence | None = None
    namespace: str = ""

    @property
    def is_tcp(self) -> bool:
        return self.address.startswith("tcp://")

    @property
    def key(self) -> str:
        """The canonical address: equal for two spellings of the same address."""
        return canonical(self.address)


def split_host_port(address: str) -> tuple[str, str]:
    """Return host and port of a TCP address, with or without `tcp://`; an IPv6 host without brackets."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), port


def scope_of(address: str) -> Scope:
    """Return the scope of an address in dockerd's syntax.

    A host name has the scope `address`, since what it resolves to is unknown (net.LookupIP in moby's
    daemon/listeners). `localhost` is loopback for Go and for glibc. `0`, `0.0` and so on are
    passed to the resolver, which returns 0.0.0.0.
    """
    if not address.startswith("tcp://"):
        return Scope.ADDRESS if address.startswith("vsock:") else Scope.UNIX
    host, _ = split_host_port(address)
    if _is_localhost(host):
        return Scope.LOOPBACK
    if _IPV4.fullmatch(host) is not None:
        is_any = host == "0.0.0.0"  # noqa: S104 -- compared only
        return Scope.WILDCARD if is_any else Scope.LOOPBACK if host.startswith("127.") else Scope.ADDRESS
    ip = ip_of(host)
    if host.partition("%")[0] in ("", "0", "0x0", "0.0", "0.0.0") or (ip is not None and ip.is_unspecified):
        return Scope.WILDCARD
    return Scope.LOOPBACK if ip is not None and ip.is_loopback else Scope.ADDRESS


def _is_localhost(host: str) -> bool:
    """Whether a name is `localhost`: case-insensitive, optionally fully qualified with a final dot."""
    return host.lower() in ("localhost", "localhost.")


# Each address is asked for several times. A smaller cache than a file may have addresses would not help.
@lru_cache(maxsize=16384)
def canonical(address: str) -> str:
    """Return the canonical spelling of an address, for comparison only, not for dockerd.

    `/var/run` becomes `/run` (systemd's tmpfiles.d/legacy.conf, Debian since 7), `localhost` becomes
    127.0.0.1 (Go's net.Listen prefers IPv4), and a wildcard of either family becomes `*`, since Go listens
    on both families (favoriteAddrFamily in net/ipsock_posix.go).
    """
    if address.startswith("unix:///"):
        path = "/" + "/".join(part for part in address[7:].split("/") if part not in ("", "."))
        return "unix:///run/" + path[9:] if path.startswith("/var/run/") else "unix://" + path
    if not address.startswith("tcp://"):
        return address
    host, port = split_host_port(address)
    if scope_of(address) is Scope.WILDCARD:
        host = "*"
    elif _is_localhost(host):
        host = "127.0.0.1"
    elif ":" in host:
        with contextlib.suppress(ValueError):
            ip = ipaddress.ip_address(host)
            ip = getattr(ip, "ipv4_mapped", None) or ip
            host = f"[{ip}]" if ip.version == 6 else str(ip)
    return f"tcp://{host.lower()}:{port.lstrip('0') or '0'}"


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address of a host without its zone, IPv4-mapped ones as IPv4; None for a host name."""
    if ":" not in host and _IPV4.fullmatch(host.partition("%")[0]) is None:
        return None
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
