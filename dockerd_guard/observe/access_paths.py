"""Other ways to the Docker API than a dockerd, from what the kernel shows of this host.

A program is an access path if it has a listening TCP socket and names or uses a socket of the API, UNIX or TCP: in its
arguments, its environment, a file that it was started with, its own directory in /etc, or by an open connection.
Whether a port leads to the API itself, a request shows. Arguments and memory are read only of processes of root: other
users can block the reader.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.model.address import Binding, Tls, canonical, split_host_port
from dockerd_guard.model.json_values import JsonError
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe import engine, tcp_peers, unix_peers
from dockerd_guard.observe.api_names import Names, names_of, paths_of
from dockerd_guard.observe.containerd import containerd_endpoints
from dockerd_guard.observe.containers import access_paths_of_containers
from dockerd_guard.observe.listeners import ListenerTable, Owned, described
from dockerd_guard.observe.observation import AccessKind, AccessPath, Observation, Process
from dockerd_guard.observe.processes import (
    INIT,
    MAX_DESCRIPTORS,
    START_PAUSE_S,
    Sockets,
    is_daemon,
    members,
    socket_inodes,
)
from dockerd_guard.observe.socket_activation import services_at_rest

API_PORTS = (2375, 2376)
"""Ports that IANA assigned to the Docker API, without and with TLS."""

FORWARDERS = re.compile(r"socat[0-9]?|systemd-socket-proxyd|ncat|netcat|nc(\.(openbsd|traditional))?|redir|simpleproxy")
"""Programs that do nothing but forward: a port of one that names the API socket leads to the API."""

NOT_FORWARDERS = re.compile(r"sshd(-session)?|containerd|kubelet|docker(-compose|-buildx)?")
"""Programs that listen or name the API socket in passing: sessions below sshd run any command; clients of the API."""

MANAGER = "systemd"
"""The directory of this program has the units of others. PID 1 and a user's manager hold their sockets."""

_CLIENTS = re.compile(r"docker(-compose|-buildx)?|ctop|lazydocker")

_CLIENT_VARIABLES = ("DOCKER_HOST",)
"""Variables of clients, which every program inherits from a shell that exports them."""

_OF_LIBNETWORK = re.compile(r"/libnetwork/[0-9a-f]{6,64}\.sock\Z")
_OF_DOCKERD = re.compile(rf"{_OF_LIBNETWORK.pattern}|/docker\.sock\Z")
"""Sockets that every dockerd opens (moby libnetwork/sandbox_externalkey_unix.go, and its default host)."""

MAX_FILE_BYTES, MAX_FILES, MAX_DEPTH = 256 * 1024, 64, 3
"""Limits of what is read of files that may name the API socket."""

MAX_PATHS = 256
"""Maximum number of access paths that are reported."""

DEADLINE_S = 5.0
"""No further process is examined, and no further port is asked, after this time."""

SILENCE_S, RETRY_S = 60.0, 10.0
"""Time until another request to a port that answered; to a port or an engine that did not. Of an engine it doubles, up
to the first one."""

YOUNG_S = 2.0
"""How long after a socket was first seen its program is looked at again soon. A dockerd listens on TCP some 100 ms
before it opens the UNIX sockets that it is recognised by."""

AskApi = Callable[[str], bool | None]
"""Whether the Docker API answers at a TCP address of this host, without TLS; None without an answer in HTTP."""


