"""The one pipeline: observe -> judge -> plan -> gate -> apply -> verify.

Every verb is this, stopped at a different point: `sockets` after observe, `lint` after judge,
`diff` after plan and gate; `fix` goes through once, `run` for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.bindings import Tls
from dockerd_guard.correct.contain import exposures
from dockerd_guard.correct.correction import Means, Needs, Outcome, correct, needs, obstructed
from dockerd_guard.correct.gate import Cost, Hold, Situation, cost, may_restart
from dockerd_guard.correct.network import Network, NoNetwork
from dockerd_guard.correct.plan import Plan, make_plan
from dockerd_guard.correct.state import State
from dockerd_guard.judge.finding import Finding
from dockerd_guard.judge.judge import judge
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.observation import Configured, Observation
from dockerd_guard.policy import Policy
from dockerd_guard.systemd.manager import Manager
from dockerd_guard.tree import Tree


class Assessment(NamedTuple):
    """A host, judged and planned for, with what carrying the plan out needs and costs now."""

    seen: Observation
    findings: tuple[Finding, ...]
    plan: Plan
    needs: Needs
    situation: Situation
    cost: Cost
    hold: Hold | None
    cut_off: tuple[str, ...] = ()
    """Addresses that are open against the policy, and would be cut off while the correction is held."""


def assess(
    seen: Observation, policy: Policy, state: State, network: Network, findings: tuple[Finding, ...] | None = None
) -> Assessment:
    """Judge what was seen (where that was not done yet), plan what it takes, and ask the gate.

    Changes nothing. May wait for the engine to answer, up to engine.TIMEOUT_S for each place it is asked at.
    """
    plan = plan_for(seen, policy)
    todo = needs(seen, plan, policy)
    situation = situation_of(seen, state, network) if todo.anything else _at_rest(seen)
    hold = obstructed(plan, policy) if plan.obstacles else (
        may_restart(policy.correct, situation) if todo.restarts else None)
    cut_off = exposures(seen, policy) if hold is not None and policy.correct.contain else ()
    return Assessment(seen, judge(seen, policy) if findings is None else findings, plan, todo, situation,
                      cost(bool(todo.changes or todo.reload), todo.restarts, situation), hold,
                      tuple(exposure.address for exposure in cut_off))


def plan_for(seen: Observation, policy: Policy) -> Plan:
    """The plan for what was seen, made with the same versions."""
    known = seen.configured

    def observe(tree: Tree) -> Configured:
        return observe_configured(tree, dockerd=known.known_dockerd, systemd=known.systemd_version)

    return make_plan(known, seen.tree, policy, observe)


def situation_of(seen: Observation, state: State, network: Network) -> Situation:
    """What the gate has to know, asked of the engine itself where it answers."""
    answer, unasked = None, ""
    # While it starts it answers nobody, and it may take 16 s over that.
    starts = seen.loaded is not None and seen.loaded.active_state == "activating"
    for address in () if starts else api_addresses(seen):
        try:
            answer = network.ask(address)
        except NoNetwork as error:
            unasked = str(error)
        if answer is not None:
            break
    return _at_rest(seen)._replace(engine=answer, restarts=state.restarts(), unasked=unasked)


def api_addresses(seen: Observation) -> tuple[str, ...]:
    """Where the engine of docker.service can be asked without TLS, UNIX sockets first."""
    if seen.listening is None:
        return ()
    addresses = [binding.address for binding in seen.listening.layer.bindings
                 if binding.tls is Tls.NONE]
    return tuple(sorted(addresses, key=lambda address: not address.startswith("unix://")))


def _at_rest(seen: Observation) -> Situation:
    loaded = seen.loaded
    return Situation(None, loaded.dependents if loaded else (), (), datetime.now(UTC),
                     docker_is_active=seen.running is not None)


def carry_out(assessment: Assessment, policy: Policy, manager: Manager, state: State, network: Network) -> Outcome:
    """Apply and verify. Raises Unavailable when systemd goes away meanwhile."""
    return correct(assessment.seen, assessment.plan, policy, assessment.situation,
                   Means(manager, state, look_again(manager), network))


def look_again(manager: Manager) -> Callable[[], Observation]:
    """A fresh look at this host at each call."""
    def look() -> Observation:
        with Tree() as tree:
            return observe_host(tree, manager)

    return look
