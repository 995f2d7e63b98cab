"""The verb `history`: the history of this host, or of many hosts, from the journal entries of their agents."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import OK, UNANSWERED, Unanswerable, print_lines, say, terminal, write_output
from dockerd_guard.commands._episodes import history
from dockerd_guard.commands._journal import (
    AGENT,
    ALL_JOURNALS,
    THIS_HOST,
    JournalUnavailable,
    directory,
    read_journal,
)
from dockerd_guard.report import json_output
from dockerd_guard.report.history import History, lines, to_json

if TYPE_CHECKING:
    from types import SimpleNamespace


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
    """Print the history of this host, or of the hosts in other journals. Returns the exit code."""
    warnings: list[str] = []
    try:
        since = parse_time(options.since) if options.since is not None else None
        found = _read(options, since, warnings)
    except ValueError as error:
        raise Unanswerable(str(error)) from None
    except JournalUnavailable as error:
        reader = "" if options.journal is not None else " and the group systemd-journal"
        hint = "" if os.geteuid() == 0 else f"\nroot{reader} may read it"
        raise Unanswerable(f"{error}{hint}") from None
    if options.plot is not None:
        from dockerd_guard.report import timeline

        write_output(options.plot, timeline.svg(found, os.uname().nodename))
    elif options.format == "json":
        print(json_output.dump(to_json(found)))
    else:
        print_lines(lines(found, **terminal()))
    for warning in warnings:
        say(warning)
    return UNANSWERED if warnings else OK


def _read(options: SimpleNamespace, since: datetime | None, warnings: list[str]) -> History:
    """The history. `warnings` gets what is missing in it. Raises JournalUnavailable, Unanswerable."""
    now = datetime.now(UTC)
    if options.journal is None and not options.merge:
        return history(read_journal(source=THIS_HOST), now, since)
    source = ALL_JOURNALS if options.journal is None else directory(options.journal, warnings)
    found = history(read_journal(source=source, warnings=warnings), now, since, by_host=True)
    if not found.hosts:
        where = "the journals of this host contain" if options.journal is None else f"{options.journal} contains"
        raise Unanswerable(f"{where} no entry of {AGENT}\non each host, check systemd-journal-upload.service")
    if found.left_out:
        warnings.append(f"left out, because there are too many: {', '.join(found.left_out)}")
    return found