class AccessObserver:
    """Observes the access paths of a host. Keeps what it found out about ports and containers between two looks."""

    def __init__(self) -> None:
        self.listeners = ListenerTable()
        self._answers = _Answers()
        self._containers: tuple[AccessPath, ...] = ()
        self.knows_containers = False
        """Whether an engine has answered since this process started."""
        self._silent_until: float | None = None
        """When an engine that did not answer is asked again, None after an answer."""
        self._silence_s = RETRY_S
        self._last: dict[int, AccessPath] = {}
        """The access paths of processes at the last look, by the inode number of their listening socket."""
        self._new = _NewSockets()

    def look(
        self, seen: Observation, ask: AskApi, engine_sockets: Mapping[str, Collection[int]],
        blocked: Collection[str] = (), may_ask: Callable[[], bool] = lambda: True
    ) -> tuple[AccessPath, ...]:
        """Return the access paths, at most MAX_PATHS, those that are proven first.

        `engine_sockets` are the UNIX sockets of the dockerd of docker.service, each with the processes that may listen.
        `may_ask` is called before each request: where it returns False, none is sent but to what is apart from
        docker.service.
        `blocked` are addresses that were access paths before this process started.
        """
        deadline = time.monotonic() + DEADLINE_S
        listeners, names = self.listeners.look(), names_of(_api_addresses(seen))
        by_container: dict[str, list[str]] = {}
        for owned in listeners:
            if owned.process.container:
                by_container.setdefault(owned.process.container[:12], []).extend(owned.addresses.values())
        self._ask_engine(engine_sockets if may_ask() else {}, names, by_container)
        in_containers = {path.address for path in self._containers}
        inodes = {address: inode for owned in listeners for inode, address in owned.addresses.items()}
        new = self._new.look(inode for owned in listeners if not owned.process.uid for inode in owned.addresses)
        of_processes = _of_processes(seen, listeners, names, self._last, blocked, new)
        found = {inode: path for inode, path in of_processes if path.address not in in_containers}
        at_rest = [path for address, process in services_at_rest(seen, self.listeners.held_by_init())
                   for _, path in access_paths_of(Owned(process, {0: address}), names, frozenset())]
        is_up = seen.running is not None
        answered = self._answers.to(ask, may_ask, (*self._containers, *found.values(), *at_rest), inodes, deadline,
                                    () if is_up else blocked)
        proven = {path.address for path in answered if path.serves_api}
        self._last = {inode: path._replace(serves_api=path.address in proven) for inode, path in found.items()
                      if path.kind is not AccessKind.API_PORT or path.address in proven}
        return tuple(_without_bystanders(
            path for path in answered if path.serves_api or path.kind is not AccessKind.API_PORT or (
                _port(path.address) in API_PORTS)))[:MAX_PATHS]

    def is_due(self) -> bool:
        """Whether another look may find more, although no socket is new: an engine or a port that did not answer can be
        asked again, or a program has had the time to open what it is recognised by."""
        return self._is_engine_due() or self._new.is_due() or self._answers.is_due()

    def has_young(self) -> bool:
        """Whether a program of root has listened for so short a time that it may not be recognised yet."""
        return self._new.has_young()

    def _is_engine_due(self) -> bool:
        """Whether an engine that did not answer can be asked again: what its containers opened meanwhile is not known,
        and their ports are not new any more."""
        return self._silent_until is not None and time.monotonic() >= self._silent_until

    def _ask_engine(
        self, sockets: Mapping[str, Collection[int]], names: Names, by_container: Mapping[str, Collection[str]]
    ) -> None:
        """Look at the containers. Without an answer the last one counts: they do not end with dockerd."""
        if not sockets:
            # Its start announces itself.
            self._silent_until = None
        if not sockets or (self._silent_until is not None and not self._is_engine_due()):
            return
        (address, pids), *_ = sorted(sockets.items(), key=lambda item: item[0].startswith("unix://@"))
        paths = [known.removeprefix("unix://") for known in names.addresses]
        try:
            self._containers = access_paths_of_containers(
                lambda path: engine.answer(address, path, pids), paths, API_PORTS, by_container)
            self._silent_until, self._silence_s, self.knows_containers = None, RETRY_S, True
        except (OSError, JsonError):
            self._silent_until = time.monotonic() + self._silence_s
            self._silence_s = min(2 * self._silence_s, SILENCE_S)


