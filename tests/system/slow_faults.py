"""Faults of test_faults.py that take a minute to show."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import DOCKERD, ENFORCE, LIVE_RESTORE, OVERRIDE, enforce, entries, repaired

BUDGET = 3
"""Restarts in an hour, the policy's default."""


class Loop(NamedTuple):
    """More arguments of a dockerd that ends after a second, whatever the agent corrects."""

    name: str
    arguments: str
    is_declared: bool


LOOPS = (
    Loop("as declared", "", is_declared=True),
    Loop("with an open port", " -H tcp://0.0.0.0:2375 --tls=false", is_declared=False),
)


def starts_by_the_agent(machine: Machine) -> int:
    """Return the starts of docker.service that neither Restart= nor the test requested."""
    messages: list[str] = [entry["MESSAGE"] for entry in machine.journal("_PID=1", "UNIT=docker.service", "--boot")]
    starting = sum(message.startswith("Starting docker.service") for message in messages)
    return starting - sum("Scheduled restart job" in message for message in messages)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_dockerd_that_cannot_start_is_not_restarted_again_and_again(machine: Machine, loop: Loop) -> None:
    refused = "--storage-driver=zfs" if machine.release == "bookworm" else "--bridge=nope0"
    enforce(machine)
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// {refused}{loop.arguments}\n")
    machine.run("systemctl daemon-reload")
    before = starts_by_the_agent(machine)
    machine.run("systemctl restart docker", check=False)
    time.sleep(60)
    # One start is the test's.
    assert starts_by_the_agent(machine) - before - 1 <= BUDGET + 1
    assert machine.main_pid() == 0
    # Nothing can be corrected in files that are as declared.
    reasons = [entry["MESSAGE"] for event in ("held", "failed", "rolled-back") for entry in entries(machine, event)]
    assert reasons or loop.is_declared
    assert any(entry["DOCKERD_GUARD_RULE"] == "DG102" for entry in entries(machine, "drift"))


def test_correction_is_tried_again_once_the_full_disk_has_room(machine: Machine) -> None:
    directory = OVERRIDE.rpartition("/")[0]
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run(f"systemctl reload docker; mkdir -p {directory}; mount -t tmpfs -o size=16k tmpfs {directory}")
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.run(f"systemctl daemon-reload; systemctl restart docker; "
                f"dd if=/dev/zero of={directory}/fill bs=4096 || true")
    machine.run("systemctl restart dockerd-guard")
    enforce(machine, ENFORCE)
    failed = wait_for(lambda: entries(machine, "failed") + entries(machine, "held"), "entry about the disk")
    assert "No space left on device" in failed[0]["MESSAGE"]
    assert "journalctl" not in failed[0]["MESSAGE"]
    machine.remove(f"{directory}/fill")
    wait_for(lambda: repaired(machine), "correction", timeout=90)
    assert not machine.api_answers()
    assert machine.socket_answers()
