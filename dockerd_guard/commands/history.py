"""The verb `history`: the history of this host from the agent's journal entries.

Only entries of the agent count, by the trusted fields of journald (_SYSTEMD_UNIT=, _UID=): any process may log a
DOCKERD_GUARD_EVENT= field. The journal is read through journalctl, which uses the indexes of these fields, so that
the size of the journal does not matter.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import (
    OK,
    Unanswerable,
    print_lines,
    terminal,
    write_output,
)
from dockerd_guard.model.address import canonical
from dockerd_guard.model.json_values import JsonError, as_object, as_str, get, loads
from dockerd_guard.report import json_output
from dockerd_guard.report.history import Episode, History, Record, Span, lines, to_json
from dockerd_guard.report.journal import Event

if TYPE_CHECKING:
    from types import SimpleNamespace


FIELDS = ("EVENT", "CAUSE", "RULE", "LAYER", "SOCKET", "FILE", "LINE", "OUTCOME", "EPISODE", "EXPOSED")
"""The DOCKERD_GUARD_* fields that are read, in addition to MESSAGE."""

AGENT = "dockerd-guard.service"

MATCHES = (f"_SYSTEMD_UNIT={AGENT}", "_UID=0",
           *(f"DOCKERD_GUARD_EVENT={event}" for event in Event))
"""Matches of the same field are alternatives, different fields must all match (journalctl(1))."""

START_S = 60.0
"""Within this time after its start the agent reports ongoing drifts again."""


class JournalUnavailable(Exception):
    """The journal cannot be read."""


def history(records: Iterable[Record], now: datetime, since: datetime | None = None) -> History:
    """Combine entries, oldest first, to episodes. Pure."""
    builder = _EpisodeBuilder()
    for record in records:
        builder.add(record)
    episodes = builder.finish(now)
    begun = since or builder.first or now
    return History(
        begun, now, tuple(episode for episode in episodes if (episode.span.ended or now) >= begun),
        tuple(at for at in builder.corrections if at >= begun),
        tuple(span for span in builder.blind if (span.ended or now) >= begun),
        tuple(at for at in builder.policies if at >= begun))


class _EpisodeBuilder:
    """Ended episodes, open episodes by fact, and the agent process that reported each of them last."""

    def __init__(self) -> None:
        self.first: datetime | None = None
        self.corrections: list[datetime] = []
        self.policies: list[datetime] = []
        self.blind: list[Span] = []
        self._ended: list[Episode] = []
        self._open: dict[str, Episode] = {}
        self._run_of: dict[str, str] = {}
        self._runs: list[tuple[str, datetime]] = []
        self._last: datetime | None = None

    def add(self, record: Record) -> None:
        self.first = self.first or record.at
        self._last = record.at
        if record.event == "policy" and record.outcome == "failed":
            # An agent without a valid policy observes nothing.
            return
        if not self._runs or self._runs[-1][0] != record.run:
            self._end_unconfirmed()
            self._runs.append((record.run, record.at))
        if record.event == "drift":
            self._drift(record)
        elif record.event == "corrected":
            if record.outcome == "repaired":
                self.corrections.append(record.at)
            self._end(record)
        elif record.event in ("held", "failed", "rolled-back", "contested"):
            self._attempt(record)
        elif record.event in ("contained", "released"):
            self._containment(record)
        elif record.event == "blind":
            self._blind(record)
        elif record.event == "policy" and record.outcome is None:
            self.policies.append(record.at)

    def finish(self, now: datetime) -> list[Episode]:
        if self._runs and (now - self._runs[-1][1]).total_seconds() > START_S:
            self._end_unconfirmed()
        return sorted((*self._ended, *self._open.values()), key=lambda episode: episode.span.begun)

    def _drift(self, record: Record) -> None:
        for fact in record.episodes:
            known = self._open.get(fact)
            episode = _episode(fact, record, record.at) if known is None else known._replace(
                message=record.message, file=record.file, line=record.line, layer=record.layer, socket=record.socket)
            if record.exposed and not _is_open(episode.contained):
                episode = episode._replace(exposed=_begun(episode.exposed, record.at))
            elif not record.exposed:
                episode = episode._replace(exposed=_ended(episode.exposed, record.at))
            self._open[fact] = episode
            self._run_of[fact] = record.run

    def _end(self, record: Record) -> None:
        for fact in record.episodes:
            known = self._open.pop(fact, None)
            if known is None:
                # The begin is older than the journal.
                known = _episode(fact, record, self.first or record.at)._replace(is_begin_seen=False)
            self._ended.append(_closed(known, record.at)._replace(outcome=record.outcome, why=record.message))

    def _attempt(self, record: Record) -> None:
        for fact in record.episodes:
            if (known := self._open.get(fact)) is not None:
                self._open[fact] = known._replace(outcome=record.outcome, why=record.message)
                self._run_of[fact] = record.run

    def _containment(self, record: Record) -> None:
        if record.socket is None:
            return
        place = canonical(record.socket)
        for fact, known in self._open.items():
            if known.socket is None or canonical(known.socket) != place:
                continue
            if record.event == "contained":
                self._open[fact] = known._replace(exposed=_ended(known.exposed, record.at),
                                                  contained=_begun(known.contained, record.at))
            elif _is_open(known.contained):
                # Released while the drift continues: open again.
                self._open[fact] = known._replace(exposed=_begun(known.exposed, record.at),
                                                  contained=_ended(known.contained, record.at))

    def _blind(self, record: Record) -> None:
        if record.outcome == "failed" and not _is_open(tuple(self.blind)):
            self.blind.append(Span(record.at))
        elif record.outcome == "repaired":
            self.blind[-1:] = _ended(tuple(self.blind[-1:]), record.at)

    def _end_unconfirmed(self) -> None:
        """End episodes that the latest agent process has not reported: they ended before its start."""
        if not self._runs:
            return
        run, begun = self._runs[-1]
        for fact, known in tuple(self._open.items()):
            if self._run_of[fact] != run:
                self._ended.append(_closed(known, begun)._replace(outcome="kept", is_end_seen=False))
                del self._open[fact]


def _episode(fact: str, record: Record, begun: datetime) -> Episode:
    return Episode(fact, Span(begun), record.message, record.cause, record.rule, record.layer, record.socket,
                   record.file, record.line)


def _closed(episode: Episode, at: datetime) -> Episode:
    return episode._replace(span=Span(episode.span.begun, at), exposed=_ended(episode.exposed, at),
                            contained=_ended(episode.contained, at))


def _is_open(spans: tuple[Span, ...]) -> bool:
    return bool(spans) and spans[-1].ended is None


def _begun(spans: tuple[Span, ...], at: datetime) -> tuple[Span, ...]:
    return spans if _is_open(spans) else (*spans, Span(at))


def _ended(spans: tuple[Span, ...], at: datetime) -> tuple[Span, ...]:
    return (*spans[:-1], Span(spans[-1].begun, at)) if _is_open(spans) else spans


# -- the journal ----------------------------------------------------------------------------------


def read_journal(*options: str) -> Iterator[Record]:
    """The agent's entries, oldest first. `options`: for journalctl. Raises JournalUnavailable."""
    names = ",".join(("MESSAGE", "_SYSTEMD_INVOCATION_ID", *(f"DOCKERD_GUARD_{name}" for name in FIELDS)))
    command = ("journalctl", "--system", "--no-pager", "--all", "--output=json", f"--output-fields={names}", *options,
               *MATCHES)
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stderr is not None  # noqa: S101 -- set by PIPE
            has_entries = False
            for row in child.stdout:
                if (record := record_of(row)) is not None:
                    has_entries = True
                    yield record
            errors = child.stderr.read().decode("utf-8", "replace").strip()
    except OSError as error:
        raise JournalUnavailable(f"cannot run journalctl: {error.strerror}") from None
    # journalctl also succeeds if there is no journal, or none that this user may read.
    if not has_entries and (errors or child.returncode or not _has_journal()):
        raise JournalUnavailable(" ".join(errors.split()) or "there is no journal on this host, or this user may not "
                                 "read it; see Storage= in journald.conf(5)")


