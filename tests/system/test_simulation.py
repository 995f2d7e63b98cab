"""The model of a host (tests/simulation), held against booted machines: the same steps, and the two journals compared.

Each step is played on both, and both agents come to rest before the next. What must be the same after each step: the
entries of the journal by event, rule, layer and outcome, the files of the drop-in directory, and whether dockerd runs.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.model.names import SERVICE
from tests.machines.machine import Machine, wait_for
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import SimulatedHost, simulated_times
from tests.support.correction import DOCKERD, ENFORCE, LIVE_RESTORE, OBSERVE, OVERRIDE, POLICY, rests
from tests.support.passes import run

DROPINS = posixpath.dirname(OVERRIDE)
DAEMON_JSON = "/etc/docker/daemon.json"
LATE = f"{DROPINS}/zzz.conf"
SIMULATED_DOCKERD = "/usr/bin/dockerd"
REST_S = 5.0

COMMANDS = {
    "reload systemd": "systemctl daemon-reload",
    "restart dockerd": "systemctl reset-failed docker docker.socket; systemctl restart docker || true",
    "stop dockerd": "systemctl stop docker.service docker.socket",
    "reload dockerd": "systemctl reload docker",
}


class Step(NamedTuple):
    """Files to write, None to remove one; then one verb of COMMANDS, or `start a container`."""

    files: Mapping[str, str | None] = {}
    verb: str = ""


def unit(arguments: str) -> str:
    return f"[Service]\nExecStart=\nExecStart={DOCKERD} {arguments}\n"


OPEN = "-H fd:// -H tcp://0.0.0.0:2375 --tls=false"
GUARDED = Step({DAEMON_JSON: LIVE_RESTORE}, "restart dockerd")
ENFORCED = Step({POLICY: ENFORCE})


class History(NamedTuple):
    """What happens to a host, from `mode: observe` on."""

    name: str
    steps: tuple[Step, ...]


HISTORIES = (
    History("a port is opened, and the policy enforced", (
        GUARDED, Step({OVERRIDE: unit(OPEN)}), Step(verb="reload systemd"), Step(verb="restart dockerd"), ENFORCED)),
    History("a file is corrected before it is loaded", (
        GUARDED, ENFORCED, Step({OVERRIDE: unit(OPEN)}), Step({OVERRIDE: None}))),
    History("containers without live-restore hold the restart", (
        Step({DAEMON_JSON: "{}"}, "restart dockerd"), Step({OVERRIDE: unit(OPEN)}, "reload systemd"),
        Step(verb="restart dockerd"), Step(verb="start a container"), ENFORCED,
        Step({DAEMON_JSON: LIVE_RESTORE}, "reload dockerd"))),
    History("a drop-in that sorts after ours", (
        GUARDED, Step({LATE: unit(OPEN)}, "reload systemd"), Step(verb="restart dockerd"),
        Step({POLICY: ENFORCE + "correct: {foreign_files: true}\n"}))),
    History("hosts in daemon.json", (
        GUARDED, Step({DAEMON_JSON: '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"], "tls": false}',
                       OVERRIDE: unit("")}, "reload systemd"), Step(verb="restart dockerd"),
        Step({POLICY: ENFORCE + "correct: {foreign_files: true}\n"}))),
    History("Docker is stopped", (
        GUARDED, ENFORCED, Step(verb="stop dockerd"), Step({OVERRIDE: unit(OPEN)}))),
)


class Seen(NamedTuple):
    """What is compared after each step. Entries are not counted: a machine's agent sees dockerd while it starts."""

    entries: frozenset[tuple[str, str, str, str]]
    files: frozenset[str]
    runs: bool


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[SimulatedAgent]:
    with simulated_times():
        host = SimulatedHost(tmp_path / "host")
        host.put(POLICY, OBSERVE)
        yield SimulatedAgent(host, RecordedJournal())


def simulate(agent: SimulatedAgent, step: Step) -> Seen:
    host = agent.host
    for path, text in step.files.items():
        if text is None:
            host.remove(path)
        else:
            host.put(path, text.replace(DOCKERD, SIMULATED_DOCKERD))
    match step.verb:
        case "reload systemd":
            host.reload()
        case "restart dockerd":
            host.reset_failed()
            host.restart("admin")
        case "stop dockerd":
            host.stop("admin")
        case "reload dockerd":
            host.reload_dockerd()
        case "start a container":
            host.containers.add(1)
    run(agent, REST_S)
    # What a correction writes starts another pass.
    run(agent, REST_S)
    found = frozenset((str(entry.event), entry.rule or "", entry.layer or "", str(entry.outcome or ""))
                    for entry in agent.journal.entries)
    agent.journal.entries.clear()
    directory = host.root / DROPINS.lstrip("/")
    names = {file.name for file in directory.iterdir()} if directory.is_dir() else set()
    return Seen(found, frozenset(names), host.active[SERVICE] == "active")


def field(entry: Mapping[str, str], name: str) -> str:
    return entry.get(f"DOCKERD_GUARD_{name}", "")


class Player:
    """Plays steps on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.known = 0
        self.rest()
        self.known = len(self.entries())

    def entries(self) -> list[dict[str, str]]:
        return [entry for entry in self.machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", "--boot")
                if "DOCKERD_GUARD_EVENT" in entry]

    def rest(self) -> None:
        wait_for(lambda: rests(self.machine, 3), "agent that rests", timeout=120)

    def play(self, step: Step) -> Seen:
        for path, text in step.files.items():
            if text is None:
                self.machine.remove(path)
            else:
                self.machine.write(path, text)
        if step.verb == "start a container":
            self.machine.start_container()
        elif step.verb:
            self.machine.run(COMMANDS[step.verb])
        if POLICY in step.files:
            self.machine.run("systemctl reload dockerd-guard")
        self.rest()
        entries = self.entries()
        new, self.known = entries[self.known:], len(entries)
        found = frozenset((field(entry, "EVENT"), field(entry, "RULE"), field(entry, "LAYER"), field(entry, "OUTCOME"))
                        for entry in new)
        names = self.machine.run(f"ls -A {DROPINS} 2>/dev/null || true").out.split()
        return Seen(found, frozenset(names), self.machine.is_active("docker.service"))


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_the_model_and_a_machine_write_the_same_journal(
    machine: Machine, simulated: SimulatedAgent, history: History
) -> None:
    player = Player(machine)
    for number, step in enumerate(history.steps, 1):
        expected, seen = simulate(simulated, step), player.play(step)
        assert seen == expected, f"step {number}: {step}"
