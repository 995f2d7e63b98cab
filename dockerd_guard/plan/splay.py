"""The part of `correct.splay` that this host waits before a restart, and since when. Pure; plan/gate.py decides by it.

As FixedRandomDelay= of systemd.timer(5): a host under one policy always waits the same part of the time.
"""

from __future__ import annotations

import hashlib

from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.gate import RestartFacts
from dockerd_guard.plan.memory import Memory, NeededRestart
from dockerd_guard.policy.model import Policy, Restart


def with_splay(  # noqa: PLR0913, PLR0917 -- parts of the inputs of a decision
    now: Instant, seen: Observation, policy: Policy, required: Actions, facts: RestartFacts, memory: Memory
) -> tuple[RestartFacts, Memory]:
    """With what this host waits before the restart, and with since when that is needed."""
    if not policy.correct.splay_s or not required.starts_dockerd or not facts.is_active:
        return facts, memory._replace(needed_restart=None)
    needed = _needed(now, policy, facts, memory.needed_restart)
    return (facts._replace(share=_share(seen.machine_id or now.boot_id, _digest(policy)),
                           needed_since=needed.since if needed is not None else None),
            memory._replace(needed_restart=needed))


def _needed(now: Instant, policy: Policy, facts: RestartFacts, before: NeededRestart | None) -> NeededRestart | None:
    """Since when files and the policy ask for the restart and allow it: both may change on all hosts at once.

    What differs between hosts, such as running containers, does not count: where they come and go, the time would
    begin anew again and again.
    """
    if facts.refusals or facts.pending_changes or facts.commands:
        return None
    needed = NeededRestart(now, _digest(policy), facts.next_live_restore or policy.correct.restart is Restart.ALWAYS)
    if before is None or before.policy != needed.policy or needed.live_restore > before.live_restore:
        return needed
    return needed._replace(since=before.since)


def _share(machine_id: str, policy: str) -> float:
    """From 0 to 1, evenly among hosts."""
    return int.from_bytes(hashlib.sha256(f"{machine_id} {policy}".encode()).digest()[:8]) / 2**64


def _digest(policy: Policy) -> str:
    return hashlib.sha256(repr(policy).encode("utf-8", "surrogateescape")).hexdigest()
