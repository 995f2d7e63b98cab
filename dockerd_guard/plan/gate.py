"""Whether docker.service may be restarted now, and what a restart would cost. Pure.

Changing files and reloading systemd disrupt nothing. A restart of docker.service may stop containers and dependent
units; the policy's `correct` section decides whether that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.observation import EngineAnswer
from dockerd_guard.policy.model import Correct, Restart


class Cost(StrEnum):
    """The disruption that a plan causes, lowest first."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"
    CONTAINERS = "containers"


class Hold(NamedTuple):
    """Why a restart is held, until when (None: until something changes), and the next step for the administrator.

    `is_due`: dockerd is restarted then, where nothing else holds it.
    """

    reason: str
    until: datetime | None = None
    next_step: str = ""
    is_due: bool = False


RESTART = "`systemctl restart docker.service`"

BY_HAND = f"Wait, or run {RESTART}"


class RestartFacts(NamedTuple):
    """What the gate decides on.

    `dependents`: active units that stop with docker.service. `next_live_restore`: live-restore in the configuration
    that the restart loads. `pending_changes`: other changes that it would apply (plan/pending_changes.py). `commands`:
    what socket units would run that are started or stopped (plan/unrun_commands.py). `of_sockets`: active units that
    stop with those socket units.
    `refusals`: why dockerd would refuse that configuration. `occupied`: paths of sockets at which something else is
    (plan/occupied.py); decide() changes nothing then. `share`: the part of `correct.splay` that this host waits, from
    0 to 1, and `needed_since` from when on; None: from now on.
    """

    is_active: bool
    engine: EngineAnswer | None = None
    dependents: tuple[str, ...] = ()
    next_live_restore: bool = False
    pending_changes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    of_sockets: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    occupied: tuple[str, ...] = ()
    share: float = 0.0
    needed_since: Instant | None = None


def may_restart(correct: Correct, facts: RestartFacts, restarts: Sequence[Instant], now: Instant) -> Hold | None:
    """Return None if docker.service may be restarted or started now, else the first reason against it (I1 to I3)."""
    return next(_holds(correct, facts, restarts, now), None)


def other_changes(facts: RestartFacts) -> Hold | None:
    """Return what holds a correction because of what it would put in force besides (I4)."""
    if facts.pending_changes:
        what = ", ".join((*facts.pending_changes, *facts.commands))
        return Hold(f"a restart would apply other pending changes: {what}",
                    next_step=f"Revert them, or run `systemctl daemon-reload` and {RESTART} at a suitable time")
    if facts.commands:
        return Hold(f"systemd would run what it has not run before: {', '.join(facts.commands)}",
                    next_step="Revert this, or restart the socket unit with docker.service stopped, at a suitable time")
    return None


def may_stop_sockets(correct: Correct, facts: RestartFacts) -> Hold | None:
    """Return what holds the stop of socket units alone, without a start of docker.service."""
    if facts.of_sockets and correct.restart is not Restart.ALWAYS:
        return Hold(what_stops(facts), next_step=_next_step(facts))
    return other_changes(facts)


def _holds(correct: Correct, facts: RestartFacts, restarts: Sequence[Instant], now: Instant) -> Iterator[Hold]:
    if facts.is_active and correct.restart is Restart.NEVER:
        yield Hold("the policy has `restart: never`", next_step=f"Run {RESTART} at a suitable time")
    if facts.refusals:
        yield Hold(f"dockerd would not start: {'; '.join(facts.refusals)}",
                   next_step="Fix this; the agent retries automatically")
    if correct.restart is not Restart.ALWAYS and (stops := what_stops(facts)):
        yield Hold(stops, next_step=_next_step(facts))
    if (pending := other_changes(facts)) is not None:
        yield pending
    delay = timedelta(seconds=_delay_s(correct, facts))
    if facts.is_active and correct.window is not None and not correct.window.contains(now.wall):
        yield Hold(f"outside the window {correct.window.text}", correct.window.next_opening(now.wall) + delay, BY_HAND,
                   is_due=bool(delay))
    budget = correct.budget
    recent = [moment for moment in restarts if now.seconds_since(moment) < budget.per_s]
    if len(recent) >= budget.restarts:
        left_s = budget.per_s - now.seconds_since(recent[-budget.restarts])
        yield Hold(f"the budget of {budget.restarts}/{_span(budget.per_s)} restarts is used up",
                   now.wall + timedelta(seconds=left_s), BY_HAND)
    if facts.is_active and (due := _due(correct, facts, delay, now)) > now.wall:
        yield Hold(f"the policy spreads restarts over {_span(correct.splay_s)}", due, BY_HAND, is_due=True)


