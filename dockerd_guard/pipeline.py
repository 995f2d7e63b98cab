"""The one pipeline: observe -> judge -> plan -> gate -> apply -> verify.

Every verb is this, stopped at a different point: `sockets` after observe, `lint` after judge,
`diff` after plan and gate; `fix` goes through once, `run` for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.bindings import Tls
from dockerd_guard.correct.contain import exposures
from dockerd_guard.correct.correction import Means, Needs, Outcome, correct, needs, obstructed
from dockerd_guard.correct.gate import Cost, Hold, Situation, cost, may_restart
from dockerd_guard.correct.network import Network, NoNetwork
from dockerd_guard.correct.plan import Plan, make_plan
from dockerd_guard.correct.state import ByHand, State
from dockerd_guard.correct.untried import started, untried
from dockerd_guard.judge.dg303 import DROPIN_NAME
from dockerd_guard.judge.finding import Finding, Fix
from dockerd_guard.judge.judge import drifts, judge
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.observation import CONFIGURED, LOADED, Configured, Observation
from dockerd_guard.policy import Policy, Restart
from dockerd_guard.systemd.manager import Manager
from dockerd_guard.tree import Tree


class Assessment(NamedTuple):
    """A host, judged and planned for, with what carrying the plan out needs and costs now."""

    seen: Observation
    policy: Policy
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
    situation = _at_rest(seen)
    if todo.restarts:
        situation = situation_of(seen, state, network)
        in_swarm = situation.engine is not None and situation.engine.in_swarm
        situation = situation._replace(untried=untried(seen, plan.base, state.started(), in_swarm=in_swarm))
    hold = obstructed(plan, policy) if plan.obstacles else (
        may_restart(policy.correct, situation) if todo.restarts else None)
    cut_off = exposures(seen, policy) if hold is not None and policy.correct.contain else ()
    return Assessment(seen, policy, judge(seen, policy) if findings is None else findings, plan, todo, situation,
                      cost(bool(todo.changes or todo.reload), todo.restarts, situation), hold,
                      tuple(exposure.address for exposure in cut_off))


def promised(findings: tuple[Finding, ...], seen: Observation, policy: Policy, plan: Plan) -> tuple[Finding, ...]:
    """The findings, each with the `fix` that the plan really is for it.

    A rule sees one thing, the plan all of them: where something stands in its way nothing is mended, and where
    it gives the command line anew, whatever was wrong with the old one is gone.
    """
    todo = needs(seen, plan, policy)
    judged = None
    if plan.changes:
        with seen.tree.changed({change.path: change.after for change in plan.changes}) as corrected:
            judged = [finding for finding in judge(seen._replace(tree=corrected, configured=plan.after), policy)
                      if finding.layer == CONFIGURED]
    # Preflight would find the same, and hold.
    if plan.obstacles or any(finding.code in ("DG206", "DG207") and finding.severity == "error"
                             for finding in (judged if judged is not None else findings)):
        return tuple(finding._replace(fix=None) for finding in findings)
    left = None if judged is None else {finding.fact for finding in judged}
    never = todo.restarts and policy.correct.restart is Restart.NEVER
    return tuple(finding._replace(fix=_promised(finding, left, plan, todo, seen, never=never)) for finding in findings)


def _promised(  # noqa: PLR0913 -- the things it depends on
    finding: Finding, left: set[str] | None, plan: Plan, todo: Needs, seen: Observation, *, never: bool
) -> Fix | None:
    """`left` are the facts that would still be true of the files, None where these stay as they are."""
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


def carry_out(assessment: Assessment, means: Means) -> Outcome:
    """Apply and verify. Raises Unavailable when systemd goes away meanwhile."""
    remember_start(assessment.seen, means.state)
    return correct(assessment.seen, assessment.plan, assessment.policy, assessment.situation, means)


def remember_start(seen: Observation, state: State) -> None:
    """Note down what dockerd was started with, as long as the files still say it."""
    if (found := started(seen, state.started())) is not None:
        # Then a later restart waits for somebody to look.
        with contextlib.suppress(OSError):
            state.keep_started(found)


def leave_word(assessment: Assessment, outcome: Outcome, means: Means) -> None:
    """Let the agent know what was corrected beside it."""
    if not outcome.steps:
        return
    left = {finding.fact for finding in judge(outcome.seen or means.observe(), assessment.policy)}
    mended = tuple(finding.fact for finding in drifts(assessment.findings) if finding.fact not in left)
    # The correction stands, whether it is told or not.
    with contextlib.suppress(OSError):
        means.state.leave_word(ByHand(outcome.steps, mended))


@contextlib.contextmanager
def looks_at(manager: Manager) -> Iterator[Callable[[], Observation]]:
    """A fresh look at this host at each call, which ends the one before."""
    with contextlib.ExitStack() as latest:
        def look() -> Observation:
            latest.close()
            return observe_host(latest.enter_context(Tree()), manager)

        yield look
