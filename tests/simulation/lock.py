"""The lock service of a fleet, of which the simulated host is one. It may be full, stopped, gone, or forget a slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockerd_guard.fleet.lock import Fault, GroupState, Host, LockError, Slot
from dockerd_guard.policy.model import Fleet, LockKind

if TYPE_CHECKING:
    from tests.simulation.host import SimulatedHost


class LockService:
    """Its state, as far as this host has to do with it."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        """What it answers to a request for a slot."""
        self.is_gone = False
        """It answers no request at all."""
        self.forgets = ""
        """When it forgets the slot of this host: `before` the restart, `during` it, or never."""
        self.slot: Slot | None = None
        self.stopped = ""
        self.requests: list[str] = []
        self.had: list[tuple[float, float | None]] = []
        """From when to when this host had a slot."""

    def had_slot(self, at: float) -> bool:
        """Whether this host had a slot at this moment."""
        return any(begin <= at and (end is None or at <= end) for begin, end in self.had)


class SimulatedLock:
    """The requests of one agent, or of `fix`."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._service = host.lock

    def _request(self, what: str) -> None:
        self._host.tick()
        if self._service.is_gone:
            self._host.clock.sleep(2.0)
            raise LockError(Fault.UNREACHABLE, "the lock service does not answer", "Check it: timed out")
        self._service.requests.append(what)
        self._host.clock.sleep(0.01)

    def acquire(self, fleet: Fleet, host: Host) -> Slot:
        self._request("acquire")
        fault = Fault.STOPPED if self._service.stopped and fleet.lock is LockKind.ETCD else self._service.fault
        if fault is not None and self._service.slot is None:
            raise LockError(fault, f"the lock service says {fault}", "Wait")
        if self._service.slot is None:
            by_etcd = (0, 7, len(self._service.had) + 1) if fleet.lock is LockKind.ETCD else ()
            self._service.slot = Slot(fleet.group, host.id, *by_etcd)
            self._service.had.append((self._host.clock.seconds, None))
            if self._service.forgets == "before":
                self._host.clock.call_in(0.001, self._forget)
        self._host.tick()
        return self._service.slot

    def still(self, fleet: Fleet, slot: Slot) -> bool:
        self._request("still")
        return self._service.slot == slot

    def release(self, fleet: Fleet, slot: Slot) -> bool:
        self._request("release")
        was_ours = self._service.slot == slot and self._service.forgets != "during"
        if self._service.slot == slot:
            self._forget()
        self._host.tick()
        return was_ours

    def _forget(self) -> None:
        self._service.forgets = ""
        if self._service.slot is not None:
            self._service.slot = None
            self._service.had[-1] = (self._service.had[-1][0], self._host.clock.seconds)

    def stop(self, fleet: Fleet, host: Host, reason: str) -> None:
        self._request("stop")
        self._service.stopped = reason

    def resume(self, fleet: Fleet, slot: Slot | None) -> None:
        self._request("resume")
        self._service.stopped = ""
        if slot is not None:
            self._forget()

    def state(self, fleet: Fleet) -> GroupState:
        self._request("state")
        return GroupState()
