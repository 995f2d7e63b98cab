"""The status file of the agent: in /run for every user, in the state directory for the next agent.

The file in /run remains when the agent stops, is lost on reboot, and contains nothing secret. The copy in the state
directory keeps the begin of each drift across a reboot.
"""

from __future__ import annotations

import contextlib

from dockerd_guard.apply import files
from dockerd_guard.model.json_values import MAX_BYTES, JsonError
from dockerd_guard.report.agent_status import AgentStatus

PUBLIC_FILE = "/run/dockerd-guard/status.json"
OWN_FILE = "status.json"
"""Name of the copy in the state directory."""


def published(path: str = PUBLIC_FILE) -> AgentStatus | None:
    """The status that the agent wrote last; None without a valid file. Raises PermissionError."""
    try:
        with open(path, "rb") as file:
            return AgentStatus.from_json(file.read(MAX_BYTES + 1))
    except PermissionError:
        raise
    except (OSError, JsonError):
        return None


def publish(agent_status: AgentStatus, before: AgentStatus | None, directory: str) -> None:
    """Write the status file, and its copy if anything but time, PID and state changed. Errors are ignored."""
    text = agent_status.to_json().encode()
    with contextlib.suppress(OSError):
        files.write(PUBLIC_FILE, text)
    same = None if before is None else before._replace(
        at=agent_status.at, pid=agent_status.pid, state=agent_status.state)
    if same != agent_status:
        with contextlib.suppress(OSError):
            files.write(f"{directory}/{OWN_FILE}", text, files.PRIVATE)
