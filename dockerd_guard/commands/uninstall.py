"""What the removal of the package runs: release everything that is blocked at the network (I13)."""

from __future__ import annotations

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.containment.containment import Containment
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.plan.memory import Contained
from dockerd_guard.systemd.manager import Manager


def lift() -> None:
    """Release what is blocked, and print what that opens."""
    state = StateFiles()
    memory = state.load()

    def remember(contained: Contained) -> None:
        nonlocal memory
        memory = memory._replace(contained=contained)
        state.save(memory)

    with Manager() as manager:
        released = Containment(memory.contained, LocalNetwork(), remember).keep((), manager).released
    if released:
        print(f"dockerd-guard: open to the network again: {', '.join(released)}")
