"""The vocabulary: where the Docker API accepts connections. No I/O."""

from __future__ import annotations

import contextlib
import ipaddress
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.model.location import Location


class Scope(StrEnum):
    """How far a binding reaches, nearest first."""

    UNIX = "unix"
    LOOPBACK = "loopback"
    ADDRESS = "address"
    WILDCARD = "wildcard"


class Tls(StrEnum):
    """What a client must show: nothing, nothing but the wish for TLS, or a certificate."""

    NONE = "none"
    SERVER = "server"
    MUTUAL = "mutual"


class Via(StrEnum):
    """How a binding came to be."""

    FLAG = "flag"
    DAEMON_JSON = "daemon.json"
    SOCKET_UNIT = "socket-unit"
    DEFAULT = "default"


class Binding(NamedTuple):
    """One place where the API accepts connections, after everything is resolved.

    `address` is in dockerd's own syntax: `unix:///run/docker.sock`, `unix://@abstract`,
    `tcp://127.0.0.1:2375`, `tcp://[::]:2375`, `vsock://2:2375`. It never is `fd://`.
    `source` is None where nothing was written (a default without any file).
    """

    address: str
    scope: Scope
    tls: Tls
    via: Via
    source: Location | None = None

    @property
    def is_tcp(self) -> bool:
        """Whether it is reached through TCP/IP."""
        return self.address.startswith("tcp://")

    @property
    def key(self) -> str:
        """What two spellings of one place have in common."""
        return canonical(self.address)


def split_host_port(address: str) -> tuple[str, str]:
    """Split what follows `tcp://` into host and port; an IPv6 host comes without its brackets."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), port


def scope_of(address: str) -> Scope:
    """Tell how far an address in dockerd's syntax reaches.

    A host name is an `address`: what it resolves to is not in the text (net.LookupIP in
    moby's daemon/listeners). Only `localhost`, which Go and glibc both keep on loopback, and the
    numeric forms are sure. `0` and its like are left to the resolver, which makes them 0.0.0.0.
    """
    if not address.startswith("tcp://"):
        return Scope.ADDRESS if address.startswith("vsock:") else Scope.UNIX
    host, _ = split_host_port(address)
    if _is_localhost(host):
        return Scope.LOOPBACK
    host = host.partition("%")[0]
    if host in ("", "0", "0x0", "0.0", "0.0.0"):
        return Scope.WILDCARD
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return Scope.ADDRESS
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        ip = mapped
    if ip.is_unspecified:
        return Scope.WILDCARD
    return Scope.LOOPBACK if ip.is_loopback else Scope.ADDRESS


def _is_localhost(host: str) -> bool:
    """In any case (resolvers compare names so), and as a full name with a dot behind it."""
    return host.lower() in ("localhost", "localhost.")


def canonical(address: str) -> str:
    """One spelling for one place, to compare addresses by (not to give to dockerd).

    `/var/run` is `/run` (systemd's tmpfiles.d/legacy.conf, Debian since 7); `localhost` is
    127.0.0.1 (Go's net.Listen prefers IPv4); a wildcard of either family is `*`, since Go listens on
    both families for either of them (favoriteAddrFamily in its net/ipsock_posix.go).
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
    else:
        with contextlib.suppress(ValueError):
            ip = ipaddress.ip_address(host)
            ip = getattr(ip, "ipv4_mapped", None) or ip
            host = f"[{ip}]" if ip.version == 6 else str(ip)
    return f"tcp://{host.lower()}:{port.lstrip('0') or '0'}"


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that packets to a host carry: no zone, and IPv4 as such; None for a name."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
