"""Slots in etcd, by the JSON gateway of its v3 API (etcd 3.4 or later, https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/).

    dockerd-guard/v1/GROUP/slot/0 .. N-1     {"id", "host", "since", "boot"}, under the lease of the host that has it
    dockerd-guard/v1/GROUP/waiting/ID        {"host", "since"}, under a lease
    dockerd-guard/v1/GROUP/duration          {"seconds"} that the last host had its slot, by that host's clock
    dockerd-guard/v1/GROUP/stop              {"host", "reason", "since"}, without a lease

Leases are counted by etcd's clock. That of a host is only shown.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.fleet.http import ENDPOINTS_KEY, Reply, Service
from dockerd_guard.fleet.lock import (
    LONGEST_WAIT_S,
    MAX_REASON_CHARACTERS,
    Fault,
    GroupState,
    Host,
    LockError,
    Member,
    Slot,
    Stop,
    shown,
)
from dockerd_guard.model.json_values import (
    JsonError,
    JsonObject,
    as_bool,
    as_bytes,
    as_list,
    as_object,
    as_str,
    get,
    loads,
)

ROOT = "dockerd-guard/v1"

WAITING_S = 180
"""How long a host is shown as waiting, besides some times what it is expected to wait."""

WAITING_FACTOR = 3

DEFAULT_DURATION_S = 5
"""What a host is expected to have its slot, in a group where none has given back a slot yet."""

MAX_DURATION_S = 600

MAX_SHOWN = 5
"""How many hosts with a slot a message names; `dockerd-guard fleet` shows all."""

MAX_ROUNDS = 3
"""How often it is looked for a free slot again, while other hosts take them at the same time."""

NOT_FOUND = 404

BUSY = (408, 429, 499)
"""Statuses of a member that stops ("grpc: the client connection is closing") or has too many requests (grpc-gateway,
HTTPStatusFromCode)."""


class _Pair(NamedTuple):
    """A key, and its value as an object, which is empty where it is none of ours."""

    key: str
    value: JsonObject
    revision: int
    lease: int


class _Group(NamedTuple):
    """What a host reads of its group in one request, whose answer does not grow with the hosts that wait.

    The queue is in the order of the host IDs. A host that finds a free slot takes it whatever its place is.
    """

    slots: tuple[_Pair, ...]
    stop: tuple[_Pair, ...]
    duration: tuple[_Pair, ...]
    waiting: tuple[_Pair, ...]
    """This host's own key, if it waits."""
    ahead: int
    """Hosts that wait before this one."""


