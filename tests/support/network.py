"""The processes of the network helper."""

from __future__ import annotations

from tests.machines.machine import Machine


def processes(machine: Machine) -> list[str]:
    """The processes that have the network."""
    return machine.run(["pgrep", "-f", "/docker-api-network$"], check=False).out.split()
