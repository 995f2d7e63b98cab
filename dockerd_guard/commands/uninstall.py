"""What the removal of the package runs: release everything that is blocked at the network (I13)."""

from __future__ import annotations

import contextlib

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.containment.containment import Containment
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.observe.network import Network
from dockerd_guard.plan.memory import Contained
from dockerd_guard.systemd.manager import Manager


def lift() -> None:
    """Release what is blocked, and print what that opens."""
    with Manager() as manager:
        released = release(StateFiles(), LocalNetwork(), manager)
    if released:
        print(f"dockerd-guard: open to the network again: {', '.join(released)}")


def release(state: StateFiles, network: Network, manager: Manager) -> tuple[str, ...]:
    """Release everything, by whichever method it is blocked, also on a full disk. Returns the addresses.

    Raises OSError and Unsupported where a block cannot be removed.
    """
    memory = state.load()

    def remember(contained: Contained) -> None:
        nonlocal memory
        memory = memory._replace(contained=contained)
        with contextlib.suppress(OSError):
            state.save(memory)

    return Containment(memory.contained, network, remember).keep((), manager).released
