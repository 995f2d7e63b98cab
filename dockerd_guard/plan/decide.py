"""The decision: what to do about a host now. The only place that decides; `apply` executes and asks nothing. Pure.

    decide(now, observation, findings, plan, policy, memory) -> (Decision, Memory)
    record(now, decision, result, observation, policy, memory) -> Memory
"""

from __future__ import annotations

import math
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.fleet.lock import Slot
from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan import backoff
from dockerd_guard.plan.actions import STARTING_S, Actions, age_s, is_starting, required_actions, started_at
from dockerd_guard.plan.backoff import Contested
from dockerd_guard.plan.exposures import Exposure, exposures, openings
from dockerd_guard.plan.facts import restart_facts
from dockerd_guard.plan.gate import Cost, Hold, RestartFacts, cost, may_restart, may_stop_sockets, what_stops
from dockerd_guard.plan.inputs import foreign_contents, foreign_inputs, inputs
from dockerd_guard.plan.memory import Attempt, HeldCorrection, Intent, Memory
from dockerd_guard.plan.occupied import NEXT_STEP
from dockerd_guard.plan.plan import Change, Plan
from dockerd_guard.plan.probation import has_failed_with, hold_recovery, hold_undo, probation_left_s, proven
from dockerd_guard.plan.slots import must_ask, needs_slot, not_asked, retry_in_s, slot_hold
from dockerd_guard.plan.splay import with_splay
from dockerd_guard.policy.model import Mode, Policy, Restart

QUIET_S = 0.5
"""How long nothing must have changed before own files are removed from a host that complies without them: a program
that writes all the time may write the opposite next."""

CONTESTED_QUIET_S = 10.0
"""The same after a correction was undone: a busy host may delay the next write for seconds."""

MAX_QUIETS = 10
"""After so many times that, own files are removed although something changes all the time: a host where something is
always written is never quiet, and what was the same in each pass meanwhile is not written by turns."""

RETRY_S = 5.0
"""When a hold is checked again that ends without any trigger, such as an engine that did not answer."""

RETRY_HELD_S = 60.0
"""The same for every other hold without an end: that a port became free, say, triggers nothing."""

RETRY_UNWRITABLE_S = 60.0
"""When a correction is tried again that failed since a file could not be written."""

RETRY_UNBINDABLE_S = 5.0
"""The same where dockerd could not bind a declared address. As long as it cannot, preflight holds the next attempt,
which then restarts nothing."""


class Verdict(StrEnum):
    """What is done about a host in one pass."""

    NOTHING = "nothing"
    """It complies, or the policy only observes."""
    WAIT = "wait"
    """Something is changing: look again soon."""
    RECOVER = "recover"
    """A correction was interrupted: finish or undo it first."""
    ROLL_BACK = "roll back"
    """dockerd failed with a correction that was applied: restore what it ran with."""
    HOLD = "hold"
    """There is nothing that may be done now."""
    BACK_OFF = "back off"
    """Another program keeps undoing the correction."""
    LOCK = "lock"
    """The restart is allowed here: ask the fleet for a slot, then observe and decide again."""
    APPLY = "apply"
    """Carry out the actions; with a hold, all but the restart. Without actions, verify an earlier correction."""


class Decision(NamedTuple):
    """What to do now, at what cost, what is held, and when to look again at the latest.

    `actions` are to be executed; `required` is everything that compliance needs. lint, diff, fix, journal and status
    all show this value. `intent` is stored before the first change; of RECOVER and ROLL_BACK it is what is undone, None
    where dockerd has been started since and complies.
    """

    verdict: Verdict
    required: Actions = Actions()
    actions: Actions = Actions()
    cost: Cost = Cost.NOTHING
    hold: Hold | None = None
    contested: Contested | None = None
    contain: tuple[Exposure, ...] = ()
    facts: RestartFacts = RestartFacts(is_active=False)
    intent: Intent | None = None
    wake_s: float | None = None
    foreign: str = ""
    """foreign_inputs() of an action."""
    inputs: str = ""
    """inputs() of an action."""
    slot: Slot | None = None
    """The slot that the restart needs."""

    @property
    def complies(self) -> bool:
        """Whether nothing is left to do."""
        return self.verdict is Verdict.NOTHING and not self.required.anything and self.hold is None