class Etcd:
    """One etcd cluster. Every method raises LockError."""

    def __init__(self, service: Service, group: str, slots: int, lease_s: int) -> None:
        self._service = service
        self._group = group
        self._prefix = f"{ROOT}/{group}/"
        self._slots = slots
        self._lease_s = lease_s

    def acquire(self, host: Host) -> Slot:
        group, lease = self._group_of(self._post("kv/txn", {"success": self._reads(host)}), host), 0
        for _ in range(MAX_ROUNDS):
            self._check_stop(group.stop)
            taken = {_number(pair): pair for pair in group.slots}
            if (own := next((pair for pair in group.slots if pair.value.get("id") == host.id), None)) is not None:
                slot = self._own(own, host)
                if self._is_renewed(slot.lease):
                    return slot
                raise LockError(Fault.FULL, f"the lease of this host's slot of the group {self._group} ends", "Wait")
            free = [number for number in range(self._slots) if number not in taken]
            if not free or len(taken) >= self._slots:
                break
            # Hosts that ask at the same time begin with different slots.
            number = min(free, key=lambda number: zlib.crc32(f"{host.id} {number}".encode()))
            lease = lease or self._grant(self._lease_s)
            taking = self._take(number, lease, host)
            if isinstance(taking, Slot):
                return taking
            group = taking
        raise self._full(host, group)

    def still(self, slot: Slot, *, renew: bool = True) -> bool:
        return (not renew or self._is_renewed(slot.lease)) and self._is_ours(slot)

    def release(self, slot: Slot) -> bool:
        # The lease, which keeps nothing any more, ends by itself.
        key = f"{self._prefix}slot/{slot.number}"
        success: list[dict[str, object]] = [{"request_delete_range": {"key": _encoded(key)}}]
        if seconds := _seconds_since(slot.since):
            success.append({"request_put": _pair_of(f"{self._prefix}duration", {"seconds": seconds})})
        return self._succeeded(self._post("kv/txn", {"compare": [_compare(key, slot.revision)], "success": success}))

    def stop(self, host: Host, reason: str) -> None:
        value = {"host": host.name, "reason": shown(reason, MAX_REASON_CHARACTERS), "since": _now()}
        self._change("kv/put", _pair_of(f"{self._prefix}stop", value))

    def resume(self, slot: Slot | None) -> None:
        self._change("kv/deleterange", {"key": _encoded(f"{self._prefix}stop")})
        if slot is not None:
            self.release(slot)

    def state(self) -> GroupState:
        pairs = self._pairs()
        return GroupState(self._members("slot", pairs), self._members("waiting", pairs), self._stop(pairs))

    # --- parts ----------------------------------------------------------------------------

    def _members(self, kind: str, pairs: tuple[_Pair, ...]) -> tuple[Member, ...]:
        """The hosts with a slot by its number, or those that wait by their time."""
        found = (_member(pair) for pair in pairs if pair.key.startswith(f"{self._prefix}{kind}/"))
        return tuple(sorted(found, key=lambda member: (member.number, member.since, member.host)))

    def _own(self, pair: _Pair, host: Host) -> Slot:
        """The slot that this host has: an agent was killed, or another host has the same ID."""
        if (pair.value.get("boot"), pair.value.get("host")) == (host.boot, host.name):
            return Slot(self._group, host.id, _number(pair), pair.lease, pair.revision, _text(pair.value, "since"))
        if _text(pair.value, "host") == shown(host.name):
            raise LockError(Fault.FULL, f"this host has a slot of the group {self._group} from before its reboot",
                            "Wait until its lease has ended")
        raise LockError(
            Fault.INVALID, f"the host {_text(pair.value, 'host')} has the same machine ID, and a slot",
            "Give one of them another: remove /etc/machine-id, run `systemd-machine-id-setup`, and reboot")

    def _full(self, host: Host, group: _Group) -> LockError:
        known = next((pair.value.get("seconds") for pair in group.duration), None)
        seconds = known if isinstance(known, int) and 1 <= known <= MAX_DURATION_S else DEFAULT_DURATION_S
        expected_s = (group.ahead + 1) / self._slots * seconds
        if not group.waiting:
            self._wait(host, expected_s)
        taken = self._members("slot", group.slots[:MAX_SHOWN])
        holders = ", ".join(f"{member.host} since {member.since}" for member in taken)
        if more := len(group.slots) - len(taken):
            holders += f" and {more} more"
        return LockError(
            Fault.FULL, f"all {self._slots} slots of the group {self._group} are taken",
            f"Wait; {holders or 'other hosts'} restart{'s' * (len(group.slots) == 1)} dockerd", expected_s, group.ahead)

    def _wait(self, host: Host, expected_s: float) -> None:
        """Show that this host waits."""
        lease = self._grant(int(WAITING_S + WAITING_FACTOR * min(expected_s, LONGEST_WAIT_S)))
        self._change("kv/put", _pair_of(
            f"{self._prefix}waiting/{host.id}", {"host": host.name, "since": _now()}, lease))

    def _take(self, number: int, lease: int, host: Host) -> Slot | _Group:
        """Take a slot in one transaction, which the group's stop prevents too; or return what prevented it."""
        key, since = f"{self._prefix}slot/{number}", _now()
        value = {"id": host.id, "host": host.name, "since": since, "boot": host.boot}
        reply = self._post("kv/txn", {
            "compare": [_compare(key, 0), _compare(f"{self._prefix}stop", 0)],
            "success": [{"request_put": _pair_of(key, value, lease)},
                        {"request_delete_range": {"key": _encoded(f"{self._prefix}waiting/{host.id}")}}],
            "failure": self._reads(host)})
        if not self._succeeded(reply):
            return self._group_of(reply, host)
        revision = _number_of(_object(reply, "header"), "revision")
        if not revision:
            raise self._not_etcd("no revision")
        return Slot(self._group, host.id, number, lease, revision, since)

    def _reads(self, host: Host) -> list[dict[str, object]]:
        """Operations of a transaction: the parts of _Group."""
        slots, waiting, own = f"{self._prefix}slot/", f"{self._prefix}waiting/", f"{self._prefix}waiting/{host.id}"
        return [{"request_range": each} for each in (
            {"key": _encoded(slots), "range_end": _end(slots)},
            {"key": _encoded(f"{self._prefix}stop")},
            {"key": _encoded(f"{self._prefix}duration")},
            {"key": _encoded(own)},
            {"key": _encoded(waiting), "range_end": _encoded(own), "count_only": True})]

    def _group_of(self, reply: JsonObject, host: Host) -> _Group:
        """What self._reads() found."""
        _object(reply, "header")
        try:
            answers = [get(each, "response_range", as_object) for each in get(reply, "responses", as_list(as_object))]
            slots, stop, duration, waiting, before = answers
        except (JsonError, ValueError):
            raise self._not_etcd("an unknown answer") from None
        return _Group(self._found(slots), self._found(stop), self._found(duration), self._found(waiting),
                      _number_of(before, "count"))

    def _succeeded(self, reply: JsonObject) -> bool:
        _object(reply, "header")
        try:
            return get(reply, "succeeded", as_bool, default=False)
        except JsonError:
            raise self._not_etcd("an unknown answer") from None

    def _is_renewed(self, lease: int) -> bool:
        """Renew a lease. etcd answers 200 without TTL for one that has expired (etcd-io/etcd#7330)."""
        return _number_of(_object(self._post("lease/keepalive", {"ID": str(lease)}), "result"), "TTL") > 0

    def _is_ours(self, slot: Slot) -> bool:
        found = self._range({"key": _encoded(f"{self._prefix}slot/{slot.number}")})
        return any(pair.revision == slot.revision and pair.lease == slot.lease for pair in found)

    def _grant(self, seconds: int) -> int:
        lease = _number_of(self._post("lease/grant", {"TTL": str(seconds)}), "ID")
        if not lease:
            raise self._not_etcd("no lease")
        return lease

    def _check_stop(self, pairs: tuple[_Pair, ...]) -> None:
        if (stop := self._stop(pairs)) is not None:
            raise LockError(Fault.STOPPED, f"the group {self._group} was stopped by {stop.host}: {stop.reason}",
                            f"Check Docker on {stop.host}, then run `dockerd-guard fleet resume` on any host")

    def _stop(self, pairs: tuple[_Pair, ...]) -> Stop | None:
        value = next((pair.value for pair in pairs if pair.key == f"{self._prefix}stop"), None)
        return None if value is None else Stop(
            _text(value, "host"), shown(_any_text(value, "reason"), MAX_REASON_CHARACTERS), _text(value, "since"))

    def _pairs(self) -> tuple[_Pair, ...]:
        return self._range({"key": _encoded(self._prefix), "range_end": _end(self._prefix)})

    def _range(self, request: Mapping[str, object]) -> tuple[_Pair, ...]:
        reply = self._post("kv/range", request)
        _object(reply, "header")
        return self._found(reply)

    def _found(self, reply: JsonObject) -> tuple[_Pair, ...]:
        """The pairs in the answer to a range request."""
        try:
            return tuple(_pair(each) for each in get(reply, "kvs", as_list(as_object), ()))
        except (JsonError, UnicodeDecodeError):
            raise self._not_etcd("an unknown answer") from None

    def _change(self, path: str, body: Mapping[str, object]) -> None:
        _object(self._post(path, body), "header")

    def _post(self, path: str, body: Mapping[str, object]) -> JsonObject:
        # A member that is stopping or has no leader says so; the others of the cluster may have one.
        return self._checked(self._service.post(f"v3/{path}", body, {}, self._checked))

    def _checked(self, reply: Reply) -> JsonObject:
        if reply.status == 200 and reply.data is not None:
            return reply.data
        message = shown(_any_text(reply.data or {}, "message") or _any_text(reply.data or {}, "error"))
        said = f"HTTP status {reply.status}" + (f", {message}" if message else "")
        if reply.status >= 500 or (reply.status in BUSY and message):
            raise LockError(Fault.UNREACHABLE, f"the lock service in {ENDPOINTS_KEY} is not available",
                            f"Check the cluster, for example with `etcdctl endpoint status`: {said}")
        if reply.status in (401, 403):
            raise LockError(Fault.TLS, f"etcd refuses this host: {said}",
                            "Correct correct.fleet.tls, or the roles of etcd")
        raise self._not_etcd(said)

    def _not_etcd(self, said: str) -> LockError:
        return LockError(Fault.INVALID, f"{ENDPOINTS_KEY} does not answer as etcd: {said}",
                         f"Correct {ENDPOINTS_KEY} or correct.fleet.lock in the policy; etcd must be 3.4 or later")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _end(prefix: str) -> str:
    """The end of a range, which is excluded: it follows every key with this prefix, which ends with a slash."""
    return _encoded(f"{prefix[:-1]}{chr(ord('/') + 1)}")


