"""All interruptions of a correction. test_interruptions.py has a few."""

from __future__ import annotations

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import ENFORCE, LIVE_RESTORE, OPEN, OVERRIDE, POLICY, entries
from tests.support.crash import hold_at, host_state, open_up, prepare, settled
from tests.support.crash_points import ORDER_FILE
from tests.support.interruptions import INTERRUPTIONS, Interruption, interrupt, slow_stop

MANAGER = "/usr/lib/python3/dist-packages/dockerd_guard/systemd/manager.py"


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("e2fsprogs",)  # for chattr, which is not in an essential package from Debian 13 on


@pytest.mark.parametrize("interruption", [each for each in INTERRUPTIONS if each.slow], ids=lambda each: each.name)
def test_interrupted_correction_leaves_a_consistent_host(machine: Machine, interruption: Interruption) -> None:
    interrupt(machine, interruption)


def test_docker_starts_again_after_a_stop_that_times_out(machine: Machine) -> None:
    machine.run(f"sed -i 's/^JOB_TIMEOUT_S = .*/JOB_TIMEOUT_S = 3.0/' {MANAGER}")
    prepare(machine)
    container = machine.container_pid()
    machine.run(slow_stop(20))
    open_up(machine)
    before = host_state(machine)
    hold_at(machine, "call StopUnit")
    dockerd = machine.main_pid()
    machine.remove(ORDER_FILE)
    # The undo waits for the stop of the correction, which goes on after its time-out, and starts dockerd again.
    failed = wait_for(lambda: entries(machine, "rolled-back"), "entry about the failure", timeout=150)
    assert "job timeout" in failed[0]["MESSAGE"]
    machine.run("systemctl stop dockerd-guard")
    # The next attempt may have begun.
    wait_for(lambda: machine.is_active("docker.service") and machine.main_pid() != dockerd, "running dockerd",
             timeout=150)
    wait_for(machine.socket_answers, "answer of the new dockerd")
    files = host_state(machine).files
    assert machine.container_pid() == container
    # Without the slow stop, this is ordinary drift.
    machine.run("rm /run/systemd/system/docker.service.d/slow.conf; systemctl daemon-reload; "
                f"sed -i 's/^JOB_TIMEOUT_S = .*/JOB_TIMEOUT_S = 240.0/' {MANAGER}")
    machine.run("systemctl start dockerd-guard")
    settled(machine)
    assert files in (before.files, host_state(machine).files)
    assert machine.container_pid() == container


def test_the_first_pass_may_take_longer_than_a_start(machine: Machine) -> None:
    """TimeoutStartSec=: the agent is not killed in a correction that waits for docker.service."""
    machine.run("systemctl stop dockerd-guard")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write("/etc/systemd/system/dockerd-guard.service.d/start.conf", "[Service]\nTimeoutStartSec=8s\n")
    machine.write(OVERRIDE, OPEN)
    machine.write(POLICY, ENFORCE)
    machine.run(slow_stop(20))
    machine.run("systemctl restart docker")
    machine.run("systemctl start dockerd-guard", timeout=150)
    assert machine.properties("dockerd-guard.service", "NRestarts", "ActiveState") == {
        "NRestarts": "0", "ActiveState": "active"}
    assert entries(machine, "corrected")
    assert not machine.api_answers()
