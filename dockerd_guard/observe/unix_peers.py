"""The other ends of UNIX connections, and the files of UNIX sockets, by sock_diag(7). /proc/net/unix does not show
them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

# <linux/sock_diag.h>, <linux/unix_diag.h>, <linux/netlink.h>.
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 0x1
UDIAG_SHOW_NAME, UDIAG_SHOW_VFS, UDIAG_SHOW_PEER = 0x1, 0x2, 0x4
UNIX_DIAG_NAME, UNIX_DIAG_VFS, UNIX_DIAG_PEER = 0, 1, 2
ANY_STATE, NO_COOKIE = 0xFFFFFFFF, 0xFFFFFFFF

HEADER_BYTES, REPLY_BYTES = 16, 16
"""struct nlmsghdr, struct unix_diag_msg."""

KERNEL_MINOR_BITS = 20
"""dev_t within the kernel (<linux/kdev_t.h>)."""

TIMEOUT_S = 1.0
MAX_SOCKETS = 4096
"""Sockets that are asked for. The kernel walks its table of sockets for each."""


def clients(inodes: Iterable[int], names: Collection[str]) -> frozenset[int]:
    """Return the inode numbers of the clients of accepted connections, given those of a server's sockets.

    `names` are addresses in dockerd's syntax: a connection counts only if it was made to one of them. Empty where the
    kernel does not answer. Connections from other network namespaces are not found.
    """
    found: set[int] = set()
    for _, attributes in _shown(inodes, UDIAG_SHOW_NAME | UDIAG_SHOW_PEER):
        if _name(attributes.get(UNIX_DIAG_NAME, b"")) in names and len(attributes.get(UNIX_DIAG_PEER, b"")) == 4:
            found.update(struct.unpack("=I", attributes[UNIX_DIAG_PEER]))
    return frozenset(found)


class BoundFile(NamedTuple):
    """The file that a socket was bound to, which may have been removed: its device, and the lower half of its inode
    number in the file system."""

    device: int
    number: int

    def is_other(self, status: os.stat_result) -> bool:
        """Whether a file of the same file system is another one. Of overlayfs and btrfs stat(2) shows other devices
        than the kernel reports here: there it is not known."""
        device = os.major(status.st_dev) << KERNEL_MINOR_BITS | os.minor(status.st_dev)
        return device == self.device and self.number != status.st_ino & 0xFFFFFFFF


def bound_files(inodes: Iterable[int]) -> dict[int, BoundFile]:
    """Return the file of each of these sockets that is bound to one; without those of which the kernel does not answer,
    as of another network namespace."""
    return {inode: BoundFile(*reversed(struct.unpack("=II", raw)))
            for inode, attributes in _shown(inodes, UDIAG_SHOW_VFS)
            if len(raw := attributes.get(UNIX_DIAG_VFS, b"")) == 8}


def _shown(inodes: Iterable[int], show: int) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yield each socket with its attributes, until the kernel does not answer."""
    with contextlib.suppress(OSError), socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(TIMEOUT_S)
        for inode in sorted(inodes)[:MAX_SOCKETS]:
            kernel.send(_request(inode, show))
            yield inode, dict(_attributes(kernel.recv(4096)))


def _request(inode: int, show: int) -> bytes:
    body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, ANY_STATE, inode & 0xFFFFFFFF, show, NO_COOKIE, NO_COOKIE)
    return struct.pack("=IHHII", HEADER_BYTES + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body


def _attributes(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes of an answer; none if it is an error, as for a socket that is gone."""
    if len(answer) < HEADER_BYTES + REPLY_BYTES or struct.unpack_from("=IH", answer)[1] != SOCK_DIAG_BY_FAMILY:
        return
    offset = HEADER_BYTES + REPLY_BYTES
    while offset + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, offset)
        if length < 4:
            return
        yield kind, answer[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _name(raw: bytes) -> str:
    """The address of a socket in dockerd's syntax: a path, or an abstract name after a NUL."""
    if raw.startswith(b"\0"):
        return "unix://@" + os.fsdecode(raw[1:])
    return "unix://" + os.fsdecode(raw.partition(b"\0")[0])
