"""The time after a correction in which it can be undone: whether dockerd has run with it, or failed with it. Pure."""

from __future__ import annotations

import math

from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import Actions, has_failed, is_in_force, is_not_started_since, started_at
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.inputs import foreign_contents
from dockerd_guard.plan.memory import Intent
from dockerd_guard.plan.plan import Plan
from dockerd_guard.plan.unrun_commands import socket_commands

PROBATION_S = 30.0
"""How long dockerd must run after a correction before its previous configuration is forgotten."""


def has_failed_with(seen: Observation, plan: Plan, intent: Intent) -> bool:
    """Return whether dockerd, which ran before an applied correction, failed with what that wrote (I3).

    One that was killed, and not started since the correction, ran with what was there before. Where others have changed
    files since, it failed with these: an undo of the correction would put in force what dockerd may never have run
    with, and open what was closed.
    """
    is_started_since = seen.loaded is not None and seen.loaded.invocation != intent.invocation and (
        not seen.loaded.restarted_too_often)
    return (intent.was_active and has_failed(seen) and is_in_force(seen, intent) and is_started_since
            and intent.foreign in {"", foreign_contents(seen, plan, intent.written)})


def hold_undo(seen: Observation, plan: Plan) -> Hold | None:
    """Return what holds the undo of a correction: commands of docker.socket, if a start of docker.service starts it,
    that systemd has not run before (I4)."""
    return _hold(seen, plan, Actions(start=True), f"{SERVICE} failed with a correction, and its undo",
                 f"Revert this, then start {SERVICE}")


def hold_recovery(seen: Observation, plan: Plan, intent: Intent) -> Hold | None:
    """Return the same for a correction that was interrupted, where a unit is down that it has stopped or started."""
    loaded = seen.loaded
    is_up = {SERVICE: seen.running is not None, SOCKET: loaded is not None and (
        loaded.socket_states.get(SOCKET) == "active")}
    units = {*intent.stops, *(SERVICE,) * (intent.was_active or intent.starts)}
    if all(is_up.get(unit, True) for unit in units):
        return None
    return _hold(seen, plan, Actions(start=True, restart_socket=SOCKET in intent.stops),
                 "a correction was interrupted, and its end", "Revert this; the agent retries automatically")


def _hold(seen: Observation, plan: Plan, actions: Actions, what: str, next_step: str) -> Hold | None:
    commands = socket_commands(seen, plan.base, actions)
    if not commands:
        return None
    return Hold(f"{what} would run what systemd has not run before: {', '.join(commands)}", next_step=next_step)


def proven(now: Instant, seen: Observation, intent: Intent | None) -> Intent | None:
    """Return the intent of an applied correction, until dockerd has run with it for PROBATION_S; of one that had failed
    before, until it was started."""
    if intent is None or not intent.is_applied:
        return intent
    if not intent.was_active or not intent.changes:
        is_left = bool(intent.changes) or is_not_started_since(seen, intent)
        return intent if is_left and intent.proven_by is None and has_failed(seen) else None
    if seen.running is None:
        return intent._replace(proven_by=None)
    if intent.proven_by is None:
        return intent._replace(proven_by=now) if started_at(seen) != intent.invocation else intent
    return intent if intent.is_unverified or probation_left_s(now, intent) > 0 else None


def probation_left_s(now: Instant, intent: Intent) -> float:
    """Return what is left of the probation, in seconds; endless before dockerd was started."""
    return PROBATION_S - now.seconds_since(intent.proven_by) if intent.proven_by is not None else math.inf
