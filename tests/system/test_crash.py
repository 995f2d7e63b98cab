"""The agent killed, or the machine without power, in the middle of a correction: a few steps of each kind.

All steps: slow_crash.py.
"""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.support.crash import STATE, ends, prepare, try_point

KILLED_AT = ("create /etc/docker/", "call StartUnit", "ask dockerd")
"""Some files written; docker.service stopped; nothing left but to look."""

CUT_AT = ("unlink /etc/systemd/system/docker.service.d/zzz.conf",)
"""A drop-in and its copies there together: by these files dockerd starts at the boot that follows."""


def test_a_correction_that_was_killed_is_finished_or_undone(machine: Machine) -> None:
    prepare(machine)
    known, steps = ends(machine)
    begun = next(number for number, step in enumerate(steps) if step.endswith(f" {STATE}/intent.json"))
    changed = next(number for number, step in enumerate(steps) if step.startswith("create /etc/"))
    asked = max(number for number, step in enumerate(steps) if step == "ask dockerd")
    ended = steps.index(f"unlink {STATE}/intent.json")
    assert steps[begun + 1] == f"fsync {STATE}", "it is on the disk before anything is changed"
    assert begun + 1 < changed < asked < ended
    wrong = {step: try_point(machine, known, step, cut=False) for step in KILLED_AT}
    assert wrong == {step: [] for step in KILLED_AT}


def test_a_correction_that_lost_its_power_is_finished_or_undone(machine: Machine) -> None:
    prepare(machine)
    known, _ = ends(machine)
    wrong = {step: try_point(machine, known, step, cut=True) for step in CUT_AT}
    assert wrong == {step: [] for step in CUT_AT}
