"""Detects addresses that cannot be bound at the same time: the second bind(2) fails with EADDRINUSE.

Unix sockets with a path do not collide, since systemd and dockerd remove an existing file first. TCP addresses do
(ip(7), ipv6(7)): systemd's `[::]` includes IPv4 unless BindIPv6Only= excludes it, dockerd's wildcard of either
family includes both (favoriteAddrFamily in Go's net/ipsock_posix.go).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.model.address import split_host_port

if TYPE_CHECKING:
    from dockerd_guard.systemd.sockets import Socket


class _Endpoint(NamedTuple):
    """A TCP endpoint: port, and address family and address (`*`: any) for each family."""

    port: str
    addresses: tuple[tuple[int, str], ...]


class _BoundEndpoints:
    """The endpoints and abstract sockets that are bound so far."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, int], set[str]] = {}
        self._abstract: set[str] = set()

    def bind(self, address: str, endpoint: _Endpoint | None) -> bool:
        """Bind an endpoint. Returns whether it was free."""
        if endpoint is None:
            free = not address.startswith("@") or address not in self._abstract
            self._abstract.add(address)
            return free
        free = True
        for family, one in endpoint.addresses:
            others = self._addresses.setdefault((endpoint.port, family), set())
            free = free and one not in others and "*" not in others and not (one == "*" and others)
            others.add(one)
        return free


def socket_collision(socket: Socket) -> str | None:
    """Return the first address of a socket unit that collides with another address of the unit, or None."""
    bound: dict[str, _BoundEndpoints] = {}
    for item in socket.listen:
        endpoint = _socket_unit_endpoint(item.address, socket.bind_ipv6_only)
        if not bound.setdefault(item.kind, _BoundEndpoints()).bind(item.address, endpoint):
            return item.address
    return None


def units_collide(sockets: Iterable[Socket]) -> bool:
    """Whether two of these socket units collide. The one that is started later fails."""
    bound: dict[str, _BoundEndpoints] = {}
    for socket in sockets:
        if socket_collision(socket) is None and not all(
                bound.setdefault(item.kind, _BoundEndpoints()).bind(
                    item.address, _socket_unit_endpoint(item.address, socket.bind_ipv6_only))
                for item in socket.listen):
            return True
    return False


def dockerd_collision(hosts: Iterable[str], sockets: Iterable[Socket]) -> str | None:
    """Return the first of dockerd's hosts that collides with another host or with a passed socket, or None."""
    bound = _BoundEndpoints()
    for socket in sockets:
        if socket.unit.load_state == "loaded" and not socket.accept and socket_collision(socket) is None:
            for item in socket.listen:
                if item.kind == "Stream":
                    bound.bind(item.address, _socket_unit_endpoint(item.address, socket.bind_ipv6_only))
    for host in hosts:
        if not host.startswith("fd://") and not bound.bind(host.removeprefix("unix://"), _dockerd_endpoint(host)):
            return host
    return None


def _socket_unit_endpoint(address: str, bind_ipv6_only: str) -> _Endpoint | None:
    """Return the endpoint of an address of the D-Bus property Listen; None if it is not TCP."""
    if address.startswith(("/", "@", "vsock")):
        return None
    found = _tcp_endpoint(address)
    if found is not None and found.addresses == ((6, "*"),) and bind_ipv6_only != "ipv6-only":
        return found._replace(addresses=((4, "*"), (6, "*")))
    return found


def _dockerd_endpoint(host: str) -> _Endpoint | None:
    """Return the endpoint of one of dockerd's hosts; None if it is not TCP."""
    if not host.startswith("tcp://"):
        return None
    found = _tcp_endpoint(host)
    if found is not None and found.addresses[0][1] == "*":
        return found._replace(addresses=((4, "*"), (6, "*")))
    return found


def _tcp_endpoint(address: str) -> _Endpoint | None:
    """Return the endpoint of HOST:PORT; None for a host name, whose addresses are unknown."""
    host, port = split_host_port(address)
    port = port.partition("%")[0]  # systemd's `[::]:2375%eth0` binds the port on all interfaces
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host)
    except ValueError:
        return None
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return _Endpoint(port.lstrip("0"), ((ip.version, "*" if ip.is_unspecified else str(ip)),))
