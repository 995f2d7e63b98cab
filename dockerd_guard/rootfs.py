"""A host's files below any root directory: the only way in for everything that reads.

Links are followed as if the root were `/`, as in a chroot: an absolute target starts at the root
again and `..` stops there, so nothing outside is ever read. Each directory is opened from its
parent's descriptor without following links, so a directory swapped for a link meanwhile cannot
lead out either.

One Tree is one look at the host: what was seen once is not asked again, so all stages of a pass
judge the same files. `changes` are laid over it, to see what a plan would make of the host.
`consulted` names every path that mattered and `listed` every directory whose names did, which is
what an agent has to watch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple, Self

MAX_FILE_BYTES = 16 * 1024 * 1024
"""No configuration file is larger; a larger one is an error, not a long wait."""

READ_BYTES = 64 * 1024
"""At least so much is asked for at once."""

NULL = "/dev/null"
"""Links to it are how files are taken out of play; it reads as empty."""

MAX_PATH_BYTES = 4095
"""PATH_MAX less the final NUL: no system call takes more."""

MAX_OPEN_DIRECTORIES = 128
"""Kept open at a time; a process may have 1024 files by default, and a tree more directories."""

MAX_LINKS = 40
"""As in the kernel (MAXSYMLINKS)."""


class Unreadable(Exception):
    """A file that is there and cannot be read as one: its path, and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class FileStatus(NamedTuple):
    """What stands at a path: the path inside the root without any links, and what stat(2) says."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_character_device(self) -> bool:
        return stat.S_ISCHR(self.mode)

    @property
    def kind(self) -> str:
        """In words, for messages."""
        words = (
            (stat.S_ISREG, "regular file"),
            (stat.S_ISDIR, "directory"),
            (stat.S_ISLNK, "symbolic link"),
            (stat.S_ISFIFO, "FIFO"),
            (stat.S_ISSOCK, "socket"),
            (stat.S_ISCHR, "character device"),
            (stat.S_ISBLK, "block device"),
        )
        return next((word for test, word in words if test(self.mode)), "unknown file type")


class Link(NamedTuple):
    """A symbolic link as the content of a planned file: the text of the link."""

    target: str


Content = bytes | Link
"""What a planned file holds."""

NO_CHANGES: Mapping[str, Content | None] = MappingProxyType({})


class Rootfs:
    """One look at the files below `root`, with `changes` (path without links: content, or None
    for a file taken away) laid over them.

    >>> with Tree("/srv/images/host1") as tree:
    ...     tree.read("/etc/docker/daemon.json")
    """

    def __init__(self, root: str = "/", changes: Mapping[str, Content | None] = NO_CHANGES) -> None:
        """Open the root; raises OSError when there is no such directory."""
        self.root = root
        self.changes = dict(changes)
        self.consulted: set[str] = set()
        self.denied: dict[str, str] = {}
        """What the kernel would not let us read, and why: an answer without it may be wrong."""
        self.listed: set[str] = set()
        self._directories: dict[str, int] = {
            "": os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        }
        self._entries: dict[str, FileStatus | None] = {}
        self._targets: dict[str, str] = {}
        self._resolved: tuple[dict[str, str | None], dict[str, str | None]] = ({}, {})
        """By path, with links at the very end left alone and followed."""
        self._contents: dict[str, bytes] = {}
        self._overlay = _by_directory(self.changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the directories back; values already handed out stay good."""
        while self._directories:
            _, fd = self._directories.popitem()
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()

    def changed(self, changes: Mapping[str, Content | None]) -> Rootfs:
        """Take a new look at the same root with these changes laid over."""
        return Rootfs(self.root, {**self.changes, **changes})

    def resolve(self, path: str, *, follow: bool = True) -> str | None:
        """Give the path without links, or None where it leads nowhere (also a loop of links).

        With `follow=False` a link at the very end stays. What it leads to may not exist when
        only the last part is missing: `/etc/new.conf` resolves as long as `/etc` does.
        """
        known = self._resolved[follow]
        if path not in known:
            known[path] = self._walk(path, follow=follow)
        return known[path]

    def _walk(self, path: str, *, follow: bool) -> str | None:  # noqa: PLR0911 -- one walk, many ends
        if "\0" in path or len(path) > MAX_PATH_BYTES:
            return None
        todo = path.split("/")[::-1]
        here = ""
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                here = here.rpartition("/")[0]
                continue
            if not here and name == "dev" and todo == ["null"]:
                return NULL  # is there on every host, and in few images of one
            here_name = f"{here}/{name}"
            if not todo and not follow:
                return here_name
            entry = self._lstat(here_name)
            if entry is None:
                return None if any(part not in ("", ".") for part in todo) else here_name
            if entry.is_link:
                links += 1
                if links > MAX_LINKS:
                    return None
                target = self._readlink(here_name)
                todo += target.split("/")[::-1]
                if target.startswith("/"):
                    here = ""
                continue
            if todo and not entry.is_directory and any(part not in ("", ".") for part in todo):
                return None
            here = here_name
        return here or "/"

    def stat(self, path: str, *, follow: bool = True) -> FileStatus | None:
        """What stands at the path, or None for nothing (also a dangling link when following)."""
        where = self.resolve(path, follow=follow)
        return None if where is None else self._lstat("" if where == "/" else where)

    def readlink(self, path: str) -> str | None:
        """The text of the link at the path, or None where there is no link."""
        where = self.resolve(path, follow=False)
        if where is None:
            return None
        entry = self._lstat(where)
        return self._readlink(where) if entry is not None and entry.is_link else None

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted by byte; none where there is no such directory.

        Raises Unreadable for a directory we may not list.
        """
        where = self.resolve(path)
        if where is None:
            return ()
        self.listed.add(where)
        where = "" if where == "/" else where
        entry = self._lstat(where)
        if entry is None or not entry.is_directory:
            return ()
        found: set[str] = set()
        fd = self._directory(where)
        if fd is not None:
            try:
                # O_PATH descriptors cannot be listed; "." of one is that very directory.
                listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                raise self._refused(where or "/", error) from None
            try:
                found.update(os.listdir(listing))
            finally:
                os.close(listing)
        for name, kind in self._overlay.get(where, {}).items():
            if kind is None:
                found.discard(name)
            else:
                found.add(name)
        return tuple(sorted(found, key=os.fsencode))

    def kinds(self, path: str) -> dict[str, str]:
        """The names in a directory and what they are: `f` a regular file, `d` a directory, `l` a
        link, `?` anything else. As names(), but by one listing and without a look at each.
        """
        where = self.resolve(path)
        if where is None:
            return {}
        self.listed.add(where)
        where = "" if where == "/" else where
        if (entry := self._lstat(where)) is None or not entry.is_directory:
            return {}
        found: dict[str, str] = {}
        fd = self._directory(where)
        if fd is not None:
            try:
                listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                raise self._refused(where or "/", error) from None
            try:
                with os.scandir(listing) as entries:
                    for entry_ in entries:
                        found[entry_.name] = _kind(entry_)
            finally:
                os.close(listing)
        for name, kind in self._overlay.get(where, {}).items():
            if kind is None:
                found.pop(name, None)
            else:
                found[name] = kind
        return found

    def read(self, path: str) -> bytes:
        """The content of a regular file.

        Raises FileNotFoundError for nothing there, Unreadable for anything that is no regular
        file, is larger than MAX_FILE_BYTES or may not be read. Never blocks on a FIFO.
        """
        where = self.resolve(path)
        if where == NULL:
            return b""
        if where is None or (entry := self._lstat("" if where == "/" else where)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if where in self._contents:
            return self._contents[where]
        planned = self.changes.get(where)
        content = planned if isinstance(planned, bytes) else self._read(path, where, entry)
        self._contents[where] = content
        return content

    def _read(self, path: str, where: str, entry: FileStatus) -> bytes:
        if not entry.is_file:
            raise Unreadable(path, f"is a {entry.kind}, not a regular file")
        parent, _, name = where.rpartition("/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._present(parent))
        except OSError as error:
            raise self._refused(path, error) from None
        with open(fd, "rb", buffering=0) as file:
            # It may have been replaced since it was looked at.
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unreadable(path, "is not a regular file")
            chunks: list[bytes] = []
            length = 0
            # Files of /proc have no size, and no memory for a read of many megabytes.
            size = min(max(entry.size + 1, READ_BYTES), MAX_FILE_BYTES + 1)
            try:
                while chunk := file.read(size):
                    chunks.append(chunk)
                    length += len(chunk)
                    if length > MAX_FILE_BYTES:
                        raise Unreadable(path, f"is larger than {MAX_FILE_BYTES >> 20} MiB")
            except OSError as error:
                raise self._refused(path, error) from None
            return b"".join(chunks)

    def _refused(self, path: str, error: OSError) -> Unreadable:
        reason = _words(error)
        self.denied[path] = reason
        return Unreadable(path, reason)

    def _present(self, where: str) -> int:
        """A descriptor of a directory that was there a moment ago; raises OSError where it no longer is.

        None for one would mean our working directory to the system calls.
        """
        fd = self._directory(where)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where)
        return fd

    def _directory(self, where: str) -> int | None:
        """A descriptor of the directory at a path without links; None where it is only planned.

        It is good until the next one is asked for.
        """
        missing: list[str] = []
        while where and where not in self._directories:
            missing.append(where)
            where = where.rpartition("/")[0]
        fd = self._directories[where]
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        for below in reversed(missing):
            try:
                fd = os.open(below.rpartition("/")[2], flags, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise self._refused(below, error) from None
            self._directories[below] = fd
            if len(self._directories) > MAX_OPEN_DIRECTORIES:
                # The oldest but the root, which comes first.
                os.close(self._directories.pop(next(islice(self._directories, 1, None))))
        return fd

    def _lstat(self, where: str) -> FileStatus | None:
        if where in self._entries:
            return self._entries[where]
        self.consulted.add(where or "/")
        entry: FileStatus | None = None
        if where in self.changes:
            content = self.changes[where]
            if isinstance(content, Link):
                entry = FileStatus(where, stat.S_IFLNK | 0o777, 0, 0, len(content.target), 0)
            elif content is not None:
                entry = FileStatus(where, stat.S_IFREG | 0o644, 0, 0, len(content), 0)
        else:
            entry = self._lstat_on_disk(where)
            if entry is None and any(self._overlay.get(where, {}).values()):
                entry = FileStatus(where, stat.S_IFDIR | 0o755, 0, 0, 0, 0)
        self._entries[where] = entry
        return entry

    def _lstat_on_disk(self, where: str) -> FileStatus | None:
        parent, _, name = where.rpartition("/")
        try:
            if not where:
                status = os.fstat(self._directories[""])
            else:
                above = self._directory(parent)
                if above is None:
                    return None
                status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise self._refused(where, error) from None
        return FileStatus(where or "/", status.st_mode, status.st_uid, status.st_gid, status.st_size,
                     status.st_mtime_ns, status.st_ctime_ns)

    def _readlink(self, where: str) -> str:
        if isinstance(planned := self.changes.get(where), Link):
            return planned.target
        if where not in self._targets:
            parent, _, name = where.rpartition("/")
            try:
                self._targets[where] = os.readlink(name, dir_fd=self._present(parent))
            except OSError as error:
                raise self._refused(where, error) from None
        return self._targets[where]


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "l"
    if entry.is_dir(follow_symlinks=False):
        return "d"
    return "f" if entry.is_file(follow_symlinks=False) else "?"


def _words(error: OSError) -> str:
    return f"cannot be read: {os.strerror(error.errno or errno.EIO)}"


def _by_directory(changes: Mapping[str, Content | None]) -> dict[str, dict[str, str | None]]:
    """What changes make of each directory's names: `f` a file, `d` a directory, None for one taken away."""
    found: dict[str, dict[str, str | None]] = {}
    for path, content in changes.items():
        parent, _, name = path.rpartition("/")
        found.setdefault(parent, {})[name] = (
            None if content is None else "l" if isinstance(content, Link) else "f")
        while content is not None and parent:
            parent, _, name = parent.rpartition("/")
            found.setdefault(parent, {})[name] = "d"
    return found


class Access(NamedTuple):
    """Whom a file belongs to, and its permission bits."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o644
