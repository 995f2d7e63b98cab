"""Whether clients can reach a UNIX socket that listens: by its file, which may be gone or another one."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

from dockerd_guard.observe.unix_peers import bound_files


def is_path_present(pid: int, address: str) -> bool:
    """Whether the file of a UNIX socket exists in the root directory of the process. If it was removed, as dockerd
    does with its own when it exits, the socket still listens, but no client can connect."""
    path = address.removeprefix("unix://")
    if path == address or path.startswith("@"):
        return True
    try:
        os.lstat(f"/proc/{pid}/root{path}" if path.startswith("/") else f"/proc/{pid}/cwd/{path}")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def is_of_none(path: str, inodes: Collection[int]) -> bool:
    """Whether the file of a UNIX socket is known to be of none of these sockets. A dockerd that was killed leaves the
    file by which it had replaced that of systemd's socket: clients are refused, while systemd still listens."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    files = bound_files(inodes)
    return stat.S_ISSOCK(status.st_mode) and bool(inodes) and all(
        inode in files and files[inode].is_other(status) for inode in inodes)
