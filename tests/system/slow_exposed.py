"""The time for which the API was open, as the agent counts it, beside what a prober on another address measures.

Issue: an operator reads `exposed seconds` after an incident. They must be right within 10 % or 0.1 s, also where the
rules are flushed, Docker is restarted or the agent is killed meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import DOCKERD, LIVE_RESTORE, OUR_SERVICE_DROPIN, OVERRIDE, POLICY, repaired, rests

EPISODES = int(os.environ.get("EPISODES", "16"))
"""The number of episodes on each release."""

SEED = int(os.environ.get("SEED", "1"))

POLICY_TEXT = "version: 1\nmode: {mode}\nsockets: [fd://]\ncorrect: {{budget: 1000/1h, restart: {restart}}}\n"
OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"

# Prints the length of each time in which connections succeed, in seconds, until standard input ends.
PROBE = f"""
import select, socket, sys, time
began = None
def end(at):
    global began
    if began is not None:
        print(at - began, flush=True)
        began = None
while not select.select([sys.stdin], [], [], 0.005)[0]:
    at = time.monotonic()
    try:
        socket.create_connection(("{ADDRESS}", 2375), timeout=0.5).close()
    except OSError:
        end(at)
    else:
        began = began or at
end(time.monotonic())
"""


class Prober:
    """Measures from outside for how long the API is open."""

    def __init__(self, machine: Machine) -> None:
        self._process = subprocess.Popen(machine.outside_command("python3", "-c", PROBE), text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def open_s(self) -> float:
        """End, and return the seconds."""
        out, _ = self._process.communicate("", timeout=30)
        return sum(map(float, out.split()))


def follow(machine: Machine, mode: str, restart: str = "live-restore") -> None:
    machine.write(POLICY, POLICY_TEXT.format(mode=mode, restart=restart))
    machine.run("systemctl reload dockerd-guard")


def open_up(machine: Machine, seconds: float) -> None:
    follow(machine, "observe")
    machine.remove(OUR_SERVICE_DROPIN)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    time.sleep(seconds)


def close(machine: Machine) -> None:
    known = len(repaired(machine))
    follow(machine, "enforce")
    wait_for(lambda: len(repaired(machine)) > known, "correction")


def corrected(machine: Machine, seconds: float) -> None:
    open_up(machine, seconds)
    close(machine)


def restarted(machine: Machine, seconds: float) -> None:
    open_up(machine, seconds)
    machine.run("systemctl restart docker")
    time.sleep(seconds)
    close(machine)


def agent_killed(machine: Machine, seconds: float) -> None:
    open_up(machine, seconds)
    machine.run("systemctl kill --signal=KILL dockerd-guard")
    time.sleep(seconds)
    wait_for(lambda: machine.is_active("dockerd-guard.service"), "agent that was started again")
    close(machine)


def flushed(machine: Machine, seconds: float) -> None:
    open_up(machine, seconds)
    follow(machine, "enforce", "never")
    wait_for(lambda: not machine.api_answers(), "block")
    for _ in range(3):
        machine.run("nft flush ruleset")
        wait_for(lambda: not machine.api_answers(), "block after a flush")
    close(machine)


KINDS: tuple[Callable[[Machine, float], None], ...] = (corrected, restarted, agent_killed, flushed)


class Episode(NamedTuple):
    """What happened, and both measurements."""

    kind: str
    measured_s: float
    counted_s: float

    @property
    def is_right(self) -> bool:
        return abs(self.counted_s - self.measured_s) <= max(0.1 * self.measured_s, 0.1)


def counted_s(machine: Machine) -> float:
    return float(json.loads(machine.read("/run/dockerd-guard/status.json"))["counts"]["exposed_s"])


def test_exposed_seconds_are_those_that_a_prober_measures(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.start_container()
    choose = random.Random(SEED)
    episodes = []
    for number in range(EPISODES):
        kind = KINDS[number % len(KINDS)]
        wait_for(lambda: rests(machine), "agent at rest")
        before = counted_s(machine)
        prober = Prober(machine)
        kind(machine, choose.uniform(0.5, 4))
        wait_for(lambda: rests(machine), "agent at rest")
        episodes.append(Episode(kind.__name__, prober.open_s(), counted_s(machine) - before))
        print(f"{machine.release}: {episodes[-1]}", flush=True)
    assert [episode for episode in episodes if not episode.is_right] == []
