"""A manual `fix` beside the agent, and a second agent. slow_locking.py has the cases that take longer."""

from __future__ import annotations

import subprocess

from tests.machines.machine import Machine, wait_for
from tests.support.contention import reloads, starts
from tests.support.correction import ENFORCE, LIVE_RESTORE, OPEN, OVERRIDE, POLICY, entries, messages, rests


def test_waiting_agent_ends_on_sigterm(machine: Machine) -> None:
    second = machine.popen("echo $$ > /root/pid; exec dockerd-guard run")
    wait_for(lambda: messages(machine, "Waiting: another agent"), "message of the second agent")
    machine.run("kill $(cat /root/pid)")
    assert second.wait(timeout=20) == 0


def test_manual_fix_and_agent_correct_once(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker; systemctl reset-failed docker")
    container = machine.start_container()
    before = (starts(machine), reloads(machine))
    machine.write(POLICY, ENFORCE)
    by_hand = [machine.popen(["dockerd-guard", "fix"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
               for _ in range(3)]
    outputs = [each.communicate(timeout=90)[0] for each in by_hand]
    assert [each.returncode for each in by_hand] == [0, 0, 0], outputs
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")
    wait_for(lambda: rests(machine), "agent at rest")
    assert (starts(machine), reloads(machine)) == (before[0] + 1, before[1] + 1), outputs
    assert machine.container_pid() == container
    assert not entries(machine, "rolled-back")
