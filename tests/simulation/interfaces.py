"""What the agent uses of a host, as the model implements it: systemd, the kernel, the network, the files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

from dockerd_guard.apply.files import HostFiles
from dockerd_guard.model.address import Tls, canonical, split_host_port
from dockerd_guard.model.names import DROPIN_NAME, SAVED_SUFFIX, SERVICE, SOCKET
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.engine import Engine, Ping, Probe
from dockerd_guard.observe.kernel import HostKernel, UnitStates
from dockerd_guard.observe.network import Network, Unsupported
from dockerd_guard.observe.observation import AccessPath, Observation, Process
from dockerd_guard.observe.processes import SocketOwner, Sockets
from dockerd_guard.rootfs import Access, Content
from dockerd_guard.systemd.manager import JobFailed, Manager, Unavailable, UnitState, wall_clock_ns
from tests.simulation.host import DOCKERD, SYSTEMD, SimulatedHost


class SimulatedManager(Manager):
    """systemd's D-Bus API."""

    def __init__(self, host: SimulatedHost) -> None:  # super().__init__ would connect
        self._host = host
        self.heartbeat: Callable[[], None] = lambda: None
        self._ask()

    def _ask(self) -> None:
        if self._host.bus_is_gone:
            raise Unavailable("Connection refused")

    def version(self) -> int:
        self._ask()
        return SYSTEMD

    def environment(self) -> tuple[str, ...]:
        self._ask()
        return tuple(f"{name}={value}" for name, value in self._host.environment.items())

    def units_loaded_ns(self) -> int:
        self._ask()
        return self.wall_clock_ns(*self._host.units_loaded_us)

    def wall_clock_ns(self, recorded_us: int, monotonic_us: int) -> int:
        clock = self._host.clock
        return wall_clock_ns(recorded_us, monotonic_us, int(clock.wall.timestamp() * 1e9), int(clock.seconds * 1e9))

    def booted_ns(self) -> int:
        self._ask()
        return self.wall_clock_ns(*self._host.booted_us)

    def unit(self, name: str) -> UnitState:
        self._ask()
        self._host.has_unseen = False
        self._host.moment()
        host = self._host
        state = host.active.get(name, "inactive")
        shown = "activating" if state == "auto-restart" else state
        if name not in (SERVICE, SOCKET):
            return UnitState(name, {"ActiveState": shown})
        if name == SOCKET:
            socket = next((each for each in host.loaded.sockets if each.unit.name == SOCKET), None)
            return UnitState(name, {
                "LoadState": "loaded" if socket else "not-found", "ActiveState": shown, "Names": [name],
                "InactiveExitTimestamp": host.socket_started_us[0],
                "InactiveExitTimestampMonotonic": host.socket_started_us[1],
                "Listen": [(item.kind, item.address) for item in socket.listen] if socket else [],
                "Accept": False, "SocketMode": 0o660, "BindIPv6Only": "default",
                "DropInPaths": list(socket.unit.dropins) if socket else [],
                "FragmentPath": socket.unit.fragment or "" if socket else ""})
        service = host.loaded.service
        return UnitState(name, {
            "LoadState": service.unit.load_state, "LoadError": ("", service.unit.reason or ""), "ActiveState": shown,
            "SubState": state if state == "auto-restart" else shown, "Type": service.type, "Names": [name],
            "Result": host.result, "ExecMainCode": 1, "ExecMainStatus": int(host.result == "exit-code"),
            "FragmentPath": service.unit.fragment or "", "DropInPaths": list(service.unit.dropins),
            "NeedDaemonReload": host.needs_reload,
            "MainPID": host.running.process.pid if host.running else 0,
            "TriggeredBy": [socket.unit.name for socket in host.loaded.sockets] or (
                [SOCKET] if host.active[SOCKET] == "active" else []),
            "ExecStartEx": [(command.path, [word.text for word in command.argv], []) for command in service.exec_start],
            "Environment": [f"{each.name}={each.variable.value}" for each in service.environment],
            "EnvironmentFiles": [(file.path, file.optional) for file in service.environment_files],
            "PassEnvironment": [], "UnsetEnvironment": [],
            "InvocationID": list(bytes.fromhex(host.invocation)),
            "ExecMainStartTimestamp": int(host.running.process.started_ns / 1000) if host.running else 0})

    def reload(self) -> None:
        self._ask()
        self._host.tick()
        self._host.clock.sleep(0.1)
        self._host.reload()
        # The agent has removed the files of the filter, or sets it again in the same pass.
        self._host.ip_filter = ((), ())
        self._host.tick()

    def run_job(self, verb: str, unit: str, timeout_s: float = 240.0) -> None:
        self._ask()
        host = self._host
        host.tick()
        # Debian's docker.service requires its socket, and stops with it (systemd.unit(5), Requires=).
        if verb in ("StopUnit", "RestartUnit") and host.stop_hangs and host.running is not None:
            host.clock.sleep(min(timeout_s, 240.0))
            raise JobFailed(unit, verb, "timeout")
        if unit == SOCKET:
            if verb == "StopUnit":
                if host.running is not None:
                    host.stop("us")
                host.active[SOCKET], host.held = "inactive", ()
            elif host.running is not None:
                raise JobFailed(unit, verb, "failed")
            else:
                host.start_socket("us")
            return
        if verb == "StartUnit" and host.running is not None:
            return
        if verb in ("StopUnit", "RestartUnit"):
            host.stop("us")
        if verb in ("StartUnit", "RestartUnit") and not host.start("us"):
            raise JobFailed(unit, verb, "failed")
        host.tick()

    def reset_failed(self, unit: str) -> None:
        self._ask()
        if unit == SERVICE:
            self._host.resets += 1
            self._host.reset_failed()
            self._host.tick()

    def ip_filter(self, unit: str) -> Any:
        self._ask()
        return self._host.ip_filter

    def set_ip_filter(self, unit: str, allow: Iterable[Any], deny: Iterable[Any]) -> None:
        self._ask()
        self._host.ip_filter = (tuple(allow), tuple(deny))


