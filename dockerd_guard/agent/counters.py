"""Exposure time, for the metrics (report/metrics.py)."""

from __future__ import annotations

import time


class Stopwatch:
    """Sums up in `seconds` how long anything was open to the network."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked_at = time.monotonic()
        self._is_exposed = False

    def go_on(self, seconds: float) -> None:
        """Take in that something was open for so long until now, while no agent ran."""
        self.seconds += seconds
        self._looked_at, self._is_exposed = time.monotonic(), True

    def add(self, seconds: float) -> None:
        """Take in that something was open for so long between two looks."""
        self.seconds += 0.0 if self._is_exposed else seconds

    def looked(self, *, is_exposed: bool, changed_at: float) -> None:
        """Record whether anything is open to the network now. `changed_at`: time.monotonic() of the last trigger.

        An exposure counts from the trigger that led to its detection until the look that no longer finds it.
        """
        now = time.monotonic()
        if self._is_exposed:
            self.seconds += now - self._looked_at
        elif is_exposed and changed_at > self._looked_at:
            self.seconds += now - changed_at
        self._looked_at, self._is_exposed = now, is_exposed
