"""The console output in the pages is that of the program, on a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import docs
from tests.machines.machine import Machine, wait_for

SHOWING = [path for path in docs.PAGES if any(step.kind == "show" for step in docs.steps(path))]


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: path.name)
def test_page_contains_the_current_output(path: Path, package: Path) -> None:
    with Machine.boot(docs.RELEASE, package=package) as machine:
        wait_for(lambda: machine.is_active("dockerd-guard.service"), "agent")
        assert docs.normal(docs.play(machine, path)) == docs.normal(path.read_text()), "`make docs` updates the pages"
