"""What makes the agent look: files (watchdog), systemd's signals, signals to the process, time.

A trigger says only that something may have changed, never what: the pass that follows reads
everything anew. So a lost event costs at most the time to the next resync, and doubt is cheap:
whatever looks wrong with the watching is answered by watching again and by a pass.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog.observers.inotify_c import Inotify

UNWATCHED = ("/dev", "/proc", "/sys")
"""A link to /dev/null is a mask; each line on a terminal is a change in /dev."""

PASSING_UNITS = (".scope", ".mount", ".slice", ".device", ".swap")
"""Units that come and go with each container and login, in directories that are listed for others."""

MAX_QUEUED_EVENTS_FILE = "/proc/sys/fs/inotify/max_queued_events"
DEFAULT_MAX_QUEUED_EVENTS = 16384


class Waker:
    """Lets a signal end a wait: a pipe, as poll(2) wants it."""

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
    """Watches the paths that the last look consulted, and the directories that it listed.

    Of watchdog this takes the inotify layer alone, whose descriptor is waited on with everything
    else: its Observer makes an inotify instance and up to three threads for each directory (the
    kernel gives a user 128 instances), ends for good when a handler raises (#648), goes on in
    silence over a deleted directory, and drops the word of a queue overflow (#654).
    """

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._paths: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()
        self._max_queued = _max_queued_events()

    def fileno(self) -> int | None:
        """What to wait on; None while nothing is watched."""
        return None if self._inotify is None else self._inotify.fd

    def watch(self, paths: Iterable[str], listed: Iterable[str]) -> tuple[str, ...]:
        """Watch for changes of these from now on; call it after each look, which heals what broke.

        A path is watched through its directory, or the nearest one that is there. Returns what
        could not be watched, in words; empty when all is well.
        """
        self._paths, self._listed = frozenset(paths), frozenset(listed)
        directories = {_nearest(path) for path in self._paths} | {path for path in self._listed if os.path.isdir(path)}
        troubles = []
        for directory in sorted(directories):
            if directory.startswith(UNWATCHED):
                continue
            try:
                # The same directory again costs a system call; one that was made anew is another.
                self._instance().add_watch(os.fsencode(directory))
            except OSError as error:
                if os.path.isdir(directory):
                    troubles.append(f"{directory} cannot be watched: {error.strerror or error}")
        return _summed_up(troubles)

    def changes(self) -> tuple[bool, str]:
        """Take in what came: whether it asks for a look, and what was missed, in words, or nothing."""
        if self._inotify is None:
            return False, ""
        count = 0
        relevant = False
        while _is_readable(self._inotify.fd):
            try:
                events = self._inotify.read_events()
            except KeyError:
                # An event of a watch that watchdog has forgotten: something changed, somewhere.
                relevant = True
                continue
            count += len(events)
            relevant = relevant or any(self._is_relevant(event.src_path) for event in events)
        self._inotify.clear_move_records()
        if count >= self._max_queued:
            # watchdog skips IN_Q_OVERFLOW; a queue that was full tells as much.
            return True, f"inotify's queue of {self._max_queued} events overflowed, so changes may have been missed"
        return relevant, ""

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _instance(self) -> Inotify:
        if self._inotify is None:
            from watchdog.observers.inotify_c import Inotify, InotifyConstants

            # Opening and reading is no change: the look itself would ask for the next one.
            mask = (InotifyConstants.IN_MODIFY | InotifyConstants.IN_ATTRIB | InotifyConstants.IN_CLOSE_WRITE
                    | InotifyConstants.IN_CREATE | InotifyConstants.IN_DELETE | InotifyConstants.IN_MOVED_FROM
                    | InotifyConstants.IN_MOVED_TO | InotifyConstants.IN_DELETE_SELF
                    | InotifyConstants.IN_MOVE_SELF | InotifyConstants.IN_DONT_FOLLOW)
            self._inotify = Inotify(b"/", event_mask=mask)
        return self._inotify

    def _is_relevant(self, source: bytes) -> bool:
        path = os.fsdecode(source)
        return path in self._paths or path in self._listed or (
            os.path.dirname(path) in self._listed and not path.endswith(PASSING_UNITS))


def wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
    """Wait until one of the descriptors is readable; returns those that are."""
    poll = select.poll()
    for fd in files:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}


def _is_readable(fd: int) -> bool:
    return bool(wait((fd,), 0))


def _nearest(path: str) -> str:
    """The nearest directory above a path that is there."""
    while path != "/":
        path = os.path.dirname(path)
        if os.path.isdir(path):
            break
    return path


def _summed_up(troubles: list[str]) -> tuple[str, ...]:
    """One cause, one sentence: inotify's limits strike all directories at once."""
    if len(troubles) < 2:
        return tuple(troubles)
    return (f"{troubles[0]} (and {len(troubles) - 1} more directories)",)


def _max_queued_events() -> int:
    try:
        with open(MAX_QUEUED_EVENTS_FILE, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return DEFAULT_MAX_QUEUED_EVENTS
