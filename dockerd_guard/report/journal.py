"""The agent's voice: one structured entry per fact, in journald, through structlog.

An entry goes to journald by its native protocol, so every field is a field (systemd.journal-fields(7)).
OBJECT_SYSTEMD_UNIT= makes `journalctl -u docker` show it too, as root's word on another unit.
Where standard error is a terminal, as in a first try by hand, a line goes there as well.

Never in an entry: file contents, environment values, keys.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

from dockerd_guard.model.location import Location

IDENTIFIER = "dockerd-guard"
UNIT = "docker.service"


class Event(StrEnum):
    """The kinds of entries (DOCKERD_GUARD_EVENT)."""

    DRIFT = "drift"
    CORRECTED = "corrected"
    HELD = "held"
    CONTAINED = "contained"
    RELEASED = "released"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    BLIND = "blind"
    CONTESTED = "contested"
    POLICY = "policy"


class Cause(StrEnum):
    """Why something differs (DOCKERD_GUARD_CAUSE): the host changed, or the policy did."""

    DRIFT = "drift"
    POLICY_CHANGE = "policy-change"


class Outcome(StrEnum):
    """What came of it (DOCKERD_GUARD_OUTCOME), in CFEngine's words."""

    KEPT = "kept"
    REPAIRED = "repaired"
    FAILED = "failed"
    HELD = "held"
    PENDING = "pending"


MESSAGE_IDS: Mapping[Event, str] = {
    Event.DRIFT: "dee6bd790a4c44a19870ff0ba7130499",
    Event.CORRECTED: "401b426159e741238f6e07100ffaa8ef",
    Event.HELD: "b555933614324ad089883c0fff42644b",
    Event.CONTAINED: "f2b89229008e4cc984ba18eba79b0df7",
    Event.RELEASED: "07a8d1a03d574862b5574632cc5b428d",
    Event.FAILED: "022f4d707c2e4fa6b7b2497bea7d44f9",
    Event.ROLLED_BACK: "df167666f9754c2a9865b6d89679272f",
    Event.BLIND: "29925e44d846459ebfce27fd27835d4c",
    Event.CONTESTED: "a6b1c913d15c483da8669e86bad89edc",
    Event.POLICY: "0e42ada70b5c47b5812b947bff541112",
}
"""One for each kind of entry; the catalog explains each (`journalctl -x`)."""

PRIORITIES: Mapping[str, int] = {"critical": 2, "error": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
"""syslog(3) levels."""

_LEVELS: Mapping[Event, str] = {
    Event.DRIFT: "warning",
    Event.CORRECTED: "notice",
    Event.HELD: "warning",
    Event.CONTAINED: "warning",
    Event.RELEASED: "notice",
    Event.FAILED: "error",
    Event.ROLLED_BACK: "error",
    Event.BLIND: "warning",
    Event.CONTESTED: "critical",
    Event.POLICY: "notice",
}


class JournalEntry(NamedTuple):
    """One fact for the journal: its kind, its text, and the fields that machines read.

    `episodes` are the facts (`Finding.fact`) it is about: the drift that begins, those that a correction
    ended, those that it is held for. `exposed`: the socket is open to the network, against the policy.
    """

    event: Event
    message: str
    outcome: Outcome | None = None
    cause: Cause | None = None
    rule: str | None = None
    layer: str | None = None
    socket: str | None = None
    location: Location | None = None
    level: str | None = None
    episodes: tuple[str, ...] = ()
    exposed: bool = False

    @property
    def fields(self) -> dict[str, str | tuple[str, ...]]:
        """As journald takes them, which lets a field have several values; nothing for what is not known."""
        known = {
            "DOCKERD_GUARD_CAUSE": self.cause,
            "DOCKERD_GUARD_RULE": self.rule,
            "DOCKERD_GUARD_LAYER": self.layer,
            "DOCKERD_GUARD_SOCKET": self.socket,
            "DOCKERD_GUARD_OUTCOME": self.outcome,
            "DOCKERD_GUARD_EXPOSED": "yes" if self.exposed else None,
        }
        fields: dict[str, str | tuple[str, ...]] = {
            name: str(value) for name, value in known.items() if value is not None}
        if self.episodes:
            fields["DOCKERD_GUARD_EPISODE"] = self.episodes
        if self.location is not None:
            fields["DOCKERD_GUARD_FILE"] = self.location.file
            fields["DOCKERD_GUARD_LINE"] = str(self.location.line)
        return {"MESSAGE_ID": MESSAGE_IDS[self.event], "DOCKERD_GUARD_EVENT": str(self.event), **fields}


class Journal:
    """Where the agent's entries go."""

    def __init__(self) -> None:
        """Set structlog up; nothing is opened before the first entry."""
        import logging

        # structlog makes a record of logging's, which would ask asyncio for the name of its task.
        logging.logAsyncioTasks = False  # type: ignore[attr-defined, unused-ignore]
        import structlog

        self._log = structlog.wrap_logger(None, processors=[_to_journald])

    def write(self, entry: JournalEntry) -> None:
        """Put one entry into the journal. Never raises: no journal must not stop the guard."""
        self._log.msg(entry.message, PRIORITY=PRIORITIES[entry.level or _LEVELS[entry.event]], **entry.fields)

    def say(self, message: str, level: str = "info") -> None:
        """Put a plain line into the journal: what the agent itself does."""
        self._log.msg(message, PRIORITY=PRIORITIES[level])


def _to_journald(_: object, __: str, event: MutableMapping[str, Any]) -> NoReturn:
    import structlog
    from pystemd import journal

    message = shown(str(event.pop("event")))
    journal.sendv(
        *(f"{name}={_utf8(value)}" for name, values in event.items() if isinstance(values, tuple) for value in values),
        MESSAGE=message, SYSLOG_IDENTIFIER=IDENTIFIER, OBJECT_SYSTEMD_UNIT=UNIT,
        **{name: _utf8(str(value)) for name, value in event.items() if not isinstance(value, tuple)},
    )
    if sys.stderr.isatty():
        print(message, file=sys.stderr, flush=True)
    raise structlog.DropEvent


def shown(message: str) -> str:
    """journalctl hides a message with a control character in it, as from a file's name, as `[blob data]`."""
    if message.isprintable():
        return message
    from dockerd_guard.report.text import clean

    return clean(message)


def _utf8(value: str) -> str:
    """What is no UTF-8 in a file's name cannot be sent."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
