"""The journal entries of the agent, and the structlog pipeline that writes them.

An entry is a message, a level and fields. Processors clean the message and add the priority; a renderer per log
format writes the entry:

    journald   fields of the native protocol (systemd.journal-fields(7)), sent by sd_journal_sendv(3)
    console    a line on standard error for a person
    json       a JSON object a line on standard output (docs/journal.md)

OBJECT_SYSTEMD_UNIT= makes `journalctl -u docker` show the entries too.

An entry never contains file contents, environment values or keys.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from dockerd_guard.model.location import Location

if TYPE_CHECKING:
    from structlog.typing import Processor

IDENTIFIER = "dockerd-guard"
UNIT = "docker.service"


class Event(StrEnum):
    """The kind of an entry (DOCKERD_GUARD_EVENT), with its MESSAGE_ID, for which the message catalog has a text
    (`journalctl -x`), and the level of an entry that has no other."""

    message_id: str
    level: str

    def __new__(cls, word: str, message_id: str = "", level: str = "") -> Self:
        event = str.__new__(cls, word)
        event._value_, event.message_id, event.level = word, message_id, level
        return event

    DRIFT = "drift", "dee6bd790a4c44a19870ff0ba7130499", "warning"
    CORRECTED = "corrected", "401b426159e741238f6e07100ffaa8ef", "notice"
    HELD = "held", "b555933614324ad089883c0fff42644b", "warning"
    CONTAINED = "contained", "f2b89229008e4cc984ba18eba79b0df7", "warning"
    RELEASED = "released", "07a8d1a03d574862b5574632cc5b428d", "notice"
    FAILED = "failed", "022f4d707c2e4fa6b7b2497bea7d44f9", "error"
    ROLLED_BACK = "rolled-back", "df167666f9754c2a9865b6d89679272f", "error"
    BLIND = "blind", "29925e44d846459ebfce27fd27835d4c", "warning"
    CONTESTED = "contested", "a6b1c913d15c483da8669e86bad89edc", "critical"
    POLICY = "policy", "0e42ada70b5c47b5812b947bff541112", "notice"


class Cause(StrEnum):
    """What changed (DOCKERD_GUARD_CAUSE): the host or the policy."""

    DRIFT = "drift"
    POLICY_CHANGE = "policy-change"


class Outcome(StrEnum):
    """The result of a correction (DOCKERD_GUARD_OUTCOME), in CFEngine's terms."""

    KEPT = "kept"
    REPAIRED = "repaired"
    FAILED = "failed"
    HELD = "held"
    PENDING = "pending"