def _has_journal() -> bool:
    try:
        done = subprocess.run(("journalctl", "--system", "--no-pager", "--quiet", "--output=json", "--lines=1"),
                              capture_output=True, check=False)
    except OSError:
        return False
    return bool(done.stdout)


def record_of(row: bytes) -> Record | None:
    """A line of `journalctl -o json`; None if it is invalid or not an entry of the agent."""
    try:
        data = as_object(loads(row))
        at = get(data, "__REALTIME_TIMESTAMP", _as_realtime)
    except JsonError:
        return None
    event, cause, rule, layer, socket, file, line, outcome, episodes, exposed = (
        _values(data.get(f"DOCKERD_GUARD_{name}")) for name in FIELDS)
    if not event:
        return None
    return Record(
        at, event[0], _first(_values(data.get("MESSAGE"))) or "",
        _first(_values(data.get("_SYSTEMD_INVOCATION_ID"))) or "", _first(cause), _first(rule), _first(layer),
        _first(socket), _first(file), int(line[0]) if line and re.fullmatch("[0-9]{1,9}", line[0]) else None,
        _first(outcome),
        # Entries from before DOCKERD_GUARD_EPISODE=.
        episodes or ((f"{rule[0]} {_first(socket) or _first(file) or ''}".rstrip(),) if rule else ()),
        exposed == ("yes",))


