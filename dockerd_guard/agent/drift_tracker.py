"""Open drifts of this host. Each one is logged when it begins and when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime

from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import SEVERITIES, Finding
from dockerd_guard.observe.observation import CONFIGURED, LISTENING, RUNNING, Observation
from dockerd_guard.plan.memory import ManualFix
from dockerd_guard.policy.model import Policy
from dockerd_guard.report.agent_status import Drift
from dockerd_guard.report.correction import manual_fix_entry
from dockerd_guard.report.drift import drift_entry, resolved_entry
from dockerd_guard.report.journal import Cause, Event, Journal, JournalEntry, Outcome
from dockerd_guard.rules._access_paths import dockerd_finding
from dockerd_guard.rules.judge import drifts

CONFIRM_S = 0.5
"""How long layers must differ before this is reported: every ordinary change causes a short difference."""

CONFIRM_CORRECTION_S = 30.0
"""The same while another dockerd-guard corrects the host, which restarts dockerd."""

PASSING_CODES = ("DG307", "DG308", "DG309")
"""Rules on differences between layers. DG102 is one too if the files declare the missing socket, and DG107 if
systemd has not yet reported the starting dockerd as the main process."""


class DriftTracker:
    """Open drifts and observation problems, as already logged to the journal."""

    def __init__(self, journal: Journal, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._journal = journal
        self.drifts: dict[str, Finding] = {}
        """By `Finding.fact`."""
        self.blind: frozenset[str] = frozenset()
        self.written: list[JournalEntry] = []
        """Entries since the last status file, which clears the list."""
        self._doubtful: dict[str, float] = {}
        self._earlier: dict[str, Drift] = {}
        """Drifts of the previous agent process that no look has confirmed yet."""
        self._since: dict[str, datetime] = {}

    def write(self, entry: JournalEntry) -> None:
        """Write an entry to the journal and keep it for the status file."""
        self._journal.write(entry)
        self.written.append(entry)

    def go_on_from(self, drifts: Iterable[Drift]) -> None:
        """Take over the drifts of the previous agent process."""
        self._earlier = {drift.finding.fact: drift for drift in drifts}
        self._since = {fact: drift.since for fact, drift in self._earlier.items()}

    def lasting(self, now: datetime) -> tuple[Drift, ...]:
        """The open drifts, each with its start time."""
        self._since = {fact: self._since.get(fact, now) for fact in {**self._earlier, **self.drifts}}
        return (*(Drift(self._since[fact], finding) for fact, finding in self.drifts.items()), *self._earlier.values())

    def report_drifts(  # noqa: PLR0913 -- what an entry shows
        self, seen: Observation, findings: tuple[Finding, ...], open_to_network: Collection[str], policy: Policy,
        cause: Cause, *, blocked: Collection[str] = (), is_contested: bool, is_being_corrected: bool = False,
        knows_containers: bool = True,
    ) -> bool:
        """Log one entry for each new drift and for each that has ended, none for a known one.

        `open_to_network`: exposed addresses in their canonical form; `blocked`: addresses that were blocked before they
        were found to be open. `is_being_corrected`: another dockerd-guard corrects the host, and leaves a report of
        what it ended; no end is logged before. Without `knows_containers` what the previous agent process reported of
        containers lasts.
        Returns True if another look is needed after CONFIRM_S: a difference may be a step of an ordinary change.
        """
        doubtful_before, self._doubtful = self._doubtful, {}
        confirm_s = CONFIRM_CORRECTION_S if is_being_corrected else CONFIRM_S
        now: dict[str, Finding] = {}
        for finding in self._confirmed((each for each in drifts(findings) if not _is_of_start(each, seen)),
                                       doubtful_before, confirm_s, is_contested=is_contested):
            # One fact may have several findings, such as each certificate that a file names. The worst one is shown.
            rank = SEVERITIES.index(finding.severity)
            if finding.fact not in now or rank <= SEVERITIES.index(now[finding.fact].severity):
                now[finding.fact] = finding
        for fact, finding in now.items():
            known = self.drifts.get(fact)
            exposed = finding.socket is not None and not finding.namespace and (
                canonical(finding.socket) in open_to_network)
            # Until a correction ends, each of its steps changes the text.
            is_step = is_contested or (is_being_corrected and not exposed)
            if known is None or (_text_in_journal(known) != _text_in_journal(finding) and not is_step):
                is_blocked = exposed and finding.socket is not None and canonical(finding.socket) in blocked
                self.write(drift_entry(finding, cause, policy.mode, exposed=exposed, is_blocked=is_blocked,
                                       is_docker_up=seen.running is not None))
        for fact, finding in self.drifts.items():
            if fact in now:
                continue
            if is_contested or is_being_corrected or (seen.troubles and finding.layer != CONFIGURED):
                # It comes and goes with each write of the other program, which one entry has reported; or it
                # cannot be observed now, which is reported too.
                now[fact] = finding
            else:
                self.write(resolved_entry(finding, cause, "not by the agent"))
        self.drifts = now
        self._earlier = {fact: drift for fact, drift in self._earlier.items() if fact not in now}
        if not seen.troubles and not is_being_corrected:
            self._report_what_ended_unseen(cause, knows_containers=knows_containers)
        return not is_being_corrected and any(fact not in now for fact in self._doubtful)

    def _confirmed(
        self, findings: Iterable[Finding], doubtful_before: dict[str, float], confirm_s: float, *, is_contested: bool
    ) -> Iterator[Finding]:
        """Leave out differences that may lie between two steps of an ordinary change.

        An edit comes before its daemon-reload, a stop before a start, and a file that another program rewrites all
        the time is empty for a moment. A difference that ends within `confirm_s` is not reported.
        """
        now = self._monotonic()
        for finding in findings:
            fact = finding.fact
            if fact in self.drifts or fact in self._earlier or not (is_contested or _may_pass(finding)):
                yield finding
                continue
            self._doubtful[fact] = doubtful_before.get(fact, now)
            if now - self._doubtful[fact] >= confirm_s:
                yield finding

    def _report_what_ended_unseen(self, cause: Cause, *, knows_containers: bool) -> None:
        """Log the end of drifts that the previous agent process reported and that no longer exist."""
        unknown = {} if knows_containers else {
            fact: drift for fact, drift in self._earlier.items() if drift.finding.container}
        for fact, drift in self._earlier.items():
            if fact not in unknown:
                self.write(resolved_entry(drift.finding, cause, "before this agent started"))
        self._earlier = unknown

    def forget_fixed(self, findings: tuple[Finding, ...]) -> tuple[str, ...]:
        """Drop and return the drifts that a correction has ended. The entry of the correction names them."""
        now = {finding.fact for finding in findings}
        ended = tuple(fact for fact in self.drifts if fact not in now)
        self.drifts = {fact: finding for fact, finding in self.drifts.items() if fact in now}
        return ended

    def report_manual_fix(self, fix: ManualFix, findings: tuple[Finding, ...]) -> None:
        """Log what `fix` did: the drifts it ended, of those that the journal contains, or why it ended none."""
        known = {**{fact: drift.finding for fact, drift in self._earlier.items()}, **self.drifts}
        ended = {*fix.fixed} & known.keys() - {finding.fact for finding in findings}
        self._earlier = {fact: drift for fact, drift in self._earlier.items() if fact not in ended}
        self.drifts = {fact: finding for fact, finding in self.drifts.items() if fact not in ended}
        if ended or fix.outcome != Outcome.REPAIRED:
            self.write(manual_fix_entry(fix, tuple(fact for fact in known if fact in ended)))

    def report_blindness(self, troubles: list[str]) -> None:
        """Log new observation problems, and those that have ended."""
        now = frozenset(troubles)
        for trouble in sorted(now - self.blind):
            self.write(JournalEntry(Event.BLIND, f"Degraded visibility: {trouble}.", outcome=Outcome.FAILED))
        for trouble in sorted(self.blind - now):
            self.write(JournalEntry(
                Event.BLIND, f"Visibility restored, after: {trouble}.", outcome=Outcome.REPAIRED, level="info"))
        self.blind = now


def _may_pass(finding: Finding) -> bool:
    return finding.code in PASSING_CODES or (
        finding.code in ("DG102", "DG107") and finding.layer in (RUNNING, LISTENING))


def _is_of_start(finding: Finding, seen: Observation) -> bool:
    """Whether this is about a dockerd that still starts, and nothing shows where it will listen: its identity."""
    return finding.code == "DG107" and finding.layer == RUNNING and finding.socket is None and any(
        other.is_starting and dockerd_finding(other) == finding for other in seen.others)


def _text_in_journal(finding: Finding) -> str:
    """The message without its address: the kernel reports [::] for `-H tcp://0.0.0.0`."""
    return finding.message.replace(finding.socket, "") if finding.socket else finding.message
