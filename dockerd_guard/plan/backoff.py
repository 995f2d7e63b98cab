"""Another program that undoes our corrections: when to stop, and when to try again. Pure.

A correction that has to be made for the fourth time is a quarrel, which no further round decides.
From then on the other side has to keep still for as long as the quarrel has lasted, before one more
is tried. So a script that writes five times a second is waited for until it has stopped, and a configuration
manager that comes by every hour costs three restarts, then ever fewer, down to one a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

ROUNDS = 3
"""So often a host is put right without more ado."""

UPDATES = 10
"""So many updates of our own files within MIN_QUIET: more than somebody does who edits by hand."""

MIN_QUIET = timedelta(minutes=10)
MAX_QUIET = timedelta(days=1)

MEMORY = timedelta(days=7)
"""Rounds longer ago are another story."""


class Correction(NamedTuple):
    """A correction: when it was made, and whether it did no more than bring our own files up to date, on
    a host that complied all along."""

    at: datetime
    is_update: bool


class Contested(NamedTuple):
    """What another program keeps undoing: since when, how often, the file it wrote last, and until when
    that has to be left alone."""

    since: datetime
    rounds: int
    file: str
    is_there: bool
    until: datetime

    @property
    def verb(self) -> str:
        """What the other program does to the file."""
        return "writes" if self.is_there else "removes"


def undone_rounds(rounds: Sequence[Correction], now: datetime, *, is_update: bool) -> Sequence[Correction]:
    """The rounds, oldest first, after which another one of this kind would be one too many; none: go ahead.

    Rounds in the future, which a clock set back leaves behind, do not count.
    """
    same = [each for each in rounds if each.is_update == is_update and timedelta() <= now - each.at < MEMORY]
    if not is_update:
        return same if len(same) >= ROUNDS else ()
    quick = same[-UPDATES:]
    return quick if len(quick) == UPDATES and quick[-1].at - quick[0].at < MIN_QUIET else ()


def quiet_until(undone_rounds: Sequence[Correction], written: datetime) -> datetime:
    """When the other side, which wrote last at this moment, has kept still for long enough."""
    return written + min(max(written - undone_rounds[0].at, MIN_QUIET), MAX_QUIET)


def remembered(rounds: Sequence[Correction], now: datetime) -> tuple[Correction, ...]:
    """What is worth keeping of them."""
    return tuple(each for each in rounds if abs(now - each.at) < MEMORY)[-100:]


def at_peace(rounds: Sequence[Correction]) -> tuple[Correction, ...]:
    """What remains when the other side has come round: the host complies by something that we did not write."""
    return tuple(each for each in rounds if each.is_update)
