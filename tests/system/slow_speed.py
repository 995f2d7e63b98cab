"""How long the API stays open: from the write that closes it to the first packet refused outside.

Three ways to close it, in turn on one machine: the agent with and without containment, and an operator who has the
right file ready and runs `systemctl daemon-reload && systemctl restart docker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import pytest

from tests.machines.machine import Machine
from tests.support.correction import (
    entries,
)
from tests.support.speed import measure


def report(times: dict[str, list[float]]) -> str:
    """Return one line for each way: median, minimum and maximum in seconds."""
    return "\n".join(f"{name:28}{_shown(each)}" for name, each in times.items())


def _shown(times: Sequence[float]) -> str:
    return f"median {median(times):.3f} s, {min(times):.3f} to {max(times):.3f} s, n = {len(times)}"


def test_time_until_the_api_is_closed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    times = measure(machine)
    with capsys.disabled():
        print(f"\n{machine.release}: from the write to the first packet refused outside")
        print(report(times))
    assert entries(machine, "rolled-back") == []
    assert machine.container_pid()