def _delay_s(correct: Correct, facts: RestartFacts) -> float:
    """How long this host waits of the time that the policy spreads restarts over: in a short window, not beyond it."""
    window_s = correct.window.length_s if correct.window is not None else correct.splay_s
    return facts.share * min(correct.splay_s, window_s)


def _due(correct: Correct, facts: RestartFacts, delay: timedelta, now: Instant) -> datetime:
    """When this host is to restart dockerd: so long after this became necessary, or after the window opened."""
    waited_s = now.seconds_since(facts.needed_since) if facts.needed_since is not None else 0.0
    due = now.wall + delay - timedelta(seconds=waited_s)
    window = correct.window
    if window is None:
        return due
    if (opened := window.opened(now.wall)) is not None:
        due = max(due, opened + delay)
    return due if window.contains(due) else window.next_opening(due) + delay


def _span(seconds: float) -> str:
    """A duration in the policy's syntax: 1h, 90s."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def what_stops(facts: RestartFacts) -> str:  # noqa: PLR0911 -- one for each reason
    """What a restart or start of docker.service would stop, as a message; empty for nothing.

    Live-restore is believed only if the running engine and the configuration to be loaded both have it (I1).
    """
    if facts.of_sockets:
        return f"{', '.join(facts.of_sockets)} would be stopped with a socket unit"
    if not facts.is_active:
        # dockerd stops containers that are still running when it starts without live-restore (moby daemon/daemon.go,
        # restore()).
        left = facts.engine.shims if facts.engine is not None else 0
        if left and not facts.next_live_restore:
            return f"live-restore is off: {_containers(left)} that outlived dockerd would be stopped"
        return ""
    if facts.dependents:
        return f"{', '.join(facts.dependents)} would be stopped with docker.service"
    answer = facts.engine
    engine = answer.engine if answer is not None else None
    if answer is None or (engine is None and (answer.problem or answer.shims)):
        reason = (answer.problem if answer is not None else "") or "dockerd does not answer"
        return f"{reason}; cannot check whether containers would be stopped"
    if engine is None or not (running := max(engine.containers_running, answer.shims)):
        return ""
    if engine.in_swarm:
        return "this host is in a swarm, where live-restore has no effect: its tasks would be stopped"
    if not engine.live_restore:
        return f"live-restore is off: {_containers(running)} would be stopped"
    if not facts.next_live_restore:
        return f"live-restore is off in the configuration that a restart would load: {_containers(running)} would be " \
               "stopped"
    if answer.embeds_containerd:
        return f"dockerd runs its own containerd, which stops with it: {_containers(running)} would be stopped"
    return ""


def _containers(count: int) -> str:
    return f"{count} running container{'s' * (count != 1)}"


def _next_step(facts: RestartFacts) -> str:
    if facts.of_sockets:
        return "Stop these, or restart docker.socket with docker.service stopped, when they may stop"
    engine = facts.engine.engine if facts.engine is not None else None
    if facts.is_active and engine is None and not facts.dependents:
        return "Check `systemctl status docker.service`"
    if facts.dependents or engine is None:
        return f"Run {RESTART} when they may stop"
    if engine.in_swarm:
        return f"Drain this node, then run {RESTART}"
    return ('Add `"live-restore": true` to /etc/docker/daemon.json and run `systemctl reload docker.service`, '
            f"or run {RESTART} when they may stop")


def cost(writes: bool, starts_dockerd: bool, facts: RestartFacts) -> Cost:
    """The cost of carrying a plan out."""
    if starts_dockerd and facts.is_active:
        return Cost.CONTAINERS if what_stops(facts) else Cost.RESTART
    return Cost.RELOAD if writes else Cost.NOTHING
