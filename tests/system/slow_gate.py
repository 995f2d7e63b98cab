"""Held and rolled-back corrections: the cases that take long. test_gate.py has the others."""

from __future__ import annotations

import re

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import DOCKERD, OVERRIDE, enforce, entries, repaired
from tests.support.gate import FAILURES, Failure, fail


@pytest.mark.parametrize("failure", [each for each in FAILURES if each.slow], ids=lambda failure: failure.name)
def test_failed_dockerd_is_rolled_back_in_time_and_not_retried(
        machine: Machine, failure: Failure) -> None:
    fail(machine, failure)


def test_swarm_tasks_hold_the_restart(machine: Machine) -> None:
    machine.import_busybox()
    machine.run(f"docker swarm init --advertise-addr {ADDRESS}")
    machine.run("docker service create --quiet --detach --name shop --network host busybox /bin/sleep 100000")
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    wait_for(lambda: machine.run("docker ps --quiet", check=False).out, "task of the service")
    dockerd = machine.main_pid()
    # 2377 and 7946, the ports of a swarm, are not the API.
    drift = machine.run("dockerd-guard lint", check=False).out
    assert "2375" in drift
    assert not {"2377", "7946"} & set(re.findall(r"\d+", drift))
    enforce(machine)
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert "in a swarm, where live-restore has no effect: its tasks would be stopped" in held[-1]["MESSAGE"]
    assert machine.main_pid() == dockerd
    machine.run("docker service rm shop")
    wait_for(lambda: not machine.run("docker ps --quiet").out, "end of the task")
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: repaired(machine), "correction of a node without tasks")
    assert not machine.api_answers()
    assert "active" in machine.run("docker info --format '{{.Swarm.LocalNodeState}}'").out
