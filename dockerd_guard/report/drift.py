"""A drift that begins, and one that is over: their journal entries."""

from __future__ import annotations

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import LISTENING, RUNNING
from dockerd_guard.policy.model import Mode
from dockerd_guard.report.journal import Cause, Event, JournalEntry, Outcome


def begun(finding: Finding, cause: Cause, mode: Mode, *, exposed: bool, is_docker_up: bool) -> JournalEntry:
    """`exposed`: its socket is open to the network."""
    risk = " Whoever reaches it from the network is root on this host." * exposed
    message = f"{_place(finding)}: {sentence(finding.message)}{risk} {_next(finding, mode, is_docker_up)}"
    return JournalEntry(
        Event.DRIFT, message, cause=cause,
        rule=finding.code, layer=finding.layer, socket=finding.socket, location=finding.location,
        episodes=(finding.fact,), exposed=exposed)


def over(finding: Finding, cause: Cause, how: str) -> JournalEntry:
    """`how` it ended, which was not by a correction of ours."""
    return JournalEntry(
        Event.CORRECTED, f"No longer so, {how}: {_place(finding)}: {sentence(finding.message)}",
        outcome=Outcome.KEPT, cause=cause, rule=finding.code, layer=finding.layer, socket=finding.socket,
        location=finding.location, episodes=(finding.fact,))


def sentence(text: str) -> str:
    """As a sentence of its own; an address at its beginning stays as it is."""
    begins_with_address = ":" in text.partition(" ")[0]
    return (text if begins_with_address else text[:1].upper() + text[1:]) + "." * (not text.endswith((".", "?")))


def _place(finding: Finding) -> str:
    where = finding.location
    return f"{finding.code} at {where.file}:{where.line}" if where is not None else finding.code


def _next(finding: Finding, mode: Mode, is_docker_up: bool) -> str:
    if finding.code == "DG102" and finding.layer in (RUNNING, LISTENING) and not is_docker_up:
        # Neither `fix` nor the agent starts what somebody has stopped.
        return "Next: `systemctl start docker.service`, if Docker is meant to run here."
    if finding.code == "DG307":
        return "Next: `systemctl daemon-reload`, unless a correction does it."
    if finding.code == "DG308":
        # A correction restarts dockerd only where what it was started with is not what the policy declares.
        return "Next: `systemctl restart docker.service`, when it suits, unless a correction does it."
    if finding.fix is None:
        return f"Next: mend it by hand, as `dockerd-guard explain {finding.code}` tells."
    if mode is Mode.ENFORCE:
        return "Next: nothing to do, unless a correction is told to be held or to have failed."
    return "Next: `dockerd-guard diff` shows what would mend it and what that costs, `dockerd-guard fix` does it."
