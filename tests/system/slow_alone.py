"""Two of us on one host: one works, the other waits and says so."""

from __future__ import annotations

import subprocess
import time

from tests.machines.machine import Machine, wait_for
from tests.system.slow_war import reloads, starts
from tests.system.test_correction import (
    DOCKERD,
    ENFORCE,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    repaired,
)

OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"


def said(machine: Machine, words: str) -> list[str]:
    """The agent's lines with these words in them."""
    return [entry["MESSAGE"] for entry in machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", "--boot")
            if words in entry["MESSAGE"]]


def test_a_second_agent_waits_and_takes_over_when_the_first_has_ended(machine: Machine) -> None:
    first = machine.main_pid("dockerd-guard.service")
    second = machine.popen(["dockerd-guard", "run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: said(machine, f"another agent, PID {first}, guards this host already"), "word of the second")
    machine.write(OVERRIDE, OPEN)
    wait_for(lambda: entries(machine, "drift"), "drift, told by the first")
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
    wait_for(lambda: not machine.exists(OUR_SERVICE_DROPIN), "removal of our drop-in by the third")
    assert machine.main_pid("dockerd-guard.service") == third


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
    time.sleep(3)
    assert (starts(machine), reloads(machine)) == (before[0] + 1, before[1] + 1), outputs
    assert machine.container_pid() == container
    assert not entries(machine, "rolled-back")


def test_who_comes_second_waits_for_whoever_is_at_work(machine: Machine) -> None:
    enforce(machine)
    other = machine.popen(["flock", "/var/lib/dockerd-guard", "sleep", "6"])
    wait_for(lambda: machine.run("flock --nonblock /var/lib/dockerd-guard true", check=False).status == 1, "lock")
    machine.write(OVERRIDE, OPEN)
    began = time.monotonic()
    assert machine.run("dockerd-guard fix").status == 0
    assert time.monotonic() - began > 3
    assert said(machine, "Waiting: another dockerd-guard is correcting this host just now")
    assert other.wait() == 0
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")
    wait_for(lambda: machine.exists(OUR_SERVICE_DROPIN), "our drop-in, by whichever of them")
