"""The slot of one pass: asked for when the gate allows a restart, given back when the pass has ended.

A slot outlives a pass only where the process was killed, systemd went away meanwhile, or FleetLock does not answer. The
restart that it was taken for may still be under way then, since systemd carries it out: the slot is kept until it ends.
FleetLock forgets no host by itself: a slot is given back to it also where another policy is in force by then.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from dockerd_guard.apply.context import Context
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.fleet.lock import Host, LockError, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.decide import Result
from dockerd_guard.plan.memory import FleetMemory, Memory, OwedSlot
from dockerd_guard.plan.slots import granted, refused
from dockerd_guard.policy.model import Fleet, LockKind, Policy
from dockerd_guard.systemd.manager import JOB_TIMEOUT_S, Refused, Unavailable

RETRY_S = 30.0
"""When a request to the lock service is repeated that ends a slot or stops the group."""

LONGEST_RETRY_S, MAX_TRIES, MAX_OWED = 3600.0, 30, 4
"""The same for slots of former policies, whose services may not exist any more: for about a day, and so many slots."""
LOOK_AGAIN_S = 2.0
"""When it is looked again whether a restart has ended that an earlier process began."""

STOPPING = "deactivating"
IN_TRANSITION = ("activating", STOPPING)
"""ActiveState= of a docker.service that is being restarted."""

LOST = "the slot of the fleet was lost during the restart"


class Ended(NamedTuple):
    """The memory after a pass, the result with what became of the slot, and when to try again to tell the service."""

    memory: Memory
    result: Result | None
    wake_s: float | None = None


def this_host(seen: Observation, now: Instant) -> Host:
    """Return what the lock service shows of this host."""
    return Host(seen.machine_id or now.boot_id.replace("-", ""), os.uname().nodename, now.boot_id)


def under(policy: Policy, memory: Memory) -> Memory:
    """Return the memory under this policy. A slot of a FleetLock that it does not name is owed, also one that was kept:
    who changes the lock of a host decides about it. What etcd has of this host ends with its lease."""
    fleet, known = policy.correct.fleet, memory.fleet
    owed = known.owed
    if known.asked is not None and (fleet is None or _service(fleet) != _service(known.asked)):
        owed = known.all_owed[-MAX_OWED:]
        known = FleetMemory(unreachable=known.unreachable)
    # This host has it still where the policy names that service again.
    again = next((each for each in owed if fleet is not None and _service(fleet) == _service(each.fleet)), None)
    if again is not None:
        known, owed = known._replace(unsure=again.slot, asked=fleet), tuple(each for each in owed if each != again)
    return memory._replace(fleet=known._replace(owed=owed))


def _service(fleet: Fleet) -> tuple[LockKind, tuple[str, ...], str]:
    return fleet.lock, fleet.endpoints, fleet.group


def ask(
    seen: Observation, policy: Policy, memory: Memory, context: Context, state: StateFiles
) -> tuple[Instant, Memory]:
    """Ask for a slot. Returns the moment, and the memory with the slot or why there is none; it is stored, so that a
    slot is given back whatever interrupts the pass."""
    assert policy.correct.fleet is not None  # noqa: S101 -- decide() asks only then
    host = this_host(seen, context.clock.now())
    memory = memory._replace(fleet=memory.fleet._replace(asked=policy.correct.fleet))
    if policy.correct.fleet.lock is LockKind.FLEETLOCK:
        # The request may be granted, and its answer lost: by a time-out, or since this process is killed.
        memory = memory._replace(fleet=memory.fleet._replace(unsure=Slot(policy.correct.fleet.group, host.id)))
        with contextlib.suppress(OSError):
            state.save(memory)
    try:
        slot = context.lock.acquire(policy.correct.fleet, host)
        memory = granted(memory, slot)
    except LockError as error:
        memory = refused(context.clock.now(), memory, error, host.id)
    with contextlib.suppress(OSError):
        state.save(memory)
    return context.clock.now(), memory


def is_under_way(seen: Observation, memory: Memory, result: Result | None, now: Instant) -> bool:
    """Return whether the slot that an earlier pass has left is needed: docker.service is in the restart that this host
    began, for no longer than an agent waits for one."""
    is_changing = seen.loaded is not None and seen.loaded.active_state in IN_TRANSITION
    has_ended = result is not None and bool(result.starts)
    return is_changing and not has_ended and not memory.fleet.to_stop and any(
        now.seconds_since(moment) < JOB_TIMEOUT_S for moment in memory.restarts)


def keep(policy: Policy, memory: Memory, context: Context) -> Memory:
    """Keep the slot that an earlier pass has left, whose lease is renewed from now on. Returns the memory without it
    where it is another host's by now."""
    fleet, slot = policy.correct.fleet, memory.fleet.slot
    if fleet is None or slot is None or memory.fleet.is_kept:
        return memory
    try:
        is_ours = context.lock.still(fleet, slot)
    except LockError:
        # It may be this host's all the same.
        return memory
    return memory if is_ours else memory._replace(fleet=memory.fleet._replace(slot=None))


