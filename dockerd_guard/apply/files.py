"""Write files atomically: to a temporary name in the same directory, fsync, rename(2), fsync the directory.

Directories are opened one by one without following links, so that a directory that is replaced by a link meanwhile
cannot redirect a write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from dockerd_guard.rootfs import Access, Content, Link

TEMPORARY_PREFIX = ".dockerd-guard."
"""systemd ignores names that begin with a dot (src/basic/dirent-util.c, hidden_or_backup_file)."""

DIRECTORY_MODE = 0o755

PRIVATE = Access(os.geteuid(), os.getegid(), 0o600)
PUBLIC = PRIVATE._replace(mode=0o644)


def write(path: str, content: Content, access: Access = PUBLIC, root: str = "/") -> None:
    """Put `content` at an absolute path without links, making missing directories. Raises OSError.

    `access` is for a new file. One that exists keeps its owner, and its mode without the bits that `access` lacks.
    The agent has no CAP_CHOWN in its sandbox: a file of somebody else belongs to root then (CIS 3.1 to 3.22).
    """
    _write(path, content, access, root, inherit=True, replace=True)


def write_new(path: str, content: bytes, *, replace: bool = False) -> None:
    """The same with an owner and a mode of its own; without `replace`, raises FileExistsError for
    whatever is there, also when it came this moment."""
    _write(path, content, PUBLIC, "/", inherit=False, replace=replace)


def _write(  # noqa: PLR0913 -- what rename(2) and link(2) need
    path: str, content: Content, access: Access, root: str, *, inherit: bool, replace: bool
) -> None:
    directory, _, name = path.rpartition("/")
    with _directory(directory, root, make=True) as fd:
        temporary = f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
        try:
            if isinstance(content, Link):
                os.symlink(content.target, temporary, dir_fd=fd)
            else:
                there = _access(name, fd) if inherit else None
                mode = access.mode if there is None else there.mode & access.mode
                _write_file(temporary, fd, content, (there or access)._replace(mode=mode))
            if replace:
                os.replace(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
            else:
                # link(2), unlike rename(2), replaces nothing.
                os.link(temporary, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
                os.unlink(temporary, dir_fd=fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=fd)
            raise
        os.fsync(fd)


def _write_file(name: str, directory: int, content: bytes, access: Access) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), access.mode)
        if (access.uid, access.gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), access.uid, access.gid)
        os.fsync(file.fileno())


def _access(name: str, directory: int) -> Access | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Access(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def remove(path: str, root: str = "/", *, keeps_directory: bool = False) -> None:
    """Take a file away, and its directory when that is a `.d` and empty then. Raises OSError."""
    directory, _, name = path.rpartition("/")
    with contextlib.suppress(FileNotFoundError), _directory(directory, root) as fd:
        os.unlink(name, dir_fd=fd)
        os.fsync(fd)
    parent, _, last = directory.rpartition("/")
    if last.endswith(".d") and not keeps_directory:
        with contextlib.suppress(OSError), _directory(parent, root) as fd:
            os.rmdir(last, dir_fd=fd)
            os.fsync(fd)


def sweep(directory: str, root: str = "/") -> None:
    """Take away temporary files that a crash left in a directory."""
    try:
        with _directory(directory, root) as fd:
            for name in os.listdir(fd):
                if name.startswith(TEMPORARY_PREFIX):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=fd)
    except OSError:
        return


class HostFiles:
    """The files of a host that a correction changes, below `root`."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def put(self, path: str, content: Content | None, access: Access) -> None:
        """Make the file have this content, or be absent. Raises OSError."""
        if content is None:
            remove(path, self.root)
        else:
            write(path, content, access, self.root)

    def sweep(self, directory: str) -> None:
        """Remove temporary files that a crash left in a directory."""
        sweep(directory, self.root)

    def problem(self, path: str) -> str:
        """Return why nothing can be written below an existing directory now, empty where it can."""
        try:
            status = os.statvfs(f"{self.root.rstrip('/')}{path}")
        except OSError as error:
            return error.strerror or ""
        if status.f_flag & os.ST_RDONLY:
            return os.strerror(errno.EROFS)
        return os.strerror(errno.ENOSPC) if status.f_blocks and (not status.f_bavail) else ""


@contextlib.contextmanager
def _directory(path: str, root: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of a directory, reached without following any link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, flags & ~os.O_NOFOLLOW)
    try:
        for name in path.split("/"):
            if not name:
                continue
            try:
                below = os.open(name, flags, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(name, DIRECTORY_MODE, dir_fd=fd)
                os.fsync(fd)
                below = os.open(name, flags, dir_fd=fd)
                # Our umask is tighter than a directory that others may read.
                os.fchmod(below, DIRECTORY_MODE)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
