"""What the agent has counted on this host, over all its restarts: for the metrics (report/metrics.py)."""

from __future__ import annotations

import time


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
