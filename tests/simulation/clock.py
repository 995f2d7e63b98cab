"""Simulated time: nothing waits for it, and what was scheduled happens when it passes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from dockerd_guard.model.instant import Instant

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
BOOT_ID = "simulated-boot"


class SimulatedClock:
    """The clock of one host. `wall_offset_s` is how far somebody set the wall clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.wall_offset_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def now(self) -> Instant:
        return Instant(self.wall, BOOT_ID, self.seconds)

    @property
    def wall(self) -> datetime:
        """The time as the host shows it."""
        return START + timedelta(seconds=self.seconds + self.wall_offset_s)

    def sleep(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        end = self.seconds + seconds
        while self._events and self._events[0][0] <= end:
            at, _, action = heapq.heappop(self._events)
            self.seconds = max(self.seconds, at)
            action()
        self.seconds = max(self.seconds, end)

    def call_in(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen later."""
        heapq.heappush(self._events, (self.seconds + seconds, next(self._order), action))
