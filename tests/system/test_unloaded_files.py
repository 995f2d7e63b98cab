"""What systemd had not loaded when dockerd started holds a restart; what it has loaded never does."""

from __future__ import annotations

import json

from tests.machines.machine import Machine, wait_for
from tests.support.correction import LIVE_RESTORE, POLICY, enforce, held_for, settled
from tests.support.gate import LOOPBACK_TOO

DIRECTORY = "/etc/systemd/system/docker.service.d"
LIMITS = f"{DIRECTORY}/limits.conf"
UNLOADED = f"{DIRECTORY}/unloaded.conf"
TRACE = "/srv/trace"
GENERATOR = "/etc/systemd/system-generators/race"
RACE = "/run/race"
MEMORY = "/var/lib/dockerd-guard/memory.json"

ORDINARY_LINES = (
    f"echo LimitNPROC=9999 >> {LIMITS}; systemctl daemon-reload",
    "EDITOR='sed -i 1i[Service]\\\\nNice=1' systemctl edit docker.service",
    f"touch {LIMITS}",
    "touch /lib/systemd/system/docker.service",
    "touch /lib/systemd/system/docker.service; systemctl daemon-reload",
    "systemctl set-property docker.service MemoryMax=8G",
    "systemctl set-property --runtime docker.service TasksMax=9999",
    "systemctl daemon-reload",
    f"ln -s /dev/null {DIRECTORY}/masked.conf; systemctl daemon-reload",
    f": > {DIRECTORY}/empty.conf; systemctl daemon-reload",
    "mkdir -p /etc/systemd/system/service.d; printf '[Service]\\nOOMScoreAdjust=5\\n' > "
    "/etc/systemd/system/service.d/all.conf; systemctl daemon-reload",
    "mkdir -p /run/systemd/system/docker.service.d; printf '[Service]\\nNice=2\\n' > "
    "/run/systemd/system/docker.service.d/run.conf; systemctl daemon-reload",
    # Until a daemon-reload, systemd then reports NeedDaemonReload of every unit.
    "systemctl enable --no-reload fstrim.timer",
    f"mv {DIRECTORY} /srv/dropins; ln -s /srv/dropins {DIRECTORY}; systemctl daemon-reload",
    f"chmod 600 {LIMITS}; systemctl daemon-reload",
    f"chmod 644 {LIMITS}",
    f"rm {LIMITS}; systemctl daemon-reload",
)
"""What is done to a host every day, each followed by a restart of Docker."""


def restart(machine: Machine, line: str) -> None:
    """Run a shell line, restart Docker, and wait until the agent has recorded that start."""
    machine.run(f"{line}; systemctl reset-failed docker; systemctl restart docker")
    invocation = machine.properties("docker.service", "InvocationID")["InvocationID"]
    wait_for(lambda: invocation in machine.run(["cat", MEMORY], check=False).out, f"record of the start after {line}")


def test_an_unloaded_dropin_holds_the_restart_until_it_is_loaded_and_in_force(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(LIMITS, "[Service]\nLimitNOFILE=9999\n")
    restart(machine, "systemctl daemon-reload")
    machine.write(UNLOADED, f"[Service]\nExecStartPre=/bin/touch {TRACE}\n")
    restart(machine, "true")
    dockerd = machine.main_pid()
    enforce(machine, LOOPBACK_TOO)
    held = wait_for(lambda: held_for(machine, f"pending changes: ExecStartPre= ({UNLOADED}:2)"), "held correction")
    # The other drop-in is in force.
    assert "LimitNOFILE" not in held[-1]["MESSAGE"]
    assert machine.main_pid() == dockerd
    assert not machine.exists(TRACE)
    # As the entry advises.
    assert "run `systemctl daemon-reload` and `systemctl restart docker.service`" in held[-1]["MESSAGE"]
    restart(machine, "systemctl daemon-reload")
    assert machine.exists(TRACE)
    settled(machine)


def test_a_dropin_that_is_replaced_by_an_older_file_holds_the_restart_until_it_is_loaded(machine: Machine) -> None:
    """By `cp -p` or `rsync -a`: NeedDaemonReload= stays `no`."""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(LIMITS, "[Service]\nLimitNOFILE=9999\n")
    restart(machine, "systemctl daemon-reload")
    machine.write("/root/older", f"[Service]\nExecStartPre=/bin/touch {TRACE}\n")
    restart(machine, f"touch --date=2020-01-01 /root/older; cp -p /root/older {LIMITS}")
    assert machine.properties("docker.service", "NeedDaemonReload")["NeedDaemonReload"] == "no"
    dockerd = machine.main_pid()
    enforce(machine, LOOPBACK_TOO)
    wait_for(lambda: held_for(machine, f"pending changes: ExecStartPre= ({LIMITS}:2)"), "held correction")
    assert machine.main_pid() == dockerd
    assert not machine.exists(TRACE)
    restart(machine, "systemctl daemon-reload")
    settled(machine)


def test_what_is_written_during_the_daemon_reload_of_a_correction_holds_its_restart(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    restart(machine, "true")
    # Every daemon-reload runs the generators before it loads the units; $1 is a directory of units
    # (systemd.generator(7)).
    dropin = f"[Service]\\nExecStartPre=/bin/touch {TRACE}\\n"
    machine.write(GENERATOR, f"#!/bin/sh\ntest -e {RACE} || exit 0\nmkdir -p $1/docker.service.d\n"
                             f"printf '{dropin}' > $1/docker.service.d/race.conf\n", mode=0o755)
    machine.write(RACE, "")
    dockerd = machine.main_pid()
    enforce(machine, LOOPBACK_TOO)
    wait_for(lambda: held_for(machine, "pending changes: ExecStartPre= (/run/systemd/generator/"), "held correction")
    assert machine.main_pid() == dockerd
    assert not machine.exists(TRACE)
    machine.run(f"rm {RACE}; systemctl daemon-reload")
    settled(machine)
    assert machine.main_pid() != dockerd
    assert not machine.exists(TRACE)


def test_ordinary_changes_of_units_hold_nothing(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(LIMITS, "[Service]\nLimitNOFILE=9999\n")
    machine.write(POLICY, LOOPBACK_TOO.replace("enforce", "observe"))
    for line in ORDINARY_LINES:
        restart(machine, line)
        # While dockerd is slow to answer, that is the reason.
        wait_for(lambda: forecast(machine) == ("restart", ""), f"restart that nothing holds after {line}", timeout=20)


def forecast(machine: Machine) -> tuple[str, str]:
    """What a correction costs, and why it is held."""
    shown = json.loads(machine.run("dockerd-guard diff --format json", check=False).out)
    return shown["cost"], (shown["held"] or {"reason": ""})["reason"]
