"""What the agent makes known of where it stands: to everybody by a file in /run, and to the agent after it.

The file in /run is gone with a reboot, stays when the agent stops, and holds nothing that may not be
read by all. The same lies in the state directory: since when a drift lasts must outlive a reboot.
"""

from __future__ import annotations

import contextlib

from dockerd_guard.apply import files
from dockerd_guard.report.agent_status import AgentStatus

PUBLIC_FILE = "/run/dockerd-guard/status.json"
OWN_FILE = "status.json"
"""In the state directory."""


def published(path: str = PUBLIC_FILE) -> AgentStatus | None:
    """The agent's last word, if it left any that can be read. Raises PermissionError."""
    try:
        with open(path, "rb") as file:
            return AgentStatus.from_json(file.read())
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def publish(agent_status: AgentStatus, before: AgentStatus | None, directory: str) -> None:
    """Make it known; on the disk only what is new. What cannot be written is left unsaid."""
    text = agent_status.to_json().encode()
    with contextlib.suppress(OSError):
        files.write(PUBLIC_FILE, text)
    same = None if before is None else before._replace(
        at=agent_status.at, pid=agent_status.pid, state=agent_status.state)
    if same != agent_status:
        with contextlib.suppress(OSError):
            files.write(f"{directory}/{OWN_FILE}", text, files.PRIVATE)


