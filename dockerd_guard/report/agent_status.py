"""The status that the agent publishes, as values and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.report.journal import Event, JournalEntry

COUNTED_EVENTS = (Event.CORRECTED, Event.HELD, Event.FAILED, Event.ROLLED_BACK, Event.CONTESTED)


class Counters(NamedTuple):
    """Counts of new drifts by rule and layer (`DG101 configured`) and of corrections by outcome, and the seconds in
    which the API was open to the network against the policy."""

    drifts: Mapping[str, int] = MappingProxyType({})
    corrections: Mapping[str, int] = MappingProxyType({})
    exposed_s: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError, ValueError, OverflowError or AttributeError for invalid data."""
        drifts, corrections = ({str(key): int(count) for key, count in data.get(name, {}).items()}
                               for name in ("drifts", "corrections"))
        return cls(drifts, corrections, float(data.get("exposed_s", 0)))

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


class HeldCorrection(NamedTuple):
    """A held correction: reason, since when, until when (None: until something changes), and the next step for
    the administrator."""

    reason: str
    since: datetime
    until: datetime | None
    next_step: str = ""


class LastCorrection(NamedTuple):
    """The last correction, or the last drift that ended without one."""

    at: datetime
    event: str
    outcome: str
    message: str


class AgentStatus(NamedTuple):
    """The status of the agent after a pass, at the time `at`. `policy_problem`: why a new policy is invalid.

    `state`: see AgentState in agent/loop.py. `contained`: the addresses blocked at the network.
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
        """Raises ValueError, KeyError, TypeError, AttributeError or OverflowError for invalid data."""
        data: dict[str, Any] = json.loads(text)
        drifts = (Drift(_time(row.pop("since")), Finding(**{
            **row, "location": Location(*row["location"]) if row["location"] else None})) for row in data["drifts"])
        held, last = data["held"], data["last"]
        return cls(**data | {
            "at": _time(data["at"]), "policy_since": _time(data["policy_since"]),
            "drifts": tuple(drifts), "blind": tuple(data["blind"]), "contained": tuple(data["contained"]),
            "held": held and HeldCorrection(
                held["reason"], _time(held["since"]), held["until"] and _time(held["until"]), held["next_step"]),
            "last": last and LastCorrection(**last | {"at": _time(last["at"])}),
            "counts": Counters.from_json(data.get("counts", {})),
        })


def last_correction(entries: Iterable[JournalEntry], at: datetime) -> LastCorrection | None:
    """The last result of a correction among these entries."""
    results = [entry for entry in entries if entry.event in RESULT_EVENTS and entry.outcome is not None]
    if not results:
        return None
    return LastCorrection(at, str(results[-1].event), str(results[-1].outcome), results[-1].message)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
