"""Whether a restart needs a slot of the fleet (`correct.fleet`), and what is remembered of the lock service. Pure.

Order: the gate, then the slot, then a new observation and the gate again. Changes of files, reloads, and starts of a
Docker that is down take no slot.
"""

from __future__ import annotations

import hashlib
import math

from dockerd_guard.fleet.lock import LONGEST_WAIT_S, Fault, LockError, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.gate import Hold, RestartFacts
from dockerd_guard.plan.memory import Memory, Refusal
from dockerd_guard.policy.model import Policy, Unreachable

FIRST_RETRY_S, FACTOR, LONGEST_RETRY_S = 2.0, 2.0, 60.0
"""When a slot is asked for again: the time grows by this factor with each refusal. Half of it depends on the host."""

LATENESS, MORE_LATENESS, MAX_MORE = 0.5, 0.4, 5
"""Where it is known when it is this host's turn, it asks later by a part of this share of that time, and by another
share for each time that it was wrong, at most so often: a host that asks too early has to ask again. Measured by
`make storm`."""

MISSING = frozenset((Fault.UNREACHABLE, Fault.TLS))
"""There is no lock service, as far as this host can see."""


def needs_slot(policy: Policy, required: Actions, facts: RestartFacts) -> bool:
    """Return whether this is a restart of a running dockerd, in a fleet that has a lock."""
    return policy.correct.fleet is not None and required.starts_dockerd and facts.is_active


def must_ask(now: Instant, memory: Memory) -> bool:
    """Return whether the lock service is to be asked for a slot now."""
    return memory.fleet.slot is None and not retry_in_s(now, memory)


def retry_in_s(now: Instant, memory: Memory) -> float:
    """When a slot is asked for again, in seconds; 0 for now."""
    refusal = memory.fleet.refusal
    return max(refusal.retry_s - now.seconds_since(refusal.at), 0.0) if refusal is not None else 0.0


def slot_hold(policy: Policy, memory: Memory) -> Hold | None:
    """Return what holds the restart while a slot is refused. None with one, or where it may proceed without."""
    refusal, fleet = memory.fleet.refusal, policy.correct.fleet
    if refusal is None or fleet is None:
        return None
    if refusal.fault in MISSING and fleet.unreachable is Unreachable.PROCEED:
        return None
    return Hold(refusal.reason, next_step=refusal.next_step)


def granted(memory: Memory, slot: Slot) -> Memory:
    """Return the memory with a slot."""
    return memory._replace(fleet=memory.fleet._replace(slot=slot, refusal=None, unsure=None))


def refused(now: Instant, memory: Memory, error: LockError, host_id: str) -> Memory:
    """Return the memory after a request for a slot was refused."""
    before = memory.fleet.refusal
    tries = before.tries + 1 if before is not None else 0
    retry_s = _retry_s(tries, host_id, _expected_s(now, before, error))
    return memory._replace(fleet=memory.fleet._replace(
        refusal=Refusal(now, error.fault, error.reason, error.next_step, tries, retry_s, error.ahead),
        unsure=memory.fleet.unsure if error.fault is not Fault.FULL else None,
        unreachable=memory.fleet.unreachable + (error.fault in MISSING)))


def _expected_s(now: Instant, before: Refusal | None, error: LockError) -> float:
    """When a slot is expected to be free: the geometric mean of what the lock service expects, by how long the last
    host had its slot, and of how fast the queue went on since this host asked last.

    The first is too short while hosts that were killed block slots, the second too long after that.
    """
    if before is None or not error.expected_s or error.ahead >= before.ahead:
        return error.expected_s
    seconds = now.seconds_since(before.at) / (before.ahead - error.ahead) * (error.ahead + 1)
    return min(math.sqrt(error.expected_s * seconds), LONGEST_WAIT_S)


def _retry_s(tries: int, host_id: str, expected_s: float) -> float:
    longest_s = min(FIRST_RETRY_S * FACTOR ** min(tries, 20), LONGEST_RETRY_S)
    share = hashlib.sha256(f"{host_id} {tries}".encode()).digest()[0] / 255
    later = LATENESS * share + MORE_LATENESS * min(tries, MAX_MORE)
    return max(longest_s * (0.5 + 0.5 * share), expected_s * (1.0 + later))


def not_asked(memory: Memory) -> Memory:
    """Return the memory where no slot is needed, or where one is to be asked for at once."""
    return memory._replace(fleet=memory.fleet._replace(refusal=None))
