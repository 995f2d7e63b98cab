"""The transitions between the agent's states, and the diagram of them in the docs."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from dockerd_guard.agent.states import TRANSITIONS, AgentState, StateMachine, diagram

PAGE = Path(__file__).parents[2] / "docs/architecture.md"

ALLOWED = """\
starting  -> working stopping
watching  -> settling working stopping
settling  -> working stopping
working   -> watching holding stopping
holding   -> settling working stopping
stopping  ->
"""


def allowed() -> set[tuple[AgentState, AgentState]]:
    rows = (line.partition("->") for line in ALLOWED.splitlines())
    return {(AgentState(here.strip()), AgentState(there)) for here, _, targets in rows for there in targets.split()}


@pytest.mark.parametrize(("here", "there"), list(itertools.product(AgentState, AgentState)),
                         ids=lambda state: str(state.value))
def test_every_other_transition_raises(here: AgentState, there: AgentState) -> None:
    machine = StateMachine()
    machine.state = here
    if here is there or (here, there) in allowed():
        machine.to(there)
        assert machine.state is there
        assert machine.is_stopping == (there is AgentState.STOPPING)
        return
    with pytest.raises(AssertionError, match=f"no transition from {here} to {there}"):
        machine.to(there)
    assert machine.state is here


def test_an_agent_starts_once_and_ends_for_good() -> None:
    assert StateMachine().state is AgentState.STARTING
    assert not StateMachine().is_stopping
    assert not TRANSITIONS[AgentState.STOPPING]
    assert not any(AgentState.STARTING in targets for targets in TRANSITIONS.values())
    assert all(AgentState.STOPPING in targets for state, targets in TRANSITIONS.items()
               if state is not AgentState.STOPPING)


def test_the_diagram_has_every_transition() -> None:
    lines = [line.strip() for line in diagram().splitlines()]
    assert lines[:3] == ["```mermaid", "stateDiagram-v2", "[*] --> starting"]
    assert lines[-2:] == ["stopping --> [*]", "```"]
    assert {tuple(line.split(" --> ")) for line in lines[3:-2]} == {
        (here.value, there.value) for here, there in allowed()}


def test_the_diagram_in_the_docs_is_current() -> None:
    shown = re.search(r"^<!-- states: .* -->\n(.*?)\n<!-- end states -->$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert shown[1] == diagram().strip(), "replace it by the output of `python3 -m dockerd_guard.agent.states`"
