"""The model of a host (tests/simulation), held against booted machines: the same steps, and the two journals compared.

Each step is played on both, and both agents come to rest before the next. What must be the same after each step: the
entries of the journal by event, rule, layer and outcome, the files of the drop-in directory, and whether dockerd runs.
"""

from __future__ import annotations

import errno
import json
import posixpath
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.model.names import SERVICE
from tests.machines.host import prepare
from tests.machines.machine import Machine, wait_for
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import VENDOR_SERVICE, SimulatedHost, simulated_times
from tests.support.correction import DOCKERD, ENFORCE, LIVE_RESTORE, OBSERVE, OVERRIDE, POLICY, UNIT, rests
from tests.support.interruptions import START_BUS, STOP_BUS, on_a_disk
from tests.support.passes import run

DROPINS = posixpath.dirname(OVERRIDE)
DAEMON_JSON = "/etc/docker/daemon.json"
LATE = f"{DROPINS}/zzz.conf"
SIMULATED_DOCKERD = "/usr/bin/dockerd"
REST_S = 5.0
LOOKS_WITHOUT_DBUS = 3

VENDOR_UNIT = "/usr/lib/systemd/system/docker.service"
VENDOR_SERVICE_OF_DEBIAN = VENDOR_SERVICE.replace(
    " -H fd:// ", " -H fd:// --containerd=/run/containerd/containerd.sock ")
"""A drop-in that leaves a flag out changes more than the hosts."""

STATE = "/var/lib/dockerd-guard"
CLOCK_FILE = "/run/clock"


def on_disks(failure: str) -> str:
    """A shell line that puts the directories to which a correction writes first on small disks that fail."""
    return "; ".join(f"rm -rf /root/away; mkdir -p {directory}; {on_a_disk(directory, f'cd {directory}; {failure}')}"
                     for directory in (STATE, DROPINS))


COMMANDS = {
    "reload systemd": "systemctl daemon-reload",
    "restart dockerd": "systemctl reset-failed docker docker.socket; systemctl restart docker || true",
    "stop dockerd": "systemctl stop docker.service docker.socket",
    "reload dockerd": "systemctl reload docker",
    "fill the disk": on_disks("head -c 1M /dev/zero > .filler || :"),
    "make the disk read-only": on_disks("mount -o remount,ro $PWD"),
    # No event shows that there is room again.
    "free the disk": f"umount {DROPINS} {STATE}; systemctl reload dockerd-guard",
    "stop D-Bus": STOP_BUS,
    "start D-Bus": START_BUS,
    "set the clock forward": f"echo {400 * 86400} > {CLOCK_FILE}",
    "set the clock back": f"echo {-400 * 86400} > {CLOCK_FILE}",
    "remove nftables": "mv /usr/lib/python3/dist-packages/nftables /root/",
    # As dpkg and the postinst of docker.io do it.
    "upgrade dockerd": f"""
        f={UNIT}
        sed '$a # upgraded' $f > $f.dpkg-new && mv $f.dpkg-new $f
        sed -i "s|^[0-9a-f]*\\(  .*/system/docker.service\\)|$(md5sum < $f | cut -c-32)\\1|" \\
            /var/lib/dpkg/info/docker.io.md5sums
        systemctl daemon-reload
        deb-systemd-invoke restart docker.service docker.socket
    """,
}

MOUNTED = "no file event arrived"
"""What the agent reports when a directory is mounted over, which no event shows. That is the test's own doing."""


class Step(NamedTuple):
    """Files to write, None to remove one; then one verb of COMMANDS, or `start a container`."""

    files: Mapping[str, str | None] = {}
    verb: str = ""


def unit(arguments: str) -> str:
    return f"[Service]\nExecStart=\nExecStart={DOCKERD} {arguments}\n"


