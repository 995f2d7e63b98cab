"""Two agents or corrections on one host: one works, the other waits and reports that. test_locking.py has the quick
cases."""

from __future__ import annotations

import subprocess
import time

from tests.machines.machine import Machine, wait_for
from tests.support.correction import (
    ENFORCE,
    OPEN,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    messages,
    repaired,
)


def test_second_agent_waits_and_takes_over(machine: Machine) -> None:
    first = machine.main_pid("dockerd-guard.service")
    second = machine.popen(["dockerd-guard", "run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: messages(machine, f"another agent, PID {first}, is running on this host"),
             "message of the second agent")
    machine.write(OVERRIDE, OPEN)
    wait_for(lambda: entries(machine, "drift"), "drift entry of the first agent")
    assert {int(entry["_PID"]) for entry in entries(machine, "drift")} == {first}
    machine.write(POLICY, ENFORCE)
    machine.run("systemctl kill --signal=KILL dockerd-guard; systemctl stop dockerd-guard")
    done = wait_for(lambda: repaired(machine), "correction by the second")
    assert first not in {int(entry["_PID"]) for entry in done}
    machine.run("systemctl start dockerd-guard")
    assert "Waiting: another agent" in machine.run("systemctl status dockerd-guard").out
    machine.run(["kill", done[-1]["_PID"]])
    assert second.wait(timeout=20) == 0
    third = machine.main_pid("dockerd-guard.service")
    machine.remove(OVERRIDE)
    wait_for(lambda: not machine.exists(OUR_SERVICE_DROPIN), "removal of our drop-in")
    assert machine.main_pid("dockerd-guard.service") == third


def test_second_correction_waits_for_the_lock(machine: Machine) -> None:
    enforce(machine)
    other = machine.popen(["flock", "/var/lib/dockerd-guard", "sleep", "6"])
    wait_for(lambda: machine.run("flock --nonblock /var/lib/dockerd-guard true", check=False).status == 1, "lock")
    machine.write(OVERRIDE, OPEN)
    began = time.monotonic()
    assert machine.run("dockerd-guard fix").status == 0
    assert time.monotonic() - began > 3
    assert messages(machine, "Waiting: another dockerd-guard is correcting this host")
    assert other.wait() == 0
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")
    wait_for(lambda: machine.exists(OUR_SERVICE_DROPIN), "our drop-in")