class Result(NamedTuple):
    """What came of executing a decision, as verification saw it (I10).

    `is_done`: the host complies. `error`: what failed; `was_rolled_back`: everything is as before. `hold`: what was
    found only while executing, before anything was changed. `interference`: a file that something else changed
    meanwhile. `unwritable`: a file could not be written. `unbindable`: dockerd could not bind a declared address,
    which another program has, say. `starts`: starts of docker.service, the rollback's included.
    `kept`: changes that are in force. `undone`: changes that were restored to what was there before. `seen`: the last
    look at the host, None if something was done since.
    """

    is_done: bool
    steps: tuple[str, ...] = ()
    hold: Hold | None = None
    error: str = ""
    was_rolled_back: bool = False
    interference: str = ""
    unwritable: bool = False
    starts: tuple[Instant, ...] = ()
    kept: tuple[Change, ...] = ()
    undone: tuple[Change, ...] = ()
    restored: bool = True
    """Whether all files were restored, if they had to be."""
    seen: Observation | None = None
    unbindable: bool = False


def containment(now: Instant, seen: Observation, policy: Policy, memory: Memory) -> tuple[Exposure, ...]:
    """Return what must be blocked at the network now. Needs no findings and no plan (I8, I12).

    What is going to be opened is blocked before: between the moment in which it listens and the first look at that,
    anybody could use it.
    """
    if policy.mode is not Mode.ENFORCE or not policy.correct.contain:
        return ()
    found = exposures(seen, policy, now.date, memory.contained.addresses)
    known = {canonical(exposure.address) for exposure in found}
    is_starting = seen.running is not None and age_s(now, seen.running) < STARTING_S
    return (*found, *(each for each in openings(seen, policy, now.date, is_starting=is_starting)
                      if canonical(each.address) not in known))


def decide(  # noqa: PLR0913, PLR0917 -- DESIGN: the six inputs of every decision
    now: Instant, seen: Observation, findings: tuple[Finding, ...], plan: Plan, policy: Policy, memory: Memory
) -> tuple[Decision, Memory]:
    """Decide what to do, and return the memory to keep, whatever becomes of it. `findings` are those of this pass."""
    memory = _updated(now, seen, policy, memory)
    base, after = _base(now, seen, plan, policy, memory)
    required, facts = base.required, base.facts
    if policy.mode is Mode.ENFORCE or after.needed_restart is None:
        # In mode: observe it counts from the first `fix` on.
        memory = after
    if memory.intent is not None and not memory.intent.is_applied:
        return _recover(now, seen, plan, policy, memory, memory.intent, base)
    if (intent := memory.intent) is not None and has_failed_with(seen, plan, intent):
        if (unsafe := hold_undo(seen, plan)) is not None:
            return base._replace(verdict=Verdict.HOLD, hold=unsafe), _held(memory, now, unsafe)
        return base._replace(verdict=Verdict.ROLL_BACK, actions=_undoing(now, seen, policy, memory),
                             intent=intent), memory
    if policy.mode is not Mode.ENFORCE:
        return base._replace(hold=hold_on_this_host(now, plan, required, facts, policy, memory)), memory
    return _enforce(now, seen, plan, policy, memory, base)


def _recover(  # noqa: PLR0913, PLR0917 -- the inputs of a decision, and what is known of it
    now: Instant, seen: Observation, plan: Plan, policy: Policy, memory: Memory, intent: Intent, base: Decision
) -> tuple[Decision, Memory]:
    """Finish or undo a correction that was interrupted."""
    if is_starting(now, seen):
        hold = Hold("dockerd is starting; an interrupted correction is finished or undone afterwards", next_step="Wait")
        return base._replace(verdict=Verdict.WAIT, hold=hold, wake_s=RETRY_S), memory
    if (unsafe := hold_recovery(seen, plan, intent)) is not None:
        return base._replace(verdict=Verdict.HOLD, hold=unsafe), _held(memory, now, unsafe)
    undone = None if _is_repaired(seen, plan, base.required, intent) else intent
    return base._replace(verdict=Verdict.RECOVER, actions=_undoing(now, seen, policy, memory), intent=undone), memory


