"""A declared TCP port at which another program listens: the hold names it, and it is tried again when it is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from dockerd_guard.model.names import SERVICE
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.support.situations import OURS, do, dropin, policy, reload, restart

OPEN = "-H fd:// -H tcp://0.0.0.0:2374"
PORT = "tcp://127.0.0.1:2375"
LOOPBACK = "mode: enforce\nsockets: [fd://, {address: 'tcp://127.0.0.1:2375', tls: none}]\n"


Begin = Callable[[SimulatedHost, float], object]


def now(host: SimulatedHost, listens_s: float) -> None:
    host.foreign_listener = PORT
    host.clock.call_in(listens_s, host.free_port)


def at_the_restart(host: SimulatedHost, listens_s: float) -> None:
    host.binds_at_stop = (PORT, listens_s)


def at_the_restart_of_a_dockerd_on_it(host: SimulatedHost, listens_s: float) -> None:
    """To undo the correction fails as well."""
    do(host, (dropin(f"{OPEN} -H {PORT}"), reload, restart))
    at_the_restart(host, listens_s)


def before_docker_failed(host: SimulatedHost, listens_s: float) -> None:
    now(host, listens_s)
    do(host, (dropin(f"{OPEN} -H {PORT}"), reload, restart))
    host.clock.sleep(30)
    assert host.active[SERVICE] == "failed"


def listens(host: SimulatedHost) -> set[str]:
    return {sock.address for sock, _ in host.running.sockets} if host.running is not None else set()


class Case(NamedTuple):
    """When another program begins to listen on the port, for how long, and how soon the host must comply after that:
    where Docker is down meanwhile, sooner."""

    begins: Begin
    listens_s: float
    within_s: float


@pytest.mark.parametrize("case", [
    Case(now, 600, 60),
    Case(at_the_restart, 20, 60),
    Case(at_the_restart, 0.5, 6),
    Case(at_the_restart, 1000, 60),
    Case(at_the_restart_of_a_dockerd_on_it, 0.8, 40),
    Case(at_the_restart_of_a_dockerd_on_it, 20, 6),
    Case(at_the_restart_of_a_dockerd_on_it, 1000, 6),
    Case(before_docker_failed, 100, 6),
], ids=lambda case: f"{case.begins.__name__} for {case.listens_s} s")
def test_a_port_in_use(host: SimulatedHost, case: Case) -> None:
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    do(host, (policy(LOOPBACK), dropin(OPEN), reload, restart))
    case.begins(host, case.listens_s)
    assert _passes_until(agent, lambda: not host.foreign_listener and host.binds_at_stop is None, 10_000)
    began = host.clock.seconds
    assert _passes_until(agent, lambda: listens(host) == {"unix:///run/docker.sock", PORT}, case.within_s), (
        agent.controller.decision.hold, agent.controller.memory.attempt, host.active)
    assert host.clock.seconds - began <= case.within_s
    messages = [entry.message for entry in agent.journal.entries if entry.event in ("held", "failed", "rolled-back")]
    assert any("127.0.0.1:2375 is in use by another program" in message for message in messages), messages
    assert len([start for start in host.starts if start.by == "us"]) <= 3


@pytest.mark.parametrize("arguments", ["-H fd:// --tls --tlscert=/nowhere --tlskey=/nowhere", "-H fd:// --tlsverify"])
def test_an_earlier_correction_stays_where_dockerd_would_refuse_what_was_there_before(
    host: SimulatedHost, arguments: str
) -> None:
    """I3. That was corrected in the files alone, and dockerd has never run with it."""
    agent = SimulatedAgent(host, RecordedJournal())
    do(host, (dropin(arguments), reload))
    agent.run_pass()
    assert host.text(OURS) is not None
    do(host, (policy(LOOPBACK),))
    at_the_restart(host, 1000)
    agent.run_pass()
    assert host.running is not None
    assert host.running.layer.hosts == ("fd://",)


def _passes_until(agent: SimulatedAgent, is_so: Callable[[], bool], within_s: float) -> bool:
    """Run passes as the agent asks for them, without any event, until it is so."""
    clock = agent.host.clock
    end = clock.seconds + within_s
    while clock.seconds <= end:
        wake_s = agent.run_pass()
        due = min(clock.seconds + (wake_s if wake_s is not None else 300.0), end + 0.01)
        while True:
            if is_so():
                return True
            if clock.seconds >= due:
                break
            clock.sleep(min(0.1, due - clock.seconds))
    return False
