"""Another program that undoes what the agent corrects: few rounds, one word, and no war."""

from __future__ import annotations

import os
import time

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import LIVE_RESTORE, OUR_SERVICE_DROPIN, OVERRIDE, enforce, entries, repaired
from tests.support.war import CONTEST, ENFORCE, LATER, OPEN, WRITERS, Writer, fight, war

WAR_S = float(os.environ.get("WAR_S", "20"))
"""How long the other program writes. WAR_S=300 for the five minutes of a real one."""


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_program_that_writes_five_times_a_second_is_named_and_left_alone(machine: Machine, writer: Writer) -> None:
    fight(machine, writer, WAR_S)


def test_it_is_tried_again_when_the_other_program_has_kept_still(machine: Machine) -> None:
    machine.run(f"sed -i 's/^MIN_QUIET = .*/MIN_QUIET = timedelta(seconds=8)/' {CONTEST}")
    machine.run("systemctl restart dockerd-guard")
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n") + "\n")
    enforce(machine, ENFORCE)
    wait_for(lambda: repaired(machine), "first correction")
    war(machine, f"printf '{OPEN}\\n' > {LATER}")
    wait_for(lambda: entries(machine, "contested"), "word on the quarrel")
    # It is remembered over a restart of the agent.
    machine.run("systemctl restart dockerd-guard")
    count = len(repaired(machine))
    time.sleep(10)
    assert len(repaired(machine)) == count
    machine.run("systemctl stop war")
    stopped = time.monotonic()
    wait_for(lambda: len(repaired(machine)) > count, "correction after the war")
    assert time.monotonic() - stopped > 5
    assert machine.run("dockerd-guard diff").status == 0
    assert "contested" not in machine.run("systemctl status dockerd-guard").out


def test_a_configuration_manager_that_comes_by_every_hour_costs_ever_fewer_restarts(machine: Machine) -> None:
    """Its hour takes three seconds here, and the ten minutes of quiet one."""
    machine.run(f"sed -i 's/^MIN_QUIET = .*/MIN_QUIET = timedelta(seconds=1)/' {CONTEST}")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker; systemctl restart dockerd-guard")
    container = machine.start_container()
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n") + "\n")
    enforce(machine, ENFORCE)
    wait_for(lambda: repaired(machine), "first correction")
    first = len(repaired(machine))
    war(machine, f"[ ! -e {OUR_SERVICE_DROPIN} ] || {{ rm {OUR_SERVICE_DROPIN}; systemctl daemon-reload; "
                 "systemctl reset-failed docker; systemctl restart docker; date +%s >> /root/rounds; }", every_s=3)
    time.sleep(60)
    machine.run("systemctl stop war")
    rounds = machine.read("/root/rounds").splitlines()
    made = len(repaired(machine)) - first
    assert 3 <= len(rounds) <= 7, "some fifteen, had each been answered at once"
    assert made <= len(rounds)
    assert 1 <= len(entries(machine, "contested")) <= 4
    # What it opened last is corrected, or cut off as long as that is left alone.
    wait_for(lambda: not machine.api_answers(), "end of the exposure")
    assert machine.container_pid() == container
