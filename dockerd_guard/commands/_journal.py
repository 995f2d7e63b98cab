"""The agent's entries in a journal: of this host, or of many hosts, as systemd-journal-remote.service(8) collects them.

Only entries of the agent count, by the trusted fields of journald (_SYSTEMD_UNIT=, _UID=): any process may log a
DOCKERD_GUARD_EVENT= field. In entries of other hosts these fields are what those hosts sent. The journal is read
through journalctl, which uses the indexes of these fields, so that the size of the journal does not matter.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from dockerd_guard.model.json_values import JsonError, as_object, as_str, get, loads
from dockerd_guard.report.history import Record
from dockerd_guard.report.journal import Event
from dockerd_guard.report.text import counted

FIELDS = ("EVENT", "CAUSE", "RULE", "LAYER", "SOCKET", "FILE", "LINE", "OUTCOME", "EPISODE", "EXPOSED", "OPEN_SECONDS")
"""The DOCKERD_GUARD_* fields that are read, in addition to MESSAGE."""

TRUSTED_FIELDS = ("_SYSTEMD_INVOCATION_ID", "_HOSTNAME", "_MACHINE_ID", "_BOOT_ID")

AGENT = "dockerd-guard.service"

MATCHES = (f"_SYSTEMD_UNIT={AGENT}", "_UID=0",
           *(f"DOCKERD_GUARD_EVENT={event}" for event in Event))
"""Matches of the same field are alternatives, different fields must all match (journalctl(1))."""

THIS_HOST = ("--system", "--all")
ALL_JOURNALS = ("--merge", "--quiet")
"""Sources, as options of journalctl. Without --all it leaves out values of more than 4096 bytes (JSON_THRESHOLD in
logs-show.c). With --system it leaves out remote-*.journal (file_type_wanted() in sd-journal.c)."""

REMOTE_DIRECTORY = "/var/log/journal/remote"
"""systemd-journal-remote.service(8)."""

SUFFIXES = (".journal", ".journal~")
"""Of journal files; the second after one was not closed properly."""

_BY_MACHINE_ID = re.compile("[0-9a-f]{32}")

MAX_ROW_BYTES = 1 << 20
"""A longer entry is not the agent's."""

MAX_WARNINGS = 3


class JournalUnavailable(Exception):
    """The journal cannot be read."""


def directory(path: str, warnings: list[str]) -> tuple[str, ...]:
    """The source for a directory with journal files. `warnings` gets those that this user may not read, which
    journalctl leaves out without a word. Raises JournalUnavailable."""
    hint = f"name a directory with journal files, such as {REMOTE_DIRECTORY}"
    try:
        files = tuple(_journal_files(Path(path)))
    except PermissionError as error:
        raise JournalUnavailable(f"{path}: {error.strerror}") from None
    except OSError as error:
        raise JournalUnavailable(f"{path}: {error.strerror}\n{hint}") from None
    if not files:
        raise JournalUnavailable(f"{path} contains no journal file (*.journal)\n{hint}")
    if denied := [file for file in files if not os.access(file, os.R_OK)]:
        warnings.append(f"{denied[0]}: Permission denied; "
                        f"{len(denied)} of {counted(len(files), 'journal file')} not read")
    return (f"--directory={path}", "--quiet")


def _journal_files(path: Path) -> Iterator[Path]:
    """The files that journalctl reads: those of the directory, and of its directories by machine ID."""
    for entry in sorted(path.iterdir()):
        if entry.suffix in SUFFIXES:
            yield entry
        elif _BY_MACHINE_ID.match(entry.name):
            if os.access(entry, os.R_OK | os.X_OK):
                yield from (file for file in sorted(entry.iterdir()) if file.suffix in SUFFIXES)
            else:
                yield entry


def read_journal(*options: str, source: tuple[str, ...] = THIS_HOST, warnings: list[str] | None = None
                 ) -> Iterator[Record]:
    """The agent's entries, oldest first. `options`: for journalctl. Raises JournalUnavailable.

    `warnings` gets what journalctl reports about files that it leaves out.
    """
    names = ",".join(("MESSAGE", *TRUSTED_FIELDS, *(f"DOCKERD_GUARD_{name}" for name in FIELDS)))
    command = ("journalctl", *source, "--no-pager", "--output=json", f"--output-fields={names}", *options, *MATCHES)
    try:
        # A file: a pipe would be full with the warnings about many files, before the entries are read.
        with tempfile.TemporaryFile() as output, \
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output) as child:
            assert child.stdout is not None  # noqa: S101 -- set by PIPE
            has_entries = False
            for row in _rows(child.stdout):
                if (record := record_of(row)) is not None:
                    has_entries = True
                    yield record
            child.wait()
            output.seek(0)
            errors = output.read(MAX_ROW_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise JournalUnavailable(f"cannot run journalctl: {error.strerror}") from None
    # journalctl also succeeds if there is no journal, or none that this user may read.
    if not has_entries and (errors or child.returncode or not _has_journal(source)):
        raise JournalUnavailable(" ".join(errors.split()) or "there is no journal on this host, or this user may not "
                                 "read it; see Storage= in journald.conf(5)")
    if warnings is not None and errors:
        lines = tuple(dict.fromkeys(errors.splitlines()))
        warnings += lines[:MAX_WARNINGS]
        warnings += [f"{len(lines) - MAX_WARNINGS} more lines of journalctl"] if len(lines) > MAX_WARNINGS else []


def _rows(output: IO[bytes]) -> Iterator[bytes]:
    """The lines; those that are too long are left out."""
    is_continued = False
    while row := output.readline(MAX_ROW_BYTES):
        is_complete = row.endswith(b"\n")
        if is_complete and not is_continued:
            yield row
        is_continued = not is_complete


def _has_journal(source: tuple[str, ...]) -> bool:
    try:
        done = subprocess.run(("journalctl", *source, "--no-pager", "--quiet", "--output=json", "--lines=1"),
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
    event, cause, rule, layer, socket, file, line, outcome, episodes, exposed, open_s = (
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
        exposed == ("yes",), float(open_s[0]) if open_s and re.fullmatch(r"[0-9]{1,9}\.[0-9]{3}", open_s[0]) else 0.0,
        *(_first(_values(data.get(name))) or "" for name in ("_HOSTNAME", "_MACHINE_ID", "_BOOT_ID")))


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
