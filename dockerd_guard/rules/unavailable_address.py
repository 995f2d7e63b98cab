"""DG207: the address is not on this host, or comes up after dockerd at boot."""

from __future__ import annotations

import ipaddress
import re
import sys
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
TITLE = "the address is not on this host, or comes up after dockerd at boot"

_DEFAULT_BRIDGE = "172.17.0.1"
"""The address of docker0 without `bip`: the first of the default address pools (moby libnetwork/ipamutils)."""

_LATE = re.compile("(wg|tun|tap|tailscale|zt|ppp|nordlynx|virbr|lxdbr|br-|docker|podman|cni|flannel|cali|vxlan)")
"""Names of interfaces that a program creates when it starts, which is often later than docker.service."""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each address of docker0, and on a live host for each configured or declared address that
    no network interface has, or that an interface has which comes up late."""
    yield from _of_bridge(seen)
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
    bridge = _bridge_address(seen)
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
        elif local and str(host) != bridge and (interface := late_interface(seen.rootfs, host)):
            yield Finding(
                CODE,
                "warning",
                f"{address} {status} and belongs to {interface}, which may come up after docker.service at boot: "
                "dockerd then cannot bind it and will not start",
                CONFIGURED,
                location,
                None,
                address,
            )


def _of_bridge(seen: Observation) -> Iterator[Finding]:
    """Yield a finding for each host with the address of docker0, which dockerd creates after it has bound its hosts."""
    bridge = _bridge_address(seen)
    for binding in seen.configured.layer.bindings:
        if bridge and binding.is_tcp and binding.via is not Via.SOCKET_UNIT and (
                split_host_port(binding.address)[0] == bridge):
            yield Finding(
                CODE,
                "error",
                f"{binding.address} is the address of docker0, which dockerd creates after it has bound its hosts: "
                "after a boot dockerd cannot bind it and will not start",
                CONFIGURED,
                binding.source,
                None,
                binding.address,
            )


def _bridge_address(seen: Observation) -> str | None:
    """Return the IPv4 address of docker0; None if dockerd uses another bridge or none."""
    daemon = seen.configured.daemon
    names = ("bip", "bridge")
    settings = {key.name: key.value.text for key in daemon.keys if key.name in names and key.inside is None}
    settings |= {flag.name: flag.value for flag in daemon.flags if flag.name in names}
    if settings.get("bridge", "docker0") not in ("", "docker0"):
        return None
    return settings.get("bip", "").partition("/")[0] or _DEFAULT_BRIDGE


def late_interface(rootfs: Rootfs, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    """Return the interface of the network that an IPv4 address of this host is in, if its name is in _LATE."""
    try:
        rows = rootfs.read_table("/proc/net/route").decode("ascii", "replace").splitlines()[1:]
    except (FileNotFoundError, Unreadable):
        return None
    for row in rows:
        # Iface Destination Gateway Flags RefCnt Use Metric Mask ..., numbers in the order of this machine's bytes.
        fields = row.split()
        if len(fields) > 7 and _LATE.match(fields[0]) and address.version == 4:
            network, mask = (int.from_bytes(bytes.fromhex(fields[index]), sys.byteorder) for index in (1, 7))
            if mask and int(address) & mask == network:
                return fields[0]
    return None


def _addresses(rootfs: Rootfs) -> set[str]:
    """Return the addresses of the kernel, from proc(5). Empty if they are unknown or any address can be bound."""
    try:
        if rootfs.read("/proc/sys/net/ipv4/ip_nonlocal_bind").strip() == b"1":
            return set()
        trie = rootfs.read_table("/proc/net/fib_trie").decode("ascii", "replace").split("\n")
    except (FileNotFoundError, Unreadable):
        return set()
    found: set[str] = set()
    for above, line in pairwise(trie):
        # The line after "|-- ADDRESS" is "/32 host LOCAL" if the address belongs to this host.
        if line.strip().startswith("/32 host LOCAL"):
            found.add(above.split()[-1])
    lines = (rootfs.read_if_possible("/proc/net/if_inet6", is_table=True) or b"").decode("ascii", "replace").split("\n")
    found.update(str(ipaddress.IPv6Address(int(line[:32], 16))) for line in lines if line)
    return found
