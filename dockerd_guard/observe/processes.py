"""Processes and their listening sockets, from proc(5).

Unlike sock_diag(7), which ss(8) uses, /proc needs no binary format, and /proc/PID/net has the sockets of another
network namespace. It does not have the file of a UNIX socket.
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
from functools import cache
from itertools import islice
from typing import NamedTuple

from dockerd_guard.dockerd.command import is_dockerd, is_wrapper, program_of
from dockerd_guard.model.address import canonical
from dockerd_guard.observe import unix_files
from dockerd_guard.observe.observation import Process

MAX_PROC_BYTES = 4 * 1024 * 1024
"""A longer command line or environment is truncated. The kernel allows 2 MiB by default."""

DELETED = " (deleted)"
"""The end of a link in /proc/PID to a file that was replaced or removed (proc_pid_exe(5))."""

MAX_OTHER_BYTES = 4 * 1024
"""The same for processes other than the main process of docker.service: any user can start one named dockerd."""

MAX_DAEMONS, MAX_CANDIDATES = 64, 512
"""Maximum number of such processes: those that are returned, and those with a matching name that are read."""

INIT = 1
"""The process ID of the system manager."""

MAX_MEMBERS = 256
"""Maximum number of processes that are read of one service."""

MAX_DESCRIPTORS, MAX_OTHER_DESCRIPTORS = 1024, 8192
"""Maximum number of descriptors that are read of one such process, and of all of them."""

TCP_LISTEN, TCP_SYN_RECV = "0A", "03"
"""States in /proc/net/tcp (include/net/tcp_states.h): a listening socket, and an incoming connection, which is listed
among them before Linux 4.4."""

UNIX_ACCEPTS_CONNECTIONS = 1 << 16
"""Flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON, include/linux/net.h)."""

UNIX_STREAM = b"0001"

UNIX_ROW = re.compile(rb"[0-9a-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) (?P<type>[0-9A-F]{4}) [0-9A-F]{2} "
                      rb"+(?P<inode>\d+)(?: (?P<name>.*))?", re.DOTALL)
"""A line of /proc/net/unix (unix_seq_show() in net/unix/af_unix.c)."""

READ_BYTES = 64 * 1024

SHORT_READ_BYTES = 2048
"""A shorter read is the last one. The kernel fills a page with whole lines of at most about 200 bytes (seq_read_iter()
in fs/seq_file.c). Reading until EOF instead would make it walk all connections once more."""

DAEMON_NAMES = "docker"
"""Prefix of comm of every daemon, including the old `docker -d`."""

_REEXEC = re.compile(r"docker-(untar|tar|applyLayer|mountfrom)|(storage|overlay2?)-mountfrom|libnetwork-setkey"
                     r"|setup-(resolver|default-gw)|fwmarker|redirector|set-default-vlan|set-ipv6|unmount-.*")
"""argv[0] of the helper processes that dockerd starts from its own executable (reexec.Register() in moby)."""

START_PAUSE_S = 60.0
"""A dockerd may take this long until it listens; it waits 16 s before it binds TCP without TLS (moby cmd/dockerd)."""


EXECVE_S, EXECVE_POLL_S = 1.0, 0.002
"""How long a process is read again that executes another program meanwhile, and the pause between two reads. execve(2)
takes less than a millisecond, and longer on a host without a free CPU."""


class SocketOwner(NamedTuple):
    """A listening stream socket: its address in dockerd's syntax, and its inode number.

    `is_ambiguous`: the table has the same inode in another line.
    """

    address: str
    inode: int
    is_ambiguous: bool = False


class Sockets:
    """A snapshot of the listening sockets of this host. Each table of the kernel is read once: for /proc/net/tcp it
    walks its hash table of all connections, which takes some milliseconds on a large host.

    The name of a UNIX socket can contain line breaks, which /proc/net/unix does not escape. Any user can thereby add
    lines that assign a forged address to another process. Therefore, of lines with the same inode only those
    with an expected name are accepted (see expect()), and the inode must be that of a UNIX socket.
    """

    def __init__(self) -> None:
        self._of_namespace: dict[str, tuple[SocketOwner, ...]] = {}
        self._held_by: dict[int, dict[int, str]] = {}
        self._remaining_descriptors = MAX_OTHER_DESCRIPTORS
        self._expected: set[str] = set()
        self._is_stale: dict[str, bool] = {}
        """Expected UNIX addresses, and whether their file is of none of the sockets that listen on them."""

    def expect(self, addresses: Iterable[str]) -> None:
        """Add addresses from a command line or a unit."""
        self._expected.update(map(canonical, addresses))

    def of(self, pid: int) -> tuple[SocketOwner, ...]:
        """Return the listening sockets of a process. Raises PermissionError without CAP_SYS_PTRACE."""
        held = self._held(pid)
        return tuple(sock for sock in self._listening(pid) if sock.inode in held and (
            sock.address.startswith("tcp://") or self._is_trusted(sock, held[sock.inode])))

    def of_other(self, pid: int) -> tuple[SocketOwner, ...]:
        """Return the listening sockets among the first descriptors of any process; empty without permission."""
        try:
            if pid not in self._held_by:
                self._listening(pid)
                self._held_by[pid], count = _sockets_held_by(pid, min(self._remaining_descriptors, MAX_DESCRIPTORS))
                self._remaining_descriptors -= count
            return self.of(pid)
        except PermissionError:
            return ()

    def _is_trusted(self, sock: SocketOwner, path: str) -> bool:
        return (not sock.is_ambiguous or canonical(sock.address) in self._expected) and _is_unix(path)

    def reachable(self, pid: int) -> tuple[SocketOwner, ...]:
        """Return the listening sockets that a client can connect to: of UNIX sockets those whose file exists. Of
        expected ones it is also one of a socket that listens."""
        return tuple(sock for sock in self.of(pid) if self._is_reachable(pid, sock.address))

    def of_host(self, pid: int) -> tuple[SocketOwner, ...]:
        """Return those of a process that listen in the network namespace of PID 1, also where it has another: systemd
        has passed them, and may have closed them since."""
        held = self._held(pid)
        return tuple(
            sock for sock in self._listening(1) if sock.inode in held and self._is_reachable(1, sock.address) and (
                sock.address.startswith("tcp://") or self._is_trusted(sock, held[sock.inode])))

    def _is_reachable(self, pid: int, address: str) -> bool:
        """Whether a client can connect to a socket that listens on this address. Expected ones alone are asked of the
        kernel, since PID 1 has many."""
        if not unix_files.is_path_present(pid, address):
            return False
        name = canonical(address)
        if name not in self._expected or not address.startswith("unix:///"):
            return True
        if name not in self._is_stale:
            path = f"/proc/{pid}/root{address.removeprefix('unix://')}"
            # A dockerd may have opened its own since the table was read: it is read again.
            self._is_stale[name] = all(unix_files.is_of_none(path, [
                sock.inode for sock in table() if canonical(sock.address) == name
            ]) for table in (lambda: self._listening(pid), lambda: _unix(pid)))
        return not self._is_stale[name]

    def tcp_addresses(self) -> frozenset[str]:
        """Return where TCP sockets listen in the network namespace of PID 1, in the canonical form."""
        return frozenset(canonical(sock.address) for sock in self._listening(INIT) if sock.address.startswith("tcp://"))

    def inodes(self, pid: int) -> Set[int]:
        """Return the inode numbers of all sockets of a process, listening or not."""
        return self._held(pid).keys()

    def _held(self, pid: int) -> Mapping[int, str]:
        if pid not in self._held_by:
            # After the table: an address that is taken there has its owner among the descriptors. What is opened in
            # between is free in the table, and is seen as what is going to be opened.
            self._listening(pid)
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


def _is_unix(path: str) -> bool:
    """Whether a descriptor is a UNIX socket (sockfs_xattr_get() in net/socket.c); True if unknown."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        # It may have been replaced by another file, such as one on FUSE, which can block.
        same = f"/proc/self/fd/{fd}"
        return (not os.readlink(same).startswith("socket:[")
                or os.getxattr(same, "system.sockprotoname").startswith(b"UNIX"))
    except OSError:
        return True
    finally:
        os.close(fd)


