"""What the agent publishes about itself, as values and as JSON."""

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

OF_CORRECTIONS = (Event.CORRECTED, Event.HELD, Event.FAILED, Event.ROLLED_BACK, Event.CONTESTED)


class Counters(NamedTuple):
    """Drift that began by rule and layer (`DG101 configured`), what came of corrections by outcome, and for how
    many seconds the API was open to the network against the policy."""

    drifts: Mapping[str, int] = MappingProxyType({})
    corrections: Mapping[str, int] = MappingProxyType({})
    exposed_s: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError, ValueError, OverflowError or AttributeError for what is none."""
        drifts, corrections = ({str(key): int(count) for key, count in data.get(name, {}).items()}
                               for name in ("drifts", "corrections"))
        return cls(drifts, corrections, float(data.get("exposed_s", 0)))

    def and_of(self, entries: Iterable[JournalEntry], known: Collection[str]) -> Self:
        """With these entries. A drift that was `known` (Finding.fact), as from before a restart, began earlier."""
        drifts, corrections = Counter(self.drifts), Counter(self.corrections)
        for entry in entries:
            if entry.event is Event.DRIFT and not set(entry.episodes) & set(known):
                drifts[f"{entry.rule} {entry.layer}"] += 1
            if entry.event in OF_CORRECTIONS and entry.outcome is not None:
                corrections[str(entry.outcome)] += 1
        return self._replace(drifts=dict(drifts), corrections=dict(corrections))


CORRECTIONS = (Event.CORRECTED, Event.FAILED, Event.ROLLED_BACK)
"""Entries that tell what came of a correction, or that none is needed any more."""


class Drift(NamedTuple):
    """A drift that lasts, and since when."""

    since: datetime
    finding: Finding


class HeldCorrection(NamedTuple):
    """A correction that waits: why, since when, until when (None: until something changes), and what somebody may
    do about it."""

    reason: str
    since: datetime
    until: datetime | None
    next_step: str = ""


class Last(NamedTuple):
    """The last correction, or the last drift that ended by itself."""

    at: datetime
    event: str
    outcome: str
    message: str


class AgentStatus(NamedTuple):
    """Where the agent stood when its last pass was over (`at`). `policy_problem`: why a new policy was not taken.

    `state` is one of agent/loop.py's; `contained` the addresses that are cut off from the network.
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
    last: Last | None = None
    counts: Counters = Counters()

    def since(self) -> dict[str, datetime]:
        """Since when each fact lasts."""
        return {drift.finding.fact: drift.since for drift in self.drifts}

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps(self._asdict() | {
            "drifts": [{"since": drift.since, **drift.finding._asdict()} for drift in self.drifts],
            "held": self.held and self.held._asdict(), "last": self.last and self.last._asdict(),
            "counts": {**self.counts._asdict(), "drifts": dict(self.counts.drifts),
                       "corrections": dict(self.counts.corrections)},
        }, default=datetime.isoformat, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises ValueError, KeyError, TypeError, AttributeError or OverflowError for what is no bulletin."""
        data: dict[str, Any] = json.loads(text)
        drifts = (Drift(_time(row.pop("since")), Finding(**{
            **row, "location": Location(*row["location"]) if row["location"] else None})) for row in data["drifts"])
        held, last = data["held"], data["last"]
        return cls(**data | {
            "at": _time(data["at"]), "policy_since": _time(data["policy_since"]),
            "drifts": tuple(drifts), "blind": tuple(data["blind"]), "contained": tuple(data["contained"]),
            "held": held and HeldCorrection(
                held["reason"], _time(held["since"]), held["until"] and _time(held["until"]), held["next_step"]),
            "last": last and Last(**last | {"at": _time(last["at"])}),
            "counts": Counters.from_json(data.get("counts", {})),
        })


def last_of(entries: Iterable[JournalEntry], at: datetime) -> Last | None:
    """The last of these entries that tells of a correction."""
    told = [entry for entry in entries if entry.event in CORRECTIONS and entry.outcome is not None]
    return Last(at, str(told[-1].event), str(told[-1].outcome), told[-1].message) if told else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
