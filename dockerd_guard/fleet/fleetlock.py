"""FleetLock, the protocol of zincati: reboots and restarts of Docker share the slots of a group.

https://coreos.github.io/zincati/development/fleetlock/protocol/. The server decides how many slots a group has, and
forgets no holder by itself. Requests do not name the host, only its ID.
"""

from __future__ import annotations

import re

from dockerd_guard.fleet.http import ENDPOINTS_KEY, Reply, Service
from dockerd_guard.fleet.lock import Fault, GroupState, Host, LockError, Slot, shown
from dockerd_guard.model.json_values import JsonError, as_str, get

ACQUIRE, RELEASE = "v1/pre-reboot", "v1/steady-state"

HEADERS = {"fleet-lock-protocol": "true"}

MAX_TRIES = 5
"""Requests while another host changes the semaphore at the same time."""

OK, BAD_REQUEST, SERVER_ERROR = 200, 400, 500

_PLAIN = re.compile(rb"[ -;=-~\r\n\t][ -~\r\n\t]{0,255}")


class FleetLock:
    """One FleetLock service. Every method raises LockError."""

    def __init__(self, service: Service, group: str, host_id: str) -> None:
        self._service = service
        self._group = group
        self._id = host_id

    def acquire(self, host: Host) -> Slot:
        for _ in range(MAX_TRIES):
            reply = self._post(ACQUIRE)
            if _is_success(reply):
                return Slot(self._group, self._id)
            kind, value = _error(reply)
            # airlock answers 500 both for a full semaphore and for a host that changed it at the same time.
            if kind.startswith("failed_lock") and "conflict" in value:
                continue
            raise self._refusal(reply.status, kind, value)
        raise LockError(Fault.FULL, self._full, "Wait")

    def still(self, slot: Slot, *, renew: bool = True) -> bool:
        """A host that has a slot may ask for it again. There are no leases to renew."""
        try:
            self.acquire(Host(self._id, "", ""))
        except LockError as error:
            if error.fault is Fault.FULL:
                return False
            raise
        return True

    def release(self, slot: Slot) -> bool:
        reply = self._post(RELEASE)
        if not _is_success(reply):
            raise self._refusal(reply.status, *_error(reply))
        return True

    def stop(self, host: Host, reason: str) -> None:
        """The slot is kept: the protocol has nothing else that other hosts would see."""

    def resume(self, slot: Slot | None) -> None:
        if slot is not None:
            self.release(slot)

    def state(self) -> GroupState:
        return GroupState(shows_members=False)

    @property
    def _full(self) -> str:
        return f"all slots of the group {self._group} are taken"

    def _post(self, path: str) -> Reply:
        return self._service.post(path, {"client_params": {"id": self._id, "group": self._group}}, HEADERS)

    def _refusal(self, status: int, kind: str, value: str) -> LockError:
        if kind.startswith("failed_lock"):
            return LockError(Fault.FULL, self._full, "Wait; the lock service knows which hosts have them")
        said = f"HTTP status {status}" + (f", {shown(kind)}" if kind else "")
        if status >= SERVER_ERROR:
            return LockError(Fault.UNREACHABLE, f"the lock service in {ENDPOINTS_KEY} is not available",
                             f"Check its log: {said}")
        if status == BAD_REQUEST and kind:
            return LockError(Fault.INVALID, f"the lock service refuses the group {self._group}: {said}",
                             "Correct correct.fleet.group in the policy, or configure the group in the service")
        return LockError(Fault.INVALID, f"{ENDPOINTS_KEY} does not answer as FleetLock: {said}",
                         f"Correct {ENDPOINTS_KEY} or correct.fleet.lock in the policy")


def _is_success(reply: Reply) -> bool:
    """Whether the service agreed. The protocol leaves the body open; a page of some other server is no agreement."""
    return reply.status == OK and (
        reply.data is not None or not reply.content or _PLAIN.fullmatch(reply.content) is not None)


def _error(reply: Reply) -> tuple[str, str]:
    """`kind` and `value` of an answer, empty without."""
    try:
        data = reply.data or {}
        return get(data, "kind", as_str, ""), get(data, "value", as_str, "")
    except JsonError:
        return "", ""