class _NewSockets:
    """The listening sockets of root whose programs are examined for what a dockerd opens when it starts.

    It opens that after its first port. So a socket is new until it is examined START_PAUSE_S after it was first seen.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
        """When each listening socket was first seen, by inode number."""
        self._settled = frozenset[int]()

    def look(self, inodes: Iterable[int]) -> frozenset[int]:
        """Take in all that listen now. Returns those to examine."""
        now = time.monotonic()
        self._since = {inode: self._since.get(inode, now) for inode in inodes}
        new = self._since.keys() - self._settled
        self._settled = frozenset(
            inode for inode, since in self._since.items() if inode not in new or now - since >= START_PAUSE_S)
        return frozenset(new)

    def is_due(self) -> bool:
        """Whether a socket is to be examined for the last time."""
        now = time.monotonic()
        return any(now - since >= START_PAUSE_S and inode not in self._settled for inode, since in self._since.items())

    def has_young(self) -> bool:
        """Whether a socket was first seen less than YOUNG_S ago."""
        now = time.monotonic()
        return any(now - since < YOUNG_S for since in self._since.values())


class _Answer(NamedTuple):
    """Whether the API answers at an address, when to ask again, the socket that was asked, and whether it is only
    `assumed` that it answers, as it did before, or to an earlier process."""

    is_api: bool
    until: float
    inode: int
    assumed: bool


class _Answers:
    """At which addresses the Docker API answers. Another socket or container at the same address is asked anew."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, str], _Answer] = {}
        self._unanswered: dict[tuple[str, int, str], float] = {}
        """When each that has not answered yet was asked first. A dockerd accepts connections long before it answers."""

    def is_due(self) -> bool:
        """Whether one that has not answered yet, and may still be starting, can be asked again."""
        now = time.monotonic()
        return any(now - since < START_PAUSE_S and now >= self._known[key].until
                   for key, since in self._unanswered.items())

    def to(  # noqa: PLR0913, PLR0917 -- what each path is compared with
        self, ask: AskApi, may_ask: Callable[[], bool], paths: Iterable[AccessPath], inodes: Mapping[str, int],
        deadline: float, assumed: Collection[str]
    ) -> list[AccessPath]:
        """Return the paths with `serves_api`. Asks nothing after the deadline. Without an answer, as while dockerd is
        down, the last one counts; for `assumed` addresses that is yes. What may not be asked now is asked at the next
        look."""
        found, known, unanswered = [], {}, {}
        for path in paths:
            # docker-proxy, which listens for a container, ends with dockerd, and another one begins with the next.
            inode, now = inodes.get(path.address, 0), time.monotonic()
            key = path.address, 0 if path.is_published else inode, path.container
            is_assumed = path.address in assumed
            last = self._known.get(key, _Answer(is_assumed, 0.0, inode, is_assumed))
            if inode not in (0, last.inode):
                last = last._replace(until=0.0)
            if path.address and now < deadline and now >= last.until and (path.is_apart or may_ask()):
                answer = ask(path.address)
                if answer is None and (not last.until or key in self._unanswered):
                    unanswered[key] = self._unanswered.get(key, now)
                last = (_Answer(answer, now + SILENCE_S, inode, assumed=False) if answer is not None else
                        last._replace(until=now + RETRY_S, inode=inode, assumed=last.is_api))
            elif key in self._unanswered:
                unanswered[key] = self._unanswered[key]
            known[key] = last
            found.append(path._replace(serves_api=path.serves_api or last.is_api,
                                       is_assumed=last.assumed and not path.serves_api))
        self._known, self._unanswered = known, unanswered
        return found


def _port(address: str) -> int:
    return int(split_host_port(address)[1] or 0)


def _of_processes(  # noqa: PLR0913, PLR0917 -- what each process is compared with
    seen: Observation, listeners: Iterable[Owned], names: Names, last: Mapping[int, AccessPath],
    blocked: Collection[str], new: frozenset[int]
) -> Iterator[tuple[int, AccessPath]]:
    """Yield the access paths of processes, those of root first, by the inode number of the listening socket.

    `last` are those of the last look: a program that was connected to the API socket may be so again. Of a `blocked`
    address nothing but that is known. The kernel's table of UNIX sockets, which any user can make long, is read only
    for processes with `new` sockets.
    """
    dockerds = {other.process.pid for other in seen.others} | (
        {seen.running.process.pid} if seen.running is not None else set())
    endpoints = {canonical(endpoint.address) for endpoint in containerd_endpoints(
        seen.rootfs, seen.configured.systemd_version) if endpoint.is_api and not endpoint.is_verified}
    connected = own_connected = frozenset[int]()
    for pid in sorted(dockerds):
        held = socket_inodes(pid, MAX_DESCRIPTORS)[0]
        clients = unix_peers.clients(held, names.addresses) | tcp_peers.clients(held, names.ports)
        connected |= clients
        if seen.running is not None and pid == seen.running.process.pid:
            own_connected = clients
    deadline, sockets = time.monotonic() + DEADLINE_S, Sockets()
    sockets.expect(names.addresses)
    for owned in sorted(listeners, key=lambda owned: (owned.process.uid != 0, owned.process.pid)):
        process = owned.process
        if time.monotonic() > deadline:
            return
        if process.pid in dockerds or _is_new_dockerd(process) or _is_docker_proxy(process, dockerds):
            continue
        among = None if new.isdisjoint(owned.addresses) else sockets
        found = dict(access_paths_of(owned, names, connected, among))
        was_apart = any(last[inode].is_apart for inode in owned.addresses if inode in last)
        is_apart = (was_apart or (among is not None and bool(found))) and _is_apart(
            process, seen, names, own_connected, sockets)
        for inode, address in owned.addresses.items():
            if os.path.basename(process.executable) == "containerd" and canonical(address) in endpoints:
                yield inode, _path(AccessKind.CONTAINERD, address, "", process)._replace(serves_api=True)
            elif inode in last and (inode not in found or found[inode].kind is AccessKind.API_PORT):
                yield inode, last[inode]._replace(serves_api=False, pid=process.pid, is_apart=is_apart)
            elif inode in found:
                yield inode, found[inode]._replace(is_apart=is_apart and found[inode].kind is AccessKind.FORWARDER)
            elif address in blocked:
                yield inode, _path(AccessKind.API_PORT, address, "", process)


