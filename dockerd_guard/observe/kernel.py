"""What is asked of the kernel and of the engine about this host. The simulation has a stand-in of the same shape."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from typing import Protocol

from dockerd_guard.model.address import Tls, Via
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe import engine, processes
from dockerd_guard.observe.access_paths import AccessObserver
from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.network import Network, Unsupported
from dockerd_guard.observe.observation import AccessPath, EngineAnswer, Observation, Process
from dockerd_guard.systemd.manager import Unavailable, UnitState

SHIMS = (b"containerd-shim", b"docker-containe")
"""The first 15 characters of /proc/PID/comm of a containerd shim, which runs one container (until Docker 18.06 it
was called docker-containerd-shim)."""

EXEC_S, EXEC_POLL_S = 0.5, 0.005
"""How long it is waited for systemd to execute the program of docker.service, which takes some milliseconds; and the
pause between two looks."""

NAMED_NAMESPACES = "/run/netns"
"""Where ip-netns(8) mounts namespaces under a name."""

KUBERNETES_NAMESPACE = b"k8s.io"
"""containerd's namespace of the containers of Kubernetes, an argument of each shim."""

DEFINITE = (engine.ANOTHER_PROGRAM, "HTTP status 2", "HTTP status 3", "HTTP status 4")
"""Beginnings of Ping.reason if another program than the Docker API answered, and no proxy in front of it (5xx)."""


class UnitStates(Protocol):
    """systemd, as far as it is asked whether docker.service is up."""

    def unit(self, name: str) -> UnitState:
        """As Manager.unit. Raises Unavailable."""


class HostKernel:
    """The processes and sockets of this host."""

    def __init__(self) -> None:
        self._access = AccessObserver()

    def access_paths(
        self, seen: Observation, network: Network, manager: UnitStates | None, blocked: Collection[str] = ()
    ) -> tuple[AccessPath, ...]:
        """The access paths of this host, as AccessObserver.look. Takes up to some seconds: sends requests to programs
        that may be one."""
        def answers(address: str) -> bool | None:
            try:
                found = network.ping(address, Tls.NONE)
            except Unsupported:
                return None
            if not found.answers and not found.reason.startswith(DEFINITE):
                return None
            return found.answers

        return self._access.look(seen, answers, _engine_sockets(seen), blocked, lambda: may_ask(seen, manager))

    def has_new_listener(self) -> bool:
        """Whether a TCP socket listens that did not when access paths were last looked for, or another look may find
        more for another reason."""
        return self._access.listeners.has_new() or self._access.is_due()

    def has_new_socket(self) -> bool:
        """Whether a TCP socket listens that did not when access paths were last looked for."""
        return self._access.listeners.has_new()

    def knows_containers(self) -> bool:
        """Whether the containers with access to the API are known: an engine has answered since this process started,
        or there are no containers."""
        return self._access.knows_containers or not self.shims()

    def unverified(self, seen: Observation, addresses: Collection[str]) -> tuple[str, ...]:
        """Those of these addresses that a container may publish, as long as no engine has said which do: containers
        can outlive dockerd (live-restore), and docker-proxy, which listens for them, does not."""
        # Nobody can ask a dockerd that was started without a UNIX socket: no block waits for its answer.
        is_never_asked = seen.running is not None and not any(
            binding.address.startswith("unix://") for binding in seen.running.layer.bindings)
        if not addresses or is_never_asked or self.knows_containers():
            return ()
        # A dockerd that runs is about to answer. What another account binds by now is no reason to open a port that
        # iptables may forward to a container.
        listening = self._access.listeners.held_by_root() if seen.running is None else frozenset[str]()
        return tuple(address for address in addresses if address not in listening)

    def has_young_listener(self) -> bool:
        """Whether a program that was found at the last look had listened for too short a time to be recognised."""
        return self._access.has_young()

    def sockets(self) -> processes.Sockets:
        """The listening sockets, read once."""
        return processes.Sockets()

    def daemons(self, main: int) -> dict[int, Process]:
        """As processes.daemons. Waits up to EXEC_S until systemd has executed the main one: before, every process of
        systemd has its executable."""
        return processes.daemons(0 if main and _is_before_exec(main) else main)

    def process(self, pid: int) -> Process | None:
        """As processes.read_process."""
        return processes.read_process(pid)

    def network_namespace(self, pid: int) -> str:
        """The network namespace of a process: "" for the host's own, its name below /run/netns, else `net:[INODE]`."""
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/net")
            if namespace == os.readlink("/proc/1/ns/net"):
                return ""
        except OSError:
            return ""
        # The agent's own mount namespace need not have what ip-netns(8) mounts after its start.
        with contextlib.suppress(OSError), os.scandir(f"/proc/1/root{NAMED_NAMESPACES}") as entries:
            for entry in entries:
                if f"net:[{entry.stat().st_ino}]" == namespace:
                    return f"{NAMED_NAMESPACES}/{entry.name}"
        return namespace

    def has_ipv6(self) -> bool:
        """Whether programs can open IPv6 sockets (proc(5): /proc/net/tcp6 is missing without `ipv6`)."""
        return os.path.exists("/proc/net/tcp6")

    def ask(self, address: str, pids: Collection[int]) -> Engine | None:
        """As engine.ask."""
        return engine.ask(address, pids)

    def shims(self) -> int:
        """The number of containers that Docker's containerd may run: all but those of Kubernetes, of other accounts and
        within containers, where any program may have such a name."""
        return sum(KUBERNETES_NAMESPACE not in _read(pid, "cmdline").split(b"\0") and _is_of_this_host(pid)
                   for pid in os.listdir("/proc") if pid.isdecimal() and _read(pid, "comm").startswith(SHIMS))

    def embeds_containerd(self, pid: int) -> bool:
        """Whether a dockerd started containerd itself, as a child process."""
        parent = b"%d" % pid
        return any(_read(child, "stat").rpartition(b")")[2].split()[1:2] == [parent]
                   for child in os.listdir("/proc") if child.isdecimal() and _read(child, "comm") == b"containerd\n")


