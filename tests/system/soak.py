"""A long run of random drift while the agent and dockerd are restarted and killed: no drift is missed and no resource
grows.

    python3 -m tests.system.soak --hours 4 --release trixie dist/*.deb      (make soak HOURS=4 RELEASE=trixie)

Each step changes the host at random and waits until the host complies again, checked from outside, and until the
journal has an entry about it. The curve contains the agent's memory, descriptors and threads after each step.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.machines import host, image
from tests.machines.machine import Machine, wait_for
from tests.support.correction import (
    DOCKERD,
    LIVE_RESTORE,
    OUR_SERVICE_DROPIN,
    OUR_SOCKET_DROPIN,
    OVERRIDE,
    SOCKET_OVERRIDE,
    enforce,
    entries,
    rests,
)

POLICY = "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect:\n  budget: {budget}/1h\n"
BUDGET = 100_000
AGENT = "dockerd-guard.service"
STEP_TIMEOUT_S = 90

MAX_GROWTH_MB = 2.0
"""Maximum growth between the medians of the first and the second half of a process's samples."""

CONTAINMENT_DESCRIPTORS = 1
"""Additional descriptors during containment: the connection to the network helper."""

WARM_UP_SAMPLES = 5
"""Number of first samples to ignore, until every code path of a process has run once."""


LAST = "/etc/systemd/system/docker.service.d/zzz-last.conf"


class Drift(NamedTuple):
    """A file that somebody writes and that the entry must name. `moved`: where a correction moves it."""

    path: str
    text: str
    moved: tuple[str, ...] = ()


