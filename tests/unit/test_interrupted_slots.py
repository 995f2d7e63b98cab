"""`correct.fleet`: a restart that outlives the agent that began it, or that does not end."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest

from dockerd_guard.model.names import SERVICE
from dockerd_guard.systemd.manager import JobFailed
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import Crash, SimulatedHost
from tests.simulation.interfaces import SimulatedManager
from tests.support.fleet_lock import ETCD, FLEETLOCK
from tests.support.passes import messages, run
from tests.support.situations import Act, do, guarded, opened

pytestmark = pytest.mark.libraries


class Phase(NamedTuple):
    """What docker.service is in, and whether dockerd is there, when the next agent starts."""

    state: str
    has_dockerd: bool


PHASES = (Phase("deactivating", True), Phase("deactivating", False), Phase("activating", False),
          Phase("activating", True))


def killed_while(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, phase: Phase, lock: Act) -> SimulatedAgent:
    """The next agent, after one that was killed while systemd restarts docker.service."""
    do(host, (lock, *opened()))
    first = SimulatedAgent(host, RecordedJournal())

    def killed(manager: SimulatedManager, verb: str, unit: str, timeout_s: float = 0.0) -> None:
        raise Crash
    with monkeypatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(SimulatedManager, "run_job", killed)
        first.run_pass()
    if phase.state == "activating":
        host.restart("us")
    host.active[SERVICE] = phase.state
    if not phase.has_dockerd:
        host.running = None
    # A restart of a unit that is being restarted has no effect but to wait, which the next agent may do.
    monkeypatch.setattr(SimulatedManager, "run_job", lambda *_: None)
    return SimulatedAgent(host, first.journal)


@pytest.mark.parametrize("lock", [ETCD, FLEETLOCK])
@pytest.mark.parametrize("phase", PHASES)
def test_a_slot_is_kept_until_the_restart_of_a_killed_agent_has_ended(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, phase: Phase, lock: Act) -> None:
    agent = killed_while(host, monkeypatch, phase, lock)
    begun = len(host.lock.requests)
    run(agent, 60)
    assert agent.controller.memory.fleet.slot == host.lock.slot is not None
    # The helper that renews its lease ended with the agent.
    assert set(host.lock.requests[begun:]) == {"still"}
    host.restart("us")
    run(agent, 10)
    assert agent.controller.memory.fleet.slot is host.lock.slot is None


def test_a_slot_is_not_kept_for_ever(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer than an agent that was not killed waits for a restart."""
    agent = killed_while(host, monkeypatch, Phase("activating", has_dockerd=False), ETCD)
    run(agent, 230)
    assert host.lock.slot is not None
    run(agent, 20)
    assert agent.controller.memory.fleet.slot is host.lock.slot is None


def test_a_slot_is_forgotten_that_was_lost_while_there_was_no_agent(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = killed_while(host, monkeypatch, Phase("activating", has_dockerd=True), ETCD)
    host.lock.slot = None
    agent.run_pass()
    assert agent.controller.memory.fleet.slot is None


def test_a_slot_is_kept_while_the_lock_service_is_gone(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = killed_while(host, monkeypatch, Phase("activating", has_dockerd=True), ETCD)
    host.lock.is_gone = True
    run(agent, 20)
    host.lock.is_gone = False
    run(agent, 20)
    assert agent.controller.memory.fleet.slot == host.lock.slot is not None


@pytest.mark.parametrize("lock", [ETCD, FLEETLOCK])
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_dockerd_that_does_not_stop_stops_the_group(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, lock: Act, is_gone: bool) -> None:
    """Otherwise one host after the other would be left with it."""
    def hangs(manager: SimulatedManager, verb: str, unit: str, timeout_s: float = 240.0) -> None:
        host.active[SERVICE] = "deactivating"
        host.lock.is_gone = is_gone
        host.clock.sleep(timeout_s)
        raise JobFailed(unit, verb, "timeout")
    do(host, (lock, *opened()))
    monkeypatch.setattr(SimulatedManager, "run_job", hangs)
    agent = guarded(host)
    assert "timeout" in messages(agent, "failed")[-1]
    host.lock.is_gone = False
    run(agent, 31)
    assert "timeout" in host.lock.stopped or agent.controller.memory.fleet.is_kept
    assert agent.controller.memory.fleet.to_stop == ""
