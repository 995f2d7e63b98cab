"""Unattended upgrades of the package, also during a correction: no questions, and no state is lost."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.older import older as repack
from tests.support.containment import contained, open_up, table
from tests.support.correction import (
    DOCKERD,
    ENFORCE,
    LIVE_RESTORE,
    OVERRIDE,
    POLICY,
    enforce,
    held_for,
    repaired,
    settled,
)

AGENT = "dockerd-guard.service"
INTENT = "/var/lib/dockerd-guard/intent.json"
SLOW_START = "[Service]\nExecStartPre=/bin/sleep 10\n"


@pytest.fixture(scope="session")
def older(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with a lower version."""
    return repack(package, tmp_path_factory.mktemp("older"))


@pytest.fixture
def upgradable(machine: Machine, older: Path) -> Machine:
    """A machine with the older package and its agent running."""
    machine.install(older)
    assert machine.is_active(AGENT)
    return machine


def upgrade(machine: Machine, package: Path) -> None:
    """Upgrade as unattended-upgrades does, without questions."""
    agent = machine.main_pid(AGENT)
    machine.copy_in(package, f"/tmp/{package.name}")
    machine.run(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends",
                 f"/tmp/{package.name}"])
    wait_for(lambda: machine.main_pid(AGENT) not in (0, agent), "the new agent")
    assert "0~before" not in machine.run("dpkg-query --show dockerd-guard").out


@contextlib.contextmanager
def asking(machine: Machine) -> Iterator[list[str]]:
    """Send requests to the API from outside all the time. Yields the list of answers."""
    line = f"until [ -e /tmp/enough ]; do curl --silent --max-time 2 http://{ADDRESS}:2375/_ping; sleep 0.05; done"
    answers: list[str] = []
    with subprocess.Popen(machine.outside_command("sh", "-c", line), stdout=subprocess.PIPE, text=True) as asks:
        try:
            yield answers
        finally:
            machine.outside("touch /tmp/enough")
            assert asks.stdout is not None
            answers += asks.stdout.read().split()


def what_undoes(machine: Machine) -> object:
    return json.loads(machine.read(INTENT))["changes"]


def test_upgrade_keeps_an_edited_policy(upgradable: Machine, package: Path) -> None:
    machine = upgradable
    policy = machine.read(POLICY).replace("mode: observe", "mode: enforce  # ours")
    machine.write(POLICY, policy)
    dockerd = machine.main_pid()
    upgrade(machine, package)
    assert machine.read(POLICY) == policy
    assert machine.run("ls /etc/dockerd-guard").out == "config.yaml\n"
    wait_for(lambda: "enforce" in machine.run(f"systemctl status {AGENT}").out, "agent under that policy")
    assert machine.main_pid() == dockerd


def test_upgrade_keeps_held_corrections_and_containment(upgradable: Machine, package: Path) -> None:
    machine = upgradable
    open_up(machine)
    enforce(machine)
    wait_for(lambda: held_for(machine, "live-restore is off"), "held correction")
    contained(machine)
    dockerd, shop, undo = machine.main_pid(), machine.container_pid("shop"), what_undoes(machine)

    with asking(machine) as answers:
        upgrade(machine, package)
        wait_for(lambda: "live-restore is off" in machine.run(f"systemctl status {AGENT}").out, "held correction")
    assert answers == []
    assert "tcp dport 2375" in table(machine)
    assert (machine.main_pid(), machine.container_pid("shop")) == (dockerd, shop)
    assert what_undoes(machine) == undo

    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    wait_for(lambda: repaired(machine), "correction")
    wait_for(lambda: not machine.exists(INTENT) and table(machine) == "", "end of the held correction and containment")
    assert not machine.api_answers()


def test_upgrade_completes_a_correction_in_progress(upgradable: Machine, package: Path) -> None:
    """The agent is replaced while it waits for the dockerd that it has restarted."""
    machine = upgradable
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    machine.write("/etc/systemd/system/docker.service.d/slow.conf", SLOW_START)
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    assert machine.api_answers()
    # `systemctl reload` would return after the correction.
    machine.write(POLICY, ENFORCE)
    wait_for(lambda: machine.properties("docker.service", "ActiveState")["ActiveState"] == "activating",
             "dockerd under way", timeout=180)
    assert machine.exists(INTENT)
    upgrade(machine, package)
    settled(machine)
    wait_for(lambda: not machine.exists(INTENT), "end of the correction")
    assert machine.socket_answers()
    assert not machine.api_answers()
    assert machine.container_pid() == container