class SimulatedSockets(Sockets):
    """The kernel's tables of sockets."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__()
        self._host = host

    def of(self, pid: int) -> tuple[SocketOwner, ...]:
        if pid == 1:
            return self._host.held
        # The tables of another network namespace do not have what systemd has passed.
        return tuple(sock for sock, is_passed in self._sockets_of(pid) if not (is_passed and self._host.namespace))

    def _sockets_of(self, pid: int) -> tuple[tuple[SocketOwner, bool], ...]:
        running = self._host.running
        return running.sockets if running and running.process.pid == pid else ()

    def of_host(self, pid: int) -> tuple[SocketOwner, ...]:
        return tuple(sock for sock, is_passed in self._sockets_of(pid) if is_passed)

    def reachable(self, pid: int) -> tuple[SocketOwner, ...]:
        return self.of(pid)

    def of_other(self, pid: int) -> tuple[SocketOwner, ...]:
        return self.of(pid)

    def tcp_addresses(self) -> frozenset[str]:
        running = self._host.running
        sockets = (*self._host.held, *(sock for sock, _ in (running.sockets if running else ())))
        addresses = (*(sock.address for sock in sockets), self._host.foreign_listener)
        return frozenset(canonical(address) for address in addresses if address.startswith("tcp://"))

    def inodes(self, pid: int) -> set[int]:
        return {sock.inode for sock in self.of(pid)} | {sock.inode for sock, _ in self._sockets_of(pid)}


class SimulatedKernel(HostKernel):
    """Processes, sockets and the engine."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def sockets(self) -> Sockets:
        return SimulatedSockets(self._host)

    def daemons(self, main: int) -> dict[int, Process]:
        running = self._host.running
        return {running.process.pid: running.process} if running is not None else {}

    def process(self, pid: int) -> Process | None:
        return self.daemons(pid).get(pid)

    def network_namespace(self, pid: int) -> str:
        return self._host.namespace

    def has_ipv6(self) -> bool:
        # Its sockets have the addresses of dockerd's hosts.
        return False

    def access_paths(
        self, seen: Observation, network: Network, manager: UnitStates | None, blocked: Collection[str] = ()
    ) -> tuple[AccessPath, ...]:
        return ()

    def has_new_listener(self) -> bool:
        return False

    def has_new_socket(self) -> bool:
        return False

    def knows_containers(self) -> bool:
        return True

    def unverified(self, seen: Observation, addresses: Collection[str]) -> tuple[str, ...]:
        return ()

    def has_young_listener(self) -> bool:
        return False

    def ask(self, address: str, pids: Collection[int]) -> Engine | None:
        self._host.moment()
        self._host.has_unseen = False
        running = self._host.running
        if running is None or self._host.engine_is_silent:
            return None
        return Engine(str(DOCKERD), running.live_restore, len(self._host.containers), False)

    def shims(self) -> int:
        return len(self._host.containers)

    def embeds_containerd(self, pid: int) -> bool:
        return False


