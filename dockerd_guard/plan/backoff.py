"""Back-off from a program that undoes our corrections. Pure.

After three undone corrections, the next one waits until the other program has not written for as long as the
contest has lasted (MIN_QUIET to MAX_QUIET). A script that writes five times a second is thus waited for until
it stops. A configuration manager that runs every hour causes three restarts, then fewer, down to one a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

ROUNDS = 3
"""Corrections that are made without a wait."""

UPDATES = 10
"""Updates of our own files within MIN_QUIET that are made without a wait. Manual edits cause fewer."""

MIN_QUIET = timedelta(minutes=10)
MAX_QUIET = timedelta(days=1)

MEMORY = timedelta(days=7)
"""Older rounds do not count."""


class Correction(NamedTuple):
    """A correction: its time, and whether it only updated our own files on a host that complied."""

    at: datetime
    is_update: bool


class Contested(NamedTuple):
    """Corrections that another program keeps undoing: since when, how many, the file it wrote last, whether
    that file exists, and when the next correction is allowed."""

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
    """The undone rounds of this kind, oldest first, if there are too many for another one; else none.

    Rounds in the future, left by a clock that was set back, do not count.
    """
    same = [each for each in rounds if each.is_update == is_update and timedelta() <= now - each.at < MEMORY]
    if not is_update:
        return same if len(same) >= ROUNDS else ()
    quick = same[-UPDATES:]
    return quick if len(quick) == UPDATES and quick[-1].at - quick[0].at < MIN_QUIET else ()


def quiet_until(undone_rounds: Sequence[Correction], written: datetime) -> datetime:
    """When the next correction is allowed, if the other program wrote last at `written`."""
    return written + min(max(written - undone_rounds[0].at, MIN_QUIET), MAX_QUIET)


def remembered(rounds: Sequence[Correction], now: datetime) -> tuple[Correction, ...]:
    """The rounds to keep: those within MEMORY, at most 100."""
    return tuple(each for each in rounds if abs(now - each.at) < MEMORY)[-100:]


def at_peace(rounds: Sequence[Correction]) -> tuple[Correction, ...]:
    """The rounds to keep after another program has made the host comply."""
    return tuple(each for each in rounds if each.is_update)