DRIFTS = (
    Drift(OVERRIDE, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"),
    Drift(OVERRIDE, '[Service]\nEnvironment="DOCKER_OPTS=-H tcp://0.0.0.0:2375 --tls=false"\n'),
    Drift("/etc/default/docker", 'DOCKER_OPTS="-H tcp://0.0.0.0:2375 --tls=false"\n'),
    Drift(LAST, f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n",
          moved=(LAST.replace("zzz-", "zy-zzz-"), f"{LAST}.dockerd-guard-saved")),
    Drift(SOCKET_OVERRIDE, "[Socket]\nListenStream=0.0.0.0:2375\n"),
)

DISTURBANCES: dict[str, str] = {
    "nothing": ":",
    "daemon-reload": "systemctl daemon-reload",
    "dockerd is restarted": "systemctl daemon-reload; systemctl restart docker",
    "dockerd is killed": "systemctl kill --signal=KILL docker; sleep 1",
    "the agent is reloaded": "systemctl reload dockerd-guard",
    "noise": "for each in 1 2 3 4 5 6 7 8 9; do touch /etc/systemd/system/docker.service.d/noise; "
             "rm /etc/systemd/system/docker.service.d/noise; done",
    "a container": "docker run --rm --network=none busybox /bin/sh -c :",
    "the agent is stopped and continued": "systemctl kill --signal=STOP dockerd-guard; sleep 1; "
                                          "systemctl kill --signal=CONT dockerd-guard",
}

RESTARTS: dict[str, str] = {
    "the agent is restarted": "systemctl restart dockerd-guard",
    "the agent is killed": "systemctl kill --signal=KILL dockerd-guard",
}


LOOK = ("dockerd-guard status; dockerd-guard diff; ls -la /etc/systemd/system/docker.*.d; "
        "journalctl --unit=dockerd-guard --output=short-precise --lines=60")
"""Commands that show the state of a machine on which drift was missed."""


class Sample(NamedTuple):
    """The idle agent after a step. `pid` distinguishes the agent's processes."""

    at_s: float
    step: str
    took_s: float
    pid: int
    rss_mb: float
    descriptors: int
    threads: int


def soak(machine: Machine, seconds: float, seed: int,
         record: Callable[[Sample], None] = lambda _: None) -> list[Sample]:
    """Run for so many seconds. Raises AssertionError or TimeoutError with the step if drift was missed."""
    machine.write("/etc/systemd/system/docker.service.d/10-limit.conf", "[Unit]\nStartLimitIntervalSec=0\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    container = machine.start_container()
    enforce(machine, POLICY.format(budget=BUDGET))
    choose = random.Random(seed)
    start = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() - start < seconds:
        drift = choose.choice(DRIFTS)
        # Growth is visible only if a process of the agent lives long enough.
        is_restart = choose.random() < (0.2 if seconds < 600 else 0.02)
        name, line = choose.choice(list((RESTARTS if is_restart else DISTURBANCES).items()))
        step = f"{drift.path}, {name}"
        # The same drift again counts as a correction that was undone. A new policy starts anew.
        enforce(machine, POLICY.format(budget=BUDGET + len(samples) % 2))
        began = time.monotonic()
        _step(machine, drift, line, f"step {len(samples)} of seed {seed}: {step}")
        assert machine.container_pid() == container, step
        samples.append(_sample(machine, time.monotonic() - start, step, time.monotonic() - began))
        record(samples[-1])
    return samples


def _step(machine: Machine, drift: Drift, line: str, what: str) -> None:
    count = len(_drift_entries(machine, drift))
    machine.write(drift.path, drift.text)
    machine.run(line)
    wait_for(lambda: len(_drift_entries(machine, drift)) > count, f"drift entry; {what}", timeout=STEP_TIMEOUT_S)
    wait_for(lambda: _complies(machine), f"correction; {what}", timeout=STEP_TIMEOUT_S)
    assert not machine.api_answers(), what
    machine.remove(drift.path, *drift.moved)
    wait_for(lambda: not machine.exists(OUR_SERVICE_DROPIN) and not machine.exists(OUR_SOCKET_DROPIN)
             and _complies(machine), f"end of our drop-ins; {what}", timeout=STEP_TIMEOUT_S)


def _drift_entries(machine: Machine, drift: Drift) -> list[dict[str, str]]:
    return [entry for entry in entries(machine, "drift") if entry.get("DOCKERD_GUARD_FILE") == drift.path]


def _complies(machine: Machine) -> bool:
    return machine.run("dockerd-guard diff", check=False).status == 0


def _sample(machine: Machine, at_s: float, step: str, took_s: float) -> Sample:
    pid = wait_for(lambda: machine.main_pid(AGENT), "agent")
    # The last pass renews the watches.
    wait_for(lambda: rests(machine), "agent at rest")
    about = machine.run(f"cat /proc/{pid}/status").out
    descriptors, threads = wait_for(lambda: _counts(machine, pid), "agent without an open directory")
    status = dict(line.split(":", 1) for line in about.splitlines())
    return Sample(round(at_s, 1), step, round(took_s, 2), pid, int(status["VmRSS"].split()[0]) / 1024,
                  descriptors, threads)


def _counts(machine: Machine, pid: int) -> tuple[int, int] | None:
    """Return the lowest numbers of descriptors and threads of eight looks. A look while a pass runs does not count.

    None if none counts. A pass has "/" open until it ends, and may wait for systemd longer than these looks take.
    """
    looks = machine.run(f"for each in 1 2 3 4 5 6 7 8; do ls /proc/{pid}/task | wc -l; "
                        f"readlink /proc/{pid}/fd/*; echo; sleep 0.1; done", check=False).out.strip().split("\n\n")
    counts = [(len(links), int(threads)) for threads, *links in map(str.splitlines, looks) if "/" not in links]
    return (min(links for links, _ in counts), min(threads for _, threads in counts)) if counts else None


def growing(samples: Sequence[Sample]) -> list[str]:
    """Return one line for each resource that grows within a process of the agent."""
    found = []
    for pid in dict.fromkeys(sample.pid for sample in samples):
        life = [sample for sample in samples if sample.pid == pid][WARM_UP_SAMPLES:]
        if len(life) < 4:
            continue
        first, second = life[:len(life) // 2], life[len(life) // 2:]
        for name, most in (("rss_mb", MAX_GROWTH_MB), ("descriptors", CONTAINMENT_DESCRIPTORS), ("threads", 0)):
            before, after = (statistics.median(getattr(sample, name) for sample in half) for half in (first, second))
            if after - before > most:
                found.append(f"PID {pid}: {name} from {before:.1f} to {after:.1f} in {len(life)} steps")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.system.soak", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--release", choices=image.RELEASES, default="bookworm")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    parser.add_argument("--curve", type=Path, required=True, help="CSV file to write, one line for each step")
    arguments = parser.parse_args()
    host.prepare_machines()
    with Machine.boot(arguments.release, package=arguments.package) as machine, \
            open(arguments.curve, "w", newline="", buffering=1) as file:
        curve = csv.writer(file)
        curve.writerow(Sample._fields)
        try:
            samples = soak(machine, arguments.hours * 3600, arguments.seed, record=curve.writerow)
        except (AssertionError, TimeoutError):
            print(machine.run(LOOK, check=False).out)
            raise
    grows = growing(samples)
    memory = [sample.rss_mb for sample in samples]
    print(f"Seed {arguments.seed}, {arguments.release}: {len(samples)} steps in {arguments.hours:g} h, none missed; "
          f"{len({sample.pid for sample in samples})} agent processes; {min(memory):.1f} to {max(memory):.1f} MB; "
          f"{min(sample.descriptors for sample in samples)} to {max(sample.descriptors for sample in samples)} "
          f"descriptors; {max(sample.threads for sample in samples)} thread(s). Curve: {arguments.curve}")
    for each in grows:
        print(f"GROWS: {each}")
    return 1 if grows else 0


if __name__ == "__main__":
    sys.exit(main())
