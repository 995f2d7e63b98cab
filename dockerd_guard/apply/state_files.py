"""Persistent state: the intent of a correction in progress, our restarts, what is blocked at the network, the
configuration dockerd started with, and what `fix` did.

Each is a small JSON file in the state directory, written atomically. The intent exists from before the first
change until after the verification, and contains all that is needed to undo the correction.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from dockerd_guard.apply import files
from dockerd_guard.model.json_values import (
    MAX_BYTES,
    JsonError,
    JsonObject,
    as_bool,
    as_bytes,
    as_datetime,
    as_int,
    as_list,
    as_object,
    as_optional,
    as_row,
    as_str,
    get,
    loads,
)
from dockerd_guard.plan.assessment import Records
from dockerd_guard.plan.backoff import Correction
from dockerd_guard.plan.pending_changes import StartRecord
from dockerd_guard.plan.plan import Change
from dockerd_guard.rootfs import Access

STATE_DIRECTORY = "/var/lib/dockerd-guard"
KEPT_RESTARTS = KEPT_WORDS = 100
"""More than any budget needs."""

WAIT_S = 0.1

AGENT_LOCK = "agent.lock"

T = TypeVar("T")


class Busy(Exception):
    """Another dockerd-guard process holds the lock."""


class Intent(NamedTuple):
    """A correction that has begun: its changes, its start time, and the active units that it stops.

    `held`: the files are changed and the restart waits. The previous content is still needed in case dockerd
    does not start with them.
    """

    changes: tuple[Change, ...]
    begun: datetime
    stops: tuple[str, ...]
    held: bool = False

    def before(self, newer: tuple[Change, ...]) -> tuple[Change, ...]:
        """These changes merged with newer ones. The content to restore is the first one, unless another program
        has changed the file meanwhile."""
        first = {change.path: change for change in self.changes}
        later = {change.path: change._replace(before=ours.before)
                 if (ours := first.get(change.path)) is not None and ours.after == change.before else change
                 for change in newer}
        return tuple({**first, **later}.values())


class Contained(NamedTuple):
    """The addresses blocked at the network, and the methods in use (containment/containment.py)."""

    ways: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class ManualFix(NamedTuple):
    """The steps of `fix` and the drifts (`Finding.fact`) that it ended, for the agent to log."""

    steps: tuple[str, ...]
    mended: tuple[str, ...]


class StateFiles:
    """The files of one state directory."""

    def __init__(self, directory: str = STATE_DIRECTORY) -> None:
        self.directory = directory

    def begin(self, intent: Intent) -> None:
        """Store the intent, before anything is changed. Raises OSError."""
        self._write("intent.json", {
            "begun": intent.begun.isoformat(),
            "stops": intent.stops,
            "held": intent.held,
            "changes": [{"path": change.path, "before": _coded(change.before), "after": _coded(change.after),
                         "access": change.access} for change in intent.changes],
        })

    def intent(self) -> Intent | None:
        """The intent of an unfinished correction; None if there is none."""
        return self._read("intent.json", lambda data: Intent(
            get(data, "changes", as_list(_change)), get(data, "begun", as_datetime),
            get(data, "stops", as_list(as_str)), get(data, "held", as_bool)), None)

    def finish(self) -> None:
        """Remove the intent: the correction is finished or undone."""
        files.remove(f"{self.directory}/intent.json")

    def restarts(self) -> tuple[datetime, ...]:
        """Times of our restarts of dockerd, oldest first."""
        return self._read("restarts.json", lambda data: tuple(sorted(get(data, "restarts", as_list(as_datetime)))), ())

    def count_restart(self, moment: datetime) -> None:
        """Store a restart. Raises OSError."""
        kept: Sequence[datetime] = (*self.restarts(), moment)[-KEPT_RESTARTS:]
        self._write("restarts.json", {"restarts": [one.astimezone(UTC).isoformat() for one in kept]})

    def contain(self, contained: Contained) -> None:
        """Store what is blocked at the network. Raises OSError."""
        if contained.ways:
            self._write("contained.json", {"ways": contained.ways, "addresses": contained.addresses})
        else:
            files.remove(f"{self.directory}/contained.json")

    def contained(self) -> Contained:
        """What was blocked last, possibly before a reboot."""
        return self._read("contained.json", lambda data: Contained(
            get(data, "ways", as_list(as_str)), get(data, "addresses", as_list(as_str))), Contained())

    def rounds(self) -> tuple[Correction, ...]:
        """Recent corrections, oldest first."""
        return self._read("rounds.json", lambda data: get(data, "rounds", as_list(_round)), ())

    def keep_rounds(self, rounds: Sequence[Correction]) -> None:
        """Store these. Raises OSError."""
        self._write("rounds.json", {"rounds": [[each.at.isoformat(), each.is_update] for each in rounds]})

    def started(self) -> StartRecord | None:
        """daemon.json at the last start of dockerd for which it was recorded; None if there is none."""
        return self._read("started.json", lambda data: StartRecord(
            get(data, "invocation", as_str), get(data, "daemon.json", as_optional(as_bytes))), None)

    def records(self) -> Records:
        """The records that an assessment needs."""
        return Records(self.restarts(), self.started())

    def keep_started(self, started: StartRecord) -> None:
        """Store it. Raises OSError."""
        self._write("started.json", {"invocation": started.invocation, "daemon.json": _coded(started.daemon_json)})

    def queue_manual_fix(self, done: ManualFix) -> None:
        """Queue it for the agent, merged with what the agent has not logged yet. Raises OSError."""
        before = self.pending_manual_fix() or ManualFix((), ())
        steps, mended = (tuple(dict.fromkeys(each))[-KEPT_WORDS:]
                         for each in (before.steps + done.steps, before.mended + done.mended))
        self._write("by-hand.json", {"steps": steps, "mended": mended})

    def pending_manual_fix(self) -> ManualFix | None:
        """What `fix` has done since clear_manual_fix(); None for nothing."""
        return self._read("by-hand.json", lambda data: ManualFix(
            get(data, "steps", as_list(as_str)), get(data, "mended", as_list(as_str))), None)

    def clear_manual_fix(self) -> None:
        """Remove what was queued. Raises OSError."""
        files.remove(f"{self.directory}/by-hand.json")

    def _write(self, name: str, data: dict[str, object]) -> None:
        files.write(f"{self.directory}/{name}", json.dumps(data).encode(), files.PRIVATE)

    def _read(self, name: str, convert: Callable[[JsonObject], T], default: T) -> T:
        """The content of a file; the default if there is no valid one."""
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                return convert(as_object(loads(file.read(MAX_BYTES + 1))))
        except (OSError, JsonError):
            return default


@contextlib.contextmanager
def exclusive(directory: str = STATE_DIRECTORY, wait_s: float = 0.0) -> Iterator[None]:
    """Exclude other dockerd-guard processes for one pass: flock(2) on the state directory.

    Raises Busy if another process still holds the lock after `wait_s`, OSError if the directory cannot be used.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        end = time.monotonic() + wait_s
        while not _locked(fd):
            if time.monotonic() >= end:
                raise Busy("another dockerd-guard is correcting this host")
            time.sleep(WAIT_S)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def single_agent(directory: str = STATE_DIRECTORY) -> Iterator[None]:
    """Exclude other agents on this host. Raises Busy with the PID of the other agent, and OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"{directory}/{AGENT_LOCK}", flags, 0o600)
    try:
        if not _locked(fd):
            pid = os.read(fd, 20).decode("ascii", "replace").strip()
            raise Busy(f"another agent, PID {pid or 'unknown'}, is running on this host")
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _coded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _change(value: object) -> Change:
    data = as_object(value)
    access = get(data, "access", as_row(len(Access._fields)))
    return Change(get(data, "path", as_str), get(data, "before", as_optional(as_bytes)),
                  get(data, "after", as_optional(as_bytes)), Access(*map(as_int, access)))


def _round(value: object) -> Correction:
    at, is_update = as_row(2)(value)
    return Correction(as_datetime(at), as_bool(is_update))