def _is_of_this_host(pid: str) -> bool:
    """Whether a process is one of root, and in the host's PID namespace."""
    try:
        return processes.uid_and_namespace(int(pid)) == (0, False)
    except OSError:
        return False


def _is_before_exec(pid: int) -> bool:
    """Whether a process has not executed the program of its unit, EXEC_S from now."""
    end = time.monotonic() + EXEC_S
    while (process := processes.read_process(pid)) is not None and process.is_before_exec:
        if time.monotonic() >= end:
            return True
        time.sleep(EXEC_POLL_S)
    return False


def may_ask(seen: Observation, manager: UnitStates | None) -> bool:
    """Whether a request can be sent to dockerd, or to a program that forwards to it, without starting docker.service.

    systemd starts it at a connection that dockerd does not accept any more, also when it was stopped on purpose a
    moment ago (systemd.socket(5), FlushPending=). What was observed may be a second old: systemd is asked, and only
    where it cannot be, the observation counts.
    """
    if seen.listening is not None and not seen.listening.held_by_systemd:
        return True
    return is_active(manager, unknown=seen.running is not None)


def is_active(manager: UnitStates | None, *, unknown: bool = True) -> bool:
    """Whether docker.service is active, as `systemctl is-active` has it; `unknown` where systemd cannot be asked."""
    with contextlib.suppress(Unavailable):
        if manager is not None:
            return manager.unit(SERVICE).text("ActiveState") in ("active", "reloading")
    return unknown


def observe_engine(seen: Observation, kernel: HostKernel, manager: UnitStates | None) -> EngineAnswer:
    """Return what decides whether containers survive a restart. Waits up to engine.TIMEOUT_S for each UNIX socket."""
    shims = kernel.shims()
    if seen.running is None or seen.listening is None:
        return EngineAnswer(shims=shims)
    embeds = kernel.embeds_containerd(seen.running.process.pid)
    # While it starts it answers nobody, and that may take 16 s.
    if seen.loaded is not None and seen.loaded.active_state == "activating":
        return EngineAnswer(None, "dockerd is starting", shims, embeds)
    if not may_ask(seen, manager):
        return EngineAnswer(None, "docker.service is not active", shims, embeds)
    bindings = [binding for binding in seen.listening.layer.bindings if binding.address.startswith("unix://")]
    for address, pids in _engine_sockets(seen).items():
        if (answer := kernel.ask(address, pids)) is not None:
            return EngineAnswer(answer, "", shims, embeds)
    # systemd passes its sockets to a dockerd without fd:// as well, which accepts no connection there.
    hosts = seen.running.layer.hosts
    uses_passed = not hosts or any(host.startswith("fd://") for host in hosts)
    if any(uses_passed or binding.via is not Via.SOCKET_UNIT for binding in bindings):
        return EngineAnswer(None, "dockerd does not answer", shims, embeds)
    # Nobody proves who answers at a TCP port. Without a container no answer is needed.
    problem = "dockerd has no UNIX socket at which its state can be verified" if shims else ""
    return EngineAnswer(None, problem, shims, embeds)


def _engine_sockets(seen: Observation) -> dict[str, frozenset[int]]:
    """Return the UNIX sockets of the dockerd of docker.service, each with the processes that may have called listen(2):
    systemd does for the sockets that it passes on."""
    if seen.running is None or seen.listening is None:
        return {}
    ours, by_systemd = seen.running.process.pid, seen.listening.held_by_systemd
    return {binding.address: frozenset((ours, 1) if binding.address in by_systemd else (ours,))
            for binding in seen.listening.layer.bindings if binding.address.startswith("unix://")}


def _read(pid: str, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(4096)
    except OSError:
        return b""
