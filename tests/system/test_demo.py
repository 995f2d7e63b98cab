"""`make demo` works on every release."""

from __future__ import annotations

from pathlib import Path

from tests.demo import Story
from tests.machines.machine import Machine


def test_demo_completes(bare_machine: Machine, package: Path) -> None:
    Story(bare_machine, package).run()
