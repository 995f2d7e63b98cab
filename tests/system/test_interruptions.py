"""Interruptions of a correction: disks, D-Bus, systemd and dockerd fail during a step.

The agent is held at a step, the failure is caused, and the agent continues. Meanwhile the host is as before or as
declared, never in between. When the failure ends, the host becomes as declared, and no container was restarted.
"""

from __future__ import annotations

import pytest

from tests.machines.machine import Machine
from tests.support.interruptions import INTERRUPTIONS, Interruption, interrupt


@pytest.mark.parametrize("interruption", [each for each in INTERRUPTIONS if not each.slow],
                         ids=lambda each: each.name)
def test_interrupted_correction_leaves_a_consistent_host(machine: Machine, interruption: Interruption) -> None:
    interrupt(machine, interruption)
