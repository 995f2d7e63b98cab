"""The agent is killed, or the machine loses power, during a correction: a few steps of each kind.

slow_crash.py tries all steps.
"""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.support.crash import STATE, prepare, record_states, try_point

KILLED_AT = ("create /etc/docker/", "call StartUnit", "ask dockerd")
"""Some files written; docker.service stopped; only the verification left."""

CUT_AT = ("unlink /etc/systemd/system/docker.service.d/zzz.conf",)
"""A drop-in exists beside its saved copy: dockerd starts with these files at the next boot."""


def test_killed_correction_is_finished_or_undone(machine: Machine) -> None:
    prepare(machine)
    known, steps = record_states(machine)
    begun = next(number for number, step in enumerate(steps) if step.endswith(f" {STATE}/intent.json"))
    changed = next(number for number, step in enumerate(steps) if step.startswith("create /etc/"))
    asked = max(number for number, step in enumerate(steps) if step == "ask dockerd")
    ended = steps.index(f"unlink {STATE}/intent.json")
    assert steps[begun + 1] == f"fsync {STATE}", "it is on the disk before anything is changed"
    assert begun + 1 < changed < asked < ended
    wrong = {step: try_point(machine, known, step, cut=False) for step in KILLED_AT}
    assert wrong == {step: [] for step in KILLED_AT}


def test_correction_is_finished_or_undone_after_a_power_cut(machine: Machine) -> None:
    prepare(machine)
    known, _ = record_states(machine)
    wrong = {step: try_point(machine, known, step, cut=True) for step in CUT_AT}
    assert wrong == {step: [] for step in CUT_AT}
