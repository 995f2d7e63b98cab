"""The command line as the package installed it, on each release's own Python: the unit tests without their source."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.machines.machine import Machine

TOP = Path(__file__).resolve().parents[2]
LEAST = 60
"""So many tests there are at least: none passes when none is found."""


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("python3-pytest",)


def test_the_installed_command_line(machine: Machine) -> None:
    # conftest.py is for what Debian's own pytest has not got, and this file's tests do not use.
    files = subprocess.run(["tar", "--create", "--exclude=__pycache__", "--exclude=conftest.py", "tests",
                            "pyproject.toml"], cwd=TOP, capture_output=True, check=True).stdout
    machine.run(["mkdir", "/tmp/here"])
    subprocess.run(machine.command("tar", "--extract", "--directory=/tmp/here"), input=files, check=True)
    done = machine.run("cd /tmp/here && python3 -B -m pytest -q -p no:cacheprovider "
                       "tests/unit/test_cli.py tests/unit/test_output.py", check=False, timeout=600)
    passed = re.search(r"(\d+) passed", done.out)
    assert done.status == 0, done.out
    assert passed is not None
    assert int(passed[1]) >= LEAST, done.out
