"""What starts a pass of the agent: file events (watchdog), signals of systemd and to the process, time.

A trigger says only that something may have changed, never what: the pass that follows reads
everything again. So a lost event costs at most the time to the next resync.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.version import VERSION_MAJOR

from dockerd_guard.agent.watched import (
    MAX_WATCHES,
    STABLE,
    Identity,
    Unannounced,
    directories,
    identities,
    identity,
    is_below,
    is_directory,
    listable,
    watchable,
)

PASSING_UNITS = (".scope", ".mount", ".slice", ".device", ".swap")
"""Units that come and go with each container and login, in directories that are listed for others."""

READS = ("opened", "closed_no_write")
"""Events of watchdog 2.3 and later which change nothing: the look itself causes them."""

MOVES = ("created", "deleted", "moved")
"""Of a directory, these leave watches below it that are missing or lead elsewhere."""

CHANGES = [value for value in vars(events).values()
           if isinstance(value, type) and issubclass(value, events.FileSystemEvent)
           and getattr(value, "event_type", "") not in (*READS, "")]

# From 4.0 on the kernel can be asked to leave the reads out; 2.2.1 never asks for them.
WITHOUT_READS: dict[str, Any] = {"event_filter": CHANGES} if VERSION_MAJOR >= 4 else {}

INOTIFY_LIMITS = {
    errno.ENOSPC: "the limit fs.inotify.max_user_watches is reached",
    errno.EMFILE: "the limit fs.inotify.max_user_instances is reached",
}


class Waker:
    """Lets a signal or a thread end a wait: a pipe, as poll(2) wants it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    @property
    def write_fd(self) -> int:
        """For signal.set_wakeup_fd, which writes the signal's number."""
        return self._write

    def wake(self) -> None:
        """End the wait; a full pipe has ended it already."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def drain(self) -> bytes:
        """What came since: a NUL for each wake, a signal's number for each signal."""
        try:
            return os.read(self._read, 65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close both ends."""
        os.close(self._read)
        os.close(self._write)


class _Handler(events.FileSystemEventHandler):
    """Called by watchdog's thread for each event: notes what is relevant, and wakes the loop.

    It never raises, which would end that thread (watchdog #648).
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self.paths: frozenset[str] = frozenset()
        self.listed: frozenset[str] = frozenset()
        self.seen: dict[str, Identity] = {}
        """What the last look found of both."""
        self.announced: set[str] = set()
        """Those of both which events have named since the last look."""
        self.moved: set[str] = set()
        """Directories that events have shown to be made, removed or renamed since."""
        self.failure = ""
        """An exception in this handler or in one of watchdog's threads, in words."""

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        """Take in one event; of the base class."""
        try:
            if event.event_type in READS:
                return
            relevant = [self._note(path, event) for path in (event.src_path, getattr(event, "dest_path", "")) if path]
            if any(relevant):
                self._waker.wake()
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """Note that events may have been lost, and wake the loop."""
        self.failure = f"watching files failed ({error!r}), so changes may have been missed"
        self._waker.wake()

    def _note(self, path: str | bytes, event: events.FileSystemEvent) -> bool:
        """Note an event on this path; whether it asks for a look."""
        path = os.fsdecode(path)
        is_watched = path in self.paths or path in self.listed
        if is_watched:
            self.announced.add(path)
        if event.is_directory and event.event_type == "modified":
            # watchdog sends this for the parent of whatever changes, and (before 7) for a chmod as well.
            return is_watched and identity(path) != self.seen.get(path, ())[:5]
        if event.is_directory and event.event_type in MOVES:
            self.moved.add(path)
        return is_watched or (os.path.dirname(path) in self.listed and not path.endswith(PASSING_UNITS))


class Files:
    """Watches the paths that the last look consulted, and the directories that it listed.

    watchdog's threads wake the loop through a pipe. Whatever they lose (watched.py) the next look finds,
    and `watch` reports.
    """

    def __init__(self, stable: Iterable[str] = STABLE) -> None:
        self._stable = tuple(stable)
        self._waker = Waker()
        self._handler = _Handler(self._waker)
        self._observer: BaseObserver | None = None
        self._watches: dict[str, ObservedWatch] = {}
        self._unannounced = Unannounced()
        threading.excepthook = self._thread_failed

    def fileno(self) -> int:
        """What to wait on."""
        return self._waker.fileno()

    @property
    def confirm_s(self) -> float | None:
        """In how many seconds another look shows whether an event was lost or only late; None without doubt."""
        due_at = self._unannounced.due_at
        return None if due_at is None else max(0.0, due_at - time.monotonic())

    def watch(self, paths: Iterable[str], listed: Iterable[str]) -> tuple[bool, tuple[str, ...]]:
        """Watch for changes of these from now on; call it after each look, which repairs broken watches.

        A path is watched through its directory, or the nearest one that exists. Returns whether another look
        is due (a watch is new, and something may have changed before it), and what cannot be watched or was
        missed, in words.
        """
        handler = self._handler
        handler.paths, handler.listed = watchable(paths), listable(listed)
        # In this order: an event that comes meanwhile counts for the next look, which finds nothing new.
        announced, moved = _emptied(handler.announced), _emptied(handler.moved)
        before, handler.seen = handler.seen, identities(handler.paths, handler.listed)
        missed = self._unannounced.compare(before, handler.seen, announced, moved, time.monotonic())
        failure, handler.failure = handler.failure, ""
        if failure or (self._observer is not None and not self._observer.is_alive()):
            self._stop()
        is_new, refused = self._arm(moved.union(missed))
        if is_new:
            self._unannounced.clear()
            handler.seen = identities(handler.paths, handler.listed)
        troubles = [*refused[:1], *([failure] if failure else ())]
        if len(refused) > 1:
            troubles[0] += " (and others)"
        if missed and not troubles:
            more = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
            troubles.append(f"missed change: {missed[0]} changed but no file event arrived{more}")
        return is_new or bool(missed), tuple(troubles)

    def changes(self) -> bool:
        """Take in what came; whether it asks for a look."""
        return bool(self._waker.drain())

    def close(self) -> None:
        """Stop watching."""
        self._stop()
        threading.excepthook = threading.__excepthook__
        self._waker.close()

    def _stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        self._observer = None
        self._watches.clear()

    def _arm(self, doubtful: set[str]) -> tuple[bool, list[str]]:
        """Have the wanted directories watched, those at, below and above the doubtful paths anew.

        Returns whether a watch is new, and what the kernel refuses, in words.
        """
        wanted = directories(self._handler.paths, self._handler.listed, self._stable)
        if self._observer is not None:
            ended = {emitter.watch for emitter in self._observer.emitters if not emitter.is_alive()}
            for directory, watch in list(self._watches.items()):
                if directory not in wanted or watch in ended or any(
                        is_below(directory, path) or (watch.is_recursive and is_below(path, directory))
                        for path in doubtful):
                    # schedule() alone would take the emitter that ended for one that works.
                    self._observer.unschedule(self._watches.pop(directory))
        refused = []
        new = wanted - self._watches.keys()
        # The stable ones first: what a configuration names must not take their place.
        for directory in sorted(new, key=lambda path: (path not in self._stable, path)):
            if len(self._watches) >= MAX_WATCHES:
                refused.append(f"{directory} cannot be watched: {MAX_WATCHES} other directories are")
                continue
            try:
                self._watches[directory] = self._schedule(directory)
            except (OSError, RuntimeError) as error:
                if is_directory(directory):
                    number = getattr(error, "errno", None) or 0
                    reason = INOTIFY_LIMITS.get(number) or (os.strerror(number) if number else str(error))
                    refused.append(f"{directory} cannot be watched: {reason}")
        return not new.isdisjoint(self._watches), refused

    def _schedule(self, directory: str) -> ObservedWatch:
        """Start to watch a directory; raises OSError where the kernel refuses."""
        if self._observer is None:
            observer = Observer()
            observer.start()
            self._observer = observer
        before = set(_watchers())
        try:
            return self._observer.schedule(
                self._handler, directory, recursive=directory in self._stable, **WITHOUT_READS)
        except OSError:
            # watchdog leaves its descriptors open, and the kernel gives a user 128 instances.
            for fd in set(_watchers()) - before:
                os.close(fd)
            raise

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """Note that one of watchdog's threads ended by an exception; of threading.excepthook."""
        if getattr(failed.thread, "should_keep_running", bool)():
            self._handler.fail(failed.exc_value)


def wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
    """Wait until one of the descriptors is readable; returns those that are."""
    poll = select.poll()
    for fd in files:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}


def _emptied(paths: set[str]) -> set[str]:
    """Take everything out of a set to which other threads add."""
    return {paths.pop() for _ in range(len(paths))}


def _watchers() -> Iterator[int]:
    """The descriptors of this process that watchdog uses."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(("anon_inode:inotify", "pipe:")):
                yield int(name)
