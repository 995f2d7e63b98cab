"""Detects addresses that cannot be bound at the same time: the second bind(2) fails with EADDRINUSE.

Unix sockets with a path do not collide, since systemd and dockerd remove an existing file first. TCP addresses do
(ip(7), ipv6(7)): systemd's `[::]` includes IPv4 unless BindIPv6Only= excludes it, dockerd's wildcard of either
family includes both (favoriteAddrFamily in Go's net/ipsock_posix.go).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.dockerd.hosts import HostEntry
from dockerd_guard.model.address import Via, split_host_port

if TYPE_CHECKING:
    from dockerd_guard.systemd.sockets import Listen, Socket


class _Endpoint(NamedTuple):
    """A TCP endpoint: port, and address family and address (`*`: any) for each family."""

    port: str
    addresses: tuple[tuple[int, str], ...]


class Claim(NamedTuple):
    """An address, and the setting that claims it: a host of dockerd or an address of a socket unit."""

    address: str
    source: HostEntry | Listen


class Collision(NamedTuple):
    """Two claims of which the second cannot be bound."""

    first: Claim
    second: Claim


class _BoundEndpoints:
    """The endpoints and abstract sockets that are bound so far, each with the item that bound it first."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, int], dict[str, Claim]] = {}
        self._abstract: dict[str, Claim] = {}

    def bind(self, claim: Claim, address: str, endpoint: _Endpoint | None) -> Claim | None:
        """Bind an endpoint. Returns the claim that holds it already, None if it was free."""
        holder: Claim | None = None
        if endpoint is None:
            if address.startswith("@"):
                holder = self._abstract.get(address)
                self._abstract.setdefault(address, claim)
            return holder
        for family, one in endpoint.addresses:
            others = self._addresses.setdefault((endpoint.port, family), {})
            taken = others.get(one) or others.get("*") or (next(iter(others.values()), None) if one == "*" else None)
            holder = holder or taken
            others.setdefault(one, claim)
        return holder


def socket_collision(socket: Socket) -> str | None:
    """Return the first address of a socket unit that collides with another address of the unit, or None."""
    collision = next(_collisions_within(socket), None)
    return None if collision is None else collision.second.address


def _collisions_within(socket: Socket) -> Iterator[Collision]:
    bound: dict[str, _BoundEndpoints] = {}
    for item in socket.listen:
        claim = Claim(item.address, item)
        endpoint = _socket_unit_endpoint(item.address, socket.bind_ipv6_only)
        holder = bound.setdefault(item.kind, _BoundEndpoints()).bind(claim, item.address, endpoint)
        if holder is not None:
            yield Collision(holder, claim)


def units_collide(sockets: Iterable[Socket]) -> bool:
    """Whether two of these socket units collide. The one that is started later fails."""
    return any(True for _ in _collisions_between(sockets))


def _collisions_between(sockets: Iterable[Socket]) -> Iterator[Collision]:
    bound: dict[str, _BoundEndpoints] = {}
    for socket in sockets:
        if socket_collision(socket) is not None:
            continue
        for item in socket.listen:
            claim = Claim(item.address, item)
            endpoint = _socket_unit_endpoint(item.address, socket.bind_ipv6_only)
            holder = bound.setdefault(item.kind, _BoundEndpoints()).bind(claim, item.address, endpoint)
            if holder is not None:
                yield Collision(holder, claim)


def dockerd_collision(hosts: Iterable[str], sockets: Iterable[Socket]) -> str | None:
    """Return the first of dockerd's hosts that collides with another host or with a passed socket, or None."""
    entries = (HostEntry(host, host, Via.FLAG) for host in hosts)
    return next((collision.second.address for collision in _collisions_of_hosts(entries, sockets)), None)


def _collisions_of_hosts(hosts: Iterable[HostEntry], sockets: Iterable[Socket]) -> Iterator[Collision]:
    bound = _BoundEndpoints()
    for socket in sockets:
        if socket.unit.load_state == "loaded" and not socket.accept and socket_collision(socket) is None:
            for item in socket.listen:
                if item.kind == "Stream":
                    bound.bind(Claim(item.address, item), item.address,
                               _socket_unit_endpoint(item.address, socket.bind_ipv6_only))
    for host in hosts:
        if host.address.startswith("fd://"):
            continue
        claim = Claim(host.address, host)
        holder = bound.bind(claim, host.address.removeprefix("unix://"), _dockerd_endpoint(host.address))
        if holder is not None:
            yield Collision(holder, claim)


def collisions(hosts: Iterable[HostEntry], sockets: tuple[Socket, ...]) -> Iterator[Collision]:
    """Yield all collisions: within a socket unit, between socket units, and of dockerd's hosts with each other or with
    the sockets."""
    for socket in sockets:
        yield from _collisions_within(socket)
    yield from _collisions_between(sockets)
    yield from _collisions_of_hosts(hosts, sockets)


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


# Each address is asked for several times. The cache holds more than a file may have: a smaller one would not help.
@lru_cache(maxsize=16384)
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
