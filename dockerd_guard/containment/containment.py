"""Block an exposure at the network until it is corrected.

There are two methods. An nftables table of our own rejects only the exposed ports, on every interface but
loopback; containers, their published ports (forwarded, or accepted on other ports) and pulls are not affected.
Without libnftables, systemd filters the IP traffic of docker.service (systemd.resource-control(5),
IPAddressDeny=): this also blocks pulls and docker-proxy, and does not apply to the sockets that PID 1 opened
for docker.socket.

The rules are derived from the exposures and restored at every pass, so they return after a flush of the
ruleset, a reboot or a crash. They stay when the agent stops, so that stopping it opens no port. Removing the
package removes them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.apply import files
from dockerd_guard.model.address import Via
from dockerd_guard.model.names import SERVICE
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.network import Network, Unsupported
from dockerd_guard.plan.exposures import Exposure
from dockerd_guard.plan.memory import Contained
from dockerd_guard.systemd.manager import Manager, Prefix

ANY: tuple[Prefix, ...] = ((socket.AF_INET, bytes(4), 0), (socket.AF_INET6, bytes(16), 0))
LOCALHOST: tuple[Prefix, ...] = (
    (socket.AF_INET, bytes((127, 0, 0, 0)), 8), (socket.AF_INET6, bytes(15) + b"\1", 128))

CONTROL_FILES = tuple(f"/run/systemd/system.control/{SERVICE}.d/50-{name}.conf"
                      for name in ("IPAddressAllow", "IPAddressDeny"))
"""Where systemd stores runtime changes by SetUnitProperties; lost on reboot, like nftables rules."""

CGROUP_V2_FILE = "/sys/fs/cgroup/cgroup.controllers"


class Method(StrEnum):
    """How an exposure is blocked at the network."""

    NFTABLES = "nftables"
    IP_ADDRESS_DENY = "IPAddressDeny="


class ContainmentResult(NamedTuple):
    """Changes in one pass: newly blocked, restored, released and newly unblockable exposures."""

    way: Method | None = None
    cut: tuple[Exposure, ...] = ()
    put_back: tuple[Exposure, ...] = ()
    """Was blocked, and another program had removed the block."""
    released: tuple[str, ...] = ()
    left_open: tuple[Exposure, ...] = ()
    reason: str = ""
    """Why these are left open, or why IPAddressDeny= is used."""
    reopened_s: float = 0.0
    """How long those that were put back were not blocked."""


def _with(now: Contained, method: Method, cut: tuple[Exposure, ...]) -> Contained:
    methods = now.methods if method in now.methods else (*now.methods, str(method))
    return Contained(methods, tuple(exposure.address for exposure in cut))


def _on_host(wanted: tuple[Exposure, ...]) -> tuple[Exposure, ...]:
    return tuple(exposure for exposure in wanted if not exposure.namespace)


class Containment:
    """What is blocked at the network of this host, by one nftables table or by the filter of one unit."""

    def __init__(
        self, contained: Contained, network: Network, remember: Callable[[Contained], None],
        reopened: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """`contained` is what an earlier process blocked; `remember` stores each change of it. `reopened` is called
        with the seconds for which another program had removed the block."""
        self._network = network
        self._now = contained
        self._store = remember
        self._reopened = reopened
        self._reopened_s = 0.0
        """How long what is blocked was not, since the last result."""
        self._checked_at = 0.0
        """When the table was last known to be in force (time.monotonic())."""
        self._wanted: tuple[Exposure, ...] = ()
        self._is_known = False
        """Whether it is known which table is in force."""
        self._applied: tuple[Rejection, ...] = ()
        self._shown = ""
        self._is_filtered = False
        self._was_changed = False
        self._elsewhere: frozenset[str] = frozenset()
        """Addresses in other network namespaces that were reported as open."""
        # What an earlier process blocked is reported again, and so is its end.
        self._reported: dict[str, Method | str | None] = dict.fromkeys(contained.addresses, "by an earlier agent")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The blocked addresses, as recorded."""
        return self._now.addresses

    @property
    def is_by_nftables(self) -> bool:
        """Whether the nftables table is in use."""
        return Method.NFTABLES in self._now.methods

    def restore(self) -> None:
        """Put back at once what was blocked last."""
        self.block_unreported(self._wanted)

    def block_unreported(self, wanted: tuple[Exposure, ...]) -> tuple[Exposure, ...]:
        """Block these by nftables only, which affects nothing else, and return those that are blocked. The next result
        reports them."""
        if wanted := _on_host(wanted):
            with contextlib.suppress(Unsupported):
                self._by_nftables(wanted)
                return wanted
        return ()

    def block_at_once(self, wanted: tuple[Exposure, ...]) -> ContainmentResult:
        """Block these by nftables only; `keep` follows."""
        blocked = self.block_unreported(wanted)
        return self._result(Method.NFTABLES, blocked, blocked, "") if blocked else ContainmentResult()

    def with_blocked(self, wanted: tuple[Exposure, ...], addresses: Collection[str]) -> tuple[Exposure, ...]:
        """These and those of the addresses that are blocked already, also by an earlier process."""
        blocked = {address: Exposure(address, "DG107", Via.FLAG, (), True) for address in self.addresses
                   if address in addresses}
        blocked.update((exposure.address, exposure) for exposure in self._wanted if exposure.address in addresses)
        known = {exposure.address for exposure in wanted if not exposure.namespace}
        return (*wanted, *(exposure for address, exposure in blocked.items() if address not in known))

    def add(self, wanted: tuple[Exposure, ...]) -> ContainmentResult:
        """Block these, which include what is blocked already, while systemd cannot be queried. Releases nothing.

        Raises Unsupported where one of them stays open.
        """
        wanted = _on_host(wanted)
        if not wanted:
            return ContainmentResult()
        try:
            self._by_nftables(wanted)
        except Unsupported:
            if all(exposure.address in self.addresses for exposure in wanted):
                # systemd's filter stays in force without D-Bus.
                return ContainmentResult()
            raise
        return self._result(Method.NFTABLES, wanted, wanted, "")

    def keep(self, wanted: tuple[Exposure, ...], manager: Manager) -> ContainmentResult:
        """Block exactly these, except for those in other network namespaces.

        Raises OSError, and Unsupported if an existing block cannot be removed.
        """
        elsewhere = {exposure.address: exposure for exposure in wanted if exposure.namespace}
        new = tuple(exposure for address, exposure in elsewhere.items() if address not in self._elsewhere)
        result = self._keep(_on_host(wanted), manager)
        self._elsewhere = frozenset(elsewhere)
        return result._replace(left_open=(*result.left_open, *new))

    def _keep(self, wanted: tuple[Exposure, ...], manager: Manager) -> ContainmentResult:
        if not wanted:
            self._wanted = ()
            if not self._is_known and not self.is_by_nftables:
                # A table whose record was lost, on a full disk say, would stay for ever.
                with contextlib.suppress(Unsupported):
                    self._network.release()
                    self._is_known = True
            for way in self._now.methods:
                self._lift(way, manager)
            released = tuple(address for address, by in self._reported.items() if by is not None)
            self._reported, self._was_changed = {}, False
            return ContainmentResult(released=released)
        reason = ""
        try:
            self._by_nftables(wanted)
            way, cut = Method.NFTABLES, wanted
        except Unsupported as error:
            way, cut, reason = Method.IP_ADDRESS_DENY, self._by_systemd(wanted, manager), str(error)
        for other in self._now.methods:
            # A table that covers more than the filter stays, although nothing can check it.
            if (other != way and cut == wanted) or not cut:
                # If this fails, both methods stay in force, which opens nothing.
                with contextlib.suppress(Unsupported):
                    self._lift(other, manager)
        return self._result(way, wanted, cut, reason)

    def _result(
        self, way: Method, wanted: tuple[Exposure, ...], cut: tuple[Exposure, ...], reason: str
    ) -> ContainmentResult:
        outcome = {exposure.address: way if exposure in cut else None for exposure in wanted}
        new = tuple(exposure for exposure in wanted
                    if self._reported.get(exposure.address, "") != outcome[exposure.address])
        released = tuple(address for address, by in self._reported.items() if by is not None and address not in outcome)
        was_changed, self._was_changed = self._was_changed, False
        reopened_s, self._reopened_s = self._reopened_s, 0.0
        self._reported = {**outcome}
        return ContainmentResult(way, tuple(exposure for exposure in new if exposure in cut),
                      tuple(exposure for exposure in wanted if was_changed and exposure not in new), released,
                      tuple(exposure for exposure in new if exposure not in cut), reason, reopened_s)

    def _remember(self, now: Contained) -> None:
        """Update the record: a method is in it from before it is in force until after it is removed."""
        if now != self._now:
            self._now = now
            self._store(now)

    def _by_nftables(self, wanted: tuple[Exposure, ...]) -> None:
        """Install the table unless it is in force unchanged."""
        self._wanted, self._is_known = wanted, True
        rejections = tuple(exposure.rejection for exposure in wanted)
        looked_at = time.monotonic()
        shown = self._network.shown()
        changed_at = self._network.changed_at()
        self._remember(_with(self._now, Method.NFTABLES, wanted))
        if rejections == self._applied and shown == self._shown:
            self._checked_at = looked_at
            return
        shown_then = self._network.reject(rejections)
        if self._shown and shown != self._shown:
            self._was_changed = True
            since = looked_at if changed_at is None else min(max(changed_at, self._checked_at), looked_at)
            self._reopened(time.monotonic() - since)
            self._reopened_s += time.monotonic() - since
        self._applied, self._shown, self._checked_at = rejections, shown_then, time.monotonic()

    def _by_systemd(self, wanted: tuple[Exposure, ...], manager: Manager) -> tuple[Exposure, ...]:
        """Set the filter. Returns the exposures that it blocks."""
        cut = tuple(exposure for exposure in wanted
                    if exposure.via is not Via.SOCKET_UNIT and exposure.is_of_docker_service)
        # The filter is a BPF program on the unit's cgroup, which systemd attaches only on cgroup v2.
        if not cut or not os.path.exists(CGROUP_V2_FILE):
            return ()
        self._remember(_with(self._now, Method.IP_ADDRESS_DENY, cut))
        in_force = tuple(map(frozenset, manager.ip_filter(SERVICE)))
        if in_force != (frozenset(LOCALHOST), frozenset(ANY)) or not all(map(os.path.exists, CONTROL_FILES)):
            manager.set_ip_filter(SERVICE, LOCALHOST, ANY)
            if tuple(map(frozenset, manager.ip_filter(SERVICE))) != (frozenset(LOCALHOST), frozenset(ANY)):
                return ()
            self._was_changed |= self._is_filtered
            self._is_filtered = True
        return cut

    def _lift(self, way: str, manager: Manager) -> None:
        if way == Method.NFTABLES:
            self._network.release()
            self._applied, self._shown, self._is_known = (), "", True
        else:
            # The directory stays until the end: watchdog 6 raises KeyError where one that somebody has open, as this
            # pass has, is removed, made again and removed again (the kernel reports the removals in the other order).
            for path in CONTROL_FILES:
                files.remove(path, keeps_directory=True)
            manager.reload()
            # systemd 257 applies a filter from a reload only when the unit starts. Set the filter of the
            # administrator's files directly, and remove the runtime files again so that they do not override it.
            manager.set_ip_filter(SERVICE, *manager.ip_filter(SERVICE))
            for path in CONTROL_FILES:
                files.remove(path)
            self._is_filtered = False
        methods = tuple(each for each in self._now.methods if each != way)
        self._remember(Contained(methods, self._now.addresses if methods else ()))
