"""The memory on disk: small JSON files in the state directory, each written atomically.

`memory.json` is written at the end of each pass that changed it. `intent.json` holds the changes of a correction
under way with their previous content; it is written before the first change. Unknown or damaged content reads as
nothing: then a correction is held rather than repeated.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from dockerd_guard.apply import files
from dockerd_guard.model.address import Tls
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.engine import Probe
from dockerd_guard.observe.probes import Probes
from dockerd_guard.observe.started import StartRecord
from dockerd_guard.plan.memory import (
    Attempt,
    Contained,
    CorrectedFile,
    HeldCorrection,
    Intent,
    ManualFix,
    Memory,
)
from dockerd_guard.plan.plan import Change
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

_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


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
            memory = _memory(data) if data else self._of_old_files()
        except _MALFORMED:
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
            self._write(INTENT_FILE, memory.intent and json.dumps(_intent_json(memory.intent)).encode())
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
        data = self._read(PROBES_FILE)
        try:
            return Probes(str(data["start"]), {
                str(row[0]): Probe(Tls(row[1]), bool(row[2]), str(row[3])) for row in data["answers"]})
        except _MALFORMED:
            return Probes()

    def save_probes(self, probes: Probes) -> None:
        """Record these. Raises OSError, also where there is no state directory."""
        rows = [(key, *probe) for key, probe in probes.answers.items()]
        self._write(PROBES_FILE, json.dumps({"start": probes.start, "answers": rows}).encode())

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
            return _intent(data) if data else None
        except _MALFORMED:
            return None

    def _of_old_files(self) -> Memory:
        """What version 0.1 left: its restarts count, and what it blocked is released in the end."""
        restarts = self._read("restarts.json").get("restarts", [])
        contained = self._read("contained.json")
        return Memory(
            restarts=tuple(sorted(Instant(_time(text)) for text in restarts)),
            contained=Contained(tuple(map(str, contained.get("ways", []))),
                                tuple(map(str, contained.get("addresses", [])))))

    def _read(self, name: str) -> dict[str, Any]:
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                data = json.load(file)
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}


# --- codecs ---------------------------------------------------------------------------------------


def _memory_json(memory: Memory) -> dict[str, object]:
    attempt, start, held = memory.attempt, memory.start, memory.held
    return {
        "restarts": [_instant_json(moment) for moment in memory.restarts],
        "attempt": attempt and {**attempt._asdict(), "at": _instant_json(attempt.at)},
        "corrected": [{"path": file.path, "digest": file.digest, "at": _instant_json(file.at),
                       "undone": [_instant_json(moment) for moment in file.undone], "is_undone": file.is_undone}
                      for file in memory.corrected.values()],
        "held": held and {**held._asdict(), "since": held.since.isoformat(),
                          "until": held.until and held.until.isoformat()},
        "obstacles": memory.obstacles,
        "contained": memory.contained._asdict(),
        "start": start and {"invocation": start.invocation, "daemon_json": _content_json(start.daemon_json),
                            "settings": start.settings},
        "manual_fixes": [fix._asdict() for fix in memory.manual_fixes],
    }


def _memory(data: Mapping[str, Any]) -> Memory:
    attempt, start, held = data["attempt"], data["start"], data["held"]
    corrected = (CorrectedFile(str(row["path"]), str(row["digest"]), _instant(row["at"]),
                               tuple(map(_instant, row["undone"])), bool(row["is_undone"]))
                 for row in data["corrected"])
    return Memory(
        restarts=tuple(map(_instant, data["restarts"])),
        attempt=attempt and Attempt(_instant(attempt["at"]), str(attempt["error"]), float(attempt["retry_s"]),
                                    attempt["inputs"] and str(attempt["inputs"]), bool(attempt["was_rolled_back"]),
                                    str(attempt.get("foreign", "")), tuple(map(str, attempt.get("written", ())))),
        corrected={file.path: file for file in corrected},
        held=held and HeldCorrection(str(held["reason"]), _time(held["since"]),
                                     held["until"] and _time(held["until"]), str(held["next_step"])),
        obstacles=tuple(map(str, data["obstacles"])),
        contained=Contained(*(tuple(map(str, data["contained"][name])) for name in Contained._fields)),
        start=start and StartRecord(str(start["invocation"]), _bytes(_content(start["daemon_json"])),
                                    None if start["settings"] is None else tuple(map(str, start["settings"]))),
        manual_fixes=tuple(ManualFix(str(fix["outcome"]), tuple(map(str, fix["steps"])), tuple(map(str, fix["fixed"])),
                                     str(fix["message"])) for fix in data["manual_fixes"]))


def _intent_json(intent: Intent) -> dict[str, object]:
    return {
        **intent._asdict(), "begun": _instant_json(intent.begun),
        "proven_by": intent.proven_by and _instant_json(intent.proven_by),
        "changes": [{"path": change.path, "before": _content_json(change.before), "after": _content_json(change.after),
                     "access": change.access} for change in intent.changes],
    }


def _intent(data: Mapping[str, Any]) -> Intent:
    return Intent(
        tuple(Change(str(row["path"]), _content(row["before"]), _content(row["after"]),
                     Access(*map(int, row["access"]))) for row in data["changes"]),
        _instant(data["begun"]), tuple(map(str, data["stops"])), bool(data["was_active"]), str(data["invocation"]),
        bool(data["is_applied"]), data["proven_by"] and _instant(data["proven_by"]), bool(data["is_unverified"]))


def _instant_json(moment: Instant) -> list[object]:
    return [moment.wall.isoformat(), moment.boot_id, moment.since_boot_s]


def _instant(row: list[Any]) -> Instant:
    since_boot_s = float(row[2])
    if not math.isfinite(since_boot_s):
        raise ValueError(since_boot_s)
    return Instant(_time(row[0]), str(row[1]), since_boot_s)


def _time(text: str) -> datetime:
    """Raises ValueError for a time without a zone, which cannot be compared."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


def _content_json(content: Content | None) -> object:
    if isinstance(content, Link):
        return {"link": content.target}
    return None if content is None else base64.b64encode(content).decode()


def _content(value: Any) -> Content | None:
    if isinstance(value, dict):
        return Link(str(value["link"]))
    return None if value is None else base64.b64decode(value)


def _bytes(content: Content | None) -> bytes | None:
    return content if isinstance(content, bytes) else None


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