def _first(values: tuple[str, ...]) -> str | None:
    return values[0] if values else None


def _as_realtime(value: object) -> datetime:
    """Microseconds since 1970, as a string of digits."""
    try:
        return datetime.fromtimestamp(int(as_str(value)[:20]) / 1e6, UTC)
    except (OSError, OverflowError, ValueError):
        raise JsonError("must be microseconds since 1970") from None


def _values(value: object) -> tuple[str, ...]:
    """The values of a field: text, bytes that are not printable, or a list of these; none if the value is too long."""
    if (text := _text(value)) is not None:
        return (text,)
    return tuple(text for item in value if (text := _text(item)) is not None) if isinstance(value, list) else ()


def _text(value: object) -> str | None:
    """One value of a field: a string, or a list of bytes."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
        return bytes(value).decode("utf-8", "replace")
    return None


def parse_time(text: str) -> datetime:
    """Parse a timestamp of systemd.time(7): `yesterday`, `2 weeks ago`, `2026-11-23 12:00`. Raises ValueError."""
    try:
        done = subprocess.run(("systemd-analyze", "timestamp", "--", text), capture_output=True, check=False,
                              env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    except OSError as error:
        raise ValueError(f"cannot run systemd-analyze: {error.strerror}") from None
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(": @")
        if name.strip() == "UNIX seconds":
            return datetime.fromtimestamp(float(value), UTC)
    raise ValueError(f"invalid time: {text!r}; expected a time such as yesterday, 2 weeks ago or 2026-11-23 "
                     "(systemd.time(7))")


def run(options: SimpleNamespace) -> int:
    """Print the history of this host. Returns the exit code."""
    try:
        since = parse_time(options.since) if options.since is not None else None
        found = history(read_journal(), datetime.now(UTC), since)
    except ValueError as error:
        raise Unanswerable(str(error)) from None
    except JournalUnavailable as error:
        hint = "" if os.geteuid() == 0 else "\nroot and the group systemd-journal may read it"
        raise Unanswerable(f"{error}{hint}") from None
    if options.plot is not None:
        from dockerd_guard.report import timeline

        write_output(options.plot, timeline.svg(found, os.uname().nodename))
    elif options.format == "json":
        print(json_output.dump(to_json(found)))
    else:
        print_lines(lines(found, **terminal()))
    return OK