def _base(
    now: Instant, seen: Observation, plan: Plan, policy: Policy, memory: Memory
) -> tuple[Decision, Memory]:
    """What is required and what the gate decides on; and the memory with since when."""
    required = required_actions(seen, plan, policy, memory.intent)
    facts, memory = with_splay(now, seen, policy, required, restart_facts(seen, plan, required, memory), memory)
    if not needs_slot(policy, required, facts):
        memory = not_asked(memory)
    price = cost(bool(required.changes or required.reload), required.starts_dockerd, facts)
    return Decision(Verdict.NOTHING, required, cost=price, facts=facts,
                    contain=containment(now, seen, policy, memory)), memory


def forecast(
    now: Instant, seen: Observation, plan: Plan, policy: Policy, memory: Memory
) -> tuple[Decision, Memory]:
    """Return what `fix` would do now: the same decision, whatever the mode, without the delays of the agent."""
    base, memory = _base(now, seen, plan, policy, memory)
    base = base._replace(contain=containment(now, seen, policy._replace(mode=Mode.ENFORCE), memory))
    required, facts = base.required, base.facts
    hold, asks = _gate(now, plan, required, facts, policy, memory)
    if asks:
        return base._replace(verdict=Verdict.LOCK), memory
    actions = _allowed(required, hold, plan, facts)
    verdict = Verdict.APPLY if actions.anything else Verdict.NOTHING if hold is None else Verdict.HOLD
    intent = _intent(now, seen, plan, actions, memory.intent) if actions.anything else None
    return base._replace(verdict=verdict, actions=actions, hold=hold, intent=intent, slot=memory.fleet.slot), memory


def hold_on_this_host(  # noqa: PLR0913, PLR0917 -- parts of the inputs of a decision
    now: Instant, plan: Plan, required: Actions, facts: RestartFacts, policy: Policy, memory: Memory
) -> Hold | None:
    """Return what holds a correction, whatever the fleet says."""
    if plan.obstacles:
        return obstructed(plan, policy)
    if facts.occupied:
        return Hold("; ".join(facts.occupied), next_step=NEXT_STEP)
    if plan.caused:
        return Hold(f"dockerd would not start: {'; '.join(finding.message for finding in plan.caused)}",
                    next_step="Fix this; the agent retries automatically")
    if not required.starts_dockerd:
        return may_stop_sockets(policy.correct, facts)
    return may_restart(policy.correct, facts, memory.restarts, now)


def _gate(  # noqa: PLR0913, PLR0917 -- parts of the inputs of a decision
    now: Instant, plan: Plan, required: Actions, facts: RestartFacts, policy: Policy, memory: Memory
) -> tuple[Hold | None, bool]:
    """What holds the restart; and whether nothing does here, and the fleet is to be asked for a slot first."""
    hold = hold_on_this_host(now, plan, required, facts, policy, memory)
    if hold is not None or not needs_slot(policy, required, facts):
        return hold, False
    return slot_hold(policy, memory), must_ask(now, memory)


