"""An agent that cannot do a whole pass: D-Bus is down."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.containment import NEVER, is_open, open_up, table
from tests.support.correction import ENFORCE, LIVE_RESTORE, OPEN, OVERRIDE, enforce, entries, repaired, settled


def test_an_open_port_is_blocked_while_dbus_is_down(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker; useradd --create-home alice")
    container = machine.start_container()
    enforce(machine)
    settled(machine)
    agent = machine.main_pid("dockerd-guard.service")
    machine.run("systemctl stop dbus.service dbus.socket")
    wait_for(lambda: entries(machine, "blind"), "entry about D-Bus")
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    wait_for(lambda: entries(machine, "contained"), "block")
    assert not is_open(machine)
    assert table(machine)
    for command in ("dockerd-guard status", "runuser -u alice -- dockerd-guard status"):
        status = machine.run(command, check=False).out
        assert "cannot query systemd over D-Bus; last check" in status
        assert f"by PID {agent}" in status
        assert "no agent is running" not in status
    assert not repaired(machine)
    machine.run("systemctl start dbus.socket dbus.service")
    wait_for(lambda: repaired(machine), "correction")
    wait_for(lambda: entries(machine, "released"), "release")
    assert table(machine) == ""
    assert not is_open(machine)
    assert machine.container_pid() == container
    settled(machine)


def test_a_block_stays_while_dbus_is_down(machine: Machine) -> None:
    """Also across a restart of the agent."""
    open_up(machine)
    enforce(machine, NEVER)
    wait_for(lambda: entries(machine, "contained"), "block")
    machine.run("systemctl stop dbus.service dbus.socket")
    wait_for(lambda: entries(machine, "blind"), "entry about D-Bus")
    machine.run("systemctl kill --signal=KILL dockerd-guard; nft flush ruleset")
    wait_for(lambda: not is_open(machine), "block by the next agent", timeout=30)
    assert not entries(machine, "released")
    machine.run("systemctl start dbus.socket dbus.service")
    wait_for(lambda: any("Visibility restored" in entry["MESSAGE"] for entry in entries(machine, "blind")), "D-Bus")
    assert not is_open(machine)
    enforce(machine, ENFORCE.replace("enforce", "observe"))
    wait_for(lambda: entries(machine, "released"), "release")
    assert table(machine) == ""
