"""A moment in time that survives changes of the wall clock."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple


class Instant(NamedTuple):
    """A moment by the wall clock (aware) and by CLOCK_BOOTTIME, in seconds, of the boot with this ID."""

    wall: datetime
    boot_id: str = ""
    since_boot_s: float = 0.0

    @property
    def date(self) -> date:
        """The date in the zone of this host."""
        return self.wall.astimezone().date()

    def seconds_since(self, earlier: Instant) -> float:
        """Return the seconds from `earlier` to this moment, never less than zero.

        Within one boot this is exact, whatever the wall clock did. Across a reboot it is the difference by the wall
        clock, but at least the time since boot, since `earlier` was before the boot.
        """
        if self.boot_id == earlier.boot_id:
            return max(self.since_boot_s - earlier.since_boot_s, 0.0)
        return max((self.wall - earlier.wall).total_seconds(), self.since_boot_s, 0.0)
