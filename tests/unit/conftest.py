"""How long an input takes to be made or judged says more of the host's load than of what is tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from dockerd_guard.rootfs import FileStatus, Rootfs

if TYPE_CHECKING:
    from tests.simulation.host import SimulatedHost

settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")


@pytest.fixture
def simulated_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files have their mtime, which the simulation sets, as their ctime, which only the kernel sets. Directories have
    none."""
    real = Rootfs._lstat_on_disk

    def with_simulated_time(self: Rootfs, where: str) -> FileStatus | None:
        entry = real(self, where)
        return entry and entry._replace(ctime_ns=entry.mtime_ns if entry.is_file or entry.is_link else 0)

    monkeypatch.setattr(Rootfs, "_lstat_on_disk", with_simulated_time)


@pytest.fixture
def host(tmp_path: Path, simulated_times: None) -> SimulatedHost:
    """A simulated host that complies with its policy: `sockets: [fd://]`, enforced."""
    from tests.simulation.host import SimulatedHost

    return SimulatedHost(tmp_path / "host")