JSON_OPEN = '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'
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
    History("the disk is full", (
        GUARDED, ENFORCED, Step({OVERRIDE: unit(OPEN)}), Step({OVERRIDE: None}), Step(verb="fill the disk"),
        Step({DAEMON_JSON: JSON_OPEN}), Step(verb="free the disk"))),
    History("the disk is read-only", (
        GUARDED, Step({OVERRIDE: unit(OPEN)}, "reload systemd"), Step(verb="restart dockerd"),
        Step(verb="make the disk read-only"), ENFORCED, Step(verb="free the disk"))),
    History("D-Bus is stopped", (
        GUARDED, ENFORCED, Step(verb="stop D-Bus"), Step({OVERRIDE: unit(OPEN)}), Step(verb="start D-Bus"))),
    History("the clock is set", (
        GUARDED, ENFORCED, Step(verb="set the clock forward"), Step({OVERRIDE: unit(OPEN)}),
        Step(verb="set the clock back"), Step({OVERRIDE: unit(f"{OPEN} --label a=b")}))),
    History("python3-nftables is removed", (
        Step({DAEMON_JSON: "{}"}, "restart dockerd"), Step({OVERRIDE: unit(OPEN)}, "reload systemd"),
        Step(verb="restart dockerd"), Step(verb="start a container"), Step(verb="remove nftables"), ENFORCED)),
    History("docker.io is upgraded", (
        GUARDED, ENFORCED, Step({OVERRIDE: unit(OPEN)}), Step(verb="upgrade dockerd"), Step({OVERRIDE: None}))),
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
        host.put(VENDOR_UNIT, VENDOR_SERVICE_OF_DEBIAN)
        host.reload()
        host.restart("admin")
        host.put(POLICY, OBSERVE)
        yield SimulatedAgent(host, RecordedJournal())


def simulate(agent: SimulatedAgent, step: Step) -> Seen:  # noqa: PLR0912 -- one branch for each verb
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
        case "fill the disk":
            host.disk_errno = errno.ENOSPC
        case "make the disk read-only":
            host.disk_errno = errno.EROFS
        case "free the disk":
            host.disk_errno = 0
            agent.run_pass(retry=True)
        case "stop D-Bus" | "start D-Bus":
            host.bus_is_gone = step.verb == "stop D-Bus"
        case "set the clock forward" | "set the clock back":
            host.clock.wall_offset_s = 400 * 86400.0 * (1 if step.verb == "set the clock forward" else -1)
        case "remove nftables":
            host.nftables_is_gone = True
        case "upgrade dockerd":
            host.put(VENDOR_UNIT, f"{VENDOR_SERVICE_OF_DEBIAN}# upgraded\n")
            host.reload()
            host.restart("admin")
        case "start a container":
            host.containers.add(1)
    if step.files:
        agent.controller.changed()
    run(agent, REST_S)
    # What a correction writes starts another pass.
    run(agent, REST_S)
    found = frozenset((str(entry.event), entry.rule or "", entry.layer or "", str(entry.outcome or ""))
                    for entry in agent.journal.entries)
    agent.journal.entries.clear()
    directory = host.root / DROPINS.lstrip("/")
    names = {file.name for file in directory.iterdir()} if directory.is_dir() else set[str]()
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
        if self.machine.is_active("dbus.socket"):
            wait_for(lambda: rests(self.machine, 3), "agent that rests", timeout=120)
            return
        # Without D-Bus it looks every second.
        looks: set[str] = set()

        def has_looked() -> bool:
            looks.add(json.loads(self.machine.read("/run/dockerd-guard/status.json"))["at"])
            return len(looks) > LOOKS_WITHOUT_DBUS

        wait_for(has_looked, "three looks without D-Bus")

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
            # systemd 252 cannot run ExecReload= where the state directory is read-only. The event does as well.
            self.machine.run("systemctl reload dockerd-guard", check=False)
        self.rest()
        entries = self.entries()
        new, self.known = entries[self.known:], len(entries)
        found = frozenset((field(entry, "EVENT"), field(entry, "RULE"), field(entry, "LAYER"), field(entry, "OUTCOME"))
                        for entry in new if MOUNTED not in entry["MESSAGE"])
        names = self.machine.run(f"ls -A {DROPINS} 2>/dev/null || true").out.split()
        return Seen(found, frozenset(names) - {".filler"}, self.machine.is_active("docker.service"))


def own_clock(machine: Machine, directory: Path) -> None:
    """Give the agent a clock of its own: machines share that of this host."""
    prepare("gcc", "libc6-dev")
    library = directory / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    machine.copy_in(library, "/usr/local/lib/clock.so")
    machine.write("/etc/systemd/system/dockerd-guard.service.d/clock.conf",
                  "[Service]\nEnvironment=LD_PRELOAD=/usr/local/lib/clock.so\n")
    machine.run("systemctl daemon-reload; systemctl restart dockerd-guard")


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_the_model_and_a_machine_write_the_same_journal(
    machine: Machine, simulated: SimulatedAgent, history: History, tmp_path: Path
) -> None:
    if any("clock" in step.verb for step in history.steps):
        own_clock(machine, tmp_path)
    player = Player(machine)
    for number, step in enumerate(history.steps, 1):
        expected, seen = simulate(simulated, step), player.play(step)
        assert seen == expected, f"step {number}: {step}"
