"""Assessment of a host: findings, plan, actions, cost and hold. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.network import HelperUnavailable
from dockerd_guard.observe.observation import CONFIGURED, LOADED, Configured, Observation
from dockerd_guard.plan.actions import Actions, required_actions
from dockerd_guard.plan.exposures import exposures
from dockerd_guard.plan.gate import Cost, Hold, Situation, cost, may_restart, obstructed
from dockerd_guard.plan.pending_changes import StartRecord, pending_changes
from dockerd_guard.plan.plan import Plan, make_plan
from dockerd_guard.policy.model import Policy, Restart
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge


class Assessment(NamedTuple):
    """Findings and plan of a host, with the actions, the cost and the hold of the plan now."""

    seen: Observation
    policy: Policy
    findings: tuple[Finding, ...]
    plan: Plan
    actions: Actions
    situation: Situation
    cost: Cost
    hold: Hold | None
    cut_off: tuple[str, ...] = ()
    """Exposed addresses that the agent would block at the network while the correction is held."""


class Records(NamedTuple):
    """Records of earlier passes: our restarts of dockerd, oldest first, and the configuration dockerd started with."""

    restarts: tuple[datetime, ...] = ()
    start: StartRecord | None = None


Ask = Callable[[str], Engine | None]
"""Queries the engine at an address, like engine.ask. Raises HelperUnavailable."""


def assess(
    seen: Observation, policy: Policy, records: Records, ask: Ask, findings: tuple[Finding, ...] | None = None
) -> Assessment:
    """Judge the observation unless `findings` is given, plan, and evaluate the gate. Changes nothing.

    Waits up to engine.TIMEOUT_S for each address of the engine.
    """
    plan = plan_for(seen, policy)
    todo = required_actions(seen, plan, policy)
    situation = _at_rest(seen)
    if todo.restarts:
        situation = situation_of(seen, records.restarts, ask)
        in_swarm = situation.engine is not None and situation.engine.in_swarm
        pending = pending_changes(seen, plan.base, records.start, in_swarm=in_swarm)
        situation = situation._replace(pending_changes=pending)
    hold = obstructed(plan, policy) if plan.obstacles else (
        may_restart(policy.correct, situation) if todo.restarts else None)
    cut_off = exposures(seen, policy) if hold is not None and policy.correct.contain else ()
    return Assessment(seen, policy, judge(seen, policy) if findings is None else findings, plan, todo, situation,
                      cost(bool(todo.changes or todo.reload), todo.restarts, situation), hold,
                      tuple(exposure.address for exposure in cut_off))


def annotate_fixability(
    findings: tuple[Finding, ...], seen: Observation, policy: Policy, plan: Plan
) -> tuple[Finding, ...]:
    """The findings, each with the `fix` that the plan provides.

    A rule sees one finding, the plan all of them: a plan with obstacles fixes nothing, and a plan that sets a new
    command line fixes every finding on the old one.
    """
    todo = required_actions(seen, plan, policy)
    judged = None
    if plan.changes:
        with seen.rootfs.changed({change.path: change.after for change in plan.changes}) as corrected:
            judged = [finding for finding in judge(seen._replace(rootfs=corrected, configured=plan.after), policy)
                      if finding.layer == CONFIGURED]
    # Preflight finds the same, and holds.
    if plan.obstacles or any(finding.code in ("DG206", "DG207") and finding.severity == "error"
                             for finding in (judged if judged is not None else findings)):
        return tuple(finding._replace(fix=None) for finding in findings)
    left = None if judged is None else {finding.fact for finding in judged}
    never = todo.restarts and policy.correct.restart is Restart.NEVER
    return tuple(finding._replace(fix=_fixability(finding, left, plan, todo, seen, never=never))
                 for finding in findings)


def _fixability(  # noqa: PLR0913 -- the things it depends on
    finding: Finding, left: set[str] | None, plan: Plan, todo: Actions, seen: Observation, *, never: bool
) -> Fix | None:
    """`left`: the facts that remain true of the changed files; None if no file changes."""
    if never and finding.socket is not None:
        return None
    if finding.layer != CONFIGURED:
        comes = todo.reload if finding.layer == LOADED else todo.anything
        return finding.fix if comes else None
    if left is None or finding.fact in left:
        return None
    if finding.fix is not None:
        return finding.fix
    if any(not change.path.endswith(f"/{DROPIN_NAME}") for change in plan.changes):
        return "unsafe"
    stops = todo.restarts and seen.running is not None and not seen.running.daemon.live_restore
    return "disruptive" if stops else "safe"


def plan_for(seen: Observation, policy: Policy) -> Plan:
    """The plan for an observation, with the same versions of dockerd and systemd."""
    known = seen.configured

    def observe(rootfs: Rootfs) -> Configured:
        return observe_configured(rootfs, dockerd=known.known_dockerd, systemd=known.systemd_version)

    return make_plan(known, seen.rootfs, policy, observe)


def situation_of(seen: Observation, restarts: tuple[datetime, ...], ask: Ask) -> Situation:
    """The input of the gate. Queries the engine at each address until one answers."""
    answer, unasked = None, ""
    # A starting dockerd does not answer, and a start may take 16 s.
    starts = seen.loaded is not None and seen.loaded.active_state == "activating"
    for address in () if starts else api_addresses(seen):
        try:
            answer = ask(address)
        except HelperUnavailable as error:
            unasked = str(error)
        if answer is not None:
            break
    return _at_rest(seen)._replace(engine=answer, restarts=restarts, unasked=unasked)


def api_addresses(seen: Observation) -> tuple[str, ...]:
    """Addresses of the engine of docker.service without TLS, UNIX sockets first."""
    if seen.listening is None:
        return ()
    addresses = [binding.address for binding in seen.listening.layer.bindings
                 if binding.tls is Tls.NONE]
    return tuple(sorted(addresses, key=lambda address: not address.startswith("unix://")))


def _at_rest(seen: Observation) -> Situation:
    loaded = seen.loaded
    return Situation(None, loaded.dependents if loaded else (), (), datetime.now(UTC),
                     docker_is_active=seen.running is not None)
