"""Some of the ten incidents. slow_incidents.py has all of them."""

from __future__ import annotations

import pytest

from tests.incidents import INCIDENTS, Incident, names_the_step, play
from tests.machines.machine import Machine

DAILY = ("a guide that opens a port", "a socket with mode 0666", "an invalid policy")


@pytest.mark.parametrize("incident", [each for each in INCIDENTS if each.name in DAILY],
                         ids=lambda incident: incident.name)
def test_entry_names_the_next_step(machine: Machine, incident: Incident) -> None:
    played = play(machine, incident)
    assert names_the_step(machine, incident, played.awaited)
