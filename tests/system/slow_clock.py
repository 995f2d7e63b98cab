"""Clock jumps of more than a year: the agent still detects and corrects drift, and follows its windows.

The machines share the clock of this host, so only the agent's clock is changed (clock.c).
"""

from __future__ import annotations

import json
import math
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.machines import host
from tests.machines.machine import Machine, wait_for
from tests.support.blindness import CLOSED, DETECTED_S, OPEN, is_open
from tests.support.correction import (
    ENFORCE,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    repaired,
)

DAY_S = 86400
JUMPS = (-400 * DAY_S, 400 * DAY_S, 0)


@pytest.fixture
def set_machine(machine: Machine, tmp_path: Path) -> Machine:
    """A machine whose agent has a clock of its own."""
    host.prepare("gcc", "libc6-dev")
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).with_name("clock.c"))],
                   check=True)
    machine.copy_in(library, "/usr/local/lib/clock.so")
    machine.write("/etc/systemd/system/dockerd-guard.service.d/clock.conf",
                  "[Service]\nEnvironment=LD_PRELOAD=/usr/local/lib/clock.so\n")
    machine.run("systemctl daemon-reload; systemctl restart dockerd-guard")
    return machine


def set_clock(machine: Machine, seconds: float) -> None:
    machine.write("/run/clock", f"{seconds:.0f}\n")


def now_is(machine: Machine, moment: str) -> None:
    set_clock(machine, (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds())


def _correction_in_s(machine: Machine) -> float:
    """Return the time when our drop-in was last written, by the agent's clock, in seconds from now."""
    corrected = json.loads(machine.read("/var/lib/dockerd-guard/memory.json"))["corrected"]
    at = next((file["at"][0] for file in corrected if file["path"] == OUR_SERVICE_DROPIN), None)
    return (datetime.fromisoformat(at) - datetime.now(UTC)).total_seconds() if at else math.inf


def test_drift_is_detected_after_clock_jumps(set_machine: Machine) -> None:
    machine = set_machine
    for jump in JUMPS:
        set_clock(machine, jump)
        machine.write(OVERRIDE, OPEN)
        wait_for(lambda: is_open(machine), "drift", timeout=DETECTED_S)
        machine.write(OVERRIDE, CLOSED)
        wait_for(lambda: not is_open(machine), "end of the drift", timeout=DETECTED_S)
    assert entries(machine, "blind") == []


def test_drift_is_corrected_after_clock_jumps(set_machine: Machine) -> None:
    machine = set_machine
    enforce(machine)
    for jump in JUMPS:
        set_clock(machine, jump)
        machine.write(OVERRIDE, OPEN.replace("$DOCKER_OPTS", f"--label jump={jump}"))
        wait_for(lambda j=jump: f"--label jump={j}\n" in machine.run(  # type: ignore[misc]
            ["cat", OUR_SERVICE_DROPIN], check=False).out, "correction")
        # The time is that of the agent's clock.
        wait_for(lambda j=jump: abs(_correction_in_s(machine) - j) < DAY_S, "entry about it")  # type: ignore[misc]
    assert entries(machine, "contested") == []


@pytest.mark.parametrize(("window", "outside", "inside"), [
    ("Sat 22:00-02:00 Pacific/Kiritimati", "2026-11-21T21:58:00+14:00", "2026-11-22T01:59:00+14:00"),
    # The hour from 02:00 occurs twice.
    ("Sun 02:30-02:45 Europe/Berlin", "2026-10-25T02:50:00+02:00", "2026-10-25T02:31:00+01:00"),
], ids=["over midnight, in another zone", "in an hour that comes twice"])
def test_window_follows_its_time_zone(
        set_machine: Machine, window: str, outside: str, inside: str) -> None:
    machine = set_machine
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    wait_for(machine.api_answers, "open API")
    now_is(machine, outside)
    machine.write(POLICY, f"{ENFORCE}correct: {{window: '{window}', contain: false}}\nwatch: {{resync: 2s}}\n")
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert f"outside the window {window}" in held[-1]["MESSAGE"]
    assert machine.api_answers()
    now_is(machine, inside)
    wait_for(lambda: repaired(machine), "correction in the window")
    assert not machine.api_answers()
