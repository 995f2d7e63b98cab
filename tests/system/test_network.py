"""The network helper, killed, masked and abused: blocked ports stay blocked."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.containment import NEVER, contained, is_open, open_up, shop_answers, table
from tests.support.correction import (
    ENFORCE,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    repaired,
)
from tests.support.network import processes

AGENT = "dockerd-guard.service"
UNIT = "dockerd-guard-network.socket"
PATH = "/run/dockerd-guard/network"
GO_ON = "/run/go-on"
"""Until this file exists, dockerd does not start."""

LOOPBACK = f"{ENFORCE}  - address: tcp://127.0.0.1:2376\n    tls: none\ncorrect: {{restart: always}}\n"

# Prints the first bytes of the answer, `nothing`, or the error.
SEND = f"""
import socket, sys
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect("{PATH}")
    connection.sendall(sys.stdin.buffer.read())
    connection.shutdown(socket.SHUT_WR)
    print(connection.recv(1024) or "nothing")
except OSError as error:
    print(type(error).__name__)
"""
CHECK = '{"verb": "check", "address": "", "tls": "none", "rejections": []}\n'
GARBAGE = ("garbage\n", "[" * 60_000 + "\n", "\0" * 100, '{"verb": "check"}\n', CHECK.replace("check", "run"))


def sent(machine: Machine, text: str, user: str = "root") -> str:
    """Return the answer to a request that a user sends."""
    return machine.run(["setpriv", "--reuid", user, "--clear-groups", "python3", "-c", SEND], input=text).out.strip()


def test_killed_helper_restarts_and_containment_stays(machine: Machine) -> None:
    # A pass of the agent may have one.
    wait_for(lambda: processes(machine) == [], "agent without a helper")
    open_up(machine)
    enforce(machine, NEVER)
    contained(machine)
    for _ in range(3):
        before = wait_for(lambda: processes(machine), "process that follows the table")
        # One that served a single request may have ended.
        machine.run(["kill", "-KILL", *before], check=False)
        wait_for(lambda old=before: {*processes(machine)}.difference(old), "another one")  # type: ignore[misc]
        assert not is_open(machine)
    agent = machine.main_pid(AGENT)
    count = len(entries(machine, "contained"))
    machine.run("nft flush ruleset")
    wait_for(lambda: entries(machine, "contained")[count:], "entry")
    assert not is_open(machine)
    assert entries(machine, "released") + entries(machine, "blind") + entries(machine, "failed") == []
    # Failed instances are not kept, and instances live only as long as they are needed.
    assert machine.run("systemctl list-units --failed --no-legend 'dockerd-guard-network@*'").out == ""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.write(POLICY, ENFORCE)
    wait_for(lambda: entries(machine, "released"), "release", timeout=120)
    wait_for(lambda: processes(machine) == [], "end of the process")
    assert machine.main_pid(AGENT) == agent


def test_without_helper_systemd_blocks_and_the_unit_is_reported(machine: Machine) -> None:
    machine.run(f"systemctl mask --now {UNIT}")
    open_up(machine)
    enforce(machine, NEVER)
    wait_for(lambda: not machine.api_answers(), "end of the exposure", timeout=30)
    entry = wait_for(lambda: entries(machine, "contained"), "entry")[-1]
    assert f"by IPAddressDeny=any on docker.service, because {UNIT} does not answer (" in entry["MESSAGE"]
    assert shop_answers(machine)

    machine.run(f"systemctl unmask {UNIT}; systemctl start {UNIT}; systemctl reload dockerd-guard")
    wait_for(lambda: "tcp dport 2375" in table(machine), "table of nftables")
    wait_for(lambda: not machine.exists("/run/systemd/system.control/docker.service.d"), "end of the other way")
    assert not machine.api_answers()


def test_table_stays_when_the_helper_is_masked(machine: Machine) -> None:
    open_up(machine)
    enforce(machine, NEVER)
    contained(machine)
    machine.run(f"systemctl mask --now {UNIT}; systemctl restart dockerd-guard")
    wait_for(lambda: any(UNIT in entry["MESSAGE"] for entry in entries(machine, "blind")), "entry about the unit")
    assert "tcp dport 2375" in table(machine)
    assert not is_open(machine)
    assert not entries(machine, "released")
    machine.run(f"systemctl unmask {UNIT}; systemctl restart dockerd-guard")
    wait_for(lambda: processes(machine), "process that follows the table")
    assert not is_open(machine)


def test_correction_that_needs_the_helper_is_held_without_changes(machine: Machine) -> None:
    machine.run(f"systemctl mask --now {UNIT}")
    dockerd = machine.main_pid()
    enforce(machine, LOOPBACK)
    held = wait_for(lambda: entries(machine, "held"), "held correction")[-1]["MESSAGE"]
    assert f"{UNIT} does not answer (" in held
    assert f"`systemctl restart {UNIT}`" in held
    assert (machine.main_pid(), machine.exists(OUR_SERVICE_DROPIN)) == (dockerd, False)
    assert entries(machine, "rolled-back") + entries(machine, "failed") == []

    machine.run(f"systemctl unmask {UNIT}; systemctl start {UNIT}; systemctl reload dockerd-guard")
    wait_for(lambda: repaired(machine), "correction", timeout=120)
    assert machine.run("curl --silent http://127.0.0.1:2376/_ping").out == "OK"
    wait_for(lambda: processes(machine) == [], "end of the process")


def test_verification_is_repeated_after_the_helper_was_lost(machine: Machine) -> None:
    machine.write(OVERRIDE, f"[Service]\nExecStartPre=/bin/sh -c 'until [ -e {GO_ON} ]; do sleep 0.1; done'\n")
    machine.run(f"touch {GO_ON}; systemctl daemon-reload; systemctl restart docker; rm {GO_ON}")
    # Not by `systemctl reload`, which returns after the correction.
    machine.write(POLICY, LOOPBACK)
    wait_for(lambda: machine.properties("docker.service", "SubState")["SubState"] == "start-pre", "restart under way")
    machine.run(f"systemctl mask --now {UNIT}")
    machine.run(["kill", "-KILL", *processes(machine)], check=False)
    machine.run(f"touch {GO_ON}")
    held = wait_for(lambda: entries(machine, "held"), "held verification")[-1]["MESSAGE"]
    assert f"{UNIT} does not answer (" in held
    dockerd = machine.main_pid()
    assert machine.run("curl --silent http://127.0.0.1:2376/_ping").out == "OK"
    machine.run("systemctl reload dockerd-guard")

    machine.run(f"systemctl unmask {UNIT}; systemctl start {UNIT}; systemctl reload dockerd-guard")
    wait_for(lambda: repaired(machine), "entry about the verified correction", timeout=120)
    assert machine.main_pid() == dockerd
    assert len(entries(machine, "held")) == 1
    assert entries(machine, "rolled-back") + entries(machine, "failed") == []
    assert not [entry for entry in entries(machine, "corrected") if "The correction was" in entry["MESSAGE"]]


def test_fix_needs_neither_helper_nor_agent(machine: Machine) -> None:
    machine.run(f"systemctl stop dockerd-guard; systemctl mask {UNIT}")
    # It stops after the agent, and `systemctl stop` does not wait for it.
    wait_for(lambda: not machine.is_active(UNIT), "end of the helper")
    machine.write(POLICY, LOOPBACK)
    machine.run("dockerd-guard fix")
    assert machine.run("curl --silent http://127.0.0.1:2376/_ping").out == "OK"


def test_helper_rejects_other_users_and_invalid_requests(machine: Machine) -> None:
    agent = machine.main_pid(AGENT)
    assert sent(machine, CHECK) == repr(b'{"answer": null}\n')
    assert sent(machine, CHECK, "nobody") == "PermissionError"
    machine.run(["chmod", "666", PATH])
    assert sent(machine, CHECK, "nobody") in ("nothing", "ConnectionResetError")
    for text in GARBAGE:
        assert sent(machine, text) in ("nothing", "ConnectionResetError"), text[:20]
    assert sent(machine, CHECK) == repr(b'{"answer": null}\n')
    wait_for(lambda: processes(machine) == [], "end of the processes")
    assert table(machine) == ""
    assert machine.main_pid(AGENT) == agent
    assert machine.journal("--identifier=docker-api-network") == []
