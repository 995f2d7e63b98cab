"""The processes of the network helper."""

from __future__ import annotations

from tests.machines.machine import Machine


def processes(machine: Machine) -> list[str]:
    """Return the PIDs of the processes that have access to the network."""
    return machine.run(["pgrep", "-f", "/docker-api-network$"], check=False).out.split()