def _without_bystanders(found: Iterable[AccessPath]) -> Iterator[AccessPath]:
    """Leave out the other ports of a program where one port is proven to lead to the API, and a second process with
    the same socket."""
    collected = sorted(found, key=lambda path: (not path.serves_api, path.uid != 0, path.pid))
    proven = {(path.unit, path.program) for path in collected if path.serves_api}
    known: set[tuple[str, str]] = set()
    for path in collected:
        is_bystander = not path.serves_api and not path.container and (path.unit, path.program) in proven
        if (path.address, path.container) not in known and not is_bystander:
            known.add((path.address, path.container))
            yield path


def access_paths_of(
    owned: Owned, names: Names, connected: frozenset[int], sockets: Sockets | None = None
) -> Iterator[tuple[int, AccessPath]]:
    """Yield the listening sockets of a process that are access paths, by inode number. `sockets`: those of the host."""
    process = owned.process
    program = os.path.basename(process.executable) or "unknown"
    kind, evidence = AccessKind.FORWARDER, ""
    if not NOT_FORWARDERS.fullmatch(program):
        evidence = _evidence(process, names, connected) or _acts_as_dockerd(process, sockets)
    is_forwarder = bool(evidence) and FORWARDERS.fullmatch(program) is not None
    if not evidence and process.unit == SERVICE and not process.uid and program != "containerd":
        kind = AccessKind.IN_DOCKER_SERVICE
        evidence = "it runs in docker.service and is neither dockerd nor docker-proxy"
    for inode, address in owned.addresses.items():
        if evidence:
            yield inode, _path(kind, address, evidence, process)._replace(serves_api=is_forwarder)
        elif _port(address) in API_PORTS:
            yield inode, _path(AccessKind.API_PORT, address, "", process)


def _path(kind: AccessKind, address: str, evidence: str, process: Process) -> AccessPath:
    return AccessPath(kind, address, evidence, process.pid if process.pid != INIT else 0,
                      os.path.basename(process.executable) or "unknown", process.unit, process.uid,
                      process.container[:12])


def _evidence(process: Process, names: Names, connected: frozenset[int]) -> str:
    """Return why a process that listens is an access path, "" if it is none."""
    if process.pid == INIT:
        return f"its {why}" if (why := evidence_in(process, names)) else ""
    for pid in sorted(set(members(process)), key=lambda pid: pid != process.pid):
        member = process if pid == process.pid else described(pid)
        if member is None or member.cgroup != process.cgroup or _CLIENTS.fullmatch(
                os.path.basename(member.executable)):
            continue
        whose = "its" if pid == process.pid else f"process {pid} of the same unit: its"
        if connected and not connected.isdisjoint(socket_inodes(pid, MAX_DESCRIPTORS)[0]) and (
                pid == process.pid or member.executable == process.executable):
            return f"it is connected to the API socket{'' if pid == process.pid else f' by process {pid}'}"
        if not member.uid and (why := evidence_in(member, names)):
            return f"{whose} {why}"
    return ""


def _acts_as_dockerd(process: Process, sockets: Sockets | None) -> str:
    """Return which UNIX socket a process of root listens on that only a dockerd has, "" if none."""
    if sockets is None or process.uid:
        return ""
    with contextlib.suppress(PermissionError):
        for sock in sockets.of(process.pid):
            if _OF_DOCKERD.search(sock.address):
                return f"it listens on {sock.address}, as dockerd does"
    return ""


