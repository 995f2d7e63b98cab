"""One pass from plan to record. The agent, `fix` and the simulation run this code; they differ in what they give it.

    observe -> judge -> PLAN -> DECIDE -> APPLY -> VERIFY -> RECORD
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from dockerd_guard.agent import fleet_slot
from dockerd_guard.apply.apply import execute, preflight, roll_back
from dockerd_guard.apply.context import Context
from dockerd_guard.apply.rollback import recover
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import UNITS
from dockerd_guard.observe.kernel import HostKernel, UnitStates, observe_engine
from dockerd_guard.observe.machine_id import machine_id
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import required_actions
from dockerd_guard.plan.assessment import Assessment, plan_for
from dockerd_guard.plan.before_start import hold_before_start
from dockerd_guard.plan.decide import (
    Decision,
    Result,
    Verdict,
    decide,
    forecast,
    record,
    retry_s,
    undone_by_us,
    wake_s,
)
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.inputs import foreign_inputs
from dockerd_guard.plan.memory import Attempt, Memory
from dockerd_guard.plan.pending_changes import start_record
from dockerd_guard.plan.plan import Plan
from dockerd_guard.policy.model import Policy
from dockerd_guard.systemd.manager import Refused

Decide = Callable[[Instant, Observation, tuple[Finding, ...], Plan, Policy, Memory], tuple[Decision, Memory]]

RETRY_RECOVERY_S = 5.0


class Pass(NamedTuple):
    """What a pass came to: the assessment, the result of what was executed (None: nothing), the memory to keep, and
    what became of an interrupted correction, as a message."""

    assessment: Assessment
    result: Result | None
    memory: Memory
    recovery: str = ""
    wake_s: float | None = None

    @property
    def seen(self) -> Observation | None:
        """The latest observation, None where something was done since."""
        if self.assessment.decision.verdict is Verdict.RECOVER:
            return None
        return self.assessment.seen if self.result is None else self.result.seen


def assess(  # noqa: PLR0913, PLR0917 -- a pass up to its decision
    seen: Observation, findings: tuple[Finding, ...], policy: Policy, memory: Memory, now: Instant,
    kernel: HostKernel, manager: UnitStates | None, choose: Decide = decide,
) -> tuple[Assessment, Memory]:
    """Plan and decide. Changes nothing; asks the engine only where a restart may be needed."""
    memory = with_start(seen, memory)
    plan = plan_for(seen, policy)
    if memory.intent is not None or required_actions(seen, plan, policy).starts_dockerd:
        seen = seen._replace(engine=observe_engine(seen, kernel, manager))
    if policy.correct.splay_s or policy.correct.fleet is not None:
        seen = seen._replace(machine_id=machine_id(seen.rootfs))
    decision, memory = choose(now, seen, findings, plan, policy, memory)
    return Assessment(seen, policy, findings, plan, decision), memory


def by_hand(  # noqa: PLR0913, PLR0917 -- has decide()'s signature
    now: Instant, seen: Observation, findings: tuple[Finding, ...], plan: Plan, policy: Policy, memory: Memory
) -> tuple[Decision, Memory]:
    """The decision of `fix` and `diff`: as the agent's, whatever the mode, without its delays and its back-off."""
    if memory.intent is not None and not memory.intent.is_applied:
        return decide(now, seen, findings, plan, policy, memory)
    decision, memory = forecast(now, seen, plan, policy, memory)
    if decision.verdict is Verdict.APPLY and decision.actions.starts_dockerd:
        memory = memory.with_restart(now)
    return decision, memory


def with_start(seen: Observation, memory: Memory) -> Memory:
    """With what dockerd was started with, as long as the files still show it."""
    found = start_record(seen, memory.start)
    return memory if found is None else memory._replace(start=found)


