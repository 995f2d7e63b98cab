"""The status files of the agent: a public one in /run, and a copy in the state directory.

The file in /run is lost on reboot, stays when the agent stops, and is readable by everyone. The copy in
the state directory keeps the start times of drifts over a reboot.
"""

from __future__ import annotations

import contextlib

from dockerd_guard.apply import files
from dockerd_guard.report.agent_status import AgentStatus

PUBLIC_FILE = "/run/dockerd-guard/status.json"
OWN_FILE = "status.json"
"""In the state directory."""


def published(path: str = PUBLIC_FILE) -> AgentStatus | None:
    """The last published status; None if there is none or it is invalid. Raises PermissionError."""
    try:
        with open(path, "rb") as file:
            return AgentStatus.from_json(file.read())
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def publish(agent_status: AgentStatus, before: AgentStatus | None, directory: str) -> None:
    """Write the public file, and the copy if it has changed. Write errors are ignored."""
    text = agent_status.to_json().encode()
    with contextlib.suppress(OSError):
        files.write(PUBLIC_FILE, text)
    same = None if before is None else before._replace(
        at=agent_status.at, pid=agent_status.pid, state=agent_status.state)
    if same != agent_status:
        with contextlib.suppress(OSError):
            files.write(f"{directory}/{OWN_FILE}", text, files.PRIVATE)