def end(seen: Observation, policy: Policy, memory: Memory, result: Result | None, context: Context) -> Ended:
    """Give the slot back; or stop the group, if Docker worked before this pass and does not any more."""
    ended = _end(seen, policy, memory, result, context)
    owed = tuple(left for each in ended.memory.fleet.owed if (left := _given_back(each, context)) is not None)
    now = context.clock.now()
    waits = (ended.wake_s, *(_owed_in_s(each, now) for each in owed))
    return Ended(ended.memory._replace(fleet=ended.memory.fleet._replace(owed=owed)), ended.result,
                 min((each for each in waits if each is not None), default=None))


def _given_back(owed: OwedSlot, context: Context) -> OwedSlot | None:
    """Give it back, if it is time to. Returns what is owed still; None also where that is given up."""
    if _owed_in_s(owed, context.clock.now()):
        return owed
    try:
        context.lock.release(owed.fleet, owed.slot)
    except LockError:
        later = owed._replace(told_at=context.clock.now(), tries=owed.tries + 1)
        return later if later.tries < MAX_TRIES else None
    return None


def _owed_in_s(owed: OwedSlot, now: Instant) -> float:
    """When the service is to be told, in seconds; 0 for now."""
    if owed.told_at is None:
        return 0.0
    return max(min(RETRY_S * 2.0**owed.tries, LONGEST_RETRY_S) - now.seconds_since(owed.told_at), 0.0)


def _end(seen: Observation, policy: Policy, memory: Memory, result: Result | None, context: Context) -> Ended:
    fleet = policy.correct.fleet
    if fleet is None:
        return Ended(memory._replace(fleet=FleetMemory(unreachable=memory.fleet.unreachable,
                                                       owed=memory.fleet.owed)), result)
    known, later_s = memory.fleet, None
    if result is not None and result.error and result.starts and not result.was_rolled_back and _is_dead(context):
        known = known._replace(to_stop=result.error)
    elif known.to_stop and seen.running is not None and not _is_stopping(seen):
        # It was repaired before the service could be told.
        known = known._replace(to_stop="")
    if known.to_stop:
        known, later_s = _stopped(seen, fleet, known, context)
    if known.slot is None and known.refusal is None and known.unsure is not None:
        known = known._replace(slot=known.unsure, unsure=None)
    if known.slot is None or known.is_kept:
        return Ended(memory._replace(fleet=known), result, later_s)
    try:
        was_ours = context.lock.release(fleet, known.slot)
        known = known._replace(slot=None)
    except LockError:
        was_ours = True
        if fleet.lock is LockKind.ETCD:
            known = known._replace(slot=None)
        else:
            later_s = RETRY_S
    if result is not None and result.starts and not was_ours:
        result = result._replace(steps=(*result.steps, LOST))
    elif result is not None and result.hold is not None and not was_ours:
        later_s = 1.0
    return Ended(memory._replace(fleet=known), result, later_s)


def _is_dead(context: Context) -> bool:
    """Whether there is no dockerd, or one that does not stop: Debian 12's docker.service has no time limit for that."""
    try:
        unit = context.manager.unit(SERVICE)
        return not unit.number("MainPID") or unit.text("ActiveState") == STOPPING
    except (Refused, Unavailable):
        return False


def _is_stopping(seen: Observation) -> bool:
    return seen.loaded is not None and seen.loaded.active_state == STOPPING


def _stopped(seen: Observation, fleet: Fleet, known: FleetMemory, context: Context) -> tuple[FleetMemory, float | None]:
    """Stop the group. FleetLock has nothing for this: its slot is kept."""
    try:
        context.lock.stop(fleet, this_host(seen, context.clock.now()), known.to_stop)
    except LockError:
        return known, RETRY_S
    return known._replace(to_stop="", is_kept=fleet.lock is LockKind.FLEETLOCK and known.slot is not None), None
