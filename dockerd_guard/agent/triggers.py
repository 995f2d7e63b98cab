"""What makes the agent look: files (watchdog), systemd's signals, signals to the process, time.

A trigger says only that something may have changed, never what: the pass that follows reads
everything anew. So a lost event costs at most the time to the next resync, and doubt is cheap:
whatever looks wrong with the watching is answered by watching again and by a resync.

Known holes of the watchdog library that this file is shaped by (gorakhargosh/watchdog): a missing
directory cannot be watched, links to directories are not followed, a directory's death ends its
emitter in silence, an exception in a handler ends all, and a queue overflow is not told (#654).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver, ObservedWatch

WAKE_TIMEOUT_S = 3600.0
"""watchdog's threads wake up this often to see whether they should stop; by default each second."""

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Waker:
    """Lets other threads and signal handlers end a wait: a pipe, as select(2) wants it."""

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


class Files:
    """Watches the directories of the paths that the last look consulted.

    `watch` is given those paths, and the directories that were listed, after each pass. An event
    that names none of the paths, nor anything in a listed directory, is not passed on: /etc and
    /run are busy places.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._observer: BaseObserver | None = None
        self._watches: dict[str, tuple[ObservedWatch, int]] = {}
        self._paths: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()

    def watch(self, paths: Iterable[str], listed: Iterable[str]) -> tuple[str, ...]:
        """Watch for changes of these paths from now on, mending whatever broke.

        Returns what could not be watched, in words; empty when all is well.
        """
        self._paths, self._listed = frozenset(paths), frozenset(listed)
        if self._observer is not None and not self._observer.is_alive():
            self.stop()
        wanted = {directory: inode for path in self._paths if (directory := _nearest(path))
                  and (inode := _inode(directory))}
        for directory in [known for known, (watch, inode) in self._watches.items()
                          if wanted.get(known) != inode or not self._lives(watch)]:
            self._forget(directory)
        trouble = []
        for directory in sorted(wanted.keys() - self._watches.keys()):
            try:
                self._watches[directory] = (self._add(directory), wanted[directory])
            except OSError as error:
                if os.path.isdir(directory):
                    trouble.append(f"{directory} cannot be watched: {error.strerror or error}")
        return tuple(trouble)

    def stop(self) -> None:
        """Stop watching."""
        observer, self._observer, self._watches = self._observer, None, {}
        if observer is not None:
            observer.stop()
            observer.join()

    def _add(self, directory: str) -> ObservedWatch:
        from watchdog.events import FileSystemEventHandler
        from watchdog.observers import Observer

        files = self

        class Handler(FileSystemEventHandler):
            def dispatch(self, event: FileSystemEvent) -> None:
                files._event(event)

        if self._observer is None:
            self._observer = Observer(timeout=WAKE_TIMEOUT_S)
            self._observer.start()
        return self._observer.schedule(Handler(), directory)

    def _event(self, event: FileSystemEvent) -> None:
        """Runs in watchdog's thread; must not raise, which would end that thread (watchdog#648)."""
        # Since 2.3 opening and closing is told too, our own reading included.
        if event.event_type in ("opened", "closed_no_write"):
            return
        for path in filter(None, (event.src_path, getattr(event, "dest_path", ""))):
            text = os.fsdecode(path)
            # Each change of a file is told of its directory too, as "modified": that is no news.
            if event.is_directory and event.event_type == "modified":
                continue
            if text in self._paths or os.path.dirname(text) in self._listed:
                self._on_change()
                return

    def _lives(self, watch: ObservedWatch) -> bool:
        observer = self._observer
        if observer is None:
            return False
        return any(emitter.watch == watch and emitter.is_alive() for emitter in observer.emitters)

    def _forget(self, directory: str) -> None:
        watch, _ = self._watches.pop(directory)
        # A dead emitter stays registered and would make the next schedule() do nothing.
        with contextlib.suppress(KeyError, OSError):
            if self._observer is not None:
                self._observer.unschedule(watch)


def _nearest(path: str) -> str:
    """The nearest directory above a path that is there."""
    while path != "/":
        path = os.path.dirname(path)
        if os.path.isdir(path):
            return path
    return ""


def _inode(directory: str) -> int:
    try:
        return os.stat(directory).st_ino
    except OSError:
        return 0


def wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
    """Wait until one of the descriptors is readable; returns those that are."""
    poll = select.poll()
    for fd in files:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}