def _pair_of(key: str, value: Mapping[str, object], lease: int = 0) -> dict[str, object]:
    """A pair to put; without a lease it is kept for ever."""
    return {"key": _encoded(key), "value": _encoded(json.dumps(value)), "lease": str(lease)}


def _compare(key: str, created: int) -> dict[str, str]:
    """A condition of a transaction: the key was created by this revision, 0 for no key."""
    return {"key": _encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": str(created)}


def _seconds_since(since: str) -> int:
    """How long ago that was by this host's clock, 0 if it is not known."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
    except (ValueError, TypeError):
        return 0
    return min(max(round(seconds), 1), MAX_DURATION_S) if seconds >= 0 else 0


def _object(reply: JsonObject, key: str) -> JsonObject:
    """An object that every answer of etcd has."""
    try:
        return get(reply, key, as_object)
    except JsonError:
        raise LockError(Fault.INVALID, f"{ENDPOINTS_KEY} does not answer as etcd: no {key}",
                        f"Correct {ENDPOINTS_KEY} or correct.fleet.lock in the policy") from None


def _number_of(data: JsonObject, key: str) -> int:
    """A 64-bit number, which the gateway writes as a string, and omits if it is 0."""
    value = data.get(key, "0")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20 else 0


def _pair(data: JsonObject) -> _Pair:
    try:
        value = as_object(loads(get(data, "value", as_bytes, b"{}")))
    except JsonError:
        value = {}
    return _Pair(get(data, "key", as_bytes).decode(), value, _number_of(data, "create_revision"),
                 _number_of(data, "lease"))


def _number(pair: _Pair) -> int:
    """The number of a slot, -1 for a key of somebody else."""
    text = pair.key.rpartition("/")[2]
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else -1


def _any_text(value: JsonObject, key: str) -> str:
    try:
        return get(value, key, as_str, "")
    except JsonError:
        return ""


def _text(value: JsonObject, key: str) -> str:
    """A text that another host wrote, for messages."""
    return shown(_any_text(value, key)) or "an unknown host" * (key == "host")


def _member(pair: _Pair) -> Member:
    return Member(_text(pair.value, "host"), _text(pair.value, "since"), _text(pair.value, "id"), _number(pair))
