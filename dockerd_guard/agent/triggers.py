"""Triggers of a pass: file events (watchdog), D-Bus signals of systemd, signals to the process, time.

A trigger only means that something may have changed: the pass that follows reads everything again. A
lost event therefore costs at most the time until the next resync. Any problem with a watch is handled by
watching again and by a pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterable, Iterator

UNWATCHED = ("/dev", "/proc", "/sys")
"""A link to /dev/null is a mask; each line of output on a terminal is a change in /dev."""

PASSING_UNITS = (".scope", ".mount", ".slice", ".device", ".swap")
"""Units created for each container and login, in directories that are watched for other units."""

# <sys/inotify.h>. Without IN_OPEN and IN_ACCESS: each look would trigger the next one.
IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
IN_Q_OVERFLOW, IN_IGNORED, IN_ISDIR = 0x4000, 0x8000, 0x40000000
IN_ONLYDIR, IN_DONT_FOLLOW = 0x1000000, 0x2000000
MASK = (IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
        | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW)
EVENT = struct.Struct("iIII")
READ_BYTES = 64 * 1024

INOTIFY_LIMITS = {
    errno.ENOSPC: "the limit fs.inotify.max_user_watches is reached",
    errno.EMFILE: "the limit fs.inotify.max_user_instances is reached",
}


class Waker:
    """A pipe that ends a poll(2) when a signal arrives."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    @property
    def write_fd(self) -> int:
        """For signal.set_wakeup_fd, which writes the signal's number."""
        return self._write

    def wake(self) -> None:
        """End the wait."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def drain(self) -> bytes:
        """The bytes since the last call: NUL for each wake(), the signal number for each signal."""
        try:
            return os.read(self._read, 65536)
        except BlockingIOError:
            return b""


class Files:
    """Watches the paths that the last look consulted, and the directories that it listed.

    Only the inotify calls of watchdog are used; the descriptor is polled with the others. watchdog's Observer
    creates an inotify instance and up to three threads for each directory (the kernel allows a user 128
    instances), stops when a handler raises (#648) and ignores the deletion of a directory. Its Inotify drops
    queue overflows (#654), raises KeyError on the last event of a renamed directory, and leaks its descriptors
    when the first watch is refused.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._watched: dict[int, set[str]] = {}
        self._paths: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()

    def fileno(self) -> int | None:
        """The inotify descriptor; None while nothing is watched."""
        return self._fd

    def watch(self, paths: Iterable[str], listed: Iterable[str]) -> tuple[bool, tuple[str, ...]]:
        """Watch these paths from now on. Call it after each look; it restores lost watches.

        A path is watched through its directory, or the nearest existing one above. Returns whether a directory
        is newly watched, so that another look is due (it may have changed meanwhile), and messages about what
        cannot be watched or was missed.
        """
        is_new, missed = self.changes()
        self._paths, self._listed = frozenset(paths), frozenset(listed)
        directories = {_nearest(path) for path in self._paths} | {path for path in self._listed if os.path.isdir(path)}
        directories = {path for path in directories if not path.startswith(UNWATCHED)}
        troubles = []
        for directory in sorted(directories):
            try:
                # Adding a watched directory again is a no-op; one that was created again gets a new watch.
                watch = self._add(directory)
            except OSError as error:
                if os.path.isdir(directory):
                    troubles.append(f"cannot watch {directory}: {error.strerror}")
                continue
            if directory not in self._watched.get(watch, ()):
                is_new = True
                # Read pending events first, which forget the old watch: a reload creates the generators' directories again.
                missed = self.changes()[1] or missed
                missed = missed or self._replaced(directory)
                self._watched.setdefault(watch, set()).add(directory)
        return is_new, (*_summed_up(troubles), *([missed] if missed else ()))

    def _replaced(self, directory: str) -> str:
        """Forget a directory that was replaced without an event. Returns a message, or ""."""
        for watch, names in list(self._watched.items()):
            if directory in names:
                self._forget(watch)
                return f"{directory} was replaced without an event (by a mount), so changes were missed"
        return ""

    def changes(self) -> tuple[bool, str]:
        """Read pending events. Returns whether a look is due, and a message about missed events, or ""."""
        relevant = False
        missed = ""
        for watch, mask, name in self._read():
            if mask & IN_Q_OVERFLOW:
                relevant, missed = True, "the inotify queue overflowed, so changes may have been missed"
                continue
            directories = tuple(self._watched.get(watch, ()))
            relevant = relevant or any(self._is_relevant(path, name) for path in directories)
            if mask & (IN_IGNORED | IN_MOVE_SELF):
                # The directory is gone or renamed; whatever appears at its path is another one.
                self._forget(watch)
            if mask & IN_ISDIR and mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO):
                # IN_DELETE_SELF arrives only when the last open descriptor is closed.
                gone = [self._forget_below(f"{path.rstrip('/')}/{name}") for path in directories]
                relevant = relevant or any(gone)
        return relevant, missed

    def close(self) -> None:
        """Stop watching."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._watched.clear()

    def _add(self, directory: str) -> int:
        """Watch a directory. Returns the watch descriptor, the same one for the same directory."""
        from watchdog.observers.inotify_c import inotify_add_watch, inotify_init

        if self._fd is None:
            self._fd = _checked(inotify_init())
            os.set_inheritable(self._fd, False)
            os.set_blocking(self._fd, False)
        return _checked(inotify_add_watch(self._fd, os.fsencode(directory), MASK))

    def _forget(self, watch: int) -> None:
        from watchdog.observers.inotify_c import inotify_rm_watch

        self._watched.pop(watch, None)
        # Fails if the kernel has removed the watch already.
        inotify_rm_watch(self._fd, watch)

    def _forget_below(self, path: str) -> bool:
        """Forget a directory and those below it. Returns whether any was watched."""
        below = [watch for watch, names in self._watched.items()
                 if any(name == path or name.startswith(f"{path}/") for name in names)]
        for watch in below:
            self._forget(watch)
        return bool(below)

    def _read(self) -> Iterator[tuple[int, int, str]]:
        """Pending events (inotify(7)): watch descriptor, mask, name."""
        while self._fd is not None:
            try:
                events = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                return
            at = 0
            while at < len(events):
                watch, mask, _, length = EVENT.unpack_from(events, at)
                at += EVENT.size + length
                yield watch, mask, os.fsdecode(events[at - length:at].rstrip(b"\0"))

    def _is_relevant(self, directory: str, name: str) -> bool:
        path = f"{directory.rstrip('/')}/{name}" if name else directory
        return path in self._paths or path in self._listed or (
            directory in self._listed and not path.endswith(PASSING_UNITS))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, INOTIFY_LIMITS.get(number) or os.strerror(number))
    return result


def wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
    """Wait until a descriptor is readable. Returns the readable ones."""
    poll = select.poll()
    for fd in files:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}


def _nearest(path: str) -> str:
    """The nearest existing directory above a path."""
    while path != "/":
        path = os.path.dirname(path)
        if os.path.isdir(path):
            break
    return path


def _summed_up(troubles: list[str]) -> tuple[str, ...]:
    """Only the first message: an inotify limit affects all directories at once."""
    if len(troubles) < 2:
        return tuple(troubles)
    return (f"{troubles[0]} (and others)",)
