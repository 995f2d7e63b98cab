"""Journal entries of corrections and of the policy."""

from __future__ import annotations

import contextlib
import math
from datetime import datetime

from dockerd_guard.apply.correction import CorrectionResult
from dockerd_guard.apply.state_files import ManualFix
from dockerd_guard.model.location import Location
from dockerd_guard.plan.assessment import Assessment, annotate_fixability
from dockerd_guard.plan.backoff import Contested
from dockerd_guard.policy.model import Mode, Policy, PolicyProblem
from dockerd_guard.report.drift import sentence
from dockerd_guard.report.journal import Cause, Event, JournalEntry, Outcome
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules.judge import drifts


def correction_entry(
    outcome: CorrectionResult, assessment: Assessment, cause: Cause, fixed: tuple[str, ...]
) -> JournalEntry:
    """The entry for a correction. `fixed`: the facts that it ended."""
    done = "; ".join(outcome.steps) or "no changes"
    if outcome.done:
        event, word, message = Event.CORRECTED, Outcome.REPAIRED, f"Docker listens as declared again: {done}."
    elif outcome.hold is not None:
        event, word = Event.HELD, Outcome.HELD
        message = (f"Correction {hold_text(outcome.hold.reason, outcome.hold.until)}. So far: {done}. "
                   f"Next: {outcome.hold.next_step or 'Nothing to do'}.")
    elif outcome.rolled_back:
        event, word = Event.ROLLED_BACK, Outcome.FAILED
        message = (f"The correction failed verification and was rolled back: {outcome.error}. "
                   "Next: Check `journalctl -u docker.service`; the agent retries when something changes.")
    else:
        event, word = Event.FAILED, Outcome.FAILED
        message = (f"The correction failed: {outcome.error}. Next: Check `systemctl status docker.service "
                   "docker.socket`; the agent retries when something changes.")
    # A socket that was open or missing is more useful than the file that caused it.
    about = min(drifts(assessment.findings), default=None, key=lambda finding: (finding.socket is None, finding.code))
    return JournalEntry(
        event, message, outcome=word, cause=cause, rule=about.code if about else None,
        layer=about.layer if about else None, socket=about.socket if about else None,
        location=about.location if about else None, episodes=fixed if outcome.done else _fixable_facts(assessment))


def manual_fix_entry(done: ManualFix, fixed: tuple[str, ...]) -> JournalEntry:
    """The entry for a correction made by `fix`. `fixed`: the facts that it ended."""
    return JournalEntry(Event.CORRECTED, f"Corrected by `dockerd-guard fix`: {'; '.join(done.steps)}.",
                 outcome=Outcome.REPAIRED, episodes=fixed)


def contested_entry(contest: Contested, now: datetime, assessment: Assessment, cause: Cause) -> JournalEntry:
    """The entry for a program that keeps undoing corrections."""
    file, quiet_min = contest.file, math.ceil((contest.until - now).total_seconds() / 60)
    return JournalEntry(
        Event.CONTESTED,
        f"Another program repeatedly {contest.verb} {file}: {contest.rounds} corrections since "
        f"{contest.since:%Y-%m-%d %H:%M:%S %Z} were undone. The agent waits until the program has been quiet for "
        f"{quiet_min} min. Next: Find the program, for example with `auditctl -w {file} -p wa` and later "
        f"`ausearch -i -f {file}`, and stop it or align it with the policy; then run `dockerd-guard fix`.",
        outcome=Outcome.HELD, cause=cause, location=Location(file, 1, 1, 1), episodes=_fixable_facts(assessment))


def hold_text(reason: str, until: datetime | None) -> str:
    """`held: REASON` or `held until TIME: REASON`; a contest is its own reason."""
    if reason.startswith("contested:"):
        return reason
    return f"held{f' until {until:%Y-%m-%d %H:%M %Z}' if until else ''}: {reason}"


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
        findings = annotate_fixability(findings, assessment.seen, assessment.policy, assessment.plan)
    found = tuple(drifts(findings))
    return tuple(finding.fact for finding in found if finding.fix is not None) or tuple(
        finding.fact for finding in found if finding.socket is not None)
