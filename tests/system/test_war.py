"""One short war, and the agent's own writes: the long wars are in slow_war.py."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.alone import OPEN
from tests.support.correction import LIVE_RESTORE, OVERRIDE, enforce, repaired, rests
from tests.support.war import LATER, WRITERS, all_entries, fight, reloads, starts

SHORT_WAR_S = 10.0


def test_a_program_that_overrules_us_five_times_a_second_is_named_and_left_alone(machine: Machine) -> None:
    fight(machine, next(writer for writer in WRITERS if writer.named == LATER), SHORT_WAR_S)


def test_the_agents_own_writes_set_nothing_off(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker; systemctl reset-failed docker")
    before = (starts(machine), reloads(machine))
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    wait_for(lambda: rests(machine), "agent at rest")
    said = all_entries(machine)
    assert rests(machine, 4), "it works again"
    assert all_entries(machine) == said
    assert (starts(machine), reloads(machine)) == (before[0] + 1, before[1] + 1)
    assert len(repaired(machine)) == 1
