"""What the kernel tells by proc(5): processes, and who holds which listening socket.

Socket diagnosis by netlink (ss -l) would say the same; /proc needs no binary format of ours, and
reads the sockets of another network namespace through /proc/PID/net.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_guard.dockerd.command import is_dockerd, program_of
from dockerd_guard.observe.observation import Process

MAX_PROC_BYTES = 4 * 1024 * 1024
"""A command line or environment larger than this is cut; the kernel allows 2 MiB by default."""

TCP_LISTEN = "0A"
"""st of a listening socket in /proc/net/tcp (include/net/tcp_states.h)."""

UNIX_ACCEPTS_CONNECTIONS = 1 << 16
"""Flags of a listening socket in /proc/net/unix (__SO_ACCEPTCON, include/linux/net.h)."""

READ_BYTES = 64 * 1024

SHORT_READ_BYTES = 2048
"""The kernel fills a page with whole lines, of at most some 200 bytes, as long as there are any (seq_read_iter() in
fs/seq_file.c): a read that brings less than half of the smallest page was the last. To be told so by an empty read, it
would walk all its connections once more."""

DAEMON_NAMES = "docker"
"""What comm of every daemon begins with, the old `docker -d` too: the others need no closer look."""


class Held(NamedTuple):
    """A listening stream socket: its address in dockerd's syntax, and the kernel's inode number."""

    address: str
    inode: int


class Sockets:
    """The listening sockets of this host at one moment; each table of the kernel is read once.

    The kernel walks its whole hash of connections for /proc/net/tcp: some milliseconds each time on a large host.
    """

    def __init__(self) -> None:
        self._of_namespace: dict[str, tuple[Held, ...]] = {}
        self._held_by: dict[int, frozenset[int]] = {}

    def of(self, pid: int) -> tuple[Held, ...]:
        """Those a process holds. Raises PermissionError where we may not look (CAP_SYS_PTRACE)."""
        inodes = self.inodes(pid)
        return tuple(sock for sock in self._listening(pid) if sock.inode in inodes)

    def reachable(self, pid: int) -> tuple[Held, ...]:
        """Those of them that a client can connect to: of UNIX sockets those whose file is still there."""
        return tuple(sock for sock in self.of(pid) if _has_its_file(pid, sock.address))

    def inodes(self, pid: int) -> frozenset[int]:
        """The inode numbers of all sockets a process holds, listening or not."""
        if pid not in self._held_by:
            self._held_by[pid] = _sockets_held_by(pid)
        return self._held_by[pid]

    def _listening(self, pid: int) -> tuple[Held, ...]:
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/net")
        except FileNotFoundError:
            return ()
        if namespace not in self._of_namespace:
            self._of_namespace[namespace] = (
                *_tcp(pid, "tcp", socket.AF_INET), *_tcp(pid, "tcp6", socket.AF_INET6), *_unix(pid))
        return self._of_namespace[namespace]


def _has_its_file(pid: int, address: str) -> bool:
    """Whether the file of a UNIX socket is there, as the process sees it: who removes it, as dockerd does with
    its own when it ends, leaves a socket that listens for ever and that nobody can find."""
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


def _sockets_held_by(pid: int) -> frozenset[int]:
    """The inode numbers of all sockets a process has open.

    Raises PermissionError where we may not look (CAP_SYS_PTRACE). Empty when it is gone.
    """
    inodes = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    target = os.readlink(entry.path)
                    if target.startswith("socket:["):
                        inodes.add(int(target[8:-1]))
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    return frozenset(inodes)


def read_process(pid: int) -> Process | None:
    """One process, or None when it is gone or we may not look."""
    try:
        status = _read(pid, "stat")
        argv = _words(_read(pid, "cmdline"))
        environ = dict(
            word.split("=", 1) for word in _words(_read(pid, "environ")) if "=" in word
        )
        cgroup = _read(pid, "cgroup").decode(errors="replace")
    except OSError:
        return None
    # Fields 4 and 22 are the parent and the clock ticks since boot; the name in field 2 may hold blanks and
    # parentheses.
    fields = status.rpartition(b")")[2].split()
    return Process(pid, argv, environ, _boot_time_ns() + int(fields[19]) * 10**9 // os.sysconf("SC_CLK_TCK"),
                   _unit(cgroup), _executable(pid), int(fields[1]))


def daemons() -> dict[int, Process]:
    """Every dockerd of this host by its pid: not those inside containers, which have a PID namespace of their
    own (docker-in-docker), unless they have this host's network; not threads, and not what a dockerd is about to
    start, which is a second process of its own name until execve(2)."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        pid = int(name)
        try:
            comm = _read(pid, "comm").decode(errors="replace").strip()
            if not comm.startswith(DAEMON_NAMES):
                continue
            inner = _in_inner_namespace(pid)
            if inner and os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/1/ns/net"):
                continue
        except OSError:
            continue
        process = read_process(pid)
        if process is not None and is_daemon(process):
            found[pid] = process._replace(in_container=inner)
    return {pid: process for pid, process in found.items() if process.parent not in found}


