"""What the agent has counted on this host, over all its restarts: for the metrics (report/metrics.py)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from dockerd_guard.report.journal import Entry, Event

OF_CORRECTIONS = (Event.CORRECTED, Event.HELD, Event.FAILED, Event.ROLLED_BACK, Event.CONTESTED)


class Counts(NamedTuple):
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

    def and_of(self, entries: Iterable[Entry], known: Collection[str]) -> Self:
        """With these entries. A drift that was `known` (Finding.fact), as from before a restart, began earlier."""
        drifts, corrections = Counter(self.drifts), Counter(self.corrections)
        for entry in entries:
            if entry.event is Event.DRIFT and not set(entry.episodes) & set(known):
                drifts[f"{entry.rule} {entry.layer}"] += 1
            if entry.event in OF_CORRECTIONS and entry.outcome is not None:
                corrections[str(entry.outcome)] += 1
        return self._replace(drifts=dict(drifts), corrections=dict(corrections))


class Stopwatch:
    """Measures how long something is open to the network; `seconds` in all."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked_at = time.monotonic()
        self._is_exposed = False

    def looked(self, *, is_exposed: bool, changed_at: float) -> None:
        """Something is open to the network just now, or nothing is; `changed_at`: when the last trigger came.

        An exposure counts from the trigger that led to its being seen (time.monotonic), until it is seen no more.
        """
        now = time.monotonic()
        if self._is_exposed:
            self.seconds += now - self._looked_at
        elif is_exposed and changed_at > self._looked_at:
            self.seconds += now - changed_at
        self._looked_at, self._is_exposed = now, is_exposed
