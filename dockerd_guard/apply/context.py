"""What a pass acts with. Each part has a stand-in in the simulation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from dockerd_guard.apply.files import HostFiles
from dockerd_guard.fleet.lock import Lock
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.network import Network
from dockerd_guard.observe.observation import Observation, Process
from dockerd_guard.systemd.manager import UnitState

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


class Clock(Protocol):
    """The time, and waiting."""

    def now(self) -> Instant:
        """The current moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class HostClock:
    """The clock of this host."""

    def __init__(self) -> None:
        with open(BOOT_ID_FILE, encoding="ascii") as file:
            self._boot_id = file.read().strip()

    def now(self) -> Instant:
        return Instant(datetime.now(UTC), self._boot_id, time.clock_gettime(time.CLOCK_BOOTTIME))

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Units(Protocol):
    """systemd, as far as a correction acts on it: systemd/manager.py has the errors that each method raises."""

    def unit(self, name: str) -> UnitState:
        """The properties of a unit."""

    def reload(self) -> None:
        """Manager.Reload()."""

    def run_job(self, verb: str, unit: str, timeout_s: float = ...) -> None:
        """Run a job on a unit and wait for its end."""

    def reset_failed(self, unit: str) -> None:
        """Manager.ResetFailedUnit()."""


Validate = Callable[[Process, str, Sequence[str], bytes | None], str | None]
"""As preflight.validate."""


class Context(NamedTuple):
    """systemd, the files, a fresh observation of the host, the network, the clock, and dockerd's own validation.

    The rootfs of the latest observation is open; those of earlier ones need not be.
    """

    manager: Units
    files: HostFiles
    observe: Callable[[], Observation]
    network: Network
    clock: Clock
    validate: Validate
    lock: Lock
    probe: Callable[[Observation], Observation] = lambda seen: seen
    """As probes.Prober: adds what the TCP sockets answer. Raises Unsupported."""
