"""What the agent watches, as values: the directories, and whether a file event announced each change.

inotify(7) and watchdog lose events (a full queue, a mount, a write through mmap(2)). A pass looks at the
files anyway, so a change that it finds and no event announced shows that events are lost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Set

STABLE = (
    "/etc/default",
    "/etc/docker",
    "/etc/dockerd-guard",
    "/etc/systemd",
    "/run/systemd/system",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
)
"""Directories that stay, with few others below: one recursive watch each instead of one for each directory."""

PERMANENT = (
    "/", "/bin", "/etc", "/lib", "/lib64", "/run", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/usr/lib/systemd",
    "/usr/libexec", "/usr/local", "/usr/local/lib", "/usr/sbin", "/var", "/var/lib", "/var/lib/dpkg",
)
"""Directories, and links to them, without which no host runs: no watch is spent to see one replaced."""

UNWATCHED = ("/dev/", "/proc/", "/sys/")
"""A link to /dev/null is a mask; each line on a terminal is a change in /dev."""

FOLLOWING = (
    "/run/systemd/generator/",  # daemon-reload makes these three directories anew, before it reads units
    "/run/systemd/generator.early/",
    "/run/systemd/generator.late/",
    "/var/lib/dpkg/info/",  # dpkg writes ../status afterwards
)
"""Directories whose files change only together with a path outside that is watched."""

MAX_WATCHES = 64
"""watchdog uses two threads and three descriptors for each, and the kernel gives a user 128 inotify instances."""

GRACE_S = 2.0
"""An event may be this late: watchdog holds one half of a rename for 0.5 s, and a loaded host delays the rest."""

Identity = tuple[int, ...]
"""What lstat(2) shows of a path; empty where nothing is there."""

_INODE = ("st_dev", "st_ino", "st_mode", "st_uid", "st_gid")
"""The part that every identity begins with. A listed directory has the mtime as well, a file its size and mtime."""


def is_below(path: str, directory: str) -> bool:
    """Whether the path is this directory or in it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def is_directory(path: str) -> bool:
    """Whether a directory is there, and no link to one: watchdog 2.2.1 sees nothing through a link."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def watchable(paths: Iterable[str]) -> frozenset[str]:
    """Return those of the paths whose changes matter."""
    return frozenset(path for path in paths if not f"{path}/".startswith(UNWATCHED) and not path.startswith(FOLLOWING))


def listable(directories: Iterable[str]) -> frozenset[str]:
    """Return those of the directories in which new and removed names matter."""
    return frozenset(path for path in directories if not f"{path}/".startswith((*UNWATCHED, *FOLLOWING)))


def directories(paths: Iterable[str], listed: Iterable[str], stable: Collection[str] = STABLE) -> set[str]:
    """Return the directories to watch for changes of these paths and of the names in the listed directories.

    A path is watched through its directory, or the nearest one that exists.
    """
    found = {_nearest(path) for path in paths if path not in PERMANENT}
    found |= {path for path in listed if is_directory(path)}
    return {next((root for root in stable if is_below(path, root)), path) for path in found}


def identity(path: str, *, is_listed: bool = False) -> Identity:
    """Return what distinguishes one state of this path from the next.

    Not the ctime: a hard link made elsewhere changes it, and no directory that is watched gets an event. Of a
    directory whose names do not matter, not the mtime.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    inode = tuple(getattr(status, name) for name in _INODE)
    if stat.S_ISDIR(status.st_mode):
        return (*inode, status.st_mtime_ns) if is_listed else inode
    return (*inode, status.st_size, status.st_mtime_ns)


def identities(paths: Iterable[str], listed: Collection[str]) -> dict[str, Identity]:
    """Return the identity of each path, and of each listed directory."""
    return {path: identity(path, is_listed=path in listed) for path in {*paths, *listed}}


def is_changed(before: Identity, now: Identity) -> bool:
    """Whether two looks found something else at a path. A directory that only one of them listed, without D-Bus say,
    is compared without its mtime."""
    is_listed_once = {len(before), len(now)} == {len(_INODE), len(_INODE) + 1}
    return before[:len(_INODE)] != now[:len(_INODE)] if is_listed_once else before != now


class Unannounced:
    """The changes that a look found and no event has announced yet, each with the time of that look."""

    def __init__(self) -> None:
        self._found_at: dict[str, float] = {}

    @property
    def due_at(self) -> float | None:
        """When the oldest of them counts as missed; None without any."""
        return min(self._found_at.values()) + GRACE_S if self._found_at else None

    def compare(self, before: Mapping[str, Identity], now: Mapping[str, Identity], announced: Set[str],
                moved: Set[str], at: float) -> tuple[str, ...]:
        """Return the paths whose change was missed: found by a look GRACE_S ago or earlier, and no event since.

        `announced` are the paths which events named since the last look, `moved` the directories that were made,
        removed or renamed, which changes everything in them. A missed change is returned once.
        """
        for path, state in now.items():
            if is_changed(before.get(path, state), state):
                self._found_at.setdefault(path, at)
        self._found_at = {path: found_at for path, found_at in self._found_at.items()
                          if path in now and path not in announced and moved.isdisjoint(_with_parents(path))}
        missed = tuple(sorted(path for path, found_at in self._found_at.items() if at - found_at >= GRACE_S))
        for path in missed:
            del self._found_at[path]
        return missed

    def clear(self) -> None:
        """Forget them: a watch was renewed, and the events of the old one are lost."""
        self._found_at.clear()


def _nearest(path: str) -> str:
    while path != "/":
        path = os.path.dirname(path)
        if is_directory(path):
            break
    return path


def _with_parents(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = os.path.dirname(path)
