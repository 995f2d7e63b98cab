"""The time between two moments, across reboots and changes of the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from dockerd_guard.model.instant import Instant

EARLIER = Instant(datetime(2026, 11, 23, 12, tzinfo=UTC), "boot", 75_000.0)


class Later(NamedTuple):
    """A moment after EARLIER: its boot, the seconds by the wall clock and since the boot, and what has passed."""

    name: str
    boot_id: str
    wall_s: float
    since_boot_s: float
    passed_s: float


@pytest.mark.parametrize("later", [
    Later("the same boot", "boot", 60, 75_060, 60),
    Later("the wall clock was set", "boot", -86_400, 75_060, 60),
    Later("a reboot", "other", 600, 30, 600),
    Later("a reboot, and the wall clock was set back", "other", -86_400, 30, 30),
    Later("a reboot that lasted for days", "other", 300_000, 100_000, 300_000),
    # `fix` and `diff` took the agent's restarts for those of an earlier boot, and waited for neither budget nor splay.
    Later("the boot ID of systemd-nspawn, and the kernel's", "other", 60, 75_060.2, 60.2),
    Later("the same at one moment", "other", 0, 75_000, 0),
    Later("the same, by a clock that was read before", "other", -0.01, 74_999.99, 0),
], ids=lambda later: later.name)
def test_seconds_since(later: Later) -> None:
    moment = Instant(EARLIER.wall + timedelta(seconds=later.wall_s), later.boot_id, later.since_boot_s)
    assert moment.seconds_since(EARLIER) == pytest.approx(later.passed_s)
