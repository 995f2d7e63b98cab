"""Passes of the agent while D-Bus is down: what is open is blocked, and nothing is released."""

from __future__ import annotations

import pytest

from dockerd_guard.containment import containment
from dockerd_guard.observe.observation import AccessKind, AccessPath
from dockerd_guard.systemd.manager import Unavailable
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager
from tests.support.passes import ENFORCE, blocked, bus_down, events, messages
from tests.support.situations import do, fault, opened, policy

NEVER = f"{ENFORCE}correct: {{restart: never}}\n"
RELAY = AccessPath(AccessKind.FORWARDER, "tcp://0.0.0.0:5000", "it is connected to the API socket", 7, "relay",
                   serves_api=True)


def test_an_open_port_is_blocked_without_systemd(agent: SimulatedAgent) -> None:
    agent.run_pass()
    bus_down(agent)
    do(agent.host, opened())
    for _ in range(2):
        agent.run_pass()
    assert [event for event in events(agent) if event != "blind"] == ["drift", "contained"]
    assert blocked(agent)
    assert SimulatedStateFiles(agent.host).load().contained.addresses
    do(agent.host, (fault(bus_is_gone=False),))
    agent.run_pass()
    assert agent.host.open_addresses() == ()
    assert not blocked(agent)
    assert [event for event in events(agent) if event != "blind"] == ["corrected", "released"]


def test_a_bus_that_breaks_in_a_pass_delays_no_block(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.run_pass()
    do(agent.host, opened())

    def hangs(_: SimulatedManager) -> int:
        raise Unavailable("Connection timed out")

    monkeypatch.setattr(SimulatedManager, "version", hangs)
    agent.run_pass()
    assert blocked(agent)
    assert "cannot query systemd: Connection timed out" in messages(agent, "blind")[0]


def test_nothing_is_released_without_systemd(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not everything is seen then: what is blocked stays, with what is open in addition."""
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: (RELAY,))
    do(agent.host, (policy(NEVER),))
    agent.run_pass()
    assert blocked(agent) == [RELAY.address]
    bus_down(agent)
    do(agent.host, opened())
    again = SimulatedAgent(agent.host, RecordedJournal())
    for each in (agent, again):
        each.run_pass()
        assert RELAY.address in blocked(each)
        assert len(blocked(each)) == 2
        assert "released" not in events(each)
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"),))
    again.run_pass()
    assert len(blocked(again)) == 2
    do(agent.host, (fault(bus_is_gone=False),))
    again.run_pass()
    assert not blocked(again)
    assert "released" in events(again)


@pytest.mark.parametrize("text", ["mode: observe\nsockets: [fd://]\n", f"{ENFORCE}correct: {{contain: false}}\n"])
def test_nothing_is_blocked_without_systemd_against_the_policy(agent: SimulatedAgent, text: str) -> None:
    do(agent.host, (policy(text),))
    agent.run_pass()
    bus_down(agent)
    do(agent.host, opened())
    agent.run_pass()
    assert not blocked(agent)


def test_what_cannot_be_blocked_without_systemd_is_reported(agent: SimulatedAgent) -> None:
    agent.run_pass()
    bus_down(agent)
    do(agent.host, (*opened(), fault(nftables_is_gone=True)))
    agent.run_pass()
    assert any("cannot change what is blocked at the network: python3-nftables" in text
               for text in messages(agent, "blind"))
    assert "contained" not in events(agent)
    do(agent.host, (fault(nftables_is_gone=False),))
    agent.run_pass()
    assert "contained" in events(agent)


def test_what_systemd_filters_stays_so_without_it(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "CGROUP_V2_FILE", "/")
    monkeypatch.setattr(containment, "CONTROL_FILES", ())
    do(agent.host, (policy(NEVER), fault(nftables_is_gone=True), *opened()))
    agent.run_pass()
    filtered = agent.host.ip_filter
    assert any(filtered)
    events(agent)
    bus_down(agent)
    agent.run_pass()
    assert agent.host.ip_filter == filtered
    assert not [text for text in messages(agent, "blind") if "blocked at the network" in text]
    assert set(events(agent)) == {"blind"}
