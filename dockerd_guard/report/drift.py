"""Journal entries for the begin and the end of a drift."""

from __future__ import annotations

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import LISTENING, RUNNING
from dockerd_guard.policy.model import Mode
from dockerd_guard.report.journal import Cause, Event, JournalEntry, Outcome


def drift_entry(  # noqa: PLR0913 -- what an entry shows
    finding: Finding, cause: Cause, mode: Mode, *, exposed: bool, is_blocked: bool = False, is_docker_up: bool
) -> JournalEntry:
    """The entry for a new drift. `exposed`: its socket is open to the network, unless it `is_blocked` there."""
    risk = (" It is blocked at the network." if is_blocked else
            " Anyone who can reach it from the network has root on this host.") * exposed
    message = f"{_place(finding)}: {sentence(finding.message)}{risk} {_next(finding, mode, is_docker_up)}"
    return JournalEntry(
        Event.DRIFT, message, cause=cause,
        rule=finding.code, layer=finding.layer, socket=finding.socket, location=finding.location,
        episodes=(finding.fact,), exposed=exposed and not is_blocked)


def resolved_entry(finding: Finding, cause: Cause, how: str) -> JournalEntry:
    """The entry for a drift that ended without a correction; `how` it ended."""
    return JournalEntry(
        Event.CORRECTED, f"Resolved, {how}: {_place(finding)}: {sentence(finding.message)}",
        outcome=Outcome.KEPT, cause=cause, rule=finding.code, layer=finding.layer, socket=finding.socket,
        location=finding.location, episodes=(finding.fact,))


def sentence(text: str) -> str:
    """Capitalized and with a full stop; an address at the beginning is not capitalized."""
    begins_with_address = ":" in text.partition(" ")[0]
    return (text if begins_with_address else text[:1].upper() + text[1:]) + "." * (not text.endswith((".", "?")))


def _place(finding: Finding) -> str:
    where = finding.location
    return f"{finding.code} at {where.file}:{where.line}" if where is not None else finding.code


def _next(finding: Finding, mode: Mode, is_docker_up: bool) -> str:
    if finding.code == "DG102" and finding.layer in (RUNNING, LISTENING) and not is_docker_up:
        # Neither `fix` nor the agent starts a Docker that was stopped.
        return "Next: `systemctl start docker.service`, if Docker should run on this host."
    if finding.code == "DG307":
        return "Next: `systemctl daemon-reload`, unless a correction does it."
    if finding.code == "DG308":
        # A correction restarts dockerd only if its sockets differ from the policy.
        return "Next: `systemctl restart docker.service` at a suitable time, unless a correction does it."
    if finding.fix is None:
        return f"Next: Fix it manually; see `dockerd-guard explain {finding.code}`."
    if mode is Mode.ENFORCE:
        return "Next: Nothing to do, unless a `held` or `failed` entry follows."
    return "Next: `dockerd-guard diff` shows the fix and its cost, `dockerd-guard fix` applies it."
