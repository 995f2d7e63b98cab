"""A failing test is run again only where it is marked with a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

FAILS_ONCE = """
import pathlib, pytest
{mark}
def test_fails_once():
    again = pathlib.Path("again")
    if not again.exists():
        again.touch()
        raise AssertionError
"""


@pytest.mark.parametrize(("mark", "status", "shown"), [
    ("@pytest.mark.flaky(reruns=1, reason='dockerd closes the socket late')", pytest.ExitCode.OK, "1 rerun"),
    ("@pytest.mark.flaky(reruns=1)", pytest.ExitCode.USAGE_ERROR, "give the reason"),
    ("@pytest.mark.flaky(reruns=1, reason=' ')", pytest.ExitCode.USAGE_ERROR, "give the reason"),
    ("", pytest.ExitCode.TESTS_FAILED, "1 failed"),
])
def test_a_rerun_needs_a_reason(mark: str, status: pytest.ExitCode, shown: str, tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_it.py").write_text(FAILS_ONCE.format(mark=mark))
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert shown in done.stdout + done.stderr
