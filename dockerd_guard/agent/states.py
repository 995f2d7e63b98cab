"""The states of the agent and the transitions between them. docs/architecture.md shows them; so does STATUS.

`python3 -m dockerd_guard.agent.states` prints the diagram.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class AgentState(StrEnum):
    """Where the agent stands."""

    STARTING = "starting"
    """Waits for its policy, and until no other agent runs."""
    WATCHING = "watching"
    """Nothing to do until a trigger, or the policy only observes."""
    SETTLING = "settling"
    """Something changed; more may follow."""
    WORKING = "working"
    """A pass runs."""
    HOLDING = "holding"
    """A correction waits for a window, a change, an administrator, or another dockerd-guard."""
    STOPPING = "stopping"
    """SIGTERM came."""


TRANSITIONS: Mapping[AgentState, frozenset[AgentState]] = {
    AgentState.STARTING: frozenset((AgentState.WORKING, AgentState.STOPPING)),
    AgentState.WATCHING: frozenset((AgentState.SETTLING, AgentState.WORKING, AgentState.STOPPING)),
    AgentState.SETTLING: frozenset((AgentState.WORKING, AgentState.STOPPING)),
    AgentState.WORKING: frozenset((AgentState.WATCHING, AgentState.HOLDING, AgentState.STOPPING)),
    AgentState.HOLDING: frozenset((AgentState.SETTLING, AgentState.WORKING, AgentState.STOPPING)),
    AgentState.STOPPING: frozenset(),
}


class StateMachine:
    """The state of one agent."""

    def __init__(self) -> None:
        self.state = AgentState.STARTING

    def to(self, state: AgentState) -> None:
        """Enter a state; staying is always allowed. Raises AssertionError for a transition that is not."""
        if state is self.state:
            return
        assert state in TRANSITIONS[self.state], f"no transition from {self.state} to {state}"  # noqa: S101
        self.state = state

    @property
    def is_stopping(self) -> bool:
        """Whether SIGTERM came."""
        return self.state is AgentState.STOPPING


def diagram() -> str:
    """The transitions as a Mermaid diagram."""
    arrows = (f"    {here} --> {there}" for here, targets in TRANSITIONS.items() for there in AgentState
              if there in targets)
    return "\n".join(("```mermaid", "stateDiagram-v2", "    [*] --> starting", *arrows, "    stopping --> [*]", "```"))


if __name__ == "__main__":
    print(diagram())
