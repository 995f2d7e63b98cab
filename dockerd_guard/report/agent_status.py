"""The status of the agent as values and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, Self, get_args

from dockerd_guard.model.finding import Finding, Fix, Severity
from dockerd_guard.model.json_values import (
    as_datetime,
    as_float,
    as_int,
    as_list,
    as_map,
    as_object,
    as_one_of,
    as_row,
    as_str,
    get,
    loads,
)
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

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises JsonError."""
        data = as_object(value)
        return cls(get(data, "drifts", as_map(as_int), {}), get(data, "corrections", as_map(as_int), {}),
                   get(data, "exposed_s", as_float, 0.0))

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
        return json.dumps(self._asdict() | {
            "drifts": [{"since": drift.since, **drift.finding._asdict()} for drift in self.drifts],
            "held": self.held and self.held._asdict(), "last": self.last and self.last._asdict(),
            "counts": {**self.counts._asdict(), "drifts": dict(self.counts.drifts),
                       "corrections": dict(self.counts.corrections)},
        }, default=datetime.isoformat, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises JsonError."""
        data = as_object(loads(text))
        return cls(
            at=get(data, "at", as_datetime), pid=get(data, "pid", as_int), state=get(data, "state", as_str),
            mode=get(data, "mode", as_str), policy_file=get(data, "policy_file", as_str),
            policy_since=get(data, "policy_since", as_datetime), policy_problem=get(data, "policy_problem", as_str),
            drifts=get(data, "drifts", as_list(_drift)), blind=get(data, "blind", as_list(as_str)),
            held=get(data, "held", _held, None), contained=get(data, "contained", as_list(as_str)),
            last=get(data, "last", _last, None), counts=get(data, "counts", Counters.from_json, Counters()))


def _drift(value: object) -> Drift:
    data = as_object(value)
    return Drift(get(data, "since", as_datetime), Finding(
        get(data, "code", as_str), get(data, "severity", as_one_of(get_args(Severity))), get(data, "message", as_str),
        get(data, "layer", as_str), get(data, "location", _location, None),
        get(data, "fix", as_one_of(get_args(Fix)), None), get(data, "socket", as_str, None),
        *(get(data, name, as_str, "") for name in ("unit", "container", "image"))))


def _location(value: object) -> Location:
    file, *span = as_row(4)(value)
    return Location(as_str(file), *map(as_int, span))


def _held(value: object) -> HeldCorrection:
    data = as_object(value)
    return HeldCorrection(get(data, "reason", as_str), get(data, "since", as_datetime),
                          get(data, "until", as_datetime, None), get(data, "next_step", as_str))


def _last(value: object) -> LastCorrection:
    data = as_object(value)
    return LastCorrection(
        get(data, "at", as_datetime), *(get(data, name, as_str) for name in ("event", "outcome", "message")))


def last_correction(entries: Iterable[JournalEntry], at: datetime) -> LastCorrection | None:
    """The last result of a correction among these entries."""
    results = [entry for entry in entries if entry.event in RESULT_EVENTS and entry.outcome is not None]
    if not results:
        return None
    return LastCorrection(at, str(results[-1].event), str(results[-1].outcome), results[-1].message)
