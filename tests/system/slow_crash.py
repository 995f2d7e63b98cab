"""The agent killed, and the machine without power, at every step of a correction that takes everything.

A power cut here is SIGKILL for all processes at once: what the page cache held is still there afterwards. That
nothing depends on it is a matter of order, which tests/unit/test_files.py holds.
"""

from __future__ import annotations

import os

import pytest

from tests.machines.machine import Machine
from tests.support.crash import ends, prepare, try_point

EVERY = int(os.environ.get("CRASH_EVERY", "1"))
"""Try each, or only every so many."""

FIRST = int(os.environ.get("CRASH_FROM", "1"))
"""Go on where an earlier run was ended."""


@pytest.mark.parametrize("cut", [False, True], ids=["killed", "cut"])
def test_every_step_of_a_correction_may_be_the_last(machine: Machine, cut: bool) -> None:
    prepare(machine)
    known, steps = ends(machine)
    assert len(steps) > 80, steps
    wrong = {}
    tried = range(FIRST, len(steps) + 1, EVERY)
    for number in tried:
        found = try_point(machine, known, str(number), cut=cut)
        print(f"{machine.release} {'cut' if cut else 'killed'} at {number}, {steps[number - 1]}: {found or 'ok'}",
              flush=True)
        if found:
            wrong[f"{number}: {steps[number - 1]}"] = found
    print(f"{machine.release}: {len(tried)} of {len(steps)} steps tried, {len(wrong)} hosts neither old nor new")
    assert wrong == {}
