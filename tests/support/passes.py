"""Passes of a simulated agent, and what it logged."""

from __future__ import annotations

from tests.simulation.agent import SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.support.situations import do, fault

ENFORCE = "mode: enforce\nsockets: [fd://]\n"


def events(agent: SimulatedAgent) -> list[str]:
    """The events since the last call."""
    found = [str(entry.event) for entry in agent.journal.entries]
    agent.journal.entries.clear()
    return found


def messages(agent: SimulatedAgent, event: str) -> list[str]:
    return [entry.message for entry in agent.journal.entries if entry.event == event]


def run(agent: SimulatedAgent, seconds: float, resync_s: float = 300.0) -> int:
    """Let the agent look whenever it wants to, for so long; the number of passes."""
    end = agent.host.clock.seconds + seconds
    passes = 0
    while agent.host.clock.seconds < end:
        wake_s = agent.run_pass()
        passes += 1
        agent.host.clock.sleep(max(min(resync_s if wake_s is None else wake_s, resync_s), 0.1))
    return passes


def starts_by_us(host: SimulatedHost) -> int:
    return sum(start.by == "us" for start in host.starts)


def blocked(agent: SimulatedAgent) -> list[str]:
    """The addresses that the nftables table blocks."""
    return [each.address for each in agent.host.blocked]


def bus_down(agent: SimulatedAgent) -> None:
    """D-Bus stops, and the agent takes in that its connection broke."""
    do(agent.host, (fault(bus_is_gone=True),))
    agent.controller.disconnected()
