"""The agent is killed, or the machine loses power, at every step of a correction.

A power cut here is SIGKILL for all processes at once: the page cache is still written afterwards.
tests/unit/test_files.py checks that the order of writes does not depend on it.
"""

from __future__ import annotations

import os

import pytest

from tests.machines.machine import Machine
from tests.support.crash import prepare, record_states, try_point

EVERY = int(os.environ.get("CRASH_EVERY", "1"))
"""Try every Nth step."""

FIRST = int(os.environ.get("CRASH_FROM", "1"))
"""Start at this step, to continue an earlier run."""


@pytest.mark.parametrize("cut", [False, True], ids=["killed", "cut"])
def test_correction_recovers_from_a_crash_at_every_step(machine: Machine, cut: bool) -> None:
    prepare(machine)
    known, steps = record_states(machine)
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
