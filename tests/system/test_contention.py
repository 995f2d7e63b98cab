"""One short conflict with another program, and the agent's own writes. slow_contention.py has the long conflicts."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.contention import LATER, WRITERS, all_entries, check_conflict, reloads, starts
from tests.support.correction import LIVE_RESTORE, OPEN, OVERRIDE, enforce, repaired, rests

SHORT_CONFLICT_S = 10.0


def test_overriding_program_is_reported_and_corrections_stop(machine: Machine) -> None:
    check_conflict(machine, next(writer for writer in WRITERS if writer.named == LATER), SHORT_CONFLICT_S)


def test_own_writes_trigger_no_correction(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker; systemctl reset-failed docker")
    before = (starts(machine), reloads(machine))
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    # It looks again after two seconds at most.
    wait_for(lambda: rests(machine, 3), "agent at rest")
    logged = all_entries(machine)
    assert rests(machine, 4), "it works again"
    assert all_entries(machine) == logged
    assert (starts(machine), reloads(machine)) == (before[0] + 1, before[1] + 1)
    assert len(repaired(machine)) == 1
