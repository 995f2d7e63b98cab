"""What the agent knows to be wrong on this host: each fact is told when it begins, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from dockerd_guard.apply.state_files import ManualFix
from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, LISTENING, RUNNING, Observation
from dockerd_guard.plan.exposures import exposures
from dockerd_guard.policy.model import Policy
from dockerd_guard.report.agent_status import Drift
from dockerd_guard.report.correction import made_by_hand
from dockerd_guard.report.drift import begun, over
from dockerd_guard.report.journal import Cause, Event, Journal, JournalEntry, Outcome
from dockerd_guard.rules.judge import drifts

CONFIRM_S = 0.5
"""How long layers must differ before it is said: every change passes through that."""

PASSING_CODES = ("DG307", "DG308", "DG309")
"""Rules on differences between layers. DG102 is one too where the files declare what is missing, and DG107
where the dockerd that is starting is not yet the one that systemd has told us of."""


class DriftTracker:
    """The drifts that last and what cannot be seen, as the journal was told of them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.drifts: dict[str, Finding] = {}
        """By `Finding.fact`."""
        self.blind: frozenset[str] = frozenset()
        self.written: list[JournalEntry] = []
        """Entries since the last bulletin, which empties it."""
        self._doubtful: dict[str, float] = {}
        self._earlier: dict[str, Drift] = {}
        """What the agent before this one knew, until a first look tells whether it is still so."""
        self._since: dict[str, datetime] = {}

    def write(self, entry: JournalEntry) -> None:
        """Put an entry into the journal, and keep it for the bulletin."""
        self._journal.write(entry)
        self.written.append(entry)

    def go_on_from(self, drifts: Iterable[Drift]) -> None:
        """Take over what the agent before this one knew."""
        self._earlier = {drift.finding.fact: drift for drift in drifts}
        self._since = {fact: drift.since for fact, drift in self._earlier.items()}

    def lasting(self, now: datetime) -> tuple[Drift, ...]:
        """The drifts that last, each with the moment since which it does."""
        self._since = {fact: self._since.get(fact, now) for fact in {**self._earlier, **self.drifts}}
        return (*(Drift(self._since[fact], finding) for fact, finding in self.drifts.items()), *self._earlier.values())

    def report_drifts(self, seen: Observation, findings: tuple[Finding, ...], policy: Policy, cause: Cause, *,
                    is_contested: bool) -> bool:
        """One entry for each new fact, one for each that is over; none for what is known.

        True where another look is needed after CONFIRM_S, for what may be one step of an ordinary change.
        """
        open_to_network = {canonical(exposure.address) for exposure in exposures(seen, policy)}
        doubtful_before, self._doubtful = self._doubtful, {}
        now = {finding.fact: finding for finding in self._confirmed(drifts(findings), doubtful_before)}
        for fact, finding in now.items():
            known = self.drifts.get(fact)
            if known is None or (_told(known) != _told(finding) and not is_contested):
                exposed = finding.socket is not None and canonical(finding.socket) in open_to_network
                self.write(begun(finding, cause, policy.mode, exposed=exposed, is_docker_up=seen.running is not None))
        for fact, finding in self.drifts.items():
            if fact in now:
                continue
            if is_contested or (seen.troubles and finding.layer != CONFIGURED):
                # It comes and goes with each write of the other side, which one entry has told of; or it
                # cannot be seen just now, which is told too.
                now[fact] = finding
            else:
                self.write(over(finding, cause, "and not by the agent"))
        self.drifts = now
        if not seen.troubles:
            self._tell_what_ended_unseen(cause)
        return any(fact not in now for fact in self._doubtful)

    def _confirmed(self, findings: Iterable[Finding], doubtful_before: dict[str, float]) -> Iterator[Finding]:
        """Leave out what is seen for the first time between two steps of an ordinary change.

        An edit comes before its daemon-reload, and a stop before a start; what closes within
        CONFIRM_S was none of our business.
        """
        now = time.monotonic()
        for finding in findings:
            fact = finding.fact
            if fact in self.drifts or fact in self._earlier or not _may_pass(finding):
                yield finding
                continue
            self._doubtful[fact] = doubtful_before.get(fact, now)
            if now - self._doubtful[fact] >= CONFIRM_S:
                yield finding

    def _tell_what_ended_unseen(self, cause: Cause) -> None:
        """What an agent before this one told of must be told to be over, if it is."""
        for fact, drift in self._earlier.items():
            if fact not in self.drifts:
                self.write(over(drift.finding, cause, "since before this agent was started"))
        self._earlier = {}

    def forget_fixed(self, findings: tuple[Finding, ...]) -> tuple[str, ...]:
        """What a correction has ended, by a look afterwards: the correction's own entry tells it."""
        now = {finding.fact for finding in findings}
        mended = tuple(fact for fact in self.drifts if fact not in now)
        self.drifts = {fact: finding for fact, finding in self.drifts.items() if fact in now}
        return mended

    def report_manual_fix(self, done: ManualFix, findings: tuple[Finding, ...]) -> bool:
        """One entry for the drifts that `fix` has ended, of those that the journal was told of, if there are any."""
        known = {**{fact: drift.finding for fact, drift in self._earlier.items()}, **self.drifts}
        ended = {*done.mended} & known.keys() - {finding.fact for finding in findings}
        self._earlier = {fact: drift for fact, drift in self._earlier.items() if fact not in ended}
        self.drifts = {fact: finding for fact, finding in self.drifts.items() if fact not in ended}
        if ended:
            self.write(made_by_hand(done, tuple(fact for fact in known if fact in ended)))
        return bool(ended)

    def report_blindness(self, troubles: list[str]) -> None:
        """What cannot be seen, and what is seen again."""
        now = frozenset(troubles)
        for trouble in sorted(now - self.blind):
            self.write(JournalEntry(Event.BLIND, f"Not everything can be seen: {trouble}.", outcome=Outcome.FAILED))
        for trouble in sorted(self.blind - now):
            self.write(JournalEntry(
                Event.BLIND, f"Seen again, after: {trouble}.", outcome=Outcome.REPAIRED, level="info"))
        self.blind = now


def _may_pass(finding: Finding) -> bool:
    return finding.code in PASSING_CODES or (
        finding.code in ("DG102", "DG107") and finding.layer in (RUNNING, LISTENING))


def _told(finding: Finding) -> str:
    """The message, whichever way its address is spelt: the kernel says [::] where -H said 0.0.0.0."""
    return finding.message.replace(finding.socket, "") if finding.socket else finding.message
