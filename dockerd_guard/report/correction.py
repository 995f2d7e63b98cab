"""Journal entries of corrections and of the policy."""

from __future__ import annotations

import contextlib
import math
from datetime import datetime

from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import Assessment, annotate_fixability, not_listening, other_ways
from dockerd_guard.plan.backoff import Contested
from dockerd_guard.plan.decide import Result
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.memory import HeldCorrection, ManualFix
from dockerd_guard.policy.model import Mode, Policy, PolicyProblem
from dockerd_guard.report.drift import sentence
from dockerd_guard.report.journal import Cause, Event, JournalEntry, Outcome
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules.judge import drifts


def correction_entry(
    result: Result, assessment: Assessment, cause: Cause, fixed: tuple[str, ...]
) -> JournalEntry:
    """The entry for a correction. `fixed`: the facts that it ended."""
    done = "; ".join(result.steps) or "no changes"
    if result.is_done:
        event, outcome = Event.CORRECTED, Outcome.REPAIRED
        message = _again(result.seen or assessment.seen, assessment, f": {done}")
    elif result.hold is not None:
        event, outcome = Event.HELD, Outcome.HELD
        message = (f"Correction {hold_text(result.hold)}. So far: {done}. "
                   f"Next: {result.hold.next_step or 'Nothing to do'}.")
    elif result.unwritable:
        event, outcome = Event.FAILED, Outcome.FAILED
        message = f"The correction failed: {result.error}. Next: Make this writable; the agent retries automatically."
    elif result.was_rolled_back:
        event, outcome = Event.ROLLED_BACK, Outcome.FAILED
        message = (f"The correction failed verification and was rolled back: {result.error}. "
                   "Next: Check `journalctl -u docker.service`; the agent retries when something changes.")
    else:
        event, outcome = Event.FAILED, Outcome.FAILED
        message = (f"The correction failed: {result.error}. Next: Check `systemctl status docker.service "
                   "docker.socket`; the agent retries when something changes.")
    # A socket that was open or missing is more useful than the file that caused it.
    about = min(drifts(assessment.findings), default=None, key=lambda finding: (finding.socket is None, finding.code))
    return JournalEntry(
        event, message, outcome=outcome, cause=cause, rule=about.code if about else None,
        layer=about.layer if about else None, socket=about.socket if about else None,
        location=about.location if about else None, episodes=fixed if result.is_done else _fixable_facts(assessment))


def corrected_so_far_entry(fixed: tuple[str, ...], cause: Cause) -> JournalEntry:
    """The entry for the facts that a correction ended which is held, or has failed, for the rest."""
    return JournalEntry(Event.CORRECTED, f"Corrected so far: {', '.join(fixed)}.", outcome=Outcome.PENDING,
                        cause=cause, episodes=fixed)


def manual_fix_entry(fix: ManualFix, fixed: tuple[str, ...]) -> JournalEntry:
    """The entry for what `fix` did. `fixed`: the facts that it ended."""
    outcome = Outcome(fix.outcome)
    event = {Outcome.REPAIRED: Event.CORRECTED, Outcome.HELD: Event.HELD}.get(outcome, Event.FAILED)
    steps = "; ".join(fix.steps) or "no changes"
    message = f"Corrected by `dockerd-guard fix`: {steps}." if outcome is Outcome.REPAIRED else (
        f"`dockerd-guard fix` {'was held' if outcome is Outcome.HELD else 'failed'}: {fix.message}. So far: {steps}.")
    return JournalEntry(event, message, outcome=outcome, episodes=fixed)


def _again(seen: Observation, assessment: Assessment, how: str) -> str:
    """That the host complies again, as far as this was seen (I10)."""
    down = not_listening(seen, assessment.policy)
    if down is not None:
        return f"The files comply with the policy again{how}; {down.reason}."
    others = other_ways(assessment.findings)
    if others:
        return f"docker.service listens as declared again{how}; other ways to the API: {', '.join(others)}."
    return f"Docker listens as declared again{how}."


def resolved_entry(held: HeldCorrection, cause: Cause, assessment: Assessment) -> JournalEntry:
    """The entry for a held correction that is not needed any more."""
    again = _again(assessment.seen, assessment, ", but not through the agent")
    return JournalEntry(Event.CORRECTED, f"{again} The correction was {hold_text(held)}.",
                        outcome=Outcome.KEPT, cause=cause)


def contested_entry(contest: Contested, now: datetime, assessment: Assessment, cause: Cause) -> JournalEntry:
    """The entry for a program that keeps undoing corrections."""
    file, quiet_min = contest.file, math.ceil((contest.until - now).total_seconds() / 60)
    return JournalEntry(
        Event.CONTESTED,
        f"Another program repeatedly {contest.verb} {file}: {contest.times} corrections since "
        f"{contest.since:%Y-%m-%d %H:%M:%S %Z} were undone. The agent waits until the program has been quiet for "
        f"{quiet_min} min. Next: Find the program, for example with `auditctl -w {file} -p wa` and later "
        f"`ausearch -i -f {file}`, and stop it or align it with the policy; then run `dockerd-guard fix`.",
        outcome=Outcome.HELD, cause=cause, location=Location(file, 1, 1, 1), episodes=_fixable_facts(assessment))


def hold_text(hold: Hold | HeldCorrection) -> str:
    """`held: REASON`, `held until TIME: REASON`, or `held: REASON, restart due TIME`; a contest is its own reason."""
    if hold.reason.startswith("contested:"):
        return hold.reason
    at = f"{hold.until:%Y-%m-%d %H:%M %Z}" if hold.until is not None else ""
    if hold.is_due:
        return f"held: {hold.reason}, restart due {at}"
    return f"held{at and f' until {at}'}: {hold.reason}"


def policy_entry(policy: Policy, cause: Cause | None = None) -> JournalEntry:
    """The entry for a policy that comes into force."""
    sockets = ", ".join(socket.address for socket in policy.sockets) or "nowhere"
    verb = "correct drift" if policy.mode is Mode.ENFORCE else "report drift"
    message = f"Policy {policy.file} in force: Docker listens on {sockets}; mode {policy.mode}: {verb}."
    return JournalEntry(Event.POLICY, message, cause=cause)


def policy_error_entry(problem: PolicyProblem, outcome: Outcome, consequence: str, next_step: str) -> JournalEntry:
    """The entry for an invalid policy, with its consequence for this host and the next step."""
    return JournalEntry(Event.POLICY, f"{consequence}: {sentence(str(problem))} Next: {next_step}.", outcome=outcome,
                 location=problem.location, level="error")


def _fixable_facts(assessment: Assessment) -> tuple[str, ...]:
    """The facts that the correction would end."""
    findings = assessment.findings
    # The entry is written even if the host cannot be observed any more.
    with contextlib.suppress(OSError, Unreadable):
        findings = annotate_fixability(assessment)
    found = tuple(drifts(findings))
    return tuple(finding.fact for finding in found if finding.fix is not None) or tuple(
        finding.fact for finding in found if finding.socket is not None)
