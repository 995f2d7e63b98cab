"""Timestamps of systemd, where the wall clock was set since."""

from __future__ import annotations

import pytest

from dockerd_guard.systemd.manager import wall_clock_ns

HOUR_US = 3_600_000_000
NOW_US = 1_764_000_000_000_000
BOOTED_FOR_US = 10 * HOUR_US


@pytest.mark.parametrize(("name", "recorded_us", "monotonic_us", "expected_us"), [
    ("an hour ago", NOW_US - HOUR_US, 9 * HOUR_US, NOW_US - HOUR_US),
    ("never", 0, 0, 0),
    ("the clock was set back by two hours since", NOW_US + HOUR_US, 9 * HOUR_US, NOW_US - HOUR_US),
    # What was written before that has earlier times still.
    ("the clock was set forward by two hours since", NOW_US - 3 * HOUR_US, 9 * HOUR_US, NOW_US - 3 * HOUR_US),
    ("the host was suspended since, which CLOCK_MONOTONIC does not count",
     NOW_US - 3 * HOUR_US, 9 * HOUR_US, NOW_US - 3 * HOUR_US),
    ("set back by a second, as clocks are adjusted", NOW_US - HOUR_US + 1_000_000, 9 * HOUR_US,
     NOW_US - HOUR_US + 1_000_000),
    ("set back by more", NOW_US - HOUR_US + 1_000_001, 9 * HOUR_US, NOW_US - HOUR_US),
    ("without a time by CLOCK_MONOTONIC", NOW_US + HOUR_US, 0, NOW_US + HOUR_US),
])
def test_a_timestamp_by_the_clock_of_now(
    name: str, recorded_us: int, monotonic_us: int, expected_us: int
) -> None:
    assert wall_clock_ns(recorded_us, monotonic_us, NOW_US * 1000, BOOTED_FOR_US * 1000) == expected_us * 1000
