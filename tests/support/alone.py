"""An exposure, and the messages of the agent about the lock."""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.support.correction import DOCKERD

OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"


def said(machine: Machine, words: str) -> list[str]:
    """The agent's lines with these words in them."""
    return [entry["MESSAGE"] for entry in machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", "--boot")
            if words in entry["MESSAGE"]]
