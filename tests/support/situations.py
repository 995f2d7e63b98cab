"""Situations of a simulated host in a few words, for the tables of test_decide.py and its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import NamedTuple

from dockerd_guard.agent.reconcile import Decide, assess
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import UNITS
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import Assessment
from dockerd_guard.plan.decide import decide
from dockerd_guard.plan.memory import Memory
from dockerd_guard.policy.model import Policy
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rootfs import Rootfs
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedFiles, SimulatedKernel, SimulatedManager

Act = Callable[[SimulatedHost], object]
Remember = Callable[[Instant, Memory], Memory]

DIRECTORY = "/etc/systemd/system/docker.service.d"
OURS = f"{DIRECTORY}/zz-dockerd-guard.conf"
OVERRIDE = f"{DIRECTORY}/override.conf"
LATE = f"{DIRECTORY}/zzz.conf"
SOCKET_DROPIN = "/etc/systemd/system/docker.socket.d/override.conf"
DAEMON_JSON = "/etc/docker/daemon.json"
POLICY = "/etc/dockerd-guard/config.yaml"

DOCKERD = "/usr/bin/dockerd"
OPEN = "-H fd:// -H tcp://0.0.0.0:2375"


# --- what administrators do -----------------------------------------------------------------------


def write(path: str, text: str) -> Act:
    return lambda host: host.put(path, text)


def link(path: str, target: str) -> Act:
    return lambda host: host.link(path, target)


def remove(*paths: str) -> Act:
    def remove_them(host: SimulatedHost) -> None:
        for path in paths:
            host.remove(path)
    return remove_them


def dropin(arguments: str, path: str = OVERRIDE) -> Act:
    """A drop-in that starts dockerd with other arguments."""
    return write(path, f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n")


def daemon_json(text: str) -> Act:
    return write(DAEMON_JSON, text)


def listens(*values: str) -> Act:
    """A drop-in of docker.socket with these ListenStream=."""
    return write(SOCKET_DROPIN, "[Socket]\nListenStream=\n" + "".join(f"ListenStream={value}\n" for value in values))


def reload(host: SimulatedHost) -> None:
    host.reload()


def restart(host: SimulatedHost) -> None:
    host.restart("admin")


def kill(host: SimulatedHost) -> None:
    """systemctl kill --signal=KILL docker."""
    host.kill()


def stop(host: SimulatedHost) -> None:
    host.stop("admin")


def restart_socket(host: SimulatedHost) -> None:
    host.stop("admin")
    host.start_socket()
    host.start("admin")


def sleep(seconds: float) -> Act:
    return lambda host: host.clock.sleep(seconds)


def containers(count: int) -> Act:
    return lambda host: host.containers.update(range(count))


def fault(**values: object) -> Act:
    """Faults of the host, by attribute of SimulatedHost."""
    def set_them(host: SimulatedHost) -> None:
        for name, value in values.items():
            assert hasattr(host, name)
            setattr(host, name, value)
    return set_them


def environment(**values: str) -> Act:
    """systemctl set-environment."""
    return lambda host: host.environment.update(values)


def policy(text: str) -> Act:
    return write(POLICY, f"version: 1\n{text}\n")


def opened(arguments: str = OPEN) -> tuple[Act, ...]:
    """Written, loaded and running with these arguments."""
    return (dropin(arguments), reload, restart)


def guarded(host: SimulatedHost) -> SimulatedAgent:
    """One pass of the agent."""
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    return agent


# --- what is decided ------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A decision, the memory after it, and what it was made from."""

    assessment: Assessment
    memory: Memory
    now: Instant


def read_policy(text: str) -> Policy:
    """A policy in force, `sockets: [fd://]` unless the text has its own."""
    sockets = "" if "sockets:" in text else "sockets: [fd://]\n"
    mode = "" if "mode:" in text else "mode: enforce\n"
    return parse_policy(f"version: 1\n{mode}{sockets}{text}\n".encode())


def seen_on(host: SimulatedHost, rootfs: Rootfs) -> Observation:
    """One look, as reconcile() has it."""
    seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host))
    return seen._replace(disk_problem=SimulatedFiles(host).problem(UNITS))


def do(host: SimulatedHost, acts: Iterable[Act]) -> None:
    for act in acts:
        act(host)


def decided(
    host: SimulatedHost, in_force: Policy, remember: Remember | None = None, choose: Decide = decide
) -> Outcome:
    """What is decided about a host now, from what its agent stored and `remember` changes."""
    now = host.clock.now()
    memory = SimulatedStateFiles(host).load()
    if remember is not None:
        memory = remember(now, memory)
    with Rootfs(str(host.root)) as rootfs:
        # A decision about what was seen may be taken when the rootfs is closed.
        rootfs.stat(DOCKERD)
        assessment, after = assess(seen_on(host, rootfs), (), in_force, memory, now, SimulatedKernel(host),
                                   SimulatedManager(host), choose)
    return Outcome(assessment, after, now)


def ago(now: Instant, seconds: float) -> Instant:
    """A moment of this boot."""
    return Instant(now.wall - timedelta(seconds=seconds), now.boot_id, now.since_boot_s - seconds)
