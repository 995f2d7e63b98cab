"""Sockets that systemd itself holds: a child that has not executed the program of its unit yet, and root's manager."""

from __future__ import annotations

import json
import re

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import ENFORCE, LIVE_RESTORE, OBSERVE, POLICY, entries

STARTING = {"bookworm": {"systemd"}, "trixie": {"systemd-executor"}, "sid": {"systemd-executor"}}
"""The executable of a child of systemd before it executes the program of its unit."""

UNITS = {
    "/etc/systemd/system/ship.socket": "[Socket]\nListenStream=7000\n",
    "/etc/systemd/system/ship.service": """[Service]
ExecStart=/bin/sleep infinity
Environment=API=/run/docker.sock
StandardOutput=file:/run/ship
""",
    # As pam_systemd(8) sets it.
    "/etc/systemd/system/user@0.service.d/runtime.conf": "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/0\n",
    "/etc/systemd/user/ship.socket": "[Socket]\nListenStream=7001\n",
    "/etc/systemd/user/ship.service": "[Service]\nExecStart=/bin/sleep infinity\n",
}
"""Units of systemd and of root's own manager."""


def executable(machine: Machine, pid: int) -> str:
    """The name of the executable of a process, "" if it is gone."""
    return machine.run(f"basename $(readlink /proc/{pid}/exe)", check=False).out.strip()


def executables(machine: Machine, port: int) -> set[str]:
    """The executables of the processes that hold a listening port, without PID 1."""
    pids = set(map(int, re.findall(r"pid=(\d+)", machine.run(f"ss -Hltnp sport = :{port}").out))) - {1}
    return {executable(machine, pid) for pid in pids}


def messages(machine: Machine) -> list[str]:
    """What `lint` reports as another way to the API."""
    found = json.loads(machine.run("dockerd-guard lint --format json", check=False).out)["findings"]
    return [finding["message"] for finding in found if finding["code"] == "DG107"]


def test_systemd_is_no_access_path(machine: Machine) -> None:
    """Its directory links to docker.socket. A child of systemd has the socket of a service before it executes the
    program: here for long, since nobody reads its output. Root's own manager holds a socket as PID 1 does."""
    machine.write(POLICY, OBSERVE)
    for path, text in UNITS.items():
        machine.write(path, text)
    machine.run("mkfifo /run/ship; systemctl daemon-reload; systemctl start ship.socket user@0.service")
    machine.run("XDG_RUNTIME_DIR=/run/user/0 systemctl --user start ship.socket")
    machine.outside(["socat", "-u", "/dev/null", f"TCP:{ADDRESS}:7000"])
    wait_for(lambda: executables(machine, 7000) == STARTING[machine.release], "child that waits")
    assert executables(machine, 7001) == {"systemd"}
    assert messages(machine) == []
    machine.run("systemctl reload dockerd-guard")

    machine.popen(["cat", "/run/ship"])
    wait_for(lambda: executables(machine, 7000) == {"sleep"}, "program")
    [message] = wait_for(lambda: messages(machine), "finding")
    assert "listens on tcp://[::]:7000: its environment variable API names /run/docker.sock" in message
    assert message.startswith("sleep (pid ")
    # The agent looks again as soon as the program is executed.
    [entry] = wait_for(lambda: [entry for entry in entries(machine, "drift")
                                if entry.get("DOCKERD_GUARD_RULE") == "DG107"], "drift entry")
    assert "leep (pid " in entry["MESSAGE"]


def test_dockerd_that_systemd_has_not_executed_yet_is_nobody_else(machine: Machine) -> None:
    """Its main process has the executable of PID 1: that is no second dockerd."""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write("/etc/systemd/system/docker.service.d/output.conf", "[Service]\nStandardOutput=file:/run/ship\n")
    machine.write(POLICY, OBSERVE)
    machine.run("mkfifo /run/ship; systemctl daemon-reload; systemctl restart --no-block docker")
    wait_for(lambda: executable(machine, machine.main_pid()) in STARTING[machine.release], "child that waits")
    machine.run("systemctl reload dockerd-guard")
    found = json.loads(machine.run("dockerd-guard lint --format json", check=False).out)["findings"]
    assert found == []
    machine.write(POLICY, ENFORCE)
    machine.run("systemctl reload dockerd-guard")
    machine.popen(["cat", "/run/ship"])
    wait_for(lambda: executable(machine, machine.main_pid()) == "dockerd", "dockerd")
    wait_for(lambda: machine.is_active("docker.service"), "start")
    machine.run("systemctl reload dockerd-guard")
    assert [entry["MESSAGE"] for name in ("drift", "held") for entry in entries(machine, name)] == []
