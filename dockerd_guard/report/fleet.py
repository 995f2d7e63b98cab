"""The output of `fleet`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dockerd_guard.fleet.lock import GroupState
from dockerd_guard.plan.memory import FleetMemory
from dockerd_guard.policy.model import Fleet, LockKind
from dockerd_guard.report.text import clean

SCHEMA = 1

RESUME = "Next: Check Docker there, then run `dockerd-guard fleet resume`."


def lines(fleet: Fleet, found: GroupState, here: FleetMemory) -> Iterator[str]:
    """The text: who has a slot since when, who waits, what stopped the group, and what this host remembers."""
    where = f"group {fleet.group} ({fleet.lock}: {', '.join(fleet.endpoints)})"
    if not found.shows_members:
        yield clean(f"{where}: FleetLock does not show who has a slot; the lock service does.")
    else:
        of = f" of {fleet.slots}" if fleet.lock is LockKind.ETCD else ""
        yield clean(f"{where}: {len(found.slots)}{of} slots taken, {len(found.waiting)} hosts wait.")
    for member in found.slots:
        yield clean(f"slot {member.number}   {member.host}, since {member.since or 'an unknown time'}")
    for member in found.waiting:
        yield clean(f"waits    {member.host}, since {member.since or 'an unknown time'}")
    if found.stop is not None:
        yield clean(f"stopped by {found.stop.host}, since {found.stop.since or 'an unknown time'}: {found.stop.reason}")
        yield RESUME
    if here.is_kept:
        yield "stopped by this host, which was left without Docker and keeps its slot."
        yield RESUME
    elif here.to_stop:
        yield clean(f"This host was left without Docker, and could not stop the group yet: {here.to_stop}")
    if here.refusal is not None:
        yield clean(f"This host waits: {here.refusal.reason}.")


def to_json(fleet: Fleet, found: GroupState, here: FleetMemory) -> dict[str, Any]:
    """`fleet` as JSON. `slots` and `waiting` are null with FleetLock, which does not show them."""
    stop, waiting = found.stop, [{"host": each.host, "since": each.since} for each in found.waiting]
    return {
        "schema": SCHEMA, "lock": str(fleet.lock), "group": fleet.group,
        "slots": [each._asdict() for each in found.slots] if found.shows_members else None,
        "waiting": waiting if found.shows_members else None,
        "stopped": stop._asdict() if stop is not None else None,
        "here": {
            "slot_kept": here.is_kept, "stop_pending": here.to_stop or None,
            "waits": {"fault": str(here.refusal.fault), "reason": here.refusal.reason} if here.refusal else None},
    }
