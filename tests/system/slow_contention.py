"""Programs that revert the agent's corrections: few corrections, one entry, and then none."""

from __future__ import annotations

import os
import time

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.contention import BACKOFF, ENFORCE, LATER, OPEN, WRITERS, Writer, check_conflict, run_repeatedly
from tests.support.correction import LIVE_RESTORE, OUR_SERVICE_DROPIN, OVERRIDE, enforce, entries, repaired

CONFLICT_S = float(os.environ.get("CONTENTION_S", "20"))
"""How long the other program writes. Real conflicts last longer: CONTENTION_S=300."""


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_conflicting_program_is_reported_and_corrections_stop(machine: Machine, writer: Writer) -> None:
    check_conflict(machine, writer, CONFLICT_S)


def test_correction_is_retried_after_the_other_program_stops(machine: Machine) -> None:
    machine.run(f"sed -i 's/^MIN_QUIET = .*/MIN_QUIET = timedelta(seconds=8)/' {BACKOFF}")
    machine.run("systemctl restart dockerd-guard")
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n") + "\n")
    enforce(machine, ENFORCE)
    wait_for(lambda: repaired(machine), "first correction")
    run_repeatedly(machine, f"printf '{OPEN}\\n' > {LATER}")
    wait_for(lambda: entries(machine, "contested"), "contested entry")
    # The state persists over a restart of the agent.
    machine.run("systemctl restart dockerd-guard")
    count = len(repaired(machine))
    time.sleep(10)
    assert len(repaired(machine)) == count
    machine.run("systemctl stop conflict")
    stopped = time.monotonic()
    wait_for(lambda: len(repaired(machine)) > count, "correction after the conflict")
    assert time.monotonic() - stopped > 5
    assert machine.run("dockerd-guard diff").status == 0
    assert "contested" not in machine.run("systemctl status dockerd-guard").out


def test_restarts_against_a_periodic_configuration_manager_back_off(machine: Machine) -> None:
    """The interval of an hour is three seconds here, and the quiet period of ten minutes is one second."""
    machine.run(f"sed -i 's/^MIN_QUIET = .*/MIN_QUIET = timedelta(seconds=1)/' {BACKOFF}")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker; systemctl restart dockerd-guard")
    container = machine.start_container()
    machine.write(OVERRIDE, OPEN.replace("\\n", "\n") + "\n")
    enforce(machine, ENFORCE)
    wait_for(lambda: repaired(machine), "first correction")
    first = len(repaired(machine))
    run_repeatedly(machine, f"[ ! -e {OUR_SERVICE_DROPIN} ] || {{ rm {OUR_SERVICE_DROPIN}; systemctl daemon-reload; "
                 "systemctl reset-failed docker; systemctl restart docker; date +%s >> /root/restarts; }", every_s=3)
    time.sleep(60)
    machine.run("systemctl stop conflict")
    restarts = machine.read("/root/restarts").splitlines()
    made = len(repaired(machine)) - first
    assert 3 <= len(restarts) <= 7, "about fifteen if each were corrected at once"
    assert made <= len(restarts)
    assert 1 <= len(entries(machine, "contested")) <= 4
    # The last exposure is corrected, or blocked while corrections are suspended.
    wait_for(lambda: not machine.api_answers(), "end of the exposure")
    assert machine.container_pid() == container
