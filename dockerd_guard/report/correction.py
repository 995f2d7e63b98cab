"""What became of a correction, and of the policy: their journal entries."""

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


def made(outcome: CorrectionResult, assessment: Assessment, cause: Cause, mended: tuple[str, ...]) -> JournalEntry:
    """A correction that was tried. `mended`: the facts that are over by it."""
    done = "; ".join(outcome.steps) or "nothing was changed"
    if outcome.done:
        event, word, message = Event.CORRECTED, Outcome.REPAIRED, f"Docker listens as declared again: {done}."
    elif outcome.hold is not None:
        event, word = Event.HELD, Outcome.HELD
        message = (f"Correction {held_in_words(outcome.hold.reason, outcome.hold.until)}. So far: {done}. "
                   f"Next: {outcome.hold.next_step or 'nothing to do'}.")
    elif outcome.rolled_back:
        event, word = Event.ROLLED_BACK, Outcome.FAILED
        message = (f"The correction did not hold and was undone: {outcome.error}. Next: `journalctl -u "
                   "docker.service` of this minute tells why; it is tried again when something changes.")
    else:
        event, word = Event.FAILED, Outcome.FAILED
        message = (f"The correction failed: {outcome.error}. Next: `systemctl status docker.service "
                   "docker.socket`; it is tried again when something changes.")
    # A place that was open or missing says more than the file that made it so.
    about = min(drifts(assessment.findings), default=None, key=lambda finding: (finding.socket is None, finding.code))
    return JournalEntry(
        event, message, outcome=word, cause=cause, rule=about.code if about else None,
        layer=about.layer if about else None, socket=about.socket if about else None,
        location=about.location if about else None, episodes=mended if outcome.done else _correctable(assessment))


def made_by_hand(done: ManualFix, mended: tuple[str, ...]) -> JournalEntry:
    """A correction that `fix` has made beside the agent."""
    return JournalEntry(Event.CORRECTED, f"Corrected by `dockerd-guard fix`: {'; '.join(done.steps)}.",
                 outcome=Outcome.REPAIRED, episodes=mended)


def contested(quarrel: Contested, now: datetime, assessment: Assessment, cause: Cause) -> JournalEntry:
    """Another program undoes what is corrected, again and again."""
    file, quiet_min = quarrel.file, math.ceil((quarrel.until - now).total_seconds() / 60)
    return JournalEntry(
        Event.CONTESTED,
        f"Something else {quarrel.verb} {file} again and again: {quarrel.rounds} corrections since "
        f"{quarrel.since:%Y-%m-%d %H:%M:%S %Z} were undone. No more is tried until it has kept still for "
        f"{quiet_min} min. Next: find that program, as by `auditctl -w {file} -p wa` and later "
        f"`ausearch -i -f {file}`, and stop it or have it agree with the policy; then `dockerd-guard fix`.",
        outcome=Outcome.HELD, cause=cause, location=Location(file, 1, 1, 1), episodes=_correctable(assessment))


def held_in_words(reason: str, until: datetime | None) -> str:
    """As in `Correction held until ...: why`."""
    if reason.startswith("contested:"):
        return reason
    return f"held{f' until {until:%Y-%m-%d %H:%M %Z}' if until else ''}: {reason}"


def policy_taken(policy: Policy, cause: Cause | None = None) -> JournalEntry:
    """A policy comes into force."""
    sockets = ", ".join(socket.address for socket in policy.sockets) or "nowhere"
    verb = "correct drift" if policy.mode is Mode.ENFORCE else "report drift"
    message = f"Policy {policy.file} in force: Docker listens on {sockets}; mode {policy.mode}: {verb}."
    return JournalEntry(Event.POLICY, message, cause=cause)


def policy_refused(problem: PolicyProblem, outcome: Outcome, means: str, next_step: str) -> JournalEntry:
    """A policy that is none: what that `means` for this host, and what to do."""
    return JournalEntry(Event.POLICY, f"{means}: {sentence(str(problem))} Next: {next_step}.", outcome=outcome,
                 location=problem.location, level="error")


def _correctable(assessment: Assessment) -> tuple[str, ...]:
    """What a correction that cannot be made now would end."""
    findings = assessment.findings
    # What was done is told, too, where nothing can be looked at any more.
    with contextlib.suppress(OSError, Unreadable):
        findings = annotate_fixability(findings, assessment.seen, assessment.policy, assessment.plan)
    worth = tuple(drifts(findings))
    return tuple(finding.fact for finding in worth if finding.fix is not None) or tuple(
        finding.fact for finding in worth if finding.socket is not None)