def _enforce(  # noqa: PLR0911, PLR0913, PLR0917 -- one return for each verdict
    now: Instant, seen: Observation, plan: Plan, policy: Policy, memory: Memory, base: Decision
) -> tuple[Decision, Memory]:
    required, facts = base.required, base.facts
    memory = memory._replace(unneeded_since=(memory.unneeded_since or now) if _removes_own(required) else None)
    if not required.changes:
        dispute = backoff.dispute(now, seen.rootfs, memory.corrected, CONTESTED_QUIET_S)
        if dispute is not None:
            hold = _contested(dispute)
            return (base._replace(verdict=Verdict.BACK_OFF, hold=hold, contested=dispute, wake_s=CONTESTED_QUIET_S),
                    _held(memory, now, hold))
    if not required.anything and not plan.obstacles:
        if memory.intent is not None and memory.intent.is_unverified and seen.running is not None:
            return base._replace(verdict=Verdict.APPLY, intent=memory.intent, wake_s=RETRY_HELD_S), memory
        left_s = probation_left_s(now, memory.intent) if memory.intent is not None else math.inf
        return base._replace(wake_s=left_s if left_s < math.inf else None), _complied(now, seen, memory)
    if plan.obstacles != memory.obstacles and plan.obstacles:
        # A file that is just being rewritten may say one thing to the observation and another to the plan.
        return base._replace(verdict=Verdict.WAIT, wake_s=0.0), memory._replace(obstacles=plan.obstacles)
    memory = memory._replace(obstacles=plan.obstacles)
    if (wait_s := _unrest_s(now, memory)) > 0:
        return base._replace(verdict=Verdict.WAIT, wake_s=wait_s), memory
    if (failed := memory.attempt) is not None:
        current = inputs(seen, plan, policy)
        # What was repaired between the failure and the first look at the host counts as well.
        is_stale = failed.inputs != current if failed.inputs is not None else (
            failed.foreign not in ("", foreign_inputs(seen, plan, policy, failed.written)))
        left_s = failed.retry_s - now.seconds_since(failed.at)
        if not is_stale and left_s > 0:
            hold = Hold(f"the last attempt failed: {failed.error}", now.wall + timedelta(seconds=left_s),
                        "Fix this; the agent retries automatically")
            memory = _held(memory._replace(attempt=failed._replace(inputs=current)), now, hold)
            return base._replace(hold=hold, verdict=Verdict.HOLD, wake_s=left_s), memory
        memory = memory._replace(attempt=None)
    if (contested := backoff.contested(now, seen.rootfs, required.changes, memory.corrected)) is not None:
        hold = _contested(contested)
        wake_s = (contested.until - now.wall).total_seconds()
        return (base._replace(verdict=Verdict.BACK_OFF, hold=hold, contested=contested, wake_s=max(wake_s, 1.0)),
                _held(memory, now, hold))
    hold_now, asks = _gate(now, plan, required, facts, policy, memory)
    if asks:
        return base._replace(verdict=Verdict.LOCK), memory
    wake_s = retry_in_s(now, memory) or _wake_s(now, hold_now, facts)
    actions = _allowed(required, hold_now, plan, facts)
    decision = base._replace(actions=actions, hold=hold_now)
    memory = _held(memory, now, hold_now)
    if not actions.anything:
        return decision._replace(verdict=Verdict.HOLD, wake_s=wake_s), memory
    intent = _intent(now, seen, plan, actions, memory.intent)
    if actions.starts_dockerd:
        # Counted before it happens, so that no crash can make a restart free (I2).
        memory = memory.with_restart(now)
    foreign = foreign_inputs(seen, plan, policy, tuple(change.path for change in actions.changes))
    return decision._replace(verdict=Verdict.APPLY, intent=intent, foreign=foreign, inputs=inputs(seen, plan, policy),
                             slot=memory.fleet.slot, wake_s=wake_s if hold_now else None), memory


def _undoing(now: Instant, seen: Observation, policy: Policy, memory: Memory) -> Actions:
    """Whether dockerd may be started to undo a correction: one start beyond the budget, since the correction that
    used it up must be undone too (I2, I3). Not if that stops containers, or under `restart: never` (I1)."""
    budget = policy.correct.budget
    recent = [moment for moment in memory.restarts if now.seconds_since(moment) < budget.per_s]
    facts = RestartFacts(seen.running is not None, seen.engine,
                         next_live_restore=seen.configured.daemon.live_restore)
    restart = policy.correct.restart
    stops = restart is not Restart.ALWAYS and bool(what_stops(facts))
    stops |= restart is Restart.NEVER and facts.is_active
    return Actions(start=len(recent) <= budget.restarts and not stops)