def reconcile(  # noqa: PLR0913, PLR0917 -- as assess, and what to act with
    seen: Observation, findings: tuple[Finding, ...], policy: Policy, memory: Memory, context: Context,
    kernel: HostKernel, state: StateFiles, choose: Decide = decide,
) -> Pass:
    """Plan, decide, apply, verify and record. The memory is stored before anything is changed, and afterwards.

    Raises Unavailable when systemd goes away meanwhile.
    """
    seen = seen._replace(disk_problem=context.files.problem(UNITS) if seen.loaded is not None else "")
    memory = fleet_slot.under(policy, memory)
    is_slot_left = memory.fleet.slot is not None
    assessment, memory = assess(seen, findings, policy, memory, context.clock.now(), kernel, context.manager, choose)
    if assessment.decision.verdict is Verdict.LOCK:
        now, memory = fleet_slot.ask(assessment.seen, policy, memory, context, state)
        seen = context.observe()
        seen = seen._replace(disk_problem=context.files.problem(UNITS))
        # At the moment of the answer: otherwise it might be time to ask again.
        assessment, memory = assess(seen, findings, policy, memory, now, kernel, context.manager, choose)
    verdict = assessment.decision.verdict
    if verdict is Verdict.RECOVER:
        memory = fleet_slot.keep(policy, memory, context)
        return _recovered(assessment, memory, context, state)
    result: Result | None = None
    if verdict is Verdict.ROLL_BACK and memory.intent is not None:
        # From here on it is a correction that is being undone, whatever interrupts that.
        begun = memory._replace(intent=memory.intent._replace(is_applied=False))
        with contextlib.suppress(OSError):
            state.save(begun)
        may_start = _may_start(assessment, begun, context, state)
        result = roll_back(seen, memory.intent, policy, context, may_start=may_start)
        memory = _rolled_back(assessment, memory, result, context.clock.now())
    elif verdict is Verdict.APPLY:
        result, memory = _applied(assessment, memory, context, kernel, state)
    is_slot_left &= fleet_slot.is_under_way(assessment.seen, memory, result, context.clock.now())
    if is_slot_left:
        memory = fleet_slot.keep(policy, memory, context)
    if is_slot_left and memory.fleet.slot is not None:
        again_s: float | None = fleet_slot.LOOK_AGAIN_S
    else:
        memory, result, again_s = fleet_slot.end(assessment.seen, policy, memory, result, context)
    with contextlib.suppress(OSError):
        state.save(memory)
    decision = assessment.decision
    waits = (again_s, decision.wake_s if result is None else wake_s(decision, result, policy))
    return Pass(assessment, result, memory, wake_s=min((each for each in waits if each is not None), default=None))


def _applied(
    assessment: Assessment, memory: Memory, context: Context, kernel: HostKernel, state: StateFiles
) -> tuple[Result, Memory]:
    seen, policy, _, plan, decision = assessment
    hold = preflight(seen, decision, plan, policy, context)
    if hold is not None:
        result = Result(False, hold=hold)
        return result, record(context.clock.now(), decision, result, policy, memory)
    try:
        state.save(memory._replace(intent=decision.intent))
    except OSError as error:
        result = Result(False, error=f"{error.filename or state.directory}: {error.strerror}", unwritable=True)
        return result, record(context.clock.now(), decision, result, policy, memory)

    def gate(loaded: Observation) -> Hold | None:
        loaded = loaded._replace(engine=observe_engine(loaded, kernel, context.manager))
        return hold_before_start(context.clock.now(), loaded, plan_for(loaded, policy), policy, memory, seen, decision)

    result = execute(seen, decision, plan, policy, context, gate)
    now = context.clock.now()
    memory = record(now, decision, result, policy, memory)
    intent = decision.intent
    if result.error and result.restored and intent is not None and intent.is_unverified:
        intent = None
    elif result.error and result.restored:
        # The earlier correction stays in force where only this one was undone.
        is_earlier = memory.intent is not None and memory.intent.is_applied and (
            result.undone == decision.actions.changes)
        intent = memory.intent if is_earlier else None
    elif result.error and intent is not None:
        # The earlier correction is not what is left to undo.
        intent = intent._replace(changes=result.undone)
    elif not result.error and intent is not None:
        is_unverified = result.hold is not None and (bool(result.starts) or intent.is_unverified)
        intent = intent.applied._replace(proven_by=now if result.starts else intent.proven_by,
                                 is_unverified=is_unverified)
    return result, memory._replace(intent=intent)


def _may_start(assessment: Assessment, memory: Memory, context: Context, state: StateFiles) -> bool:
    """Whether dockerd may be started to undo a correction: a start that cannot be stored is not made (I2)."""
    if not assessment.decision.actions.start:
        return False
    try:
        state.save(memory.with_restart(context.clock.now()))
    except OSError:
        return False
    return True


def _rolled_back(assessment: Assessment, memory: Memory, result: Result, now: Instant) -> Memory:
    seen, policy, _, plan, _ = assessment
    written = tuple(change.path for change in memory.intent.changes) if memory.intent is not None else ()
    for start in result.starts:
        memory = memory.with_restart(start)
    memory = undone_by_us(memory, result.undone)
    return memory._replace(
        attempt=Attempt(now, result.error, retry_s(result, policy), None, result.was_rolled_back,
                        foreign_inputs(seen, plan, policy, written), written),
        intent=None if result.restored else memory.intent and memory.intent._replace(is_applied=False))


def _recovered(assessment: Assessment, memory: Memory, context: Context, state: StateFiles) -> Pass:
    intent = memory.intent
    assert intent is not None  # noqa: S101 -- decide() recovers nothing else
    try:
        recovery = recover(intent, context, may_start=_may_start(assessment, memory, context, state),
                           is_repaired=assessment.decision.intent is None)
        for start in recovery.starts:
            memory = memory.with_restart(start)
        if recovery.intent is None or not recovery.intent.is_applied:
            memory = undone_by_us(memory, intent.changes)
        memory = memory._replace(intent=recovery.intent)
        state.save(memory)
    except (OSError, Refused) as error:
        return Pass(assessment, None, memory, f"cannot finish or undo an earlier correction: {error}", RETRY_RECOVERY_S)
    return Pass(assessment, None, memory, recovery.message, 0.0)
