"""Which processes hold the listening TCP sockets of this host."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.observe.observation import Process
from dockerd_guard.observe.processes import (
    INIT,
    MAX_DESCRIPTORS,
    MAX_OTHER_BYTES,
    MAX_OTHER_DESCRIPTORS,
    pids,
    read_process,
    socket_inodes,
    tcp_listeners,
    uid_and_namespace,
)

DEADLINE_S = 2.0
"""Maximum time to look for the owners of sockets. Processes of root come first."""

MAX_LISTENERS = 65536


class Owned(NamedTuple):
    """The listening TCP sockets of one process: address by inode number."""

    process: Process
    addresses: Mapping[int, str]


class ListenerTable:
    """The owners of the listening TCP sockets in the network namespace of PID 1, kept from one look to the next.

    All descriptors of the host are read only if a socket is new, or if an owner is gone or has executed another
    program. Otherwise those of processes that started since: systemd passes them sockets that it has held for long.
    A child of systemd that has not executed the program of its unit is not an owner yet.
    """

    def __init__(self, namespace_of: int = INIT) -> None:
        """`namespace_of`: the process whose network namespace is looked at."""
        self._namespace_of = namespace_of
        self._addresses: dict[int, str] = {}
        self._holders: dict[int, frozenset[int]] = {}
        """The inode numbers of the listening sockets that each process holds."""
        self._processes: dict[int, Process] = {}
        self._identities: dict[int, tuple[str, bytes]] = {}
        self._pids = frozenset[int]()
        """All processes at the last look."""
        self._before_exec: dict[int, tuple[str, bytes]] = {}
        """The identities of the processes that are to execute a program."""
        self.is_complete = True
        """Whether all processes were read before the deadline."""

    def look(self) -> tuple[Owned, ...]:
        """Return the processes that hold listening sockets, without PID 1, sorted by PID."""
        addresses = {sock.inode: sock.address for sock in tcp_listeners(self._namespace_of)[:MAX_LISTENERS]}
        everyone = frozenset(pids())
        if not self._is_current(addresses):
            self._holders, self._processes, self._identities, self._before_exec = {}, {}, {}, {}
            self._add(self._search(addresses.keys(), everyone))
        elif new := everyone - self._pids:
            self._add(self._search(addresses.keys(), new))
        self._pids = everyone
        self._addresses = addresses
        return tuple(Owned(self._processes[pid], {inode: addresses[inode] for inode in sorted(held)})
                     for pid, held in sorted(self._holders.items()) if pid in self._processes)

    def has_new(self) -> bool:
        """Whether a TCP socket listens now that did not at the last look, or a process that held one has executed its
        program. Reads the sockets, and no other process."""
        return any(_identity(pid) != identity for pid, identity in self._before_exec.items()) or any(
            sock.inode not in self._addresses for sock in tcp_listeners(self._namespace_of)[:MAX_LISTENERS])

    def held_by_root(self) -> frozenset[str]:
        """The addresses of the sockets that processes of root hold, PID 1 among them, as of the last look."""
        held = {address for pid, inodes in self._holders.items() if not self._processes[pid].uid
                for inode in inodes if (address := self._addresses.get(inode)) is not None}
        return frozenset((*held, *self.held_by_init().values()))

    def held_by_init(self) -> dict[int, str]:
        """The address of each listening socket that PID 1 holds, by inode number, as of the last look."""
        return {inode: self._addresses[inode] for inode in sorted(socket_inodes(INIT)[0] & self._addresses.keys())}

    def _is_current(self, addresses: Mapping[int, str]) -> bool:
        return self.is_complete and addresses == self._addresses and all(
            _identity(pid) == identity for pid, identity in self._identities.items())

    def _add(self, found: Iterable[tuple[int, frozenset[int]]]) -> None:
        """Take in the holders of sockets."""
        for pid, held in found:
            identity = _identity(pid)
            if identity is not None and (process := described(pid)) is not None:
                self._identities[pid] = identity
                if process.is_before_exec:
                    self._before_exec[pid] = identity
                else:
                    self._holders[pid], self._processes[pid] = held, process

    def _search(self, wanted: Iterable[int], among: Collection[int]) -> Iterator[tuple[int, frozenset[int]]]:
        inodes, deadline, left = frozenset(wanted), time.monotonic() + DEADLINE_S, MAX_OTHER_DESCRIPTORS
        self.is_complete = True
        for is_other, pid in sorted(_ranked(among)):
            if time.monotonic() > deadline:
                self.is_complete = False
                return
            held, count = socket_inodes(pid, min(left, MAX_DESCRIPTORS) if is_other else None)
            left -= count if is_other else 0
            if own := held & inodes:
                yield pid, own


def described(pid: int) -> Process | None:
    """Return a process, with at most MAX_OTHER_BYTES of its arguments and environment; None if it is gone."""
    try:
        uid, is_inner = uid_and_namespace(pid)
    except OSError:
        return None
    process = read_process(pid, uid=uid, max_bytes=MAX_OTHER_BYTES)
    return process and process._replace(in_container=is_inner)


def _identity(pid: int) -> tuple[str, bytes] | None:
    """Return the executable of a process and its start (field 22 of proc_pid_stat(5)); None if it is gone. The link of
    a process that ends, or of another namespace, may be unreadable."""
    executable = ""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            start = file.read().rpartition(b")")[2].split()[19]
        with contextlib.suppress(OSError):
            executable = os.readlink(f"/proc/{pid}/exe")
    except (OSError, IndexError):
        return None
    return executable, start


def _ranked(among: Iterable[int]) -> Iterator[tuple[bool, int]]:
    """Yield whether a process is another user's than root's, and its PID, for all but PID 1 and this process."""
    for pid in among:
        if pid not in (INIT, os.getpid()):
            try:
                yield os.stat(f"/proc/{pid}").st_uid != 0, pid
            except OSError:
                continue
