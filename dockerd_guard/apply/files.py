"""Write and remove files atomically.

A file is written under a temporary name in the target's directory, fsynced, renamed (rename(2) replaces
atomically), and the directory is fsynced. Directories are opened one by one without following symlinks, so
that a directory replaced by a symlink meanwhile does not redirect a write by root.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from dockerd_guard.rootfs import Access

TEMPORARY_PREFIX = ".dockerd-guard."
"""systemd ignores names that begin with a dot (src/basic/dirent-util.c, hidden_or_backup_file)."""

DIRECTORY_MODE = 0o755

PRIVATE = Access(os.geteuid(), os.getegid(), 0o600)
PUBLIC = PRIVATE._replace(mode=0o644)


def write(path: str, content: bytes, access: Access = PUBLIC) -> None:
    """Write `content` to an absolute path without symlinks, creating missing directories. Raises OSError.

    An existing regular file keeps its owner and mode; `access` is for a new file. The sandboxed agent has no
    CAP_CHOWN: there a file of another owner becomes root's (CIS 3.1 to 3.22).
    """
    _write(path, content, access, inherit=True, replace=True)


def write_new(path: str, content: bytes, *, replace: bool = False) -> None:
    """The same with owner root and mode 0644. Without `replace`, raises FileExistsError atomically if the path
    exists."""
    _write(path, content, PUBLIC, inherit=False, replace=replace)


def _write(path: str, content: bytes, access: Access, *, inherit: bool, replace: bool) -> None:
    directory, _, name = path.rpartition("/")
    with _directory(directory, make=True) as fd:
        temporary = f"{TEMPORARY_PREFIX}{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=fd), "wb") as file:
                file.write(content)
                file.flush()
                uid, gid, mode = (_access(name, fd) if inherit else None) or access
                os.fchmod(file.fileno(), mode)
                if (uid, gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), uid, gid)
                os.fsync(file.fileno())
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


def _access(name: str, directory: int) -> Access | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Access(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def remove(path: str) -> None:
    """Remove a file, and its directory if that is an empty `.d` then. Raises OSError."""
    directory, _, name = path.rpartition("/")
    with contextlib.suppress(FileNotFoundError), _directory(directory) as fd:
        os.unlink(name, dir_fd=fd)
        os.fsync(fd)
    parent, _, last = directory.rpartition("/")
    if last.endswith(".d"):
        with contextlib.suppress(OSError), _directory(parent) as fd:
            os.rmdir(last, dir_fd=fd)
            os.fsync(fd)


def put(path: str, content: bytes | None, access: Access) -> None:
    """Write a file with this content; remove it for None. Raises OSError."""
    if content is None:
        remove(path)
    else:
        write(path, content, access)


def sweep(directory: str) -> None:
    """Remove the temporary files that a crash left in a directory."""
    try:
        with _directory(directory) as fd:
            for name in os.listdir(fd):
                if name.startswith(TEMPORARY_PREFIX):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=fd)
    except OSError:
        return


@contextlib.contextmanager
def _directory(path: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of a directory, opened without following symlinks."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("/", flags)
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
                # The umask of the agent is stricter than DIRECTORY_MODE.
                os.fchmod(below, DIRECTORY_MODE)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
