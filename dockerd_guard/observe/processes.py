"""What the kernel tells by proc(5): processes, and who holds which listening socket.

Socket diagnosis by netlink (ss -l) would say the same; /proc needs no binary format of ours, and
reads the sockets of another network namespace through /proc/PID/net.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import NamedTuple

from dockerd_guard.dockerd.command import is_dockerd, program_of
from dockerd_guard.model.address import canonical
from dockerd_guard.observe.observation import Process

MAX_PROC_BYTES = 4 * 1024 * 1024
"""A command line or environment larger than this is cut; the kernel allows 2 MiB by default."""

MAX_OTHER_BYTES = 4 * 1024
"""The same for all but the main process of docker.service: anybody may start one with a dockerd's name."""

MAX_DAEMONS, MAX_LOOKED_AT = 64, 512
MAX_DESCRIPTORS, MAX_OTHER_DESCRIPTORS = 1024, 8192
"""So many of such a process are looked at, and of all of them together."""

TCP_LISTEN, TCP_SYN_RECV = "0A", "03"
"""st of a listening socket in /proc/net/tcp (include/net/tcp_states.h), and of a connection that just comes in, which
stands among them before Linux 4.4."""

UNIX_ACCEPTS_CONNECTIONS = 1 << 16
"""Flags of a listening socket in /proc/net/unix (__SO_ACCEPTCON, include/linux/net.h)."""

UNIX_STREAM = b"0001"

UNIX_ROW = re.compile(rb"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) (?P<type>[0-9A-F]{4}) [0-9A-F]{2} "
                      rb"+(?P<inode>\d+)(?: (?P<name>.*))?", re.DOTALL)
"""A line of /proc/net/unix (unix_seq_show() in net/unix/af_unix.c)."""

READ_BYTES = 64 * 1024

SHORT_READ_BYTES = 2048
"""The kernel fills a page with whole lines, of at most some 200 bytes, as long as there are any (seq_read_iter() in
fs/seq_file.c): a read that brings less than half of the smallest page was the last. To be told so by an empty read, it
would walk all its connections once more."""

DAEMON_NAMES = "docker"
"""What comm of every daemon begins with, the old `docker -d` too: the others need no closer look."""


class SocketOwner(NamedTuple):
    """A listening stream socket: its address in dockerd's syntax, and the kernel's inode number.

    `doubtful`: the table has the inode on another line, too.
    """

    address: str
    inode: int
    doubtful: bool = False


class Sockets:
    """The listening sockets of this host at one moment; each table of the kernel is read once.

    The kernel walks its whole hash of connections for /proc/net/tcp: some milliseconds each time on a large host.

    The name of a UNIX socket may have line breaks in it, and /proc/net/unix shows them as they are: whoever may bind
    one can add lines to it, which say that another process listens somewhere. So of lines that share an inode
    those alone are believed that have a name to be expected (see expect()), and an inode must be a UNIX socket's.
    """

    def __init__(self) -> None:
        self._of_namespace: dict[str, tuple[SocketOwner, ...]] = {}
        self._held_by: dict[int, dict[int, str]] = {}
        self._room = MAX_OTHER_DESCRIPTORS
        self._expected: set[str] = set()

    def expect(self, addresses: Iterable[str]) -> None:
        """Take in what a command line or a unit names."""
        self._expected.update(map(canonical, addresses))

    def of(self, pid: int) -> tuple[SocketOwner, ...]:
        """Those a process holds. Raises PermissionError where we may not look (CAP_SYS_PTRACE)."""
        held = self._held(pid)
        return tuple(sock for sock in self._listening(pid) if sock.inode in held and (
            sock.address.startswith("tcp://") or self._is_believed(sock, held[sock.inode])))

    def of_other(self, pid: int) -> tuple[SocketOwner, ...]:
        """Those that a process of anybody's holds, among the first of its descriptors; none where we may not look."""
        try:
            if pid not in self._held_by:
                self._held_by[pid], looked_at = _sockets_held_by(pid, min(self._room, MAX_DESCRIPTORS))
                self._room -= looked_at
            return self.of(pid)
        except PermissionError:
            return ()

    def _is_believed(self, sock: SocketOwner, path: str) -> bool:
        return (not sock.doubtful or canonical(sock.address) in self._expected) and _is_unix(path)

    def reachable(self, pid: int) -> tuple[SocketOwner, ...]:
        """Those of them that a client can connect to: of UNIX sockets those whose file is still there."""
        return tuple(sock for sock in self.of(pid) if _has_its_file(pid, sock.address))

    def inodes(self, pid: int) -> Set[int]:
        """The inode numbers of all sockets a process holds, listening or not."""
        return self._held(pid).keys()

    def _held(self, pid: int) -> Mapping[int, str]:
        if pid not in self._held_by:
            self._held_by[pid], _ = _sockets_held_by(pid)
        return self._held_by[pid]

    def _listening(self, pid: int) -> tuple[SocketOwner, ...]:
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


