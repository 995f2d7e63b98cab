"""Run on removal of the package: remove what is blocked at the network."""

from __future__ import annotations

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.containment.containment import Containment
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.systemd.manager import Manager


def lift() -> None:
    """Remove all blocks, and print which addresses are open again."""
    with Manager() as manager:
        released = Containment(StateFiles(), LocalNetwork()).keep((), manager).released
    if released:
        print(f"dockerd-guard: open to the network again: {', '.join(released)}")
