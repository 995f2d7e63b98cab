"""What makes the agent look: files (watchdog), signals of systemd and to the process, time.

A trigger says only that something may have changed, never what: the pass that follows reads
everything anew. So a lost event costs at most the time to the next resync, and doubt is cheap:
whatever looks wrong with the watching is answered by watching again and by a pass.
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
"""A link to /dev/null is a mask; each line on a terminal is a change in /dev."""

PASSING_UNITS = (".scope", ".mount", ".slice", ".device", ".swap")
"""Units that come and go with each container and login, in directories that are listed for others."""

# <sys/inotify.h>. Opening and reading is no change: the look itself would ask for the next one.
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

    Of watchdog this takes the inotify calls alone; the descriptor is waited on with everything
    else. Its Observer makes an inotify instance and up to three threads for each directory (the
    kernel gives a user 128 instances), ends for good when a handler raises (#648) and goes on in
    silence over a deleted directory. Its Inotify drops the word of a queue overflow (#654), raises
    KeyError on the last event of a renamed directory, and leaks its descriptors where the first
    watch is refused, which soon takes the last instance from everyone else.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._watched: dict[int, set[str]] = {}
        self._paths: frozenset[str] = frozenset()
        self._listed: frozenset[str] = frozenset()

    def fileno(self) -> int | None:
        """What to wait on; None while nothing is watched."""
        return self._fd

    def watch(self, paths: Iterable[str], listed: Iterable[str]) -> tuple[bool, tuple[str, ...]]:
        """Watch for changes of these from now on; call it after each look, which heals what broke.

        A path is watched through its directory, or the nearest one that is there. Returns whether
        some directory was not watched until now, so that another look is due (it may have changed
        between the look and this), and what cannot be watched or was missed, in words.
        """
        is_new, missed = self.changes()
        self._paths, self._listed = frozenset(paths), frozenset(listed)
        directories = {_nearest(path) for path in self._paths} | {path for path in self._listed if os.path.isdir(path)}
        directories = {path for path in directories if not path.startswith(UNWATCHED)}
        troubles = []
        for directory in sorted(directories):
            try:
                # The same directory again costs a system call; one that was made anew is another.
                watch = self._add(directory)
            except OSError as error:
                if os.path.isdir(directory):
                    troubles.append(f"{directory} cannot be watched: {error.strerror}")
                continue
            if directory not in self._watched.get(watch, ()):
                is_new = True
                # An event that came meanwhile forgets the old one: a reload makes generators' directories anew.
                missed = self.changes()[1] or missed
                missed = missed or self._replaced(directory)
                self._watched.setdefault(watch, set()).add(directory)
        return is_new, (*_summed_up(troubles), *([missed] if missed else ()))

    def _replaced(self, directory: str) -> str:
        """Forget a directory that another one has taken the place of without an event, in words; or nothing."""
        for watch, names in list(self._watched.items()):
            if directory in names:
                self._forget(watch)
                return f"{directory} has become another directory in silence (a mount), so changes were missed"
        return ""

    def changes(self) -> tuple[bool, str]:
        """Take in what came: whether it asks for a look, and what was missed, in words, or nothing."""
        relevant = False
        missed = ""
        for watch, mask, name in self._read():
            if mask & IN_Q_OVERFLOW:
                relevant, missed = True, "inotify's queue overflowed, so changes may have been missed"
                continue
            directories = tuple(self._watched.get(watch, ()))
            relevant = relevant or any(self._is_relevant(path, name) for path in directories)
            if mask & (IN_IGNORED | IN_MOVE_SELF):
                # It is gone, or has another name now: what comes to stand there is another directory.
                self._forget(watch)
            if mask & IN_ISDIR and mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO):
                # The directory itself tells that it is gone only when the last one has closed it.
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
        """Watch a directory; the number of the watch, which is the same for the same directory."""
        from watchdog.observers.inotify_c import inotify_add_watch, inotify_init

        if self._fd is None:
            self._fd = _checked(inotify_init())
            os.set_inheritable(self._fd, False)
            os.set_blocking(self._fd, False)
        return _checked(inotify_add_watch(self._fd, os.fsencode(directory), MASK))

    def _forget(self, watch: int) -> None:
        from watchdog.observers.inotify_c import inotify_rm_watch

        self._watched.pop(watch, None)
        # Fails where the kernel has forgotten it already.
        inotify_rm_watch(self._fd, watch)

    def _forget_below(self, path: str) -> bool:
        """Forget a directory and those in it; whether any was watched."""
        below = [watch for watch, names in self._watched.items()
                 if any(name == path or name.startswith(f"{path}/") for name in names)]
        for watch in below:
            self._forget(watch)
        return bool(below)

    def _read(self) -> Iterator[tuple[int, int, str]]:
        """What the kernel tells (inotify(7)): the watch, what happened, and to which name in it."""
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
    """Wait until one of the descriptors is readable; returns those that are."""
    poll = select.poll()
    for fd in files:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}


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
    return (f"{troubles[0]} (and others)",)