def _is_unix(path: str) -> bool:
    """Whether a descriptor is a UNIX socket (sockfs_xattr_get() in net/socket.c); where nobody can tell, it may be."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        # It may be something else by now, such as a file of FUSE, which need not answer.
        same = f"/proc/self/fd/{fd}"
        return (not os.readlink(same).startswith("socket:[")
                or os.getxattr(same, "system.sockprotoname").startswith(b"UNIX"))
    except OSError:
        return True
    finally:
        os.close(fd)


def _sockets_held_by(pid: int, most: int | None = None) -> tuple[dict[int, str], int]:
    """The inode numbers of all sockets a process has open, and the path to a descriptor of each; among how many
    descriptors, of which `most` are looked at.

    Raises PermissionError where we may not look (CAP_SYS_PTRACE). Empty when it is gone.
    """
    held: dict[int, str] = {}
    looked_at = 0
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in islice(entries, most):
                looked_at += 1
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    target = os.readlink(entry.path)
                    if target.startswith("socket:["):
                        held[int(target[8:-1])] = entry.path
    except (FileNotFoundError, ProcessLookupError):
        return {}, looked_at
    return held, looked_at


def read_process(pid: int, *, uid: int = 0, most: int = MAX_PROC_BYTES) -> Process | None:
    """One process, or None when it is gone or we may not look; `most`: so many bytes of its arguments are read, and
    of its environment.

    What lies in the memory of another user's process is not read: he can let whoever reads it wait for ever
    (FUSE, userfaultfd(2)).
    """
    try:
        status = _read(pid, "stat")
        argv = _words(_read(pid, "cmdline", most)) if not uid else ()
        environ = dict(
            word.split("=", 1) for word in _words(_read(pid, "environ", most)) if "=" in word
        ) if not uid else {}
        cgroup = _read(pid, "cgroup").decode(errors="replace")
    except OSError:
        return None
    # Fields 4 and 22 are the parent and the clock ticks since boot; the name in field 2 may hold blanks and
    # parentheses.
    fields = status.rpartition(b")")[2].split()
    return Process(pid, argv, environ, _boot_time_ns() + int(fields[19]) * 10**9 // os.sysconf("SC_CLK_TCK"),
                   _unit(cgroup), _executable(pid), int(fields[1]), uid=uid)


def daemons(main: int = 0) -> dict[int, Process]:
    """Every dockerd of this host by its pid: not those inside containers, which have a PID namespace of their
    own (docker-in-docker), unless they have this host's network; not threads, and not what a dockerd is about to
    start, which is a second process of its own name until execve(2). Beside the `main` one of docker.service
    MAX_DAEMONS at most, those of root first."""
    found: dict[int, Process] = {}
    for _, pid, inner, uid in islice(sorted(_named_like_one(main)), MAX_LOOKED_AT):
        process = (read_process(pid) if pid == main else read_process(pid, uid=uid, most=MAX_OTHER_BYTES))
        if process is not None and is_daemon(process):
            found[pid] = process._replace(in_container=inner)
        if len(found) > MAX_DAEMONS:
            break
    return {pid: process for pid, process in found.items() if process.parent not in found}


def _named_like_one(main: int) -> Iterator[tuple[int, int, bool, int]]:
    """The rank, pid, in a container, and the user of every process with the name of a daemon. It is root's only where
    all its user IDs are: anybody may start a setuid program under any name."""
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        pid = int(name)
        try:
            comm = _read(pid, "comm").decode(errors="replace").strip()
            if not comm.startswith(DAEMON_NAMES):
                continue
            status = dict(line.split(b":", 1) for line in _read(pid, "status").splitlines() if b":" in line)
            inner = len(status.get(b"NSpid", b"").split()) > 1
            uid = next((one for one in map(int, status.get(b"Uid", b"").split()) if one), 0)
            if inner and os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/1/ns/net"):
                continue
        except OSError:
            continue
        yield (0 if pid == main else 1 if not uid and not inner else 2), pid, inner, uid


def is_daemon(process: Process) -> bool:
    """Tell the daemon from the client, which was one binary until Docker 1.12."""
    if is_dockerd(process.program):
        return True
    program = program_of(process.argv, {}, None)
    return program.certain and program.reason is None


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


def _tcp(pid: int, table: str, family: socket.AddressFamily) -> Iterator[SocketOwner]:
    for line in _table(pid, table):
        fields = line.decode().split()
        if len(fields) > 9:
            if fields[3] == TCP_SYN_RECV:
                continue
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
            yield SocketOwner(f"tcp://{text}:{int(port, 16)}", int(fields[9]))


def _unix(pid: int) -> Iterator[SocketOwner]:
    rows = [(int(row["inode"]), row["name"], int(row["flags"], 16), row["type"])
            for line in _table(pid, "unix") if (row := UNIX_ROW.fullmatch(line)) is not None]
    lines = Counter(inode for inode, *_ in set(rows))
    for inode, name, flags, kind in rows:
        if name and flags & UNIX_ACCEPTS_CONNECTIONS and kind == UNIX_STREAM:
            yield SocketOwner(f"unix://{name.decode(errors='surrogateescape')}", inode, lines[inode] > 1)


def _table(pid: int, name: str) -> Iterator[bytes]:
    """Each line but the heading."""
    is_heading, rest = True, b""
    try:
        with open(f"/proc/{pid}/net/{name}", "rb", buffering=0) as table:
            while chunk := table.read(READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines[is_heading:]
                is_heading = False
                if len(chunk) < SHORT_READ_BYTES:
                    return
    except OSError:
        return


def _read(pid: int, name: str, most: int = MAX_PROC_BYTES) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(most)


def _words(content: bytes) -> tuple[str, ...]:
    if not content:
        return ()
    return tuple(word.decode("utf-8", "surrogateescape") for word in content.removesuffix(b"\0").split(b"\0"))
