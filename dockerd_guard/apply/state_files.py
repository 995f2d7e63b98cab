"""The memory on disk: small JSON files in the state directory, each written atomically.

`memory.json` is written at the end of each pass that changed it. `intent.json` holds the changes of a correction
under way with their previous content; it is written before the first change. Unknown or damaged content reads as
nothing: then a correction is held rather than repeated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from dockerd_guard.apply import files
from dockerd_guard.fleet.lock import Fault
from dockerd_guard.model.address import Tls
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.json_values import (
    JsonError,
    JsonObject,
    as_bytes,
    as_datetime,
    as_list,
    as_object,
    as_one_of,
    as_record,
    as_str,
    encoded,
    get,
    loads,
)
from dockerd_guard.observe.probes import Probes
from dockerd_guard.plan.memory import Contained, CorrectedFile, Intent, Memory
from dockerd_guard.policy.model import FleetTls, LockKind, Unreachable
from dockerd_guard.rootfs import Access, Content, Link

STATE_DIRECTORY = "/var/lib/dockerd-guard"

MEMORY_FILE = "memory.json"
INTENT_FILE = "intent.json"
PROBES_FILE = "probes.json"
PROBES_LOCK = "probes.lock"
AGENT_LOCK = "agent.lock"

OLD_FILES = ("restarts.json", "contained.json", "rounds.json", "started.json", "by-hand.json")
"""Of version 0.1."""

WAIT_S = 0.1

PROBING_S = 5.0
"""How long to wait for another process that probes."""


class Busy(Exception):
    """Another dockerd-guard is at work on this host."""


class StateFiles:
    """The files of one state directory."""

    def __init__(self, directory: str = STATE_DIRECTORY) -> None:
        self.directory = directory
        self._saved: bytes | None = None
        self._saved_intent: Intent | None = None
        self._unsaved: Memory | None = None

    def load(self) -> Memory:
        """Return what was saved last, by whatever process; an empty memory where there is none.

        What this process could not save is still true, and is returned instead.
        """
        if self._unsaved is not None:
            return self._unsaved
        data = self._read(MEMORY_FILE)
        self._saved = json.dumps(data).encode() if data else None
        try:
            memory = _as_memory(data) if data else self._of_old_files()
        except JsonError:
            memory = Memory()
        self._saved_intent = self._intent()
        return memory._replace(intent=self._saved_intent)

    def save(self, memory: Memory) -> None:
        """Write what differs from what was written last. Raises OSError."""
        self._unsaved = memory
        text = json.dumps(_memory_json(memory)).encode()
        if text != self._saved:
            self._write(MEMORY_FILE, text)
            self._saved = text
            for name in OLD_FILES:
                files.remove(f"{self.directory}/{name}")
        if memory.intent != self._saved_intent:
            self._write(INTENT_FILE, memory.intent and json.dumps(encoded(memory.intent, _ENCODERS)).encode())
            self._saved_intent = memory.intent
        self._unsaved = None

    @contextlib.contextmanager
    def probing(self) -> Iterator[None]:
        """Hold the lock of probing. Raises OSError if there is no state directory, or another process keeps it."""
        fd = os.open(f"{self.directory}/{PROBES_LOCK}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + PROBING_S
            while not _locked(fd):
                if time.monotonic() >= end:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                time.sleep(WAIT_S)
            yield
        finally:
            os.close(fd)

    def load_probes(self) -> Probes:
        """Return what was probed last, by whatever process; nothing where that is missing or damaged."""
        try:
            return _as_probes(self._read(PROBES_FILE))
        except JsonError:
            return Probes()

    def save_probes(self, probes: Probes) -> None:
        """Record these. Raises OSError, also where there is no state directory."""
        self._write(PROBES_FILE, json.dumps(encoded(probes)).encode())

    def _write(self, name: str, content: bytes | None) -> None:
        if content is None:
            files.remove(f"{self.directory}/{name}")
        else:
            files.write(f"{self.directory}/{name}", content, files.PRIVATE)

    def sweep(self) -> None:
        """Remove temporary files that a crash left."""
        files.sweep(self.directory)

    def _intent(self) -> Intent | None:
        data = self._read(INTENT_FILE)
        try:
            return _as_intent(data) if data else None
        except JsonError:
            return None

    def _of_old_files(self) -> Memory:
        """What version 0.1 left: its restarts count, and what it blocked is released in the end."""
        restarts = get(self._read("restarts.json"), "restarts", as_list(_as_time), ())
        contained = self._read("contained.json")
        return Memory(restarts=tuple(map(Instant, sorted(restarts))), contained=Contained(
            *(get(contained, key, as_list(as_str), ()) for key in ("ways", "addresses"))))

    def _read(self, name: str) -> JsonObject:
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                data = file.read()
            # An intent has the content of files, and no limit of its own.
            return as_object(loads(data, len(data)))
        except (OSError, JsonError):
            return {}


# --- JSON -----------------------------------------------------------------------------------------


def _memory_json(memory: Memory) -> dict[str, object]:
    data: dict[str, object] = encoded(memory._replace(intent=None, changed_at=None, unneeded_since=None), _ENCODERS)
    del data["intent"], data["changed_at"], data["unneeded_since"]
    return data | {"corrected": encoded(tuple(memory.corrected.values()), _ENCODERS)}


def _as_corrected(value: object) -> dict[str, CorrectedFile]:
    return {file.path: file for file in as_list(as_record(CorrectedFile, _CONVERTERS))(value)}


def _as_content(value: object) -> Content | None:
    if isinstance(value, dict):
        return Link(get(value, "link", as_str))
    return None if value is None else as_bytes(value)


def _as_time(value: object) -> datetime:
    """A time in the zone in which it was written."""
    as_datetime(value)
    return datetime.fromisoformat(as_str(value))


_ENCODERS: dict[type, Callable[[Any], object]] = {Instant: list, Access: list, Link: lambda link: {"link": link.target}}
_CONVERTERS = {
    datetime: _as_time, Tls: as_one_of(Tls), Fault: as_one_of(Fault), Content | None: _as_content,
    LockKind: as_one_of(LockKind), Unreachable: as_one_of(Unreachable), FleetTls: as_record(FleetTls),
    Mapping[str, CorrectedFile]: _as_corrected}
_as_memory = as_record(Memory, _CONVERTERS)
_as_intent = as_record(Intent, _CONVERTERS)
_as_probes = as_record(Probes, _CONVERTERS)


# --- locks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def exclusive(directory: str = STATE_DIRECTORY, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of one pass: flock(2) on the state directory.

    Raises Busy if another process still holds it after `wait_s`, OSError if the directory cannot be made.
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
    """Hold the lock of the one agent of this host. Raises Busy with the other's PID, and OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"{directory}/{AGENT_LOCK}", flags, 0o600)
    try:
        if not _locked(fd):
            pid = os.read(fd, 20).decode("ascii", "replace").strip()
            raise Busy(f"another agent, PID {pid or 'unknown'}, guards this host already")
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
