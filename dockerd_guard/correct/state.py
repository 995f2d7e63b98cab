"""What must outlive the agent: the intent of a correction under way, and the restarts it made.

Both are small JSON files in the state directory, written whole. The intent is there from before
the first change to after the last check, with all that is needed to undo it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from dockerd_guard.correct import files
from dockerd_guard.correct.plan import Change

STATE_DIRECTORY = "/var/lib/dockerd-guard"
KEPT_RESTARTS = 100
"""More than any budget asks for."""


class Busy(Exception):
    """Another dockerd-guard is correcting this host just now."""


class Intent(NamedTuple):
    """A correction that was begun: the changes it makes, when, and whether dockerd was to be restarted.

    `held`: the files are changed and the restart waits for leave; what they were before is still
    needed, should dockerd not survive that restart.
    """

    changes: tuple[Change, ...]
    begun: datetime
    restarts: bool
    held: bool = False

    def before(self, newer: tuple[Change, ...]) -> tuple[Change, ...]:
        """These changes with newer ones upon them: what is to be put back is what was there first."""
        first = {change.path: change for change in self.changes}
        later = {change.path: change._replace(before=first[change.path].before) if change.path in first else change
                 for change in newer}
        return tuple({**first, **later}.values())


class State:
    """The files of one state directory."""

    def __init__(self, directory: str = STATE_DIRECTORY) -> None:
        self.directory = directory

    def begin(self, intent: Intent) -> None:
        """Put the intent down, before anything is changed. Raises OSError."""
        self._write("intent.json", {
            "begun": intent.begun.isoformat(),
            "restarts": intent.restarts,
            "held": intent.held,
            "changes": [{"path": change.path, "before": _coded(change.before), "after": _coded(change.after)}
                        for change in intent.changes],
        })

    def intent(self) -> Intent | None:
        """The intent of a correction that did not come to its end, if any."""
        data = self._read("intent.json")
        try:
            return Intent(
                tuple(Change(row["path"], _decoded(row["before"]), _decoded(row["after"]))
                      for row in data["changes"]),
                datetime.fromisoformat(data["begun"]), bool(data["restarts"]), bool(data["held"]))
        except (KeyError, TypeError, ValueError):
            return None

    def finish(self) -> None:
        """The correction came to its end, one way or the other."""
        files.remove(f"{self.directory}/intent.json")

    def restarts(self) -> tuple[datetime, ...]:
        """When dockerd was restarted by a correction, oldest first."""
        data = self._read("restarts.json")
        try:
            return tuple(sorted(datetime.fromisoformat(text) for text in data["restarts"]))
        except (KeyError, TypeError, ValueError):
            return ()

    def count_restart(self, moment: datetime) -> None:
        """Remember a restart."""
        kept: Sequence[datetime] = (*self.restarts(), moment)[-KEPT_RESTARTS:]
        self._write("restarts.json", {"restarts": [one.astimezone(UTC).isoformat() for one in kept]})

    def _write(self, name: str, data: dict[str, object]) -> None:
        files.write(f"{self.directory}/{name}", json.dumps(data).encode(), mode=0o600)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                data = json.load(file)
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}


@contextlib.contextmanager
def alone(directory: str = STATE_DIRECTORY) -> Iterator[None]:
    """Hold the one lock of all corrections on this host: flock(2) on the state directory.

    Raises Busy when another has it, OSError when there can be no such directory.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("another dockerd-guard is correcting this host just now") from None
        yield
    finally:
        os.close(fd)


def _coded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
