"""The agent's resident memory, and libraries that it must not load."""

from __future__ import annotations

from tests.machines.machine import Machine

AGENT = "dockerd-guard.service"

HIGHEST_KIB = 32 * 1024
PEAK_KIB = 40 * 1024
UNUSED = ("libcrypto", "libxml2", "_asyncio", "libnftables")
"""Libraries that pystemd, structlog and Python's standard library would load (dockerd_guard/lazy_imports.py), and the
library of the network helper."""


def resident_kib(machine: Machine, field: str = "VmRSS") -> int:
    lines = machine.read(f"/proc/{machine.main_pid(AGENT)}/status").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def unused(machine: Machine) -> list[str]:
    """Return the UNUSED libraries that the agent has loaded."""
    maps = machine.read(f"/proc/{machine.main_pid(AGENT)}/maps")
    return [name for name in UNUSED if name in maps]
