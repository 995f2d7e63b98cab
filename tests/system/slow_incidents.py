"""All ten incidents on each release: the journal entry names the step that resolves it."""

from __future__ import annotations

import pytest

from tests.incidents import INCIDENTS, Incident, names_the_step, play
from tests.machines.machine import Machine


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_entry_names_the_next_step(machine: Machine, incident: Incident) -> None:
    played = play(machine, incident)
    assert names_the_step(machine, incident, played.awaited)
