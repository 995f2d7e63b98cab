"""What the agent makes known of where it stands: to everybody by a file in /run, and to the agent after it.

The file in /run is gone with a reboot, stays when the agent stops, and holds nothing that may not be
read by all. The same lies in the state directory: since when a drift lasts must outlive a reboot.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, Self

from dockerd_guard.agent.counts import Counts
from dockerd_guard.correct import files
from dockerd_guard.judge.finding import Finding
from dockerd_guard.report.journal import Entry, Event
from dockerd_guard.source import Location

PUBLIC_FILE = "/run/dockerd-guard/status.json"
OWN_FILE = "status.json"
"""In the state directory."""

CORRECTIONS = (Event.CORRECTED, Event.FAILED, Event.ROLLED_BACK)
"""Entries that tell what came of a correction, or that none is needed any more."""


class Drift(NamedTuple):
    """A drift that lasts, and since when."""

    since: datetime
    finding: Finding


class Held(NamedTuple):
    """A correction that waits: why, since when, until when (None: until something changes), and what somebody may
    do about it."""

    reason: str
    since: datetime
    until: datetime | None
    next_step: str = ""


class Last(NamedTuple):
    """The last correction, or the last drift that ended by itself."""

    at: datetime
    event: str
    outcome: str
    message: str


class Bulletin(NamedTuple):
    """Where the agent stood when its last pass was over (`at`). `policy_problem`: why a new policy was not taken.

    `state` is one of agent/loop.py's; `contained` the addresses that are cut off from the network.
    """

    at: datetime
    pid: int
    state: str
    mode: str
    policy_file: str
    policy_since: datetime
    policy_problem: str
    drifts: tuple[Drift, ...] = ()
    blind: tuple[str, ...] = ()
    held: Held | None = None
    contained: tuple[str, ...] = ()
    last: Last | None = None
    counts: Counts = Counts()

    def since(self) -> dict[str, datetime]:
        """Since when each fact lasts."""
        return {drift.finding.fact: drift.since for drift in self.drifts}

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps(self._asdict() | {
            "drifts": [{"since": drift.since, **drift.finding._asdict()} for drift in self.drifts],
            "held": self.held and self.held._asdict(), "last": self.last and self.last._asdict(),
            "counts": {**self.counts._asdict(), "drifts": dict(self.counts.drifts),
                       "corrections": dict(self.counts.corrections)},
        }, default=datetime.isoformat, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises ValueError, KeyError, TypeError, AttributeError or OverflowError for what is no bulletin."""
        data: dict[str, Any] = json.loads(text)
        drifts = (Drift(_time(row.pop("since")), Finding(**{
            **row, "location": Location(*row["location"]) if row["location"] else None})) for row in data["drifts"])
        held, last = data["held"], data["last"]
        return cls(**data | {
            "at": _time(data["at"]), "policy_since": _time(data["policy_since"]),
            "drifts": tuple(drifts), "blind": tuple(data["blind"]), "contained": tuple(data["contained"]),
            "held": held and Held(
                held["reason"], _time(held["since"]), held["until"] and _time(held["until"]), held["next_step"]),
            "last": last and Last(**last | {"at": _time(last["at"])}),
            "counts": Counts.from_json(data.get("counts", {})),
        })


def published(path: str = PUBLIC_FILE) -> Bulletin | None:
    """The agent's last word, if it left any that can be read. Raises PermissionError."""
    try:
        with open(path, "rb") as file:
            return Bulletin.from_json(file.read())
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def publish(bulletin: Bulletin, before: Bulletin | None, directory: str) -> None:
    """Make it known; on the disk only what is new. What cannot be written is left unsaid."""
    text = bulletin.to_json().encode()
    with contextlib.suppress(OSError):
        files.write(PUBLIC_FILE, text)
    if before is None or before._replace(at=bulletin.at, pid=bulletin.pid, state=bulletin.state) != bulletin:
        with contextlib.suppress(OSError):
            files.write(f"{directory}/{OWN_FILE}", text, files.PRIVATE)


def last_of(entries: Iterable[Entry], at: datetime) -> Last | None:
    """The last of these entries that tells of a correction."""
    told = [entry for entry in entries if entry.event in CORRECTIONS and entry.outcome is not None]
    return Last(at, str(told[-1].event), str(told[-1].outcome), told[-1].message) if told else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
