"""`correct.splay` on a booted machine: its turn outlives the agent, and is shown."""

from __future__ import annotations

import re

from tests.machines.machine import Machine, wait_for
from tests.support.correction import LIVE_RESTORE, OPEN, OVERRIDE, POLICY, entries

DUE = re.compile(r"the policy spreads restarts over \w+, restart due ([-0-9]+ [0-9:]{5})")


def spread(splay: str) -> str:
    return f"version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {{splay: {splay}}}\n"


def due(machine: Machine, verb: str) -> str:
    """When the restart is due, to the minute, as `diff` or `status` shows it; empty if it does not."""
    shown = machine.run(f"dockerd-guard {verb}", check=False).out.replace("\n         ", " ")
    return found[1] if (found := DUE.search(shown)) is not None else ""


def write_policy_with_a_late_turn(machine: Machine) -> None:
    """Write a policy under which this machine's turn comes long after the test. It depends on the machine ID."""
    for hours in range(24, 48):
        machine.write(POLICY, spread(f"{hours}h"))
        in_an_hour = machine.run("date --date='1 hour' '+%Y-%m-%d %H:%M'").out.strip()
        if due(machine, "diff") > in_an_hour:
            return
    raise AssertionError("each turn comes within an hour")


def test_a_turn_outlives_the_agent(machine: Machine) -> None:
    machine.run("systemctl stop dockerd-guard")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    write_policy_with_a_late_turn(machine)
    machine.run("systemctl start dockerd-guard")
    shown = wait_for(lambda: due(machine, "status"), "restart that is due")
    dockerd = machine.main_pid()
    assert due(machine, "diff") == shown
    assert not machine.api_answers()

    machine.run("systemctl restart dockerd-guard")
    assert wait_for(lambda: due(machine, "status"), "the same after a start of the agent") == shown
    machine.run("systemctl kill --signal=KILL dockerd-guard")
    machine.run("systemctl stop dockerd-guard")
    assert due(machine, "diff") == shown
    assert machine.run("dockerd-guard fix", check=False).status == 1
    assert machine.main_pid() == dockerd

    # The turn comes while no agent runs.
    machine.write(POLICY, spread("20s"))
    machine.run("systemctl start dockerd-guard")
    wait_for(lambda: due(machine, "status") or entries(machine, "corrected"), "another turn")
    machine.run("systemctl stop dockerd-guard")
    wait_for(lambda: not due(machine, "diff"), "end of the splay")
    machine.run("systemctl start dockerd-guard")
    wait_for(lambda: bool(entries(machine, "corrected")), "correction")
    assert machine.main_pid() != dockerd
