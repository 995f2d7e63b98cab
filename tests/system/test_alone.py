"""`fix` by hand beside the agent, and a second agent: the ones that take longer are in slow_alone.py."""

from __future__ import annotations

import subprocess

from tests.machines.machine import Machine, wait_for
from tests.support.alone import OPEN, said
from tests.support.correction import ENFORCE, LIVE_RESTORE, OVERRIDE, POLICY, entries, rests
from tests.support.war import reloads, starts


def test_an_agent_that_waits_ends_when_told_to(machine: Machine) -> None:
    second = machine.popen("echo $$ > /root/pid; exec dockerd-guard run")
    wait_for(lambda: said(machine, "Waiting: another agent"), "word of the second")
    machine.run("kill $(cat /root/pid)")
    assert second.wait(timeout=20) == 0


def test_fix_by_hand_and_the_agent_make_one_correction_between_them(machine: Machine) -> None:
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
