"""Whether a correction may restart docker.service now, and the cost of that. Pure.

Changing files and reloading systemd disrupt nothing. A restart of docker.service may stop containers and
dependent units; the policy's `correct` section decides whether that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.network import HelperUnavailable
from dockerd_guard.plan.plan import Plan
from dockerd_guard.policy.model import Correct, Policy, Restart


class Cost(StrEnum):
    """The disruption that a plan causes, lowest first."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"
    CONTAINERS = "containers"


class Hold(NamedTuple):
    """Why a restart is held, until when (None: until something changes), and the next step for the administrator."""

    reason: str
    until: datetime | None = None
    next_step: str = ""


RESTART = "`systemctl restart docker.service`"

BY_HAND = f"Wait, or run {RESTART}"


class Situation(NamedTuple):
    """The input of the gate: the engine's answer (None: no answer), active units that stop with docker.service,
    our restarts so far (oldest first), and the time; all times are aware.

    `pending_changes`: other changes that a restart would apply (plan/pending_changes.py).
    """

    engine: Engine | None
    dependents: tuple[str, ...]
    restarts: Sequence[datetime]
    now: datetime
    docker_is_active: bool
    unasked: str = ""
    """Why the engine could not be queried; "" if it could."""
    pending_changes: tuple[str, ...] = ()


def may_restart(correct: Correct, situation: Situation) -> Hold | None:  # noqa: PLR0911 -- one a reason
    """None if docker.service may be restarted now, else the hold."""
    if not situation.docker_is_active:
        return None
    if correct.restart is Restart.NEVER:
        return Hold("the policy has `restart: never`", next_step=f"Run {RESTART} at a suitable time")
    if correct.restart is Restart.LIVE_RESTORE and (stops := what_stops(situation)):
        return Hold(stops, next_step=_way_out(situation))
    if situation.pending_changes:
        return Hold(f"a restart would apply other pending changes: "
                    f"{', '.join(situation.pending_changes)}",
                    next_step=f"Revert them, or run {RESTART} at a suitable time")
    if correct.window is not None and not correct.window.contains(situation.now):
        return Hold(f"outside the window {correct.window.text}", correct.window.next_opening(situation.now),
                    BY_HAND)
    budget = correct.budget
    # Restarts in the future, left by a clock that was set back, do not count.
    recent = [moment for moment in situation.restarts
              if 0 <= (situation.now - moment).total_seconds() < budget.per_s]
    if len(recent) >= budget.restarts:
        oldest = recent[-budget.restarts] if budget.restarts else situation.now
        return Hold(f"the budget of {budget.restarts}/{_span(budget.per_s)} restarts is used up",
                    oldest + timedelta(seconds=budget.per_s), BY_HAND)
    return None


def _span(seconds: float) -> str:
    """A duration in the policy's notation: 1h, 90s."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def what_stops(situation: Situation) -> str:
    """A message about what a restart of docker.service would stop; "" for nothing."""
    if situation.dependents:
        return f"{', '.join(situation.dependents)} would be stopped with docker.service"
    engine = situation.engine
    if engine is None:
        reason = situation.unasked or "dockerd does not answer"
        return f"{reason}; cannot check whether containers would be stopped"
    if engine.in_swarm and engine.containers_running:
        return "this host is in a swarm, where live-restore has no effect: its tasks would be stopped"
    if not engine.live_restore and engine.containers_running:
        count = engine.containers_running
        return f"live-restore is off: {count} running container{'s' * (count != 1)} would be stopped"
    return ""


def _way_out(situation: Situation) -> str:
    """The next step for what would be stopped."""
    engine = situation.engine
    if engine is None and not situation.dependents:
        return HelperUnavailable.next_step if situation.unasked else (
            "Check `systemctl status docker.service`")
    if engine is None or situation.dependents:
        return f"Run {RESTART} when they may stop"
    if engine.in_swarm:
        return f"Drain this node, then run {RESTART}"
    return ('Add `"live-restore": true` to /etc/docker/daemon.json and run `systemctl reload docker.service`, '
            f"or run {RESTART} when they may stop")


def cost(writes: bool, restarts: bool, situation: Situation) -> Cost:
    """The cost of a plan."""
    if restarts and situation.docker_is_active:
        return Cost.CONTAINERS if what_stops(situation) else Cost.RESTART
    return Cost.RELOAD if writes else Cost.NOTHING


def obstructed(plan: Plan, policy: Policy) -> Hold:
    """The hold for a plan with obstacles."""
    allow = ", or allow `foreign_files` in the policy's `correct`" * (not policy.correct.foreign_files)
    return Hold("; ".join(plan.obstacles), next_step=f"Fix this manually{allow}")
