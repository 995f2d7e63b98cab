"""Hosts that a correction once made worse, or that it left as they were. Each test is named after what broke.

Everything is checked from outside of the agent: PIDs, sockets, files, the journal of systemd. slow_faults.py has those
that take a minute.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.containment import NEVER, contained, is_open, open_up, table
from tests.support.correction import (
    DOCKERD,
    ENFORCE,
    LIVE_RESTORE,
    OPEN,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    held_for,
    repaired,
    settled,
)
from tests.support.gate import LOOPBACK_TOO

DROPINS = posixpath.dirname(OVERRIDE)
DAEMON_JSON = "/etc/docker/daemon.json"
RESTART = "systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker"
FALLBACK_FILES = "/run/systemd/system.control/docker.service.d"


def start_with(machine: Machine, command: str, *, check: bool = True) -> None:
    """Restart docker.service with another ExecStart=."""
    machine.write(OVERRIDE, f"[Service]\nExecStart=\nExecStart={command}\n")
    machine.run(RESTART, check=check)


def live_restore(machine: Machine) -> None:
    machine.write(DAEMON_JSON, LIVE_RESTORE)
    machine.run("systemctl reload docker")


# Containers that stop, a Docker that stays down.

def test_killed_dockerd_did_not_fail_with_a_correction_that_it_was_not_started_with(machine: Machine) -> None:
    live_restore(machine)
    enforce(machine, ENFORCE)
    machine.write(OVERRIDE, OPEN)
    wait_for(lambda: repaired(machine), "correction of the file")
    dockerd = machine.main_pid()
    machine.run("systemctl kill --signal=KILL docker")
    wait_for(lambda: machine.main_pid() not in (0, dockerd) and machine.socket_answers(), "dockerd that is back")
    settled(machine)
    assert machine.exists(OUR_SERVICE_DROPIN)
    assert not machine.api_answers()
    assert not entries(machine, "rolled-back")
    assert not entries(machine, "failed")


TAKES_PORT = """
import os, socket, time
while True:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", 2376))
        taken.listen()
        break
    except OSError:
        taken.close()
while not os.path.exists("/run/end"):
    time.sleep(0.05)
