"""Every change of a watched file is detected by its event. Where events fail, resync detects it, and the degraded
visibility is reported. test_blindness.py has a few of each."""

from __future__ import annotations

import time

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.blindness import (
    CLOSED,
    DETECTED_S,
    MUTATIONS,
    OPEN,
    POLICY_MUTATIONS,
    RESYNC,
    TARGETS,
    blind,
    check_mutations,
    check_policy_mutations,
    is_open,
    newest,
)
from tests.support.correction import OVERRIDE, POLICY


def test_every_mutation_of_a_file_is_detected_by_its_event(machine: Machine) -> None:
    check_mutations(machine, [(name, mutation) for name, target in TARGETS.items() for mutation in MUTATIONS
                           if mutation not in target.not_for])


def test_every_mutation_of_the_policy_is_detected_by_its_event(machine: Machine) -> None:
    check_policy_mutations(machine, POLICY_MUTATIONS)


# Without file events


@pytest.mark.parametrize(("call", "limit"), [("inotify_add_watch:ENOSPC", "max_user_watches"),
                                             ("inotify_init1:EMFILE inotify_init:EMFILE", "max_user_instances")])
def test_without_watches_resync_detects_drift_and_visibility_is_reported_once(
        machine: Machine, call: str, limit: str) -> None:
    """The limits apply to all machines on this host, so systemd makes the calls fail as the kernel would."""
    machine.write(POLICY, RESYNC)
    machine.write("/etc/systemd/system/dockerd-guard.service.d/blind.conf",
                  f"[Service]\nSystemCallFilter=\nSystemCallFilter=~{call}\n")
    machine.run("systemctl daemon-reload; systemctl restart dockerd-guard")
    wait_for(lambda: blind(machine, limit), "entry about the limit")
    machine.write(OVERRIDE, OPEN)
    wait_for(lambda: is_open(machine), "drift", timeout=DETECTED_S)
    time.sleep(5)
    assert len(blind(machine, limit)) == 1
    assert machine.run("systemctl status dockerd-guard").out.count(limit) >= 1
    machine.remove("/etc/systemd/system/dockerd-guard.service.d/blind.conf")
    machine.run("systemctl daemon-reload; systemctl restart dockerd-guard")
    agent = str(machine.main_pid("dockerd-guard.service"))
    wait_for(lambda: newest(machine, "DOCKERD_GUARD_RULE=DG101").get("_PID") == agent, "drift entry of the new agent")
    machine.write(OVERRIDE, CLOSED)
    machine.run("systemctl daemon-reload")
    wait_for(lambda: not is_open(machine), "end of the drift")
