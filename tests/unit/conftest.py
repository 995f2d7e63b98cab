"""Settings for all unit tests. Tests of ../shared are not collected where it is missing (tests/support/shared.py)."""

import pytest
from hypothesis import HealthCheck, settings

from tests.support import shared

# How long an input takes to be made or judged depends on the host's load.
settings.register_profile("any host", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any host")

NEED_SHARED = ["test_shared_corpus.py", "test_shared_dockerd.py", "test_shared_systemd.py"]
collect_ignore = [] if shared.IS_THERE else NEED_SHARED


def pytest_configure() -> None:
    if shared.IS_REQUIRED and shared.MISSING:
        missing = ", ".join(shared.MISSING)
        raise pytest.UsageError(f"DOCKERD_GUARD_SHARED=required, but {shared.SHARED} has no {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not shared.IS_THERE:
        terminalreporter.write_line(f"{shared.SHARED} is not there: {', '.join(NEED_SHARED)} are not collected")