"""
"""A program that listens on a port as soon as it is free, until /run/end exists."""


def test_docker_comes_up_soon_after_a_port_that_was_taken_during_its_restart_is_free(machine: Machine) -> None:
    """What dockerd ran with needs that port too, so that to undo the correction fails as well."""
    live_restore(machine)
    start_with(machine, f"{DOCKERD} -H fd:// -H tcp://127.0.0.1:2376 -H tcp://0.0.0.0:2375 --tls=false")
    machine.write("/run/takes_port.py", TAKES_PORT)
    machine.run("systemd-run --unit=takes-port python3 /run/takes_port.py")
    enforce(machine, LOOPBACK_TOO)
    wait_for(lambda: held_for(machine, "127.0.0.1:2376 is in use by another program"), "held correction", timeout=90)
    wait_for(lambda: machine.properties("docker.service", "ActiveState")["ActiveState"] == "failed",
             "systemd to give up", timeout=60)
    machine.run("touch /run/end")
    ping = "curl --fail --silent --max-time 5 http://127.0.0.1:2376/_ping"
    wait_for(lambda: machine.socket_answers() and machine.run(ping, check=False).status == 0, "dockerd", timeout=40)
    assert not machine.api_answers()
    settled(machine)


def test_live_restore_switched_off_in_the_file_stops_no_container(machine: Machine) -> None:
    live_restore(machine)
    container, dockerd = machine.start_container(), machine.main_pid()
    machine.write(DAEMON_JSON, '{"live-restore": false}\n')
    enforce(machine, LOOPBACK_TOO)
    wait_for(lambda: held_for(machine, "live-restore is off in the configuration that a restart would load"),
             "held correction")
    assert (machine.container_pid(), machine.main_pid()) == (container, dockerd)


def test_missing_certificates_in_daemon_json_do_not_leave_docker_dead(machine: Machine) -> None:
    live_restore(machine)
    start_with(machine, f"{DOCKERD} -H fd:// -H tcp://0.0.0.0:2375")
    container, dockerd = machine.start_container(), machine.main_pid()
    machine.write(DAEMON_JSON, '{"live-restore": true, "tls": true}\n')
    fixed = machine.run("dockerd-guard fix", check=False)
    assert fixed.status == 1
    assert "Held: dockerd would not start: TLS is on, but tlscert is not set" in fixed.out
    assert machine.main_pid() == dockerd
    assert machine.socket_answers()
    assert machine.container_pid() == container


class Down(NamedTuple):
    """TLS flags for which dockerd does not start, though the policy declares no TCP socket."""

    name: str
    flags: str


DOWN = (
    Down("relative paths", "-H tcp://0.0.0.0:2376 --tlsverify --tlscacert=ca.pem --tlscert=cert.pem --tlskey=key.pem"),
    Down("a missing file", "-H tcp://0.0.0.0:2376 --tls --tlscert=/nowhere/cert.pem --tlskey=/nowhere/key.pem"),
    Down("TLS without a TCP socket", "--tls --tlscert=/nowhere/cert.pem --tlskey=/nowhere/key.pem"),
)


@pytest.mark.parametrize("down", DOWN, ids=lambda down: down.name)
def test_docker_that_is_down_only_because_of_its_tls_flags_comes_up(machine: Machine, down: Down) -> None:
    start_with(machine, f"{DOCKERD} -H fd:// {down.flags}", check=False)
    assert machine.main_pid() == 0
    enforce(machine)
    wait_for(machine.main_pid, "dockerd that runs")
    wait_for(machine.socket_answers, "dockerd that answers")
    assert not machine.run("ss -Hltn 'sport = :2376'").out


# Code of a file that the policy does not allow to be started.

class Trap(NamedTuple):
    """Lines of a drop-in that leave a file called /etc/trap-ran* when dockerd is executed with them."""

    name: str
    lines: str


SCRIPT = f'#!/bin/sh\ntouch /etc/trap-ran\nexec {DOCKERD} "$@"\n'

TRAPS = (
    Trap("another program", "ExecStart=\nExecStart=/srv/x/dockerd -H fd:// -H tcp://0.0.0.0:2375 --tls=false"),
    # ld.so writes a file for each process that has these.
    Trap("LD_PRELOAD", 'Environment=LD_PRELOAD=libdl.so.2 LD_DEBUG=files LD_DEBUG_OUTPUT=/etc/trap-ran\n'
                       f"ExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false"),
)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_code_of_a_dropin_does_not_run_before_the_gate(machine: Machine, trap: Trap) -> None:
    live_restore(machine)
    # A restart is required whatever the drop-in has.
    start_with(machine, f"{DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false")
    machine.write("/srv/x/dockerd", SCRIPT, mode=0o755)
    machine.write(OVERRIDE, f"[Service]\n{trap.lines}\n")
    machine.run("systemctl daemon-reload")
    enforce(machine, NEVER)
    wait_for(lambda: entries(machine, "held"), "held correction")
    for verb in ("diff", "lint", "status", "fix"):
        machine.run(f"dockerd-guard {verb}", check=False)
    machine.run("systemctl restart dockerd-guard")
    wait_for(lambda: machine.is_active("dockerd-guard"), "agent that runs again")
    assert machine.run("ls /etc | grep trap-ran", check=False).out == ""
    # With a restart by hand the trap closes.
    machine.run(RESTART)
    assert machine.run("ls /etc | grep trap-ran").out


def test_dropin_named_like_one_that_was_set_aside_holds_the_restart(machine: Machine) -> None:
    live_restore(machine)
    start_with(machine, f"{DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false")
    dockerd = machine.main_pid()
    machine.write(f"{DROPINS}/zy-evil.conf", "[Service]\nExecStartPre=/bin/touch /etc/trap-ran\n")
    enforce(machine)
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert f"ExecStartPre= ({DROPINS}/zy-evil.conf:2)" in held[-1]["MESSAGE"]
    assert machine.main_pid() == dockerd
    assert not machine.exists("/etc/trap-ran")


# Files of others.

def test_late_dropin_that_is_a_link_to_another_unit_is_set_aside_as_a_link(machine: Machine) -> None:
    unit, link = "/etc/systemd/system/audit-ship.service", f"{DROPINS}/zzz.conf"
    text = f"[Unit]\nDescription=ship the audit log\n{OPEN}"
    live_restore(machine)
    machine.write(unit, text)
    machine.run(f"mkdir -p {DROPINS}; ln -s {unit} {link}; {RESTART}")
    wait_for(machine.api_answers, "open API")
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()
    assert machine.run(["find", unit, "-type", "f"]).out == f"{unit}\n"
    assert machine.read(unit) == text
    assert not machine.exists(link)
    assert machine.run(["readlink", f"{link}.dockerd-guard-saved"]).out == f"{unit}\n"


def test_four_different_late_dropins_within_a_minute_are_each_corrected(machine: Machine) -> None:
    live_restore(machine)
    enforce(machine, f"{ENFORCE}correct: {{budget: 100/1h}}\n")
    for number in range(1, 5):
        path, count = f"{DROPINS}/zzz-{number}.conf", len(repaired(machine))
        machine.write(path, f"{OPEN.rstrip()} --label=number={number}\n")
        machine.run("systemctl daemon-reload")
        wait_for(lambda p=path: not machine.exists(p), f"end of {path}")  # type: ignore[misc]
        wait_for(lambda n=count: len(repaired(machine)) > n, f"entry {number}")  # type: ignore[misc]
    assert not entries(machine, "contested")
    stamps = [int(entry["__REALTIME_TIMESTAMP"]) for entry in repaired(machine)]
    assert stamps[-1] - stamps[0] < 60e6
    settled(machine)


# What takes its place.

class Lost(NamedTuple):
    """A docker.service without `-H`, and its daemon.json."""

    name: str
    daemon_json: Mapping[str, object]


LOST = (
    Lost("hosts in daemon.json", {"hosts": ["fd://", "tcp://127.0.0.1:2375"], "tls": False}),
    Lost("no hosts at all", {}),
)


@pytest.mark.parametrize("lost", LOST, ids=lambda lost: lost.name)
def test_socket_activation_is_not_lost(machine: Machine, lost: Lost) -> None:
    machine.write(DAEMON_JSON, json.dumps({"live-restore": True, **lost.daemon_json}))
    start_with(machine, DOCKERD)
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    settled(machine)
    assert not machine.run("ss -Hltn 'sport = :2375'").out
    assert "DG309" not in machine.run("dockerd-guard lint", check=False).out
    # systemd still owns the path: a request starts dockerd.
    machine.run("systemctl stop docker.service; systemctl reset-failed docker.service")
    assert machine.is_active("docker.socket")
    wait_for(machine.socket_answers, "dockerd that a request starts")


def test_port_opened_by_the_environment_of_the_manager_is_corrected(machine: Machine) -> None:
    live_restore(machine)
    machine.run(["systemctl", "set-environment", "DOCKER_OPTS=-H tcp://0.0.0.0:2375 --tls=false"])
    start_with(machine, f"{DOCKERD} -H fd:// $DOCKER_OPTS")
    wait_for(machine.api_answers, "open API")
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()
    assert machine.socket_answers()
    settled(machine)


# Tried again.

def test_correction_is_tried_again_once_the_cause_in_daemon_json_is_repaired(machine: Machine) -> None:
    script = (f'#!/bin/sh\ncase "$*" in *--validate*) ;; *2376*) grep -q \'"debug": true\' {DAEMON_JSON} && exit 1;; '
              f'esac\nexec {DOCKERD} "$@"\n')
    machine.write("/usr/local/sbin/dockerd", script, mode=0o755)
    machine.write(DAEMON_JSON, '{"live-restore": true, "debug": true}\n')
    start_with(machine, "/usr/local/sbin/dockerd -H fd://")
    enforce(machine, f"{LOOPBACK_TOO}correct: {{budget: 100/1h}}\n")
    wait_for(lambda: entries(machine, "rolled-back"), "roll-back", timeout=120)
    machine.write(DAEMON_JSON, '{"live-restore": true, "debug": false}\n')
    machine.run("systemctl reset-failed docker; systemctl reload docker")
    wait_for(lambda: repaired(machine), "correction")
    assert machine.run("ss -Hltn 'sport = :2376'").out


# Records.

def test_fix_that_is_rolled_back_is_recorded_as_failed(machine: Machine) -> None:
    script = f'#!/bin/sh\ncase "$*" in *--validate*) ;; *2376*) exit 1;; esac\nexec {DOCKERD} "$@"\n'
    machine.write("/usr/local/sbin/dockerd", script, mode=0o755)
    live_restore(machine)
    start_with(machine, "/usr/local/sbin/dockerd -H fd://")
    enforce(machine, LOOPBACK_TOO.replace("enforce", "observe"))
    wait_for(lambda: entries(machine, "drift"), "drift")
    assert machine.run("dockerd-guard fix", check=False).status != 0
    assert machine.socket_answers()
    assert not machine.exists(OUR_SERVICE_DROPIN)
    undone = wait_for(lambda: entries(machine, "rolled-back") + entries(machine, "failed"), "entry")
    assert {entry["DOCKERD_GUARD_OUTCOME"] for entry in undone} == {"failed"}
    assert not repaired(machine)
    assert "repaired" not in machine.run("dockerd-guard history", check=False).out


class Secret(NamedTuple):
    """log-opts for which dockerd refuses to start, and whether it quotes their values in its own journal."""

    name: str
    settings: Mapping[str, object]
    is_quoted: bool = True
    flags: str = ""


TOKEN = "s3cr3t-t0ken"

SECRETS = (
    Secret("an address", {"log-driver": "syslog", "log-opts": {"syslog-address": f"{TOKEN}://log.example"}}),
    Secret("an option of another driver", {"log-driver": "json-file", "log-opts": {"splunk-token": TOKEN}},
           is_quoted=False),
    Secret("an option of both", {"log-opts": {"splunk-token": TOKEN}},
           flags=f" --log-driver=splunk --log-opt splunk-token={TOKEN}"),
)


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
def test_secret_in_log_opts_is_published_nowhere(machine: Machine, secret: Secret) -> None:
    machine.write(DAEMON_JSON, json.dumps({"live-restore": True, **secret.settings}), mode=0o600)
    start_with(machine, f"{DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false{secret.flags}", check=False)
    enforce(machine)
    wait_for(lambda: entries(machine, "held") + entries(machine, "failed") + entries(machine, "rolled-back")
             + repaired(machine), "decision")
    for verb in ("fix", "diff", "status"):
        machine.run(f"dockerd-guard {verb}", check=False)
    ours = machine.run("journalctl --boot --output=json --all SYSLOG_IDENTIFIER=dockerd-guard").out
    theirs = machine.run("journalctl --boot SYSLOG_IDENTIFIER=dockerd").out
    assert (TOKEN in theirs) is secret.is_quoted
    assert TOKEN not in ours
    assert TOKEN not in machine.read("/run/dockerd-guard/status.json")
    assert machine.run(f"grep -rl {TOKEN} /run/dockerd-guard /var/lib/dockerd-guard", check=False).out == ""


# Packages.

def test_block_is_released_with_the_package_after_nftables_was_removed(machine: Machine) -> None:
    open_up(machine)
    enforce(machine, NEVER)
    contained(machine)
    machine.run("dpkg --remove python3-nftables")
    machine.run("systemctl restart dockerd-guard; systemctl daemon-reload")
    wait_for(lambda: machine.is_active("dockerd-guard"), "agent that runs again")
    wait_for(lambda: machine.exists("/run/dockerd-guard/status.json"), "status")
    # IPAddressDeny= drops packets, the table rejects them.
    wait_for(lambda: not machine.api_answers(), "end of the exposure")
    done = machine.run("dpkg --remove dockerd-guard")
    assert "Traceback" not in done.out + done.err
    assert table(machine) == ""
    assert not machine.exists(FALLBACK_FILES)
    assert machine.properties("docker.service", "IPAddressDeny") == {"IPAddressDeny": ""}
    assert is_open(machine)


def test_purge_leaves_no_saved_policy(machine: Machine) -> None:
    machine.run("dockerd-guard init --force")
    machine.run("dockerd-guard init --force")
    assert machine.exists(f"{POLICY}.dockerd-guard-saved")
    machine.run("apt-get purge --yes dockerd-guard")
    for path in ("/etc/dockerd-guard", "/var/lib/dockerd-guard", "/run/dockerd-guard", OUR_SERVICE_DROPIN):
        assert not machine.exists(path), path