def _sockets_held_by(pid: int, limit: int | None = None) -> tuple[dict[int, str], int]:
    """Return the sockets of a process (inode number to the path of a descriptor), and the number of descriptors read.

    Reads at most `limit` descriptors. Raises PermissionError without CAP_SYS_PTRACE. Empty if the process is gone.
    """
    held: dict[int, str] = {}
    count = 0
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in islice(entries, limit):
                count += 1
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    target = os.readlink(entry.path)
                    if target.startswith("socket:["):
                        held[int(target[8:-1])] = entry.path
    except (FileNotFoundError, ProcessLookupError):
        return {}, count
    return held, count


def read_process(pid: int, *, uid: int = 0, max_bytes: int = MAX_PROC_BYTES) -> Process | None:
    """Return a process, or None if it is gone or unreadable. Arguments and environment are truncated to `max_bytes`.

    They and the executable are of one program, also while the process executes another one. The memory of another
    user's process is not read: that user can block the reader (FUSE, userfaultfd(2)).
    """
    argv: tuple[str, ...] = ()
    environ: dict[str, str] = {}
    end = time.monotonic() + EXECVE_S
    try:
        status = _status(pid)
        image = _image(pid, status)
        while not uid:
            argv = _split_nul(_read(pid, "cmdline", max_bytes))
            environ = dict(word.split("=", 1) for word in _split_nul(_read(pid, "environ", max_bytes)) if "=" in word)
            if image.is_loaded and image == _image(pid, _status(pid)):
                break
            if time.monotonic() > end:
                return None
            time.sleep(EXECVE_POLL_S)
            status = _status(pid)
            image = _image(pid, status)
        cgroup = _read(pid, "cgroup").decode(errors="replace")
    except OSError:
        return None
    # Fields 4 and 22 are the parent and the start in clock ticks since boot.
    return Process(pid, argv, environ, _boot_time_ns() + int(status[19]) * 10**9 // os.sysconf("SC_CLK_TCK"),
                   _unit(_cgroup(cgroup)), image.executable.removesuffix(DELETED), int(status[1]), uid=uid,
                   cgroup=_cgroup(cgroup), is_replaced=image.executable.endswith(DELETED))