def _is_repaired(seen: Observation, plan: Plan, required: Actions, intent: Intent) -> bool:
    """Whether dockerd was started since a correction was interrupted, and complies: to undo the correction would
    restart it with what was wrong before (I3, I14)."""
    is_up = seen.loaded is not None and seen.loaded.active_state == "active" and seen.running is not None
    return is_up and started_at(seen) != intent.invocation and not plan.obstacles and not required.starts_dockerd


def _allowed(required: Actions, hold: Hold | None, plan: Plan, facts: RestartFacts) -> Actions:
    if plan.caused or facts.occupied:
        return Actions()
    if hold is None:
        return required
    # A stop runs commands of the socket unit, and stops what requires it.
    allowed = required.without_starts
    return allowed._replace(stop_sockets=()) if facts.commands or facts.of_sockets else allowed


def _contested(contested: Contested) -> Hold:
    return Hold(f"contested: another program {contested.verb} {contested.file}", contested.until,
                f"Find the program that {contested.verb} it, then run `dockerd-guard fix`")


def _held(memory: Memory, now: Instant, hold: Hold | None) -> Memory:
    """With a hold, and since when it is the same."""
    if hold is None:
        return memory._replace(held=None)
    before = memory.held
    since = before.since if before is not None and before.reason == hold.reason else now.wall
    return memory._replace(held=HeldCorrection(hold.reason, since, *hold[1:]))


def _wake_s(now: Instant, hold: Hold | None, facts: RestartFacts) -> float:
    if hold is not None and hold.until is not None:
        return max((hold.until - now.wall).total_seconds(), 1.0)
    is_silent = facts.is_active and facts.engine is not None and facts.engine.engine is None
    return RETRY_S if is_silent else RETRY_HELD_S


def obstructed(plan: Plan, policy: Policy) -> Hold:
    """Return the hold of a plan that cannot make the host comply."""
    hint = ", or allow `foreign_files` in the policy's `correct`" * (not policy.correct.foreign_files)
    return Hold("; ".join(plan.obstacles), next_step=f"Fix this manually{hint}")


# --- what the memory holds ------------------------------------------------------------------------


def _updated(now: Instant, seen: Observation, policy: Policy, memory: Memory) -> Memory:
    """With what others have done to corrected files; without what the policy no longer asks for."""
    if memory.intent is not None and not memory.intent.is_applied:
        memory = undone_by_us(memory, memory.intent.changes)
    memory = memory._replace(corrected=backoff.observed(now, seen.rootfs, memory.corrected),
                             intent=proven(now, seen, memory.intent))
    if policy.mode is Mode.ENFORCE:
        return memory
    intent = memory.intent and memory.intent._replace(is_unverified=False)
    return memory._replace(held=None, attempt=None, intent=intent)


def _complied(now: Instant, seen: Observation, memory: Memory) -> Memory:
    """Of a host that complies: nothing is held. A failure is forgotten only once dockerd is up, since one that is
    starting complies for a moment. Disputes end once it is quiet."""
    is_starting = seen.loaded is not None and seen.loaded.active_state not in ("active", "inactive")
    attempt = memory.attempt if is_starting else None
    corrected = memory.corrected
    if _is_quiet(now, memory, CONTESTED_QUIET_S):
        corrected = {path: file for path, file in corrected.items() if not file.is_undone}
    return memory._replace(held=None, attempt=attempt, corrected=corrected, obstacles=())


def _is_quiet(now: Instant, memory: Memory, quiet_s: float) -> bool:
    return memory.changed_at is None or now.seconds_since(memory.changed_at) >= quiet_s


def _removes_own(required: Actions) -> bool:
    """Whether own files are to be removed, and that is all. A foreign one is removed only together with a copy that is
    written."""
    return bool(required.changes) and not required.starts_dockerd and all(
        change.after is None for change in required.changes)


def _unrest_s(now: Instant, memory: Memory) -> float:
    """How long to wait before own files are removed: the host complies without them, but may not for long."""
    if memory.unneeded_since is None or memory.changed_at is None:
        return 0.0
    quiet_s = CONTESTED_QUIET_S if any(file.undone for file in memory.corrected.values()) else QUIET_S
    return min(quiet_s - now.seconds_since(memory.changed_at),
               MAX_QUIETS * quiet_s - now.seconds_since(memory.unneeded_since))


