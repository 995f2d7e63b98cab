"""Read-only access to the files below a root directory. All modules read a host's files through this one.

Symbolic links are resolved as in a chroot: an absolute target starts at the root directory and `..` does not
leave it. Each directory is opened relative to its parent's descriptor with O_NOFOLLOW, so replacing a directory
by a symbolic link during the walk does not lead outside either.

A Rootfs is a snapshot: each path is read at most once, so all stages of a pass use the same content. `changes`
are applied on top, to evaluate a plan before it is carried out. `consulted` contains every path that was looked
up and `listed` every directory that was listed: these are the paths the agent has to watch.
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

from dockerd_guard.model.limits import LIMITS, Limits

MAX_TABLE_BYTES = 16 * 1024 * 1024
"""A larger file is an error also for read_table()."""

READ_BYTES = 64 * 1024
"""Minimum size of one read(2)."""

DEV_NULL = "/dev/null"
"""systemd masks a file by a symbolic link to it. It reads as empty."""

PATH_MAX_BYTES = 4096
"""PATH_MAX (linux/limits.h), the final NUL included: the longest valid path has one byte less."""

MAX_OPEN_DIRECTORIES = 128
"""Directory descriptors kept open at a time. The default limit of a process is 1024 open files."""

MAX_LINKS = 40
"""Symbolic links followed in one lookup, as in the kernel (MAXSYMLINKS)."""


class Unreadable(Exception):
    """A file exists and cannot be read. `reason` continues a sentence that begins with the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class BeyondLimitError(Unreadable):
    """A file is not read, because it or the tree exceeds Limits."""


class FileStatus(NamedTuple):
    """The stat(2) fields of a file. `path` is inside the root directory, symbolic links resolved."""

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
        """The file type as a noun, for messages."""
        types = (
            (stat.S_ISREG, "regular file"),
            (stat.S_ISDIR, "directory"),
            (stat.S_ISLNK, "symbolic link"),
            (stat.S_ISFIFO, "FIFO"),
            (stat.S_ISSOCK, "socket"),
            (stat.S_ISCHR, "character device"),
            (stat.S_ISBLK, "block device"),
        )
        return next((name for test, name in types if test(self.mode)), "unknown file type")


class Link(NamedTuple):
    """A symbolic link as the content of a planned file: the text of the link."""

    target: str


Content = bytes | Link
"""What a planned file holds."""

NO_CHANGES: Mapping[str, Content | None] = MappingProxyType({})


