"""The gate, asked again right before a start."""

from __future__ import annotations

from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe.loaded_files import has_loaded_these
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import has_failed, started_at
from dockerd_guard.plan.decide import Decision, hold_on_this_host
from dockerd_guard.plan.facts import restart_facts
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.plan import Plan
from dockerd_guard.policy.model import Policy

AGAIN = "Wait; the agent looks again"


def hold_before_start(  # noqa: PLR0913, PLR0917 -- what was decided, and what is by now
    now: Instant, seen: Observation, plan: Plan, policy: Policy, memory: Memory, decided_on: Observation,
    decision: Decision
) -> Hold | None:
    """Return what holds the start of a decision by now, though nothing did: all that systemd has loaded by the
    correction takes effect with it, and so does what others have done since (I1 to I4).

    `seen` has an answer of the engine of its own; `memory` counts the start.
    """
    if _state_of(seen) != _state_of(decided_on):
        return Hold(f"{SERVICE} was started or stopped during the correction", next_step=AGAIN)
    if seen.loaded is not None and not has_loaded_these(seen):
        # A file may have been there, or have been another one, only while systemd loaded its units.
        return Hold(f"files of {SERVICE} were changed while systemd loaded them", next_step=AGAIN)
    facts = restart_facts(seen, plan, decision.actions, memory)._replace(
        share=decision.facts.share, needed_since=decision.facts.needed_since)
    return hold_on_this_host(now, plan, decision.actions, facts, policy, memory._replace(restarts=memory.restarts[:-1]))


def _state_of(seen: Observation) -> tuple[bool, str, bool, bool]:
    is_activating = seen.loaded is not None and seen.loaded.active_state == "activating"
    return seen.running is not None, started_at(seen), has_failed(seen), is_activating
