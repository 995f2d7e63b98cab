"""DG207: the address is not on this host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import pairwise

from dockerd_guard.model.address import Scope, Via, scope_of, split_host_port
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules._common import declared_places

CODE = "DG207"
TITLE = "the address is not on this host"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each configured or declared address that no interface has. On a live host only."""
    if seen.running is None and seen.loaded is None:
        return
    wanted: dict[str, tuple[Location | None, str]] = {}
    if policy is not None:
        wanted |= {
            place.address: (place.location, "is declared") for place in declared_places(policy).values()
        }
    wanted |= {
        binding.address: (binding.source, "is configured")
        for binding in seen.configured.layer.bindings
        if binding.via is not Via.SOCKET_UNIT
    }
    local: set[str] | None = None
    for address, (location, said) in wanted.items():
        if scope_of(address) is not Scope.ADDRESS or not address.startswith("tcp://"):
            continue
        try:
            host = ipaddress.ip_address(split_host_port(address)[0])
        except ValueError:
            continue  # a name: what it resolves to is not in the text
        if local is None:
            local = _addresses(seen.rootfs)
        if local and str(host) not in local:
            yield Finding(
                CODE,
                "error",
                f"{address} {said}, but no interface of this host has {host}: dockerd would not start",
                CONFIGURED,
                location,
                None,
                address,
            )


def _addresses(rootfs: Rootfs) -> set[str]:
    """What the kernel has, from proc(5); empty where that is not told or any address may be bound."""
    try:
        if rootfs.read("/proc/sys/net/ipv4/ip_nonlocal_bind").strip() == b"1":
            return set()
        trie = rootfs.read("/proc/net/fib_trie").decode("ascii", "replace").split("\n")
    except (FileNotFoundError, Unreadable):
        return set()
    found: set[str] = set()
    for above, line in pairwise(trie):
        # A leaf "|-- ADDRESS" is followed by "/32 host LOCAL" for an address of this host.
        if line.strip().startswith("/32 host LOCAL"):
            found.add(above.split()[-1])
    try:
        lines = rootfs.read("/proc/net/if_inet6").decode("ascii", "replace").split("\n")
    except (FileNotFoundError, Unreadable):
        lines = []
    found.update(str(ipaddress.IPv6Address(int(line[:32], 16))) for line in lines if line)
    return found