PRIORITIES: Mapping[str, int] = {"critical": 2, "error": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
"""syslog(3) levels."""

class JournalEntry(NamedTuple):
    """One entry: its event, its message, and the fields for programs.

    `episodes` are the facts (`Finding.fact`) that the entry is about: the drift that begins, the drifts that a
    correction ended or that it is held for. `exposed`: the socket is open to the network, against the policy. `open_s`:
    for how long a block was missing.
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
    open_s: float | None = None

    @property
    def fields(self) -> dict[str, str | tuple[str, ...]]:
        """The journal fields of this entry, without MESSAGE and PRIORITY. A tuple is a field with several values."""
        optional = {
            "DOCKERD_GUARD_CAUSE": self.cause,
            "DOCKERD_GUARD_RULE": self.rule,
            "DOCKERD_GUARD_LAYER": self.layer,
            "DOCKERD_GUARD_SOCKET": self.socket,
            "DOCKERD_GUARD_OUTCOME": self.outcome,
            "DOCKERD_GUARD_EXPOSED": "yes" if self.exposed else None,
            "DOCKERD_GUARD_OPEN_SECONDS": f"{self.open_s:.3f}" if self.open_s is not None else None,
        }
        fields: dict[str, str | tuple[str, ...]] = {
            name: str(value) for name, value in optional.items() if value is not None}
        if self.episodes:
            fields["DOCKERD_GUARD_EPISODE"] = self.episodes
        if self.location is not None:
            fields["DOCKERD_GUARD_FILE"] = self.location.file
            fields["DOCKERD_GUARD_LINE"] = str(self.location.line)
        return {"MESSAGE_ID": self.event.message_id, "DOCKERD_GUARD_EVENT": str(self.event), **fields}


class Journal:
    """Writes entries in one log format: `journald`, `console`, `json` or `auto`.

    `auto` is `journald`, and `console` as well if standard error is a terminal.
    """

    def __init__(self, log_format: str = "auto") -> None:
        """Set up structlog. The journal's socket is opened for the first entry. Raises KeyError for another format."""
        import logging

        # structlog creates a logging.LogRecord at import, which would import asyncio for the name of the task.
        logging.logAsyncioTasks = False  # type: ignore[attr-defined, unused-ignore]
        import structlog

        formats = [log_format]
        if log_format == "auto":
            formats = ["journald", "console"] if sys.stderr.isatty() else ["journald"]
        self._loggers: list[structlog.BoundLogger] = []
        for name in formats:
            logger, *renderers = _PIPELINES[name]()
            self._loggers.append(structlog.wrap_logger(
                logger, [_clean, _add_priority, *renderers], structlog.BoundLogger,
            ).bind(SYSLOG_IDENTIFIER=IDENTIFIER, OBJECT_SYSTEMD_UNIT=UNIT))

    def write(self, entry: JournalEntry) -> None:
        """Write one entry. Never raises: a broken journal, pipe or terminal must not stop the agent."""
        self._log(entry.message, entry.level or entry.event.level, entry.fields)

    def say(self, message: str, level: str = "info") -> None:
        """Write a message without an event, about the agent itself. Never raises."""
        self._log(message, level, {})

    def _log(self, message: str, level: str, fields: Mapping[str, str | tuple[str, ...]]) -> None:
        for logger in self._loggers:
            # ValueError: a closed file, or a terminal that cannot encode the message.
            with contextlib.suppress(OSError, ValueError):
                logger.msg(message, level=level, **fields)


# -- processors (structlog.org, Processors) ---------------------------------------------------------

_EventDict = MutableMapping[str, Any]


def _clean(_: object, __: str, event: _EventDict) -> _EventDict:
    """Make the message printable, and every field UTF-8: a file name may be neither."""
    for name, value in event.items():
        event[name] = tuple(map(_utf8, value)) if isinstance(value, tuple) else _utf8(str(value))
    event["event"] = printable(event["event"])
    return event


def _add_priority(_: object, __: str, event: _EventDict) -> _EventDict:
    """Add PRIORITY, the number of the level."""
    event["PRIORITY"] = str(PRIORITIES[event["level"]])
    return event


def _journald_arguments(_: object, __: str, event: _EventDict) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the arguments for JournaldLogger.msg: one NAME=value for each value of each field."""
    del event["level"]
    event["MESSAGE"] = event.pop("event")
    return tuple(f"{name}={value}" for name, values in event.items()
                 for value in (values if isinstance(values, tuple) else (values,))), {}


def _person_fields(_: object, __: str, event: _EventDict) -> _EventDict:
    """Keep the time, the level and the message: the message has all that a person needs."""
    return {name: event[name] for name in ("timestamp", "level", "event")}


def _json_fields(_: object, __: str, event: _EventDict) -> _EventDict:
    """Name the fields as in the journal, in lower case, after the time, the level and the message."""
    first = {"timestamp": event.pop("timestamp"), "level": event.pop("level"), "message": event.pop("event")}
    return first | {name.lower(): value for name, value in event.items()}


def _encode(_: object, __: str, line: Any) -> bytes:
    return str(line).encode()


# -- pipelines: where the entries go, and the processors of that format ------------------------------


class JournaldLogger:
    """Sends entries to journald."""

    def msg(self, *fields: str) -> None:
        """Send one entry, a NAME=value each. Does nothing without journald (sd_journal_sendv(3))."""
        from pystemd import journal

        journal.sendv(*fields)


def _journald() -> tuple[object, *tuple[Processor, ...]]:
    return JournaldLogger(), _journald_arguments


def _console() -> tuple[object, *tuple[Processor, ...]]:
    import structlog

    from dockerd_guard.report.text import wants_colour

    return (structlog.PrintLogger(sys.stderr), structlog.processors.TimeStamper("%H:%M:%S", utc=False), _person_fields,
            structlog.dev.ConsoleRenderer(colors=wants_colour(sys.stderr)))


def _json() -> tuple[object, *tuple[Processor, ...]]:
    import structlog

    # Without a buffer: a line that cannot be written is lost, and does not fail the flush at exit.
    output = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
    return (structlog.BytesLogger(output), structlog.processors.TimeStamper("iso", utc=True), _json_fields,
            structlog.processors.JSONRenderer(), _encode)


_PIPELINES = {"journald": _journald, "console": _console, "json": _json}


def printable(message: str) -> str:
    """Return the message without control characters, for which journalctl shows only `[blob data]`."""
    if message.isprintable():
        return message
    from dockerd_guard.report.text import clean

    return clean(message)


def _utf8(value: str) -> str:
    """Return the value with U+FFFD for each byte that is not UTF-8 (a lone surrogate, os.fsdecode)."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
