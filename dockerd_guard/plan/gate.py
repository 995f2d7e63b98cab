"""Whether a correction may go on to a restart now, and what it would cost. Pure.

A change of the files and a reload disturb nobody. A restart of docker.service may stop
containers, and with it whatever depends on it: that is what the policy's `correct` section decides.
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
    """What carrying out a plan takes from the host, cheapest first."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"
    CONTAINERS = "containers"


class Hold(NamedTuple):
    """What keeps a restart back, until when (None: until something changes), and what somebody may do about it."""

    reason: str
    until: datetime | None = None
    next_step: str = ""


RESTART = "`systemctl restart docker.service`"

BY_HAND = f"nothing before that, or {RESTART} by hand"


class Situation(NamedTuple):
    """What the gate looks at: the engine's own word (None: it does not answer), active units that fall
    with docker.service, the restarts of ours so far (oldest first), and the time, all aware.

    `pending_changes`: what a restart would put in force besides (correct/untried.py).
    """

    engine: Engine | None
    dependents: tuple[str, ...]
    restarts: Sequence[datetime]
    now: datetime
    docker_is_active: bool
    unasked: str = ""
    """Why the engine could not even be asked, where that is so."""
    pending_changes: tuple[str, ...] = ()


def may_restart(correct: Correct, situation: Situation) -> Hold | None:  # noqa: PLR0911 -- one a reason
    """None when docker.service may be restarted now, else what holds it."""
    if not situation.docker_is_active:
        return None
    if correct.restart is Restart.NEVER:
        return Hold("the policy says `restart: never`", next_step=f"{RESTART}, when it suits")
    if correct.restart is Restart.LIVE_RESTORE and (stops := what_stops(situation)):
        return Hold(stops, next_step=_way_out(situation))
    if situation.pending_changes:
        return Hold(f"a restart would put in force what dockerd has not started with yet: "
                    f"{', '.join(situation.pending_changes)}",
                    next_step=f"take that back, or {RESTART} by hand, when it suits")
    if correct.window is not None and not correct.window.contains(situation.now):
        return Hold(f"outside the window {correct.window.text}", correct.window.next_opening(situation.now),
                    BY_HAND)
    budget = correct.budget
    # Restarts in the future, which a clock set back leaves behind, do not count.
    recent = [moment for moment in situation.restarts
              if 0 <= (situation.now - moment).total_seconds() < budget.per_s]
    if len(recent) >= budget.restarts:
        oldest = recent[-budget.restarts] if budget.restarts else situation.now
        return Hold(f"the budget of {budget.restarts}/{_span(budget.per_s)} restarts is used up",
                    oldest + timedelta(seconds=budget.per_s), BY_HAND)
    return None


def _span(seconds: float) -> str:
    """As the policy writes a duration: 1h, 90s."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def what_stops(situation: Situation) -> str:
    """In words, what a restart of docker.service would stop; empty for nothing."""
    if situation.dependents:
        return f"{', '.join(situation.dependents)} would be stopped with docker.service"
    engine = situation.engine
    if engine is None:
        reason = situation.unasked or "dockerd does not answer"
        return f"{reason}, so whether containers would be stopped cannot be told"
    if engine.in_swarm and engine.containers_running:
        return "this host is in a swarm, which live-restore does not cover: its tasks would be stopped"
    if not engine.live_restore and engine.containers_running:
        count = engine.containers_running
        return f"live-restore is off: {count} running container{'s' * (count != 1)} would be stopped"
    return ""


def _way_out(situation: Situation) -> str:
    """What somebody may do about what would be stopped."""
    engine = situation.engine
    if engine is None and not situation.dependents:
        return HelperUnavailable.next_step if situation.unasked else (
            "`systemctl status docker.service` tells what keeps it")
    if engine is None or situation.dependents:
        return f"{RESTART}, when they may stop"
    if engine.in_swarm:
        return f"drain this node, then {RESTART}"
    return ('`"live-restore": true` into /etc/docker/daemon.json and `systemctl reload docker.service`; '
            f"or {RESTART}, when they may stop")


def cost(writes: bool, restarts: bool, situation: Situation) -> Cost:
    """What carrying a plan out would cost."""
    if restarts and situation.docker_is_active:
        return Cost.CONTAINERS if what_stops(situation) else Cost.RESTART
    return Cost.RELOAD if writes else Cost.NOTHING


def obstructed(plan: Plan, policy: Policy) -> Hold:
    """What holds a plan that does not lead to a host that complies."""
    allow = ", or allow `foreign_files` in the policy's `correct`" * (not policy.correct.foreign_files)
    return Hold("; ".join(plan.obstacles), next_step=f"change that by hand{allow}")
