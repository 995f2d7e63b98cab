"""Settings and fixtures of all unit tests. Tests of ../shared are not collected where it is missing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support import shared

if TYPE_CHECKING:
    from tests.simulation.agent import SimulatedAgent
    from tests.simulation.host import SimulatedHost

# How long an input takes to be made or judged depends on the host's load.
settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")

NEED_SHARED = ["test_shared_cases.py", "test_shared_corpus.py", "test_shared_dockerd.py", "test_shared_systemd.py"]
collect_ignore = [] if shared.IS_THERE else NEED_SHARED


def pytest_configure() -> None:
    if shared.IS_REQUIRED and shared.MISSING:
        missing = ", ".join(shared.MISSING)
        raise pytest.UsageError(f"DOCKERD_GUARD_SHARED=required, but {shared.SHARED} has no {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not shared.IS_THERE:
        terminalreporter.write_line(f"{shared.SHARED} is not there: {', '.join(NEED_SHARED)} are not collected")


@pytest.fixture
def simulated_times() -> Iterator[None]:
    """Read the simulated times of files (tests/simulation/host.py) in one test."""
    from tests.simulation import host

    with host.simulated_times():
        yield


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


@pytest.fixture
def agent(host: SimulatedHost) -> SimulatedAgent:
    """An agent on this host, and the journal it writes."""
    from tests.simulation.agent import RecordedJournal, SimulatedAgent

    return SimulatedAgent(host, RecordedJournal())