class Rootfs:
    """A snapshot of the files below `root`, with `changes` applied on top.

    `changes` maps a path without symbolic links to its content, or to None for a removed file.

    >>> with Rootfs("/srv/images/host1") as rootfs:
    ...     rootfs.read("/etc/docker/daemon.json")
    """

    def __init__(self, root: str = "/", changes: Mapping[str, Content | None] = NO_CHANGES,
                 limits: Limits = LIMITS) -> None:
        """Open the root directory. Raises OSError if it does not exist. Below the root "" are only `changes`."""
        self.root = root
        self.changes = dict(changes)
        self.limits = limits
        self.unread: dict[str, str] = {}
        """Files that exceed a limit, with the reason."""
        self.is_exhausted = False
        """Whether a file was not read because of the number of files. No further one is."""
        self._read_bytes = 0
        self._read_files = 0
        self.consulted: set[str] = set()
        self.denied: dict[str, str] = {}
        """Paths that could not be read, with the reason. Results may be incomplete without them."""
        self.listed: set[str] = set()
        self._directories: dict[str, int] = {
            "": os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        } if root else {}
        self._entries: dict[str, FileStatus | None] = {}
        self._targets: dict[str, str] = {}
        self._resolved: tuple[dict[str, str | None], dict[str, str | None]] = ({}, {})
        """Results of resolve() by path: [0] without, [1] with following a link in the last component."""
        self._contents: dict[str, bytes] = {}
        self._accepted: set[str] = set()
        """Those of _contents that are within the limits."""
        self._overlay = _by_directory(self.changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors. Values that were returned stay valid."""
        while self._directories:
            _, fd = self._directories.popitem()
            os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()

    def changed(self, changes: Mapping[str, Content | None]) -> Rootfs:
        """Return a new snapshot of the same root directory with further changes applied."""
        return Rootfs(self.root, {**self.changes, **changes}, self.limits)

    def resolve(self, path: str, *, follow: bool = True) -> str | None:
        """Return the path with symbolic links resolved; None if it cannot be resolved or links form a loop.

        With `follow=False` a link in the last component is kept. The last component need not
        exist: `/etc/new.conf` resolves if `/etc` does.
        """
        known = self._resolved[follow]
        if path not in known:
            known[path] = self._walk(path, follow=follow)
        return known[path]

    def _walk(self, path: str, *, follow: bool) -> str | None:  # noqa: PLR0911 -- one loop with several exits
        if "\0" in path or len(path) >= PATH_MAX_BYTES:
            return None
        todo = path.split("/")[::-1]
        current = ""
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                current = current.rpartition("/")[0]
                continue
            if not current and name == "dev" and todo == ["null"]:
                return DEV_NULL  # exists on every host, but rarely in an image
            child = f"{current}/{name}"
            if not todo and not follow:
                return child
            entry = self._lstat(child)
            if entry is None:
                return None if any(part not in ("", ".") for part in todo) else child
            if entry.is_link:
                links += 1
                if links > MAX_LINKS:
                    return None
                target = self._readlink(child)
                todo += target.split("/")[::-1]
                if target.startswith("/"):
                    current = ""
                continue
            if todo and not entry.is_directory and any(part not in ("", ".") for part in todo):
                return None
            current = child
        return current or "/"

    def stat(self, path: str, *, follow: bool = True) -> FileStatus | None:
        """Return the status of a path; None if it does not exist or is a dangling link that is followed."""
        resolved = self.resolve(path, follow=follow)
        return None if resolved is None else self._lstat("" if resolved == "/" else resolved)

    def stat_if_possible(self, path: str, *, follow: bool = True) -> FileStatus | None:
        """Return the status of a path; None if it does not exist or its directory cannot be read."""
        try:
            return self.stat(path, follow=follow)
        except Unreadable:
            return None

    def readlink(self, path: str) -> str | None:
        """Return the target of a symbolic link as written; None if the path is not a link."""
        resolved = self.resolve(path, follow=False)
        if resolved is None:
            return None
        entry = self._lstat(resolved)
        return self._readlink(resolved) if entry is not None and entry.is_link else None

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory, sorted bytewise; empty if the directory does not exist.

        Raises Unreadable if the directory cannot be listed.
        """
        return tuple(sorted(self.kinds(path), key=os.fsencode))

    def names_if_possible(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory; empty if it does not exist or cannot be listed."""
        try:
            return self.names(path)
        except Unreadable:
            return ()

    def kinds(self, path: str) -> dict[str, str]:
        """Return the names in a directory with their types: `f` regular file, `d` directory, `l` symbolic link,
        `?` anything else. Takes one getdents(2) and no stat(2). Raises Unreadable as names() does.
        """
        resolved = self.resolve(path)
        if resolved is None:
            return {}
        self.listed.add(resolved)
        resolved = "" if resolved == "/" else resolved
        if (entry := self._lstat(resolved)) is None or not entry.is_directory:
            return {}
        found: dict[str, str] = {}
        fd = self._directory(resolved)
        if fd is not None:
            try:
                # O_PATH descriptors cannot be listed. "." relative to one is the same directory.
                listing = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                raise self._unreadable(resolved or "/", error) from None
            try:
                with os.scandir(listing) as entries:
                    found.update((each.name, _kind(each)) for each in entries)
            finally:
                os.close(listing)
        for name, kind in self._overlay.get(resolved, {}).items():
            if kind is None:
                found.pop(name, None)
            else:
                found[name] = kind
        return found

    def read(self, path: str) -> bytes:
        """Return the content of a configuration file, a regular file. Never blocks on a FIFO.

        Raises FileNotFoundError if the file does not exist, Unreadable if it is not a regular file or cannot be
        read, and BeyondLimitError if it or the tree exceeds the limits.
        """
        resolved = self.resolve(path)
        if resolved in self._accepted and resolved in self._contents:
            return self._contents[resolved]
        if path in self.unread:
            raise BeyondLimitError(path, self.unread[path])
        limits = self.limits
        if self._read_files >= limits.tree_files:
            self.is_exhausted = True
            raise self._beyond(path, f"is not read: {limits.tree_files:,} other files have been read before")
        if resolved is not None and resolved != DEV_NULL and resolved not in self.changes and (
                entry := self._lstat("" if resolved == "/" else resolved)) is not None and entry.is_file:
            if entry.size > limits.file_bytes:
                raise self._beyond(path, f"is larger than {limits.file_bytes >> 20} MiB")
            if self._read_bytes + entry.size > limits.tree_bytes:
                raise self._beyond(
                    path, f"is not read: {limits.tree_bytes >> 20} MiB of other files have been read before")
        content = self.read_table(path)
        if resolved is not None and resolved not in self.changes and (excess := limits.excess(content)) is not None:
            del self._contents[resolved]
            raise self._beyond(path, excess)
        if resolved in self._contents:
            self._accepted.add(resolved)
            self._read_files += 1
            self._read_bytes += len(content)
        return content

    @property
    def files_read(self) -> frozenset[str]:
        """The files that were read, symbolic links resolved."""
        return frozenset(self._contents)

    def _beyond(self, path: str, reason: str) -> BeyondLimitError:
        self.unread[path] = reason
        return BeyondLimitError(path, reason)

    def read_table(self, path: str) -> bytes:
        """Return the content of a regular file that may be long: a table of the kernel or of dpkg, certificates.

        Raises FileNotFoundError if the file does not exist, and Unreadable if it is not a regular file, is
        larger than MAX_TABLE_BYTES or cannot be read.
        """
        resolved = self.resolve(path)
        if resolved == DEV_NULL:
            return b""
        if resolved is None or (entry := self._lstat("" if resolved == "/" else resolved)) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if resolved in self._contents:
            return self._contents[resolved]
        planned = self.changes.get(resolved)
        content = planned if isinstance(planned, bytes) else self._read(path, resolved, entry)
        self._contents[resolved] = content
        return content

    def read_if_possible(self, path: str, *, is_table: bool = False) -> bytes | None:
        """Return the content of a regular file, or of a table; None if it does not exist or cannot be read."""
        try:
            return self.read_table(path) if is_table else self.read(path)
        except (FileNotFoundError, Unreadable):
            return None

    def _read(self, path: str, resolved: str, entry: FileStatus) -> bytes:
        if not entry.is_file:
            raise Unreadable(path, f"is a {entry.kind}, not a regular file")
        parent, _, name = resolved.rpartition("/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._existing_directory(parent))
        except OSError as error:
            raise self._unreadable(path, error) from None
        with open(fd, "rb", buffering=0) as file:
            # The file may have been replaced since stat(2).
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unreadable(path, "is not a regular file")
            chunks: list[bytes] = []
            length = 0
            # Files in /proc report size 0, and cannot serve a read of many megabytes.
            size = min(max(entry.size + 1, READ_BYTES), MAX_TABLE_BYTES + 1)
            try:
                while chunk := file.read(size):
                    chunks.append(chunk)
                    length += len(chunk)
                    if length > MAX_TABLE_BYTES:
                        raise Unreadable(path, f"is larger than {MAX_TABLE_BYTES >> 20} MiB")
            except OSError as error:
                raise self._unreadable(path, error) from None
            return b"".join(chunks)

    def _unreadable(self, path: str, error: OSError) -> Unreadable:
        reason = _read_error(error)
        self.denied[path] = reason
        return Unreadable(path, reason)

    def _existing_directory(self, resolved: str) -> int:
        """Return a descriptor of a directory that existed before. Raises OSError if it is gone.

        Never returns None: `dir_fd=None` would be the working directory.
        """
        fd = self._directory(resolved)
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), resolved)
        return fd

    def _directory(self, resolved: str) -> int | None:
        """Return a descriptor of a directory, given without symbolic links; None if only `changes` create it.

        The descriptor is valid until the next call.
        """
        missing: list[str] = []
        while resolved and resolved not in self._directories:
            missing.append(resolved)
            resolved = resolved.rpartition("/")[0]
        if not self.root:
            return None
        fd: int | None = self._directories[resolved]
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        for below in reversed(missing):
            try:
                fd = os.open(below.rpartition("/")[2], flags, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise self._unreadable(below, error) from None
            self._directories[below] = fd
            if len(self._directories) > MAX_OPEN_DIRECTORIES:
                # Close the oldest one. The first is the root directory and stays open.
                os.close(self._directories.pop(next(islice(self._directories, 1, None))))
        return fd

    def _lstat(self, resolved: str) -> FileStatus | None:
        if resolved in self._entries:
            return self._entries[resolved]
        self.consulted.add(resolved or "/")
        entry: FileStatus | None = None
        if resolved in self.changes:
            content = self.changes[resolved]
            if isinstance(content, Link):
                entry = FileStatus(resolved, stat.S_IFLNK | 0o777, 0, 0, len(content.target), 0)
            elif content is not None:
                entry = FileStatus(resolved, stat.S_IFREG | 0o644, 0, 0, len(content), 0)
        else:
            entry = self._lstat_on_disk(resolved)
            if entry is None and any(self._overlay.get(resolved, {}).values()):
                entry = FileStatus(resolved, stat.S_IFDIR | 0o755, 0, 0, 0, 0)
        self._entries[resolved] = entry
        return entry

    def _lstat_on_disk(self, resolved: str) -> FileStatus | None:
        parent, _, name = resolved.rpartition("/")
        if not resolved and not self.root:
            return FileStatus("/", stat.S_IFDIR | 0o755, 0, 0, 0, 0)
        try:
            if not resolved:
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
            raise self._unreadable(resolved, error) from None
        return FileStatus(
            resolved or "/", status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns,
            status.st_ctime_ns)

    def _readlink(self, resolved: str) -> str:
        if isinstance(planned := self.changes.get(resolved), Link):
            return planned.target
        if resolved not in self._targets:
            parent, _, name = resolved.rpartition("/")
            try:
                self._targets[resolved] = os.readlink(name, dir_fd=self._existing_directory(parent))
            except OSError as error:
                raise self._unreadable(resolved, error) from None
        return self._targets[resolved]


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "l"
    if entry.is_dir(follow_symlinks=False):
        return "d"
    return "f" if entry.is_file(follow_symlinks=False) else "?"


def _read_error(error: OSError) -> str:
    return f"cannot be read: {os.strerror(error.errno or errno.EIO)}"


def _by_directory(changes: Mapping[str, Content | None]) -> dict[str, dict[str, str | None]]:
    """Return the entries that `changes` add to each directory: `f` file, `d` directory, None for a removed file."""
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
    """Owner, group and permission bits of a file."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o644
