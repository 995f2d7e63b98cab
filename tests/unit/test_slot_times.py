"""When a host asks the lock service again for a slot: by what the service expects, and by how the queue goes on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dockerd_guard.fleet.lock import Fault, LockError
from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.slots import refused, retry_in_s

NOW = Instant(datetime(2026, 11, 25, tzinfo=UTC), "boot", 1000.0)


@pytest.mark.parametrize(("expected_s", "tries", "at_least", "at_most"), [
    (0.5, 1, 1.0, 2.0), (100.0, 1, 100.0, 150.0), (100.0, 3, 180.0, 230.0), (100.0, 20, 300.0, 350.0),
    (10.0, 20, 30.0, 60.0), (900.0, 1, 900.0, 1350.0), (1e9, 1, 900.0, 1350.0), (1e9, 20, 2700.0, 3150.0)])
def test_a_host_asks_again_when_it_is_its_turn(
        expected_s: float, tries: int, at_least: float, at_most: float) -> None:
    """Never earlier than without an expected time, so that a wrong one costs few requests."""
    memory = Memory()
    for _ in range(tries):
        memory = refused(NOW, memory, LockError(Fault.FULL, "full", "Wait", expected_s), "host")
    assert at_least <= retry_in_s(NOW, memory) <= at_most


@pytest.mark.parametrize(("ahead", "later_s", "expected_s"), [
    (9, 60.0, 64.0),  # 10 hosts in a minute, as the service expects: about as before
    (9, 240.0, 120.0),  # a quarter of that: the geometric mean of 60 and 240
    (18, 600.0, 1000.0), (19, 240.0, 60.0), (30, 240.0, 60.0), (9, 1e9, 900.0)])
def test_a_host_sees_how_fast_the_queue_goes_on(ahead: int, later_s: float, expected_s: float) -> None:
    """A slot of a host that was killed is taken until its lease ends, which the lock service takes into no account."""
    memory = refused(NOW, Memory(), LockError(Fault.FULL, "full", "Wait", 120.0, 19), "host")
    later = NOW._replace(since_boot_s=NOW.since_boot_s + later_s)
    memory = refused(later, memory, LockError(Fault.FULL, "full", "Wait", 60.0, ahead), "host")
    asked_again_s = retry_in_s(later, memory)
    assert expected_s * 0.9 <= asked_again_s <= expected_s * 2
    assert memory.fleet.refusal is not None and memory.fleet.refusal.ahead == ahead
