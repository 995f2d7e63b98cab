"""FleetLock, the protocol of zincati: reboots and restarts of Docker share the slots of a group.

https://coreos.github.io/zincati/development/fleetlock/protocol/. The server decides how many slots a group has, and
forgets no holder by itself. Requests do not name the host, only its ID.
"""

from __future__ import annotations

import re

from dockerd_guard.fleet.http import ENDPOINTS_KEY, Reply, Service
from dockerd_guard.fleet.lock import Fault, GroupState, Host, LockError, Slot, shown
from dockerd_guard.model.json_values import JsonError, JsonObject, as_str, get

ACQUIRE, RELEASE = "v1/pre-reboot", "v1/steady-state"

HEADERS = {"fleet-lock-protocol": "true"}

MAX_TRIES = 5
"""Requests while another host changes the semaphore at the same time."""

OK, BAD_REQUEST, CONFLICT, LOCKED, SERVER_ERROR = 200, 400, 409, 423, 500
REFUSED = (401, 403)

# Services name a full semaphore in different ways: 500 failed_lock "all 2 semaphore slots currently locked" (airlock),
# 423 locked (poseidon/fleetlock), 423 all_slots_full (heathcliff26/fleetlock), 409 failed_lock (knubbis-fleetlock),
# failed_lock_semaphore_full (the protocol's example).
_FULL = re.compile(r"\ball\b.*\bslots?\b")
# The same `failed_lock` has an error of the etcd behind airlock, after which the slot may be this host's or not.
_UNAVAILABLE = re.compile(r"context (deadline exceeded|canceled)|etcdserver: |rpc error: |connection ")

_PLAIN = re.compile(rb"[ -;=-Z\\^-z|}~][ -~\r\n\t]{0,255}")
"""Text that begins like neither a page nor JSON."""

_ERROR_KIND = re.compile(r"fail|error|full|invalid|missing|unknown|denied|bad_|not_", re.IGNORECASE)


class FleetLock:
    """One FleetLock service. Every method raises LockError."""

    def __init__(self, service: Service, group: str, host_id: str) -> None:
        self._service = service
        self._group = group
        self._id = host_id

    def acquire(self, host: Host) -> Slot:
        if (refusal := self._refused(ACQUIRE)) is None:
            return Slot(self._group, self._id)
        kind, value = _error(refusal)
        if _is_conflict(kind, value):
            raise LockError(Fault.FULL, self._full, "Wait")
        raise self._refusal(refusal.status, kind, value)

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
        if (refusal := self._refused(RELEASE)) is None:
            return True
        kind, value = _error(refusal)
        if kind and refusal.status >= SERVER_ERROR:
            raise LockError(
                Fault.UNREACHABLE, f"the lock service does not take back the slot of the group {self._group}",
                f"Check its log: {_said(refusal.status, kind)}")
        raise self._refusal(refusal.status, kind, value)

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

    def _refused(self, path: str) -> Reply | None:
        """The answer that refuses a request, None if the service agrees.

        airlock answers 500 also where another host changed the semaphore at the same time: that is asked again at once.
        """
        for _ in range(MAX_TRIES):
            reply = self._service.post(path, {"client_params": {"id": self._id, "group": self._group}}, HEADERS)
            if _is_success(reply):
                return None
            if not _is_conflict(*_error(reply)):
                break
        return reply

    def _refusal(self, status: int, kind: str, value: str) -> LockError:
        said = _said(status, kind)
        if _is_full(status, kind, value):
            return LockError(Fault.FULL, self._full, "Wait; the lock service knows which hosts have them")
        if kind.startswith("failed_lock") and not _UNAVAILABLE.search(value):
            return LockError(Fault.INVALID, f"the lock service gives no slot of the group {self._group}: {said}",
                             "Check its log; if it does not know the group, correct correct.fleet.group in the policy")
        if status >= SERVER_ERROR:
            return LockError(Fault.UNREACHABLE, f"the lock service in {ENDPOINTS_KEY} is not available",
                             f"Check its log: {said}")
        if status in REFUSED:
            return LockError(Fault.TLS, f"the lock service refuses this host: {said}",
                             "Correct correct.fleet.tls, or the access rules of the service")
        if status == BAD_REQUEST and kind:
            what, more = ("group", ", or configure the group in the service") if "group" in kind else (
                "request for the group", f"; a proxy in {ENDPOINTS_KEY} must pass on the header fleet-lock-protocol")
            return LockError(Fault.INVALID, f"the lock service refuses the {what} {self._group}: {said}",
                             f"Correct correct.fleet.group in the policy{more}")
        return LockError(Fault.INVALID, f"{ENDPOINTS_KEY} does not answer as FleetLock: {said}",
                         f"Correct {ENDPOINTS_KEY} or correct.fleet.lock in the policy")


def _said(status: int, kind: str) -> str:
    return f"HTTP status {status}" + (f", {shown(kind)}" if kind else "")


def _is_conflict(kind: str, value: str) -> bool:
    return kind.startswith("failed_lock") and "conflict" in value


def _is_full(status: int, kind: str, value: str) -> bool:
    return bool(kind) and (status in (CONFLICT, LOCKED) or "full" in kind
                           or (kind.startswith("failed_lock") and _FULL.search(value) is not None))


def _is_success(reply: Reply) -> bool:
    """Whether the service agreed. The protocol leaves the body open: known services send none, text or an object, and
    others may send `null` or `true`. A page of some other server, damaged JSON, `false` and an error are no agreement.
    """
    if reply.status != OK:
        return False
    if reply.data is not None:
        return "error" not in reply.data and not _ERROR_KIND.search(_text(reply.data, "kind"))
    text = reply.content.strip()
    return not text or (text != b"false" and _PLAIN.fullmatch(text) is not None)


def _error(reply: Reply) -> tuple[str, str]:
    """`kind` and `value` of an answer that refuses, empty without."""
    data = reply.data if reply.data is not None and reply.status != OK else {}
    return _text(data, "kind"), _text(data, "value")


def _text(data: JsonObject, key: str) -> str:
    try:
        return get(data, key, as_str, "")
    except JsonError:
        return ""
