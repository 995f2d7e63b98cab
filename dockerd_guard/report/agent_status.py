"""The status of the agent as values and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, Self

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.json_values import as_datetime, as_object, as_record, encoded, get, loads
from dockerd_guard.model.location import Location
from dockerd_guard.plan.memory import HeldCorrection
from dockerd_guard.report.journal import Event, JournalEntry

COUNTED_EVENTS = (Event.CORRECTED, Event.HELD, Event.FAILED, Event.ROLLED_BACK, Event.CONTESTED)


class Counters(NamedTuple):
    """Counts of new drifts by rule and layer (`DG101 configured`) and of corrections by outcome, and the seconds in
    which the API was open to the network against the policy."""

    drifts: Mapping[str, int] = MappingProxyType({})
    corrections: Mapping[str, int] = MappingProxyType({})
    exposed_s: float = 0.0

    def with_entries(self, entries: Iterable[JournalEntry], known: Collection[str]) -> Self:
        """The counts plus these entries. A drift whose fact is `known`, as after a restart, is not counted again."""
        drifts, corrections = Counter(self.drifts), Counter(self.corrections)
        for entry in entries:
            if entry.event is Event.DRIFT and not set(entry.episodes) & set(known):
                drifts[f"{entry.rule} {entry.layer}"] += 1
            if entry.event in COUNTED_EVENTS and entry.outcome is not None:
                corrections[str(entry.outcome)] += 1
        return self._replace(drifts=dict(drifts), corrections=dict(corrections))


RESULT_EVENTS = (Event.CORRECTED, Event.FAILED, Event.ROLLED_BACK)
"""Events that are the result of a correction, or the end of a drift without one."""


class Drift(NamedTuple):
    """An open drift and its start time."""

    since: datetime
    finding: Finding


class LastCorrection(NamedTuple):
    """The last correction, or the last drift that ended without one."""

    at: datetime
    event: str
    outcome: str
    message: str


class AgentStatus(NamedTuple):
    """The status of the agent after its last pass, which ended `at`.

    `state` is a state of agent/loop.py. `policy_problem` is the error in a new policy that was not loaded. `blind` are
    the reasons of degraded visibility. `contained` are the addresses that are blocked at the network.
    """

    at: datetime
    pid: int
    state: str
    mode: str
    policy_file: str
    policy_since: datetime
    policy_problem: str
    drifts: tuple[Drift, ...] = ()
    blind: tuple[str, ...] = ()
    held: HeldCorrection | None = None
    contained: tuple[str, ...] = ()
    last: LastCorrection | None = None
    counts: Counters = Counters()

    def since(self) -> dict[str, datetime]:
        """The start time of each open drift, by fact."""
        return {drift.finding.fact: drift.since for drift in self.drifts}

    def to_json(self) -> str:
        """The content of the status file."""
        return json.dumps(encoded(self, {
            Location: list, Drift: lambda drift: {"since": drift.since, **drift.finding._asdict()},
        }), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises JsonError."""
        return as_record(cls, {Drift: _drift})(loads(text))


def _drift(value: object) -> Drift:
    return Drift(get(as_object(value), "since", as_datetime), as_record(Finding)(value))


def last_correction(entries: Iterable[JournalEntry], at: datetime) -> LastCorrection | None:
    """The last result of a correction among these entries."""
    results = [entry for entry in entries if entry.event in RESULT_EVENTS and entry.outcome is not None]
    if not results:
        return None
    return LastCorrection(at, str(results[-1].event), str(results[-1].outcome), results[-1].message)
