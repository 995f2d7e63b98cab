"""dockerds that fail after the restart of a correction."""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.support.correction import (
    DOCKERD,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    entries,
    rests,
)


class Failure(NamedTuple):
    """What the restarted dockerd does instead of its work, and text of the entry about it.

    A script replaces dockerd: with fd:// alone it runs the real one, else `line`. `slow` failures run only in `make
    slow-test`.
    """

    name: str
    line: str
    words: str
    slow: bool = False


LOOPBACK_TOO = """
version: 1
mode: enforce
sockets: [fd://, {address: "tcp://127.0.0.1:2376", tls: none}]
"""

LISTENER = """exec python3 -c '
import socket, time
held = socket.socket()
held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
held.bind((\"127.0.0.1\", 2376))
held.listen()
time.sleep(10000)'"""

FAILURES = (
    Failure("does not start", "exit 1", "RestartUnit of docker.service: job failed"),
    Failure("starts and does not listen", "systemd-notify --ready; exec sleep 10000", "dockerd listens on",
            slow=True),
    Failure("listens and does not answer", f"systemd-notify --ready; {LISTENER}", "does not answer: timed out"),
)


def fail(machine: Machine, failure: Failure) -> None:
    """Let the restart fail, and check that Docker runs as before."""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    # preflight finds what --validate reports: the script fails only when dockerd really runs.
    script = f'#!/bin/sh\ncase "$*" in *--validate*) ;; *2376*) {failure.line};; esac\nexec {DOCKERD} "$@"\n'
    machine.write("/usr/local/sbin/dockerd", script, mode=0o755)
    machine.write(OVERRIDE, "[Service]\nNotifyAccess=all\nExecStart=\nExecStart=/usr/local/sbin/dockerd -H fd://\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")
    container = machine.start_container()
    began = time.monotonic()
    machine.run("systemctl reset-failed docker; systemctl restart docker")
    restart_s = time.monotonic() - began
    # Not by `systemctl reload`: it may come while the correction fails, and asks for another attempt.
    machine.write(POLICY, LOOPBACK_TOO)
    undone = wait_for(lambda: entries(machine, "rolled-back"), "roll-back", timeout=120)
    began_us, ended_us = (int(entry["__REALTIME_TIMESTAMP"]) for entry in (entries(machine, "policy")[-1], undone[0]))
    took_s = (ended_us - began_us) / 1e6
    print(f"{machine.release}: {failure.name}: undone after {took_s:.1f} s; one restart takes {restart_s:.1f} s")
    assert took_s < 30 + 4 * restart_s
    assert failure.words in undone[0]["MESSAGE"]
    assert not machine.exists(OUR_SERVICE_DROPIN)
    assert machine.socket_answers()
    assert machine.container_pid() == container
    dockerd = machine.main_pid()
    # Nothing changes on which the correction depends.
    machine.run("systemctl daemon-reload")
    wait_for(lambda: rests(machine, 2), "agent at rest")
    assert len(entries(machine, "rolled-back")) == 1
    assert machine.main_pid() == dockerd