class _Image(NamedTuple):
    """What a process executes: its executable, "" if unreadable, and where its arguments and environment begin and end
    in its memory, which execve(2) places at random and last."""

    executable: str
    places: tuple[bytes, ...]

    @property
    def is_loaded(self) -> bool:
        """Whether execve(2) is complete. The places of a process that is not readable are 0 as well."""
        return not self.executable or b"0" not in self.places


def _image(pid: int, status: list[bytes]) -> _Image:
    # Fields 48 to 51: arg_start, arg_end, env_start and env_end (proc_pid_stat(5)).
    return _Image(_link(pid, "exe"), tuple(status[45:49]))


def _status(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third one on. The name in field 2 can contain blanks and
    parentheses."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def daemons(main: int = 0) -> dict[int, Process]:
    """Return the dockerd processes of this host by PID: the `main` one of docker.service and at most MAX_DAEMONS
    others, those of root first. They are found by name, and by the executable of the main one, unless that is a
    wrapper, which runs a dockerd as its child.

    Not included are threads, dockerd inside containers (docker-in-docker; they have another PID namespace) unless
    they use the network of the host, and helper processes of a dockerd.
    """
    found: dict[int, Process] = {}
    for _, pid, inner, uid in islice(sorted(_candidates(main)), MAX_CANDIDATES):
        process = (read_process(pid) if pid == main else read_process(pid, uid=uid, max_bytes=MAX_OTHER_BYTES))
        if process is not None and (is_daemon(process) or _is_copy(process, pid, main)):
            found[pid] = process._replace(in_container=inner)
        if len(found) > MAX_DAEMONS:
            break
    wrapper = _link(main, "exe").removesuffix(DELETED) if main else ""
    if wrapper and not is_dockerd(wrapper) and any(
            process.parent == main and is_dockerd(process.executable) for process in found.values()):
        found = {pid: process for pid, process in found.items() if process.executable != wrapper}
    return {pid: process for pid, process in found.items()
            if pid == main or not _is_helper(process, found.get(process.parent))}


def _is_helper(process: Process, parent: Process | None) -> bool:
    """Whether a process is part of the dockerd that started it.

    dockerd executes itself under names that it registers (moby pkg/reexec: `docker-untar`, `libnetwork-setkey`), and a
    child that has not called execve(2) yet shows the memory and the sockets of its parent.
    """
    if process.argv and _REEXEC.fullmatch(process.argv[0].rpartition("/")[2]):
        return True
    if parent is None:
        return False
    if process.argv != parent.argv and not process.uid:
        return False
    try:
        own, shared = (_sockets_held_by(pid, MAX_DESCRIPTORS)[0].keys() for pid in (process.pid, parent.pid))
    except PermissionError:
        return False
    return own <= shared


def _is_copy(process: Process, pid: int, main: int) -> bool:
    """Whether a process executes the same file as the main one, under any name but that of the client of Docker 1.12,
    which was the same executable."""
    return bool(main) and pid != main and process.executable.rpartition("/")[2] != "docker" and (
        _file(pid) is not None and _file(pid) == _file(main))


def _file(pid: int) -> tuple[int, int] | None:
    """Device and inode of the executable of a process, None if unreadable."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _candidates(main: int) -> Iterator[tuple[int, int, bool, int]]:
    """Yield rank, PID, whether in a container, and user ID of all processes with the name of a daemon or with the
    executable of the main one."""
    file = _file(main) if main and not is_wrapper(_link(main, "exe")) else None
    for pid in pids():
        try:
            comm = _read(pid, "comm").decode(errors="replace").strip()
            if not comm.startswith(DAEMON_NAMES) and (file is None or _file(pid) != file):
                continue
            uid, inner = uid_and_namespace(pid)
            if inner and _link(pid, "ns/net") != _link(1, "ns/net"):
                continue
        except OSError:
            continue
        yield (0 if pid == main else 1 if not uid and not inner else 2), pid, inner, uid


def pids() -> Iterator[int]:
    """Yield the IDs of all processes."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def uid_and_namespace(pid: int) -> tuple[int, bool]:
    """Return the user ID of a process, and whether it has a PID namespace of its own. The user ID is 0 only if all of
    them are: any user can start a setuid program under any name. Raises OSError."""
    status = dict(line.split(b":", 1) for line in _read(pid, "status").splitlines() if b":" in line)
    return (next((one for one in map(int, status.get(b"Uid", b"").split()) if one), 0),
            len(status.get(b"NSpid", b"").split()) > 1)


def is_daemon(process: Process) -> bool:
    """Whether the process is a daemon and not the client. Until Docker 1.12 both were one executable."""
    if is_dockerd(process.program):
        return True
    program = program_of(process.argv, {}, None)
    return program.certain and program.reason is None


def tcp_listeners(pid: int) -> tuple[SocketOwner, ...]:
    """Return the listening TCP sockets of the network namespace of a process."""
    return (*_tcp(pid, "tcp", socket.AF_INET), *_tcp(pid, "tcp6", socket.AF_INET6))


def socket_inodes(pid: int, limit: int | None = None) -> tuple[frozenset[int], int]:
    """Return the inode numbers of the sockets of a process, and how many descriptors were read, at most `limit`. Empty
    without permission."""
    try:
        held, count = _sockets_held_by(pid, limit)
    except PermissionError:
        return frozenset(), 0
    return frozenset(held), count


def members(process: Process) -> tuple[int, ...]:
    """Return the processes that belong to one: those of its service, else its parent and children. At most
    MAX_MEMBERS."""
    if process.unit.endswith(".service") and not process.container:
        for directory in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
            with contextlib.suppress(OSError, ValueError), open(
                    f"{directory}{process.cgroup}/cgroup.procs", "rb") as file:
                return tuple(map(int, file.read(MAX_OTHER_BYTES).split()[:MAX_MEMBERS]))
    children: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        children = list(map(int, _read(process.pid, f"task/{process.pid}/children", MAX_OTHER_BYTES).split()))
    return (process.pid, process.parent, *children[:MAX_MEMBERS])


def _boot_time_ns() -> int:
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _link(pid: int, name: str) -> str:
    """The target of a link in /proc/PID. An upgrade replaces the executable under a running daemon: ` (deleted)`."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _cgroup(cgroup: str) -> str:
    """Return the path in systemd's hierarchy: cgroup v2, or the named one of v1 where v2 is not in use (cgroups(7))."""
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in cgroup.splitlines() if line.count(":") >= 2}
    return paths.get("", "").removesuffix("/") or paths.get("name=systemd", "")


def _unit(cgroup: str) -> str:
    """Return the unit of PID 1 that a cgroup path belongs to (systemd(1)), "" if there is none. For a unit of a user's
    manager that is user@UID.service, for the units of a container its scope."""
    for part in cgroup.removeprefix(_cgroup_root()).split("/"):
        if part.endswith((".service", ".scope")):
            return part
    return ""


@cache
def _cgroup_root() -> str:
    """Return the path below which PID 1 manages units; not empty where it runs in a container."""
    try:
        return _cgroup(_read(1, "cgroup").decode(errors="replace")).removesuffix("/").removesuffix("/init.scope")
    except OSError:
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
    """Yield the lines of a table without the heading."""
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


def _read(pid: int, name: str, max_bytes: int = MAX_PROC_BYTES) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(max_bytes)


def _split_nul(content: bytes) -> tuple[str, ...]:
    if not content:
        return ()
    return tuple(word.decode("utf-8", "surrogateescape") for word in content.removesuffix(b"\0").split(b"\0"))
