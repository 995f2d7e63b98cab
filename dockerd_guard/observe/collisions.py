"""Addresses that cannot be listened at together: the second bind(2) says EADDRINUSE, and what wanted it fails.

Unix sockets with a path do not collide: systemd and dockerd both remove what is there first. TCP
addresses do (ip(7), ipv6(7)), by family: systemd's `[::]` takes IPv4 along unless BindIPv6Only= says
otherwise, dockerd's wildcard of either family takes both (Go, favoriteAddrFamily in net/ipsock_posix.go).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.model.address import split_host_port

if TYPE_CHECKING:
    from dockerd_guard.systemd.sockets import Socket


class _Place(NamedTuple):
    """What a listener takes: port and, of each family it takes, the address (`*` for all)."""

    port: str
    addresses: tuple[tuple[int, str], ...]


class _Taken:
    """The places that are taken so far."""

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, int], set[str]] = {}
        self._abstract: set[str] = set()

    def take(self, address: str, place: _Place | None) -> bool:
        """Take a place; says whether it was free."""
        if place is None:
            free = not address.startswith("@") or address not in self._abstract
            self._abstract.add(address)
            return free
        free = True
        for family, one in place.addresses:
            others = self._addresses.setdefault((place.port, family), set())
            free = free and one not in others and "*" not in others and not (one == "*" and others)
            others.add(one)
        return free


def socket_collision(socket: Socket) -> str | None:
    """The first address of a socket unit that another of its own already takes."""
    taken: dict[str, _Taken] = {}
    for item in socket.listen:
        place = _passed(item.address, socket.bind_ipv6_only)
        if not taken.setdefault(item.kind, _Taken()).take(item.address, place):
            return item.address
    return None


def units_collide(sockets: Iterable[Socket]) -> bool:
    """Whether two of these socket units want one address: the one that is started later fails."""
    taken: dict[str, _Taken] = {}
    for socket in sockets:
        if socket_collision(socket) is None and not all(
                taken.setdefault(item.kind, _Taken()).take(item.address, _passed(item.address, socket.bind_ipv6_only))
                for item in socket.listen):
            return True
    return False


def dockerd_collision(hosts: Iterable[str], sockets: Iterable[Socket]) -> str | None:
    """The first of dockerd's own hosts that another, or a socket passed to it, already takes."""
    taken = _Taken()
    for socket in sockets:
        if socket.unit.load_state == "loaded" and not socket.accept and socket_collision(socket) is None:
            for item in socket.listen:
                if item.kind == "Stream":
                    taken.take(item.address, _passed(item.address, socket.bind_ipv6_only))
    for host in hosts:
        if not host.startswith("fd://") and not taken.take(host.removeprefix("unix://"), _own(host)):
            return host
    return None


def _passed(address: str, bind_ipv6_only: str) -> _Place | None:
    """Of a ListenStream=, as the D-Bus property Listen has it."""
    if address.startswith(("/", "@", "vsock")):
        return None
    found = _place(address)
    if found is not None and found.addresses == ((6, "*"),) and bind_ipv6_only != "ipv6-only":
        return found._replace(addresses=((4, "*"), (6, "*")))
    return found


def _own(host: str) -> _Place | None:
    if not host.startswith("tcp://"):
        return None
    found = _place(host)
    if found is not None and found.addresses[0][1] == "*":
        return found._replace(addresses=((4, "*"), (6, "*")))
    return found


def _place(address: str) -> _Place | None:
    host, port = split_host_port(address)
    port = port.partition("%")[0]  # systemd's `[::]:2375%eth0` takes the port on all interfaces
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host)
    except ValueError:
        return None  # what a name means is not in the files
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return _Place(port.lstrip("0"), ((ip.version, "*" if ip.is_unspecified else str(ip)),))