def _is_apart(
    process: Process, seen: Observation, names: Names, own_connected: frozenset[int], sockets: Sockets
) -> bool:
    """Whether a process of root is a dockerd of its own: it has the sockets of one, and nothing of it names another
    API socket than its own or is connected to docker.service. A request to it cannot start docker.service."""
    if process.uid:
        return False
    try:
        listening = {sock.address for sock in sockets.of(process.pid)}
    except PermissionError:
        return False
    own = names._replace(ignored=paths_of(listening) - paths_of(_addresses_of_docker_service(seen)))
    return any(map(_OF_LIBNETWORK.search, listening)) and not _evidence(process, own, own_connected)


def evidence_in(process: Process, names: Names) -> str:
    """Return which part of a process of root names the API socket; "" if none does.

    Its arguments, its environment, the files in its arguments, and the files of /etc that are called as it is.
    """
    if path := names.find(b"\0".join(map(os.fsencode, process.argv))):
        return f"command line names {path}"
    for name, value in process.environ.items():
        if name not in _CLIENT_VARIABLES and (path := names.find(os.fsencode(value))):
            return f"environment variable {name} names {path}"
    root = f"/proc/{process.pid}/root"
    for file in _files(process, root):
        if path := names.find(_content(root + file)):
            return f"file {file} names {path}"
    return ""


def _files(process: Process, root: str) -> Iterator[str]:
    """Yield the paths of files that a process was started with, and of the configuration of its program."""
    directory = ""
    with contextlib.suppress(OSError):
        directory = os.readlink(f"/proc/{process.pid}/cwd")
    for word in process.argv[1:MAX_FILES]:
        # Also the last part of -cFILE, --config=FILE and file:FILE.
        path = re.split(r"[=:]", word)[-1]
        path = path[path.find("/"):] if path.startswith("-") else path
        if path and not path.startswith("-"):
            yield os.path.normpath(os.path.join(directory, path))
    program = os.path.basename(process.executable).rstrip("0123456789.")
    if program and program != MANAGER and not program.startswith("."):
        yield from (path.removeprefix(root) for path in
                    (f"{root}/etc/{program}.conf", *_below(f"{root}/etc/{program}", MAX_DEPTH)))


def _below(directory: str, depth: int) -> list[str]:
    """Return at most MAX_FILES files below a directory, without what is only available and not in use."""
    found: list[str] = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name)[:MAX_FILES]:
            if entry.is_dir(follow_symlinks=False):
                if depth > 1 and not entry.name.endswith("-available"):
                    found += _below(entry.path, depth - 1)
            else:
                found.append(entry.path)
    return found[:MAX_FILES]


def _content(path: str) -> bytes:
    """The content of a regular file of root, empty if it is anything else or longer than MAX_FILE_BYTES."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid or status.st_size > MAX_FILE_BYTES:
            return b""
        return os.read(fd, MAX_FILE_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _is_new_dockerd(process: Process) -> bool:
    """Whether a process is a dockerd of docker.service. One that was not observed has started since: its start causes
    another observation, and with TLS it logs a request without TLS as an error."""
    return process.unit == SERVICE and not process.uid and not process.in_container and is_daemon(process)


def _is_docker_proxy(process: Process, dockerds: Collection[int]) -> bool:
    """Whether a process publishes a port of a container (moby libnetwork/portmapper): a child of dockerd, which may
    have another name (--userland-proxy-path)."""
    return process.parent in dockerds and (
        os.path.basename(process.executable) == "docker-proxy" or "-container-ip" in process.argv)


def _api_addresses(seen: Observation) -> Iterator[str]:
    """Yield the addresses at which a dockerd of this host serves its API: all UNIX sockets, and TCP in the network
    namespace of PID 1 for which a client needs no certificate."""
    for binding in (binding for other in seen.others for binding in other.bindings):
        if _is_open(binding):
            yield binding.address
    yield from _addresses_of_docker_service(seen)


def _addresses_of_docker_service(seen: Observation) -> Iterator[str]:
    """Yield those of them that lead to docker.service."""
    for binding in (binding for layer in seen.layers for binding in layer.bindings):
        if _is_open(binding):
            yield binding.address
    if seen.listening is not None:
        yield from seen.listening.held_by_systemd


def _is_open(binding: Binding) -> bool:
    return not binding.is_tcp or (binding.tls is not Tls.MUTUAL and not binding.namespace)
