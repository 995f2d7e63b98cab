"""The verb `fix`: one pass of the agent, whatever the policy's mode."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from dockerd_guard.agent.reconcile import Pass, by_hand, reconcile
from dockerd_guard.apply.context import Context, HostClock
from dockerd_guard.apply.files import HostFiles
from dockerd_guard.apply.preflight import validate
from dockerd_guard.apply.state_files import Busy, StateFiles, exclusive
from dockerd_guard.commands._common import FOUND, OK, Unanswerable, misses, require_libraries
from dockerd_guard.model.finding import Finding
from dockerd_guard.nethelper.fleet_client import local_client
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.observe.kernel import HostKernel, is_active
from dockerd_guard.observe.live import observer
from dockerd_guard.observe.probes import Known, Prober
from dockerd_guard.plan.assessment import not_listening, other_ways
from dockerd_guard.plan.decide import Result, Verdict
from dockerd_guard.plan.memory import ManualFix
from dockerd_guard.plan.slots import not_asked
from dockerd_guard.policy.model import POLICY_FILE, Policy, PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report import json_output, plan
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules.judge import drifts, judge
from dockerd_guard.systemd.manager import Manager, Refused, Unavailable

if TYPE_CHECKING:
    from types import SimpleNamespace

AGENT_WAIT_S = 60.0
"""How long to wait for an agent that is correcting the host."""

MAX_FIXES = 20
"""Fixes that are kept for an agent that does not run."""


def run(options: SimpleNamespace) -> int:
    """Correct the host as far as the policy allows now, print the outcome; returns the exit code."""
    require_libraries("pystemd")
    if os.geteuid() != 0:
        raise Unanswerable("fix writes to /etc and restarts services: run it as root")
    state = StateFiles()
    try:
        policy = load_policy(options.policy or POLICY_FILE, require_root_owned=True)
        with exclusive(state.directory, AGENT_WAIT_S), Manager() as manager:
            done = _fixed(policy, state, manager)
    except (Busy, OSError, PolicyError, Refused, Unavailable, Unreadable) as error:
        raise Unanswerable(str(error)) from None
    return show(done, options.format)


def show(done: Pass, output_format: str) -> int:
    """Print the outcome; returns the exit code."""
    result, assessment = outcome(done), done.assessment
    down = not_listening(result.seen or assessment.seen, assessment.policy) if result.is_done else None
    if output_format == "json":
        print(json_output.dump(plan.outcome_json(result, assessment.decision.cost, down)))
    else:
        print(plan.outcome_text(result, down, other_ways(assessment.findings)), end="")
    return OK if result.is_done and (down is None or not misses(assessment.findings)) else FOUND


def outcome(done: Pass) -> Result:
    """What a pass came to, also where nothing was executed."""
    if done.result is not None:
        return done.result
    decision = done.assessment.decision
    return Result(decision.hold is None and not decision.required.anything, hold=decision.hold,
                  error="" if decision.hold is not None or not decision.required.anything else done.recovery)


def _fixed(policy: Policy, state: StateFiles, manager: Manager) -> Pass:
    kernel, clock = HostKernel(), HostClock()
    network, lock = LocalNetwork(), local_client()
    prober = Prober(network.probe, state, is_active=lambda: is_active(manager))
    with observer(manager, kernel, known=lambda: Known(state.load().start, prober.probes)) as observe:
        context = Context(manager, HostFiles(), observe, network, clock, validate, lock, prober)
        seen = prober(observe())
        seen = seen._replace(access_paths=kernel.access_paths(seen, network, manager))
        findings = judge(seen, policy)
        # The agent may be waiting for its next request for a slot.
        done = reconcile(seen, findings, policy, not_asked(state.load()), context, kernel, state, by_hand)
        if done.recovery:
            print(done.recovery, file=sys.stderr)
        if done.assessment.decision.verdict is Verdict.RECOVER:
            seen = observe()
            findings = judge(seen, policy)
            done = reconcile(seen, findings, policy, state.load(), context, kernel, state, by_hand)
        _queue(done, findings, policy, context, state)
        return done


def _queue(
    done: Pass, findings: tuple[Finding, ...], policy: Policy, context: Context, state: StateFiles
) -> None:
    """Leave the outcome for the agent, which writes the journal entry. The correction stands in any case."""
    result = outcome(done)
    if not result.steps and not result.error:
        return
    left = {finding.fact for finding in judge(result.seen or context.observe(), policy)}
    fixed = tuple(finding.fact for finding in drifts(findings) if finding.fact not in left)
    fix = ManualFix(plan.outcome_word(result), result.steps, fixed if result.is_done else (),
                    result.error or (result.hold.reason if result.hold is not None else ""))
    with contextlib.suppress(OSError):
        state.save(done.memory._replace(manual_fixes=(*done.memory.manual_fixes, fix)[-MAX_FIXES:]))