class SimulatedNetwork:
    """nftables and connections, as the network helper gives them."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def _library(self) -> None:
        if self._host.nftables_is_gone:
            raise Unsupported("python3-nftables is not installed")

    def check(self) -> None:
        self._host.tick()

    def shown(self) -> str:
        self._library()
        return f"table {self._host.table} {self._host.blocked}" if self._host.blocked else ""

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        self._library()
        self._host.blocked = wanted
        self._host.table += 1
        self._host.tick()
        return self.shown()

    def release(self) -> None:
        self._host.blocked = ()

    def changed_at(self) -> float | None:
        return None

    def ping(self, address: str, tls: Tls) -> Ping:
        running = self._host.running
        found = running is not None and any(
            canonical(sock.address) == canonical(address) for sock, _ in running.sockets)
        if not found or running is None:
            return Ping(False, Tls.NONE, "Connection refused")
        return Ping(True, running.tls if address.startswith("tcp://") else Tls.NONE, "")

    def probe(self, address: str) -> Probe | None:
        running = self._host.running
        if running is None or self._host.network_is_gone or not self.ping(address, Tls.NONE).answers:
            return None
        self._host.probes.append(f"{self._host.invocation} {address}")
        if any(split_host_port(address)[1] == port for port in self._host.not_api):
            return Probe(Tls.NONE, is_api=False)
        return Probe(running.tls)

    def unbindable(self, address: str) -> str:
        is_taken = canonical(address) == self._host.foreign_listener
        return f"{address.removeprefix('tcp://')} is in use by another program" if is_taken else ""


class SimulatedFiles(HostFiles):
    """A disk that may be full or read-only, and on which the agent may be killed at each write."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(str(host.root))
        self._host = host

    def put(self, path: str, content: Content | None, access: Access) -> None:
        host = self._host
        # Between a look at a file and the rename over it others can write, too. Nobody can exclude that.
        host.end_agent()
        if host.full_in is not None:
            host.full_in -= 1
            if host.full_in < 0:
                host.full_in, host.disk_errno = None, errno.ENOSPC
        if self._host.disk_errno and (content is not None or self._host.disk_errno == errno.EROFS):
            raise OSError(self._host.disk_errno, os.strerror(self._host.disk_errno), path)
        super().put(path, content, access)
        host.touch(path)
        if host.interferes is not None and content is not None and not (
                path.endswith(f"/{DROPIN_NAME}") or SAVED_SUFFIX in path):
            host.put(path, host.interferes)
            host.interfered[path], host.interferes = host.interferes.encode(), None
        host.tick()

    def problem(self, path: str) -> str:
        return os.strerror(self._host.disk_errno) if self._host.disk_errno else ""


def validate_nothing(host: SimulatedHost) -> Callable[..., str | None]:
    """dockerd's own validation: records which program was run. It runs nothing but the file that dockerd is."""
    def validate(process: Process, path: str, arguments: object, config: object) -> str | None:
        if path == process.executable:
            host.executed.append(path)
        return None

    return validate
