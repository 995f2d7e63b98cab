"""The installed command line with each release's Python: the unit tests without the source."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.machines.machine import Machine

TOP = Path(__file__).resolve().parents[2]
LEAST = 60
"""The minimum number of tests, so that an empty run fails."""


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("python3-pytest",)


def test_unit_tests_of_the_command_line_pass_when_installed(machine: Machine) -> None:
    # conftest.py needs plugins that Debian's pytest does not have and these tests do not use.
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
