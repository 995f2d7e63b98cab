"""Trouble in the middle of a correction: disks, D-Bus, systemd and dockerd that fail just then.

The agent is held at a step, the trouble comes, and on it goes. While it lasts the host is as before or as declared,
never between; when it is over the host is as declared, and no container has noticed.
"""

from __future__ import annotations

import pytest

from tests.machines.machine import Machine
from tests.support.interruptions import INTERRUPTIONS, Interruption, interrupt


@pytest.mark.parametrize("interruption", [each for each in INTERRUPTIONS if not each.slow],
                         ids=lambda each: each.name)
def test_trouble_in_the_middle_of_a_correction(machine: Machine, interruption: Interruption) -> None:
    interrupt(machine, interruption)
