"""The other ends of TCP connections within this host, from proc_net(5)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from dockerd_guard.observe.processes import INIT

ESTABLISHED = b"01"
"""A state in /proc/net/tcp (include/net/tcp_states.h)."""

MAPPED = b"0000000000000000FFFF0000"
"""How /proc/net/tcp6 begins the IPv4 address of a connection that an IPv6 socket has accepted."""

MAX_ROWS = 65536
"""Sockets that are read of each table."""


class _Connection(NamedTuple):
    """A connection in hexadecimal, as the kernel's table has it."""

    local: bytes
    remote: bytes
    inode: int

    @property
    def port(self) -> int:
        return int(self.local.rpartition(b":")[2], 16)


def clients(inodes: Collection[int], ports: Collection[int]) -> frozenset[int]:
    """Return the inode numbers of the clients of accepted connections on this host, given those of a server's sockets
    and the ports at which it serves.

    Empty without such a port: the table of a busy host is long. Those of other network namespaces are not found.
    """
    if not ports:
        return frozenset()
    connections = [*_connections("tcp"), *_connections("tcp6")]
    accepted = {(each.remote, each.local) for each in connections if each.inode in inodes and each.port in ports}
    return frozenset(each.inode for each in connections if (each.local, each.remote) in accepted)


def _connections(table: str) -> Iterator[_Connection]:
    with contextlib.suppress(OSError), open(f"/proc/{INIT}/net/{table}", "rb") as file:
        for line in islice(file, MAX_ROWS):
            fields = line.split()
            if len(fields) > 9 and fields[3] == ESTABLISHED:
                yield _Connection(fields[1].removeprefix(MAPPED), fields[2].removeprefix(MAPPED), int(fields[9]))
