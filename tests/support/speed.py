"""Measure how long the API stays open after the write that closes it."""

from __future__ import annotations

import subprocess
from typing import NamedTuple

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import (
    DOCKERD,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    repaired,
    rests,
)

ROUNDS = 10

POLICY_TEXT = "version: 1\nmode: {mode}\nsockets: [fd://]\ncorrect: {{budget: 1000/1h, contain: {contain}}}\n"
OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"
CLOSED = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd://\n"

# Connects repeatedly. Prints when the first connection succeeds, and when the first one after that is refused. All
# processes on this host share one CLOCK_MONOTONIC.
PROBE = f"""
import socket, time
is_in = False
while True:
    began = time.monotonic()
    try:
        socket.create_connection(("{ADDRESS}", 2375), timeout=5).close()
    except OSError:
        # Refused; or reset, where the very moment was met.
        if is_in:
            print(began, flush=True)
            break
    else:
        if not is_in:
            print("in", flush=True)
        is_in = True
    time.sleep(0.002)
"""

# Writes a file in place, prints the time, then runs a shell line.
WRITE = """
import subprocess, sys, time
path, text, line = sys.argv[1:]
with open(path, "w") as file:
    file.write(text)
print(time.monotonic(), flush=True)
subprocess.run(line, shell=True, check=True)
"""


class Way(NamedTuple):
    """A way to close the API: its name, the file and its new text, and a shell line that runs afterwards."""

    name: str
    path: str
    text: str
    line: str = "true"


WAYS = (
    Way("agent, with containment", POLICY, POLICY_TEXT.format(mode="enforce", contain="true")),
    Way("agent, without containment", POLICY, POLICY_TEXT.format(mode="enforce", contain="false")),
    Way("by hand", OVERRIDE, CLOSED, "systemctl daemon-reload && systemctl restart docker"),
)


def measure(machine: Machine, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the seconds from the write to the first refusal for each round, by the name of the way.

    The machine has the package installed and was just booted.
    """
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.start_container()
    times: dict[str, list[float]] = {way.name: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            _open(machine)
            times[way.name].append(_close(machine, way))
    return times


def _open(machine: Machine) -> None:
    """Open the API under a policy with `mode: observe`, and wait until the agent is idle."""
    machine.write(POLICY, POLICY_TEXT.format(mode="observe", contain="true"))
    wait_for(lambda: _status(machine).startswith("observe"), "policy with mode: observe")
    machine.remove(OUR_SERVICE_DROPIN)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    wait_for(machine.api_answers, "open API")
    wait_for(lambda: "DG101" in _status(machine), "drift in the status line")
    wait_for(lambda: rests(machine), "agent at rest")


def _close(machine: Machine, way: Way) -> float:
    before = len(repaired(machine))
    probe = subprocess.Popen(machine.outside_command("python3", "-c", PROBE), stdout=subprocess.PIPE, text=True)
    assert probe.stdout is not None
    assert probe.stdout.readline() == "in\n"
    written = float(machine.run(["python3", "-c", WRITE, way.path, way.text, way.line]).out)
    refused = float(probe.communicate(timeout=60)[0])
    if way.path == POLICY:
        wait_for(lambda: len(repaired(machine)) > before, "correction")
    return refused - written


def _status(machine: Machine) -> str:
    return machine.properties("dockerd-guard.service", "StatusText")["StatusText"]
