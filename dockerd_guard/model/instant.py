"""A moment in time that survives changes of the wall clock."""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple

SAME_BOOT_S = 1.0
"""No host boots again in this time."""


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

        Where both clocks show the same difference there was no reboot: systemd-nspawn has a boot ID of its own, while
        the /proc that ProtectProc= mounts for the agent has that of the kernel.
        """
        waited_s = (self.wall - earlier.wall).total_seconds()
        running_s = self.since_boot_s - earlier.since_boot_s
        if self.boot_id == earlier.boot_id or abs(waited_s - running_s) < SAME_BOOT_S:
            return max(running_s, 0.0)
        return max(waited_s, self.since_boot_s, 0.0)
