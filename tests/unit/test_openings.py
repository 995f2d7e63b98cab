"""What a dockerd that starts is going to open is blocked before it listens: values from observation to containment."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dockerd_guard.observe.processes import SocketOwner
from dockerd_guard.plan.actions import STARTING_S
from dockerd_guard.plan.decide import containment
from dockerd_guard.plan.memory import Contained, Memory
from dockerd_guard.rootfs import Rootfs
from tests.simulation.agent import SimulatedAgent
from tests.simulation.host import TCP_PAUSE_S, SimulatedHost
from tests.simulation.interfaces import SimulatedKernel
from tests.support.passes import ENFORCE
from tests.support.situations import (
    OPEN,
    Act,
    do,
    dropin,
    fault,
    listens,
    policy,
    read_policy,
    reload,
    restart,
    restart_socket,
    seen_on,
    sleep,
    stop,
    write,
)


def starts(host: SimulatedHost) -> None:
    """It has begun, and listens nowhere yet."""
    host.next_starts = ["deaf"]
    restart(host)


STARTS = (dropin(OPEN), reload, starts)
STARTS_ON_ONE = (dropin("-H fd:// -H tcp://10.0.0.5:2375"), reload, starts)

LISTED = (listens("/run/docker.sock", "0.0.0.0:2375"),)
ANOTHER_UNIT = write("/etc/systemd/system/docker-tcp.socket",
                     "[Socket]\nListenStream=4243\nService=docker.service\n[Install]\nWantedBy=sockets.target\n")


def systemd_opens(host: SimulatedHost) -> None:
    """Somebody starts docker-tcp.socket after systemd was asked which socket units it has loaded."""
    host.held = (*host.held, SocketOwner("tcp://[::]:4243", host.inode()))


class Case(NamedTuple):
    """What happened, and what is blocked."""

    name: str
    happened: tuple[Act, ...]
    blocked: tuple[str, ...] = ()
    policy: str = ""


CASES = (
    Case("dockerd starts", STARTS, ("tcp://0.0.0.0:2375",)),
    Case("for as long as that may take", (*STARTS, sleep(STARTING_S - TCP_PAUSE_S - 1)), ("tcp://0.0.0.0:2375",)),
    Case("a dockerd that has started without it", (*STARTS, sleep(STARTING_S + 1))),
    Case("another program has the port, and keeps it", (*STARTS, fault(foreign_listener="tcp://127.0.0.1:2375"))),
    Case("a port that only ends alike is another one", (*STARTS, fault(foreign_listener="tcp://127.0.0.1:12375")),
         ("tcp://0.0.0.0:2375",)),
    Case("another address of that port is not in the way", (*STARTS_ON_ONE, fault(
        foreign_listener="tcp://127.0.0.1:2375")), ("tcp://10.0.0.5:2375",)),
    Case("the same address is", (*STARTS_ON_ONE, fault(foreign_listener="tcp://10.0.0.5:2375"))),
    Case("all addresses are", (*STARTS_ON_ONE, fault(foreign_listener="tcp://[::]:2375"))),
    Case("another network namespace", (fault(namespace="/run/netns/x"), *STARTS)),
    Case("it listens", (dropin(OPEN), reload, restart), ("tcp://0.0.0.0:2375",)),
    Case("the files alone open nothing", (dropin(OPEN), reload)),
    Case("a socket unit lists it, and systemd has loaded that", (*LISTED, reload), ("tcp://0.0.0.0:2375",)),
    Case("systemd has not loaded it", LISTED),
    Case("also while Docker is down", (*LISTED, reload, stop), ("tcp://0.0.0.0:2375",)),
    Case("systemd has opened it", (*LISTED, reload, restart_socket), ("tcp://0.0.0.0:2375",)),
    Case("a unit that systemd loads when it starts", (ANOTHER_UNIT,), ("tcp://[::]:4243",)),
    Case("the same, which it has just done", (ANOTHER_UNIT, systemd_opens), ("tcp://[::]:4243",)),
    Case("another program has the port of a socket unit", (*LISTED, reload, fault(
        foreign_listener="tcp://[::]:2375"))),
    Case("a socket unit on loopback", (listens("/run/docker.sock", "127.0.0.1:2375"), reload)),
    Case("a socket unit that is declared", (*LISTED, reload),
         policy="sockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, '0.0.0.0:2375']}\n"),
    Case("a policy that only observes", STARTS, policy="mode: observe\n"),
    Case("a policy that blocks nothing", STARTS, policy="correct: {contain: false}\n"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_blocked(host: SimulatedHost, case: Case) -> None:
    """I7."""
    do(host, case.happened)
    with Rootfs(str(host.root)) as rootfs:
        seen = seen_on(host, rootfs)
        found = containment(host.clock.now(), seen, read_policy(case.policy), Memory())
    assert tuple(exposure.address for exposure in found) == case.blocked
    assert {exposure.rule for exposure in found} <= {"DG101"}


def test_what_is_blocked_already_is_blocked_once(host: SimulatedHost) -> None:
    """A restart does not release it, since the next dockerd would open it again."""
    do(host, STARTS)
    blocked = Memory(contained=Contained(("nftables",), ("tcp://0.0.0.0:2375",)))
    with Rootfs(str(host.root)) as rootfs:
        found = containment(host.clock.now(), seen_on(host, rootfs), read_policy(""), blocked)
    assert [exposure.address for exposure in found] == ["tcp://0.0.0.0:2375"]


def test_a_wildcard_is_named_as_the_kernel_will_show_it(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the block would be released, and put in force again, once dockerd listens."""
    monkeypatch.setattr(SimulatedKernel, "has_ipv6", lambda self: True)
    do(host, (dropin(f"{OPEN} -H tcp://10.0.0.5:2376"), reload, starts))
    with Rootfs(str(host.root)) as rootfs:
        running = seen_on(host, rootfs).running
    assert running is not None
    assert [binding.address for binding in running.opening] == ["tcp://[::]:2375", "tcp://10.0.0.5:2376"]
    assert all(binding.source is not None for binding in running.opening)


def test_nobody_could_reach_it_and_the_records_say_so(agent: SimulatedAgent) -> None:
    """I10: it is blocked, then it listens. It was never exposed."""
    host = agent.host
    counted: list[int] = []
    agent.controller._counted = lambda exposed, started_at: counted.append(exposed)
    do(host, (policy(f"{ENFORCE}correct: {{restart: never}}\n"), *STARTS))
    agent.run_pass()
    assert host.running is not None
    opened = SocketOwner("tcp://0.0.0.0:2375", host.inode())
    host.running = host.running._replace(sockets=((host.held[0], True), (opened, False)))
    agent.run_pass()
    assert set(counted) == {0}
    entries = agent.journal.entries
    about = [entry for entry in entries if entry.rule == "DG101"]
    assert [str(entry.event) for entry in about] == ["drift", "contained", "held", "drift"]
    assert not any(entry.exposed for entry in about)
    assert [entry.message.partition("; ")[2] for entry in about if entry.event == "drift"] == [
        "the running dockerd was started with it. Next: Nothing to do, unless a `held` or `failed` entry follows.",
        "it listens there now. It is blocked at the network. Next: Nothing to do, unless a `held` or `failed` entry "
        "follows."]
