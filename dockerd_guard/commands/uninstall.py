"""What the removal of the package runs: release everything that is blocked at the network, and the slots of FleetLock,
which forgets no host by itself (I13)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.containment.containment import Containment
from dockerd_guard.fleet.lock import Lock, LockError
from dockerd_guard.nethelper.fleet_client import local_client
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.observe.network import Network
from dockerd_guard.plan.memory import Contained
from dockerd_guard.systemd.manager import Manager


def lift() -> None:
    """Release what is blocked, and print what that opens; then what this host has of a fleet."""
    state = StateFiles()
    try:
        with Manager() as manager:
            released = release(state, LocalNetwork(), manager)
        if released:
            print(f"dockerd-guard: open to the network again: {', '.join(released)}")
    finally:
        for problem in give_back(state, local_client()):
            print(f"dockerd-guard: {problem}")


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


def give_back(state: StateFiles, lock: Lock) -> Iterator[str]:
    """Give back the slots of FleetLock that this host has. Yields what could not be given back, as a message."""
    for owed in state.load().fleet.all_owed:
        try:
            lock.release(owed.fleet, owed.slot)
        except LockError as error:
            yield (f"the slot of this host in the group {owed.fleet.group} at {', '.join(owed.fleet.endpoints)} was "
                   f"not given back: {error.reason}. Next: Remove {owed.slot.id} there")