def _intent(now: Instant, seen: Observation, plan: Plan, actions: Actions, earlier: Intent | None) -> Intent:
    is_active = seen.running is not None
    stops = (*actions.stop_sockets, *(SOCKET,) * actions.restart_socket,
             *(SERVICE,) * (actions.starts_dockerd and is_active))
    changes = earlier.before(actions.changes) if earlier is not None else actions.changes
    was_starting = seen.loaded is not None and (
        seen.loaded.is_restarting or (is_active and seen.loaded.active_state == "activating"))
    invocation = started_at(seen) if is_active or seen.loaded is None else seen.loaded.invocation
    written = tuple(sorted({change.path for change in changes} | set(earlier.written if earlier is not None else ())))
    return Intent(changes, now, stops, is_active, invocation, starts=actions.start, was_starting=was_starting,
                  written=written, foreign=foreign_contents(seen, plan, written))


def record(
    now: Instant, decision: Decision, result: Result, policy: Policy, memory: Memory
) -> Memory:
    """Return the memory after a decision was executed."""
    if decision.actions.starts_dockerd:
        # Counted by decide() before it happened; what happened is in the result.
        memory = memory._replace(restarts=memory.restarts[:-1])
    for start in result.starts:
        memory = memory.with_restart(start)
    memory = memory._replace(corrected=backoff.corrected(now, result.kept, memory.corrected))
    memory = undone_by_us(memory, result.undone)
    changes = decision.actions.changes
    paths = {change.path for change in changes}
    if result.interference in paths:
        # It was undone before it was complete, which counts as well.
        memory = memory._replace(corrected=backoff.corrected(now, changes, memory.corrected, result.interference))
    elif result.interference:
        memory = memory._replace(corrected=backoff.interrupted(now, result.interference, memory.corrected))
    if result.error and not result.interference:
        # Where nothing was written, the failure has changed none of its inputs.
        known = None if result.undone else decision.inputs or None
        memory = memory._replace(attempt=Attempt(
            now, result.error, retry_s(result, policy), known, result.was_rolled_back, decision.foreign,
            tuple(change.path for change in changes)))
    elif not result.error and result.hold is None:
        memory = memory._replace(attempt=None)
    if result.hold is not None:
        memory = _held(memory, now, result.hold)
    elif result.is_done:
        # The next restart has a cause of its own, and waits for the turn of this host again.
        memory = memory._replace(held=None, needed_restart=None if result.starts else memory.needed_restart)
    return memory


def retry_s(result: Result, policy: Policy) -> float:
    """When a failed correction is tried again if none of its inputs changes, in seconds."""
    soonest = RETRY_UNBINDABLE_S if result.unbindable else RETRY_UNWRITABLE_S if result.unwritable else math.inf
    return min(soonest, policy.watch.resync_s)


def wake_s(decision: Decision, result: Result, policy: Policy) -> float | None:
    """When to look again at the latest after a decision was executed, in seconds: what was found only then may end
    without any trigger, and dockerd may be down until then (I9)."""
    waits = [decision.wake_s] if decision.wake_s is not None else []
    if result.hold is not None:
        waits.append(RETRY_HELD_S if decision.facts.is_active else RETRY_S)
    if result.error:
        waits.append(retry_s(result, policy))
    return min(waits, default=None)


def undone_by_us(memory: Memory, changes: tuple[Change, ...]) -> Memory:
    """Return the memory after these changes were restored: nobody else has undone them (I8)."""
    return memory._replace(corrected=backoff.restored({change.path for change in changes}, memory.corrected))


def forget_policy(memory: Memory) -> Memory:
    """Return the memory under a new policy: what failed, and what was undone, was about the old one."""
    return not_asked(memory)._replace(attempt=None, corrected={}, held=None, obstacles=())


def retry_now(memory: Memory) -> Memory:
    """Return the memory after a request to try again (`systemctl reload`)."""
    return not_asked(memory)._replace(attempt=None)
