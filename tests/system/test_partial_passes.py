"""An agent that cannot do a whole pass: D-Bus is down, or another dockerd-guard holds the lock."""

from __future__ import annotations

import json

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.containment import NEVER, is_open, open_up, table
from tests.support.correction import (
    ENFORCE,
    LIVE_RESTORE,
    OBSERVE,
    OPEN,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    repaired,
    settled,
)

HELD = "held     another dockerd-guard is correcting this host, until this changes; since "
DAEMON_JSON = "/etc/docker/daemon.json"
SLOW_GENERATOR = "/run/systemd/system-generators/slow"


def test_an_open_port_is_blocked_while_dbus_is_down(machine: Machine) -> None:
    machine.write(DAEMON_JSON, LIVE_RESTORE)
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


def suspended_fix(machine: Machine) -> str:
    """Start `fix` on a host that it has to correct, and suspend it after it wrote its drop-in. Returns its PID."""
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    # After that it has systemd reload its units, which takes long enough.
    machine.write(SLOW_GENERATOR, "#!/bin/sh\nsleep 3\n", mode=0o755)
    machine.run(f"""
        dockerd-guard fix > /root/fix.out 2>&1 & echo $! > /root/fix.pid
        until [ -e {OUR_SERVICE_DROPIN} ]; do sleep 0.005; done
        kill -STOP $(cat /root/fix.pid)
        rm {SLOW_GENERATOR}
    """)
    return machine.read("/root/fix.pid").strip()


def reported_lock(machine: Machine) -> bool:
    return "another dockerd-guard is correcting this host" in machine.properties("dockerd-guard", "StatusText")[
        "StatusText"]


@pytest.mark.parametrize("is_running", [False, True], ids=["agent starts later", "agent runs"])
def test_a_suspended_fix_delays_no_report_and_no_block(machine: Machine, is_running: bool) -> None:
    machine.write(DAEMON_JSON, LIVE_RESTORE)
    machine.run("systemctl reload docker; useradd --create-home alice")
    container = machine.start_container()
    if is_running:
        enforce(machine, OBSERVE)
    else:
        machine.run("systemctl stop dockerd-guard")
    suspended = suspended_fix(machine)
    assert is_open(machine)
    machine.write(POLICY, ENFORCE)
    machine.run("systemctl reload-or-restart dockerd-guard")
    wait_for(lambda: entries(machine, "contained"), "block")
    assert entries(machine, "drift")
    assert not is_open(machine)
    wait_for(lambda: reported_lock(machine), "status")
    assert "as declared" not in machine.properties("dockerd-guard", "StatusText")["StatusText"]
    for command in ("dockerd-guard status", "runuser -u alice -- dockerd-guard status"):
        wait_for(lambda line=command: HELD in machine.run(line, check=False).out, "status")  # type: ignore[misc]
        assert "blocked  at the network: tcp://" in machine.run(command, check=False).out
    assert not repaired(machine)
    if is_running:
        machine.run(["kill", "-CONT", suspended])
    else:
        machine.run(["kill", "-KILL", suspended])
    wait_for(lambda: entries(machine, "released"), "release")
    settled(machine)
    assert not is_open(machine)
    assert table(machine) == ""
    wait_for(lambda: not reported_lock(machine), "end of the wait")
    assert machine.container_pid() == container
    assert "tcp://" not in json.dumps(json.loads(machine.read("/var/lib/dockerd-guard/memory.json"))["contained"])


def test_a_port_opened_while_a_fix_hangs_is_blocked(machine: Machine) -> None:
    """The fix of another drift: the agent runs, and has nothing to do before."""
    enforce(machine)
    settled(machine)
    holder = machine.popen(["flock", "/var/lib/dockerd-guard", "sleep", "1000"])
    wait_for(lambda: machine.run("flock --nonblock /var/lib/dockerd-guard true", check=False).status == 1, "lock")
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    wait_for(lambda: entries(machine, "contained"), "block")
    assert not is_open(machine)
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: reported_lock(machine), "status")
    assert not machine.exists(OUR_SERVICE_DROPIN)
    machine.run("pkill -f '^sleep 1000$'")
    assert holder.wait(timeout=20) != 0
    wait_for(lambda: repaired(machine), "correction")
    settled(machine)
    assert table(machine) == ""
