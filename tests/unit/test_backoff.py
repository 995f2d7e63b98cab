"""When a correction that is undone again and again is left alone, and when it is tried again."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from dockerd_guard.plan.backoff import MAX_QUIET, Correction, at_peace, quiet_until, remembered, undone_rounds

START = datetime(2026, 3, 1, tzinfo=UTC)


def war(every: timedelta, lasting: timedelta, *, is_update: bool = False) -> list[timedelta]:
    """When corrections are made while somebody undoes the last one `every` so often, correction or no correction."""
    rounds: tuple[Correction, ...] = ()
    now = START
    while now - START < lasting:
        blamed = undone_rounds(rounds, now, is_update=is_update)
        if not blamed or now >= quiet_until(blamed, now):
            rounds = remembered((*rounds, Correction(now, is_update)), now)
        now += every
    return [each.at - START for each in rounds]


def idempotent_war(every: timedelta, lasting: timedelta) -> list[float]:
    """The same by a configuration manager, which writes only what it does not find; hours since the start."""
    rounds: tuple[Correction, ...] = ()
    found: list[float] = []
    now, written, is_ours = START, START, False
    while now - START < lasting:
        if is_ours and (now - START) % every == timedelta():
            is_ours, written = False, now
        blamed = undone_rounds(rounds, now, is_update=False)
        if not is_ours and (not blamed or now >= quiet_until(blamed, written)):
            rounds = remembered((*rounds, Correction(now, False)), now)
            found.append((now - START) / timedelta(hours=1))
            is_ours = True
        now += timedelta(minutes=30)
    return found


@pytest.mark.parametrize(("every", "lasting", "is_update", "most"), [
    (timedelta(milliseconds=200), timedelta(minutes=5), False, 3),
    (timedelta(seconds=1), timedelta(minutes=30), False, 3),
    (timedelta(seconds=1), timedelta(minutes=30), True, 10),
], ids=str)
def test_a_program_that_never_stops_gets_few_rounds(
        every: timedelta, lasting: timedelta, is_update: bool, most: int) -> None:
    made = len(war(every, lasting, is_update=is_update))
    assert made == most


def test_a_configuration_manager_costs_ever_fewer_restarts() -> None:
    hours = idempotent_war(timedelta(hours=1), timedelta(days=7))
    assert hours[:6] == [0.0, 1.0, 2.0, 6.0, 14.0, 30.0]
    assert all(later - earlier >= 24 for earlier, later in itertools.pairwise(hours[5:]))


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)], ids=["set back", "set forth"])
def test_a_clock_that_is_set_costs_no_more_than_a_few_rounds(jump: timedelta) -> None:
    rounds = tuple(Correction(START + timedelta(minutes=number), False) for number in range(3))
    now = START + timedelta(minutes=3)
    assert undone_rounds(rounds, now, is_update=False)
    assert not undone_rounds(rounds, now + jump, is_update=False)
    assert not remembered(rounds, now + jump)


def test_the_wait_is_as_long_as_the_quarrel_but_at_most_a_day() -> None:
    rounds = tuple(Correction(START + timedelta(days=number), False) for number in range(3))
    written = START + timedelta(days=3)
    assert quiet_until(rounds, written) == written + MAX_QUIET


def test_peace_leaves_only_the_updates() -> None:
    update = Correction(START, True)
    assert at_peace([Correction(START, False), update, Correction(START, False)]) == (update,)
