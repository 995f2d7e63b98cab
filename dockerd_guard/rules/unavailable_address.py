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
    """Yield one finding for each configured or declared address that no network interface has. Live hosts only."""
    if seen.running is None and seen.loaded is None:
        return
    wanted: dict[str, tuple[Location | None, str]] = {}
    if policy is not None:
        wanted |= {
            declared.address: (declared.location, "is declared") for declared in declared_places(policy).values()
        }
    wanted |= {
        binding.address: (binding.source, "is configured")
        for binding in seen.configured.layer.bindings
        if binding.via is not Via.SOCKET_UNIT
    }
    local: set[str] | None = None
    for address, (location, status) in wanted.items():
        if scope_of(address) is not Scope.ADDRESS or not address.startswith("tcp://"):
            continue
        try:
            host = ipaddress.ip_address(split_host_port(address)[0])
        except ValueError:
            continue  # a host name: it is not resolved
        if local is None:
            local = _addresses(seen.rootfs)
        if local and str(host) not in local:
            yield Finding(
                CODE,
                "error",
                f"{address} {status}, but no network interface has {host}: dockerd cannot bind it and will not start",
                CONFIGURED,
                location,
                None,
                address,
            )


def _addresses(rootfs: Rootfs) -> set[str]:
    """Return the addresses of the kernel, from proc(5). Empty if they are unknown or any address can be bound."""
    try:
        if rootfs.read("/proc/sys/net/ipv4/ip_nonlocal_bind").strip() == b"1":
            return set()
        trie = rootfs.read("/proc/net/fib_trie").decode("ascii", "replace").split("\n")
    except (FileNotFoundError, Unreadable):
        return set()
    found: set[str] = set()
    for above, line in pairwise(trie):
        # The line after "|-- ADDRESS" is "/32 host LOCAL" if the address belongs to this host.
        if line.strip().startswith("/32 host LOCAL"):
            found.add(above.split()[-1])
    lines = (rootfs.read_if_possible("/proc/net/if_inet6") or b"").decode("ascii", "replace").split("\n")
    found.update(str(ipaddress.IPv6Address(int(line[:32], 16))) for line in lines if line)
    return found
