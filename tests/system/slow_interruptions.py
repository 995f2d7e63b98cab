"""Trouble in the middle of a correction: all of it (test_interruptions.py has the table)."""

from __future__ import annotations

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import entries
from tests.support.crash import hold_at, open_up, prepare, settled, standing
from tests.support.crash_points import ORDER_FILE
from tests.support.interruptions import INTERRUPTIONS, Interruption, interrupt, slow_stop

MANAGER = "/usr/lib/python3/dist-packages/dockerd_guard/systemd/manager.py"


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("e2fsprogs",)  # chattr, of which Debian 13 and later make no essential package


@pytest.mark.parametrize("interruption", [each for each in INTERRUPTIONS if each.slow], ids=lambda each: each.name)
def test_trouble_in_the_middle_of_a_correction(machine: Machine, interruption: Interruption) -> None:
    interrupt(machine, interruption)


def test_a_stop_that_takes_longer_than_is_waited_for_does_not_leave_docker_dead(machine: Machine) -> None:
    machine.run(f"sed -i 's/^JOB_TIMEOUT_S = .*/JOB_TIMEOUT_S = 3.0/' {MANAGER}")
    prepare(machine)
    container = machine.container_pid()
    open_up(machine)
    before = standing(machine)
    hold_at(machine, "call StopUnit")
    machine.run(slow_stop(20))
    machine.remove(ORDER_FILE)
    failed = wait_for(lambda: entries(machine, "failed"), "word on the failure")
    assert "job timeout" in failed[0]["MESSAGE"]
    dockerd = machine.main_pid()
    machine.run("systemctl stop dockerd-guard")
    # While ExecStop= runs, the old one answers still: it is another one that is awaited.
    wait_for(lambda: machine.is_active("docker.service") and machine.main_pid() != dockerd, "dockerd that works again",
             timeout=150)
    wait_for(machine.socket_answers, "answer of the new dockerd")
    stands = standing(machine).files
    assert machine.container_pid() == container
    # Gone with the reason, it is as any other drift.
    machine.run("rm /run/systemd/system/docker.service.d/slow.conf; systemctl daemon-reload; "
                f"sed -i 's/^JOB_TIMEOUT_S = .*/JOB_TIMEOUT_S = 240.0/' {MANAGER}")
    machine.run("systemctl start dockerd-guard")
    settled(machine)
    assert stands in (before.files, standing(machine).files)
    assert machine.container_pid() == container