def is_daemon(process: Process) -> bool:
    """Tell the daemon from the client, which was one binary until Docker 1.12."""
    if is_dockerd(process.program):
        return True
    program = program_of(process.argv, {}, None)
    return program.certain and program.reason is None


def _in_inner_namespace(pid: int) -> bool:
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"NSpid:"):
            return len(line.split()) > 2
    return False


def _boot_time_ns() -> int:
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _executable(pid: int) -> str:
    try:
        # An upgrade replaces the file under a running daemon.
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def _unit(cgroup: str) -> str:
    """The unit of a process, from its cgroup (systemd(1): units are directories)."""
    for line in cgroup.splitlines():
        for part in reversed(line.rpartition(":")[2].split("/")):
            if part.endswith((".service", ".scope")):
                return part
    return ""


def _tcp(pid: int, table: str, family: socket.AddressFamily) -> Iterator[Held]:
    for fields in _table(pid, table):
        if len(fields) > 9:
            if fields[3] != TCP_LISTEN:
                # "It will first list all listening TCP sockets, and next list all established TCP connections"
                # (Documentation/networking/proc_net_tcp.rst), of which there may be very many.
                return
            host, _, port = fields[1].partition(":")
            # Each 32-bit word is printed in the host's byte order (net/ipv4/tcp_ipv4.c).
            packed = b"".join(
                struct.pack("=I", int(host[i : i + 8], 16)) for i in range(0, len(host), 8)
            )
            text = socket.inet_ntop(family, packed)
            text = f"[{text}]" if family == socket.AF_INET6 else text
            yield Held(f"tcp://{text}:{int(port, 16)}", int(fields[9]))


def _unix(pid: int) -> Iterator[Held]:
    for fields in _table(pid, "unix", maxsplit=7):
        if len(fields) == 8 and int(fields[3], 16) & UNIX_ACCEPTS_CONNECTIONS and fields[4] == "0001":
            yield Held(f"unix://{fields[7]}", int(fields[6]))


def _table(pid: int, name: str, maxsplit: int = -1) -> Iterator[list[str]]:
    """The fields of each line but the heading."""
    is_heading, rest = True, b""
    try:
        with open(f"/proc/{pid}/net/{name}", "rb", buffering=0) as table:
            while chunk := table.read(READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines[is_heading:]:
                    yield line.decode(errors="surrogateescape").split(None, maxsplit)
                is_heading = False
                if len(chunk) < SHORT_READ_BYTES:
                    return
    except OSError:
        return


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(MAX_PROC_BYTES)


def _words(content: bytes) -> tuple[str, ...]:
    if not content:
        return ()
    return tuple(word.decode("utf-8", "surrogateescape") for word in content.removesuffix(b"\0").split(b"\0"))

