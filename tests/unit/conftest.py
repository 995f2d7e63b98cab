"""How long an input takes to be made or judged says more of the host's load than of what is tried."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from dockerd_guard.rootfs import Rootfs

if TYPE_CHECKING:
    from tests.simulation.host import SimulatedHost

settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")


@pytest.fixture
def simulated_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the simulation replace file times (tests/simulation/host.py) for one test."""
    monkeypatch.setattr(Rootfs, "_lstat_on_disk", Rootfs._lstat_on_disk)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory where fsync(2) costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def host(in_memory: Path, simulated_times: None) -> SimulatedHost:
    """A simulated host that complies with its policy: `sockets: [fd://]`, enforced."""
    from tests.simulation.host import SimulatedHost

    return SimulatedHost(in_memory / "host")
