"""What `make demo` tells is so on every release."""

from __future__ import annotations

from pathlib import Path

from tests.demo import Story
from tests.machines.machine import Machine


def test_the_demo_comes_to_its_end(bare_machine: Machine, package: Path) -> None:
    Story(bare_machine, package).tell()
