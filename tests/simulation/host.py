"""The model of one host: systemd, dockerd, the kernel's sockets, the network, the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dockerd_guard.containment import containment
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Tls, Via, canonical, split_host_port
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.configured import daemon_of, descriptor_count, dockerd_syntax, layer_of, observe_configured
from dockerd_guard.observe.observation import Configured, Layer, Observation, Process
from dockerd_guard.observe.processes import SocketOwner
from dockerd_guard.rootfs import Content, FileStatus, Rootfs
from dockerd_guard.rules import bad_tls_files
from dockerd_guard.systemd.assignments import Variable
from dockerd_guard.systemd.environment import resolve_environment
from tests.simulation.clock import SimulatedClock
from tests.simulation.lock import LockService

SYSTEMD, DOCKERD = 252, Version(26, 1, 5)

VENDOR_SERVICE = """\
[Unit]
Requires=docker.socket
[Service]
Type=notify
ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS
EnvironmentFile=-/etc/default/docker
ExecReload=/bin/kill -s HUP $MAINPID
Restart=always
RestartSec=2
StartLimitBurst=3
StartLimitIntervalSec=60
KillMode=process
"""
VENDOR_SOCKET = "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\nSocketUser=root\nSocketGroup=docker\n"

START_LIMIT_BURST, START_LIMIT_S, RESTART_S = 3, 60.0, 2.0
START_S, STOP_S, TCP_PAUSE_S, REFUSAL_S = 0.5, 0.3, 16.0, 0.2

DOCKERD_FILE, WORKING_DOCKERD = "/usr/bin/dockerd", "dockerd"

FAILING_OPTIONS = ("--storage-driver=zfs", "--bridge=nope0", '"storage-driver": "zfs"')
"""What this host's dockerd cannot start with, and no reading of files can predict."""


class Start(NamedTuple):
    """One start of dockerd: when, by whom (`us`, `systemd`, `admin`), whether it came up, and where it listens then."""

    at: float
    by: str
    is_up: bool
    addresses: frozenset[str] = frozenset()


class Meanwhile(NamedTuple):
    """What somebody did while a pass was under way: when, and whether dockerd runs by it."""

    name: str
    at: float
    has_started: bool
    before: Mapping[str, bytes | None]
    files: Mapping[str, bytes | None]
    """The files that changed, as they were and as they are then."""
    lost: frozenset[bytes] = frozenset()
    """Content that was in no file any more by this itself."""


class Running(NamedTuple):
    """A running dockerd: what it was started with."""

    process: Process
    layer: Layer
    tls: Tls
    live_restore: bool
    sockets: tuple[tuple[SocketOwner, bool], ...]
    """Each with whether systemd passed it."""


@contextlib.contextmanager
def simulated_times() -> Iterator[None]:
    """Let Rootfs read the simulated times of files. Each use of a SimulatedHost needs it.

    Only the kernel sets ctime, by the real clock: of files and links it is the mtime here, which is simulated; of
    directories it is 0. systemd on the simulated host filters IP traffic, whatever this one can do.
    """
    real = Rootfs._lstat_on_disk
    paths = containment.CGROUP_V2_FILE, containment.CONTROL_FILES

    def lstat(rootfs: Rootfs, resolved: str) -> FileStatus | None:
        found = real(rootfs, resolved)
        return found and found._replace(ctime_ns=found.mtime_ns if found.is_file or found.is_link else 0)

    Rootfs._lstat_on_disk = lstat  # type: ignore[method-assign,assignment]
    containment.CGROUP_V2_FILE, containment.CONTROL_FILES = "/", ()
    try:
        yield
    finally:
        Rootfs._lstat_on_disk = real  # type: ignore[method-assign]
        containment.CGROUP_V2_FILE, containment.CONTROL_FILES = paths


def invocation(number: int) -> str:
    """The invocation ID of a start of docker.service, counted from 0."""
    return f"{number:032x}"


class Crash(BaseException):
    """The agent is killed at this moment."""


class SimulatedHost:
    """All state of one host. Every model below is a view of it."""

    def __init__(self, root: Path) -> None:  # noqa: PLR0915 -- one attribute each
        shutil.rmtree(root, ignore_errors=True)
        self.root = root
        self.clock = SimulatedClock()
        self.environment: dict[str, str] = {}
        self.active = {SERVICE: "inactive", SOCKET: "inactive"}
        self.running: Running | None = None
        self.held: tuple[SocketOwner, ...] = ()
        self.result = "success"
        """Of docker.service. systemd keeps the first failure of a run."""
        self.socket_started_us = 0, 0
        """By the wall clock, and since the boot."""
        self.starts: list[Start] = []
        self.stops = 0
        """Times that we stopped a dockerd that ran."""
        self.containers: set[int] = set()
        self.killed: list[tuple[float, str]] = []
        """Containers that were stopped: when, and by whom dockerd was stopped or started. `us, unseen`: what was
        started, or live-restore switched off, between the last look and the restart, which nobody can exclude."""
        self.has_unseen = False
        self.blocked: tuple[Rejection, ...] = ()
        self.table = 0
        self.ip_filter: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self.by = "admin"
        self.invocation = ""
        self.resets = 0
        """Times that we cleared the start limit of docker.service."""
        self._budgets: list[int] = []
        self.executed: list[str] = []
        """Programs that the agent ran, by path."""
        self.probes: list[str] = []
        """The invocation and the address of each probe, without those of passes in which the agent was killed."""
        self.probed_before = 0
        """How many there were at the begin of a pass."""
        self.not_api: tuple[str, ...] = ()
        """TCP ports of dockerd that do not serve its API."""
        self.namespace = ""
        """The network namespace of dockerd."""
        # Faults.
        self.network_is_gone = False
        self.disk_errno = 0
        self.bus_is_gone = False
        self.nftables_is_gone = False
        self.engine_is_silent = False
        self.dies_after_s: float | None = None
        self.is_slow = False
        self.stop_hangs = False
        self.crash_in: int | None = None
        self.next_starts: list[str] = []
        """What becomes of the next starts of dockerd: `refuses`, or `deaf` (it binds nothing)."""
        self.full_in: int | None = None
        """After so many writes of the agent the disk is full."""
        self.interferes: str | None = None
        """What another program writes to the next file that the agent has written and that is no file of its own."""
        self.interfered: dict[str, bytes] = {}
        self.foreign_listener = ""
        """The TCP address at which another program listens."""
        self.binds_at_stop: tuple[str, float] | None = None
        """The TCP address that another program binds when dockerd stops next, and for how many seconds."""
        self.meanwhile: tuple[int, Callable[[], None]] | None = None
        """After so many calls of the agent somebody does something."""
        self.met: list[Meanwhile] = []
        """What was done so in this pass."""
        self.while_loading: tuple[str, str] | None = None
        """A file that somebody has in place only while systemd loads its units next, and its content."""
        self.commands: set[str] = set()
        """The commands that somebody else has started docker.service with."""
        self.unjudged: dict[int, tuple[str, ...]] = {}
        """By the number of a start of ours: the commands that nobody had started it with before."""
        self.lock = LockService()
        self._inode = 10
        self._pid = 100
        self._limit: list[float] = []
        self._auto_restart = 0
        self.booted_us = self.now_us()
        self.put("/usr/lib/systemd/system/docker.service", VENDOR_SERVICE)
        self.put("/usr/lib/systemd/system/docker.socket", VENDOR_SOCKET)
        self.put(DOCKERD_FILE, WORKING_DOCKERD)
        self.put("/etc/docker/daemon.json", '{"live-restore": true}')
        self.put("/etc/dockerd-guard/config.yaml", "version: 1\nmode: enforce\nsockets: [fd://]\n")
        os.makedirs(root / "etc/systemd/system", exist_ok=True)
        os.makedirs(root / "var/lib/dockerd-guard", exist_ok=True)
        self.reload()
        self.start_socket()
        self.start("admin")

    # --- files ----------------------------------------------------------------------------

    def put(self, path: str, text: str) -> None:
        """Write a file, as an administrator does. Its times are simulated."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():
            file.unlink()
        file.write_text(text)
        self.touch(path)

    def touch(self, path: str) -> None:
        """Give a file the simulated time. Only the kernel sets ctime, so observations take mtime for both."""
        at = self.clock.wall.timestamp()
        with_links = self.root / path.lstrip("/")
        if with_links.is_symlink() or with_links.exists():
            os.utime(with_links, (at, at), follow_symlinks=False)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        self.touch(path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        (self.root / path.lstrip("/")).unlink(missing_ok=True)

    def text(self, path: str) -> str | None:
        """What a file holds."""
        file = self.root / path.lstrip("/")
        return file.read_text() if file.exists() else None

    def read(self) -> Configured:
        """What systemd and dockerd make of the files now."""
        return self.read_with({})

    def read_with(self, changes: Mapping[str, Content | None]) -> Configured:
        """The same with other contents of files."""
        with Rootfs(str(self.root)) as real, real.changed(changes) as rootfs:
            return observe_configured(rootfs, dockerd=DOCKERD, systemd=SYSTEMD, manager_environment=self.environment)

    def is_refused_with(self, changes: Mapping[str, Content | None]) -> bool:
        """Whether systemd or dockerd refuses these contents of files."""
        configured = self.read_with(changes)
        with Rootfs(str(self.root)) as real, real.changed(changes) as rootfs:
            return not configured.layer.starts or _has_bad_tls(rootfs, configured)

    # --- systemd --------------------------------------------------------------------------

    def reload(self) -> None:
        """systemctl daemon-reload. systemd closes the sockets that docker.socket no longer lists (src/core/socket.c,
        socket_deserialize_item); dockerd keeps those that it was passed."""
        passing, self.while_loading = self.while_loading, None
        if passing is not None:
            self.put(*passing)
        self.loaded = self.read()
        self._times = self._times_of_files()
        if passing is not None:
            self.remove(passing[0])
        listed = {canonical(dockerd_syntax(item.address)) for socket in self.loaded.sockets
                  if socket.unit.name == SOCKET for item in socket.listen}
        self.held = tuple(sock for sock in self.held if canonical(sock.address) in listed)
        wall_us, since_boot_us = self.now_us()
        self.units_loaded_us = wall_us + 1, since_boot_us + 1

    def now_us(self) -> tuple[int, int]:
        """The wall clock, and the time since the boot."""
        return int(self.clock.wall.timestamp() * 1e6), int(self.clock.seconds * 1e6)

    @property
    def needs_reload(self) -> bool:
        """Whether the files that systemd has loaded have changed since (NeedDaemonReload)."""
        return self._times_of_files() != self._times

    def _times_of_files(self) -> dict[str, int]:
        unit, found = self.loaded.service.unit, {}
        for path in (unit.fragment, *unit.dropins):
            with contextlib.suppress(FileNotFoundError):
                found[path or ""] = (self.root / (path or "").lstrip("/")).stat().st_mtime_ns
        return found

    @property
    def new_socket_commands(self) -> set[str]:
        """What a start of docker.socket would run that it has not run before."""
        return {setting.value for socket in self.loaded.sockets if socket.unit.name == SOCKET
                for setting in socket.unit.settings if setting.key == "ExecStartPre"} - self.commands

    def start_socket(self, by: str = "admin") -> None:
        """Start docker.socket, which runs its ExecStartPre=."""
        self.executed += sorted(self.new_socket_commands if by == "us" else ())
        self.commands |= self.new_socket_commands
        units = [socket for socket in self.loaded.sockets if socket.unit.name == SOCKET]
        self.held = tuple(SocketOwner(dockerd_syntax(item.address), self.inode()) for socket in units
                          for item in socket.listen)
        self.active[SOCKET] = "active" if units else "failed"
        self.socket_started_us = self.now_us()

    def inode(self) -> int:
        """A new inode number."""
        self._inode += 1
        return self._inode

    def start(self, by: str) -> bool:
        """Start docker.service; whether it is up then. Counts against the start limit."""
        now = self.clock.seconds
        self._limit = [at for at in self._limit if now - at < START_LIMIT_S]
        if len(self._limit) >= START_LIMIT_BURST:
            self._hits_limit()
            return False
        self._limit.append(now)
        self._auto_restart += 1
        self.active[SERVICE] = "activating"
        if self.active[SOCKET] != "active":
            self.start_socket(by)
        is_up = self._dockerd(by)
        sockets = self.running.sockets if self.running is not None else ()
        self.starts.append(Start(now, by, is_up, frozenset(canonical(sock.address) for sock, _ in sockets)))
        if not is_up:
            self._failed()
        return is_up

    def _failed(self) -> None:
        """dockerd ended: Restart=always tries again, until the start limit is hit."""
        self.running, self.result = None, "exit-code"
        self.active[SERVICE] = "auto-restart"
        if len(self._limit) >= START_LIMIT_BURST:
            self._hits_limit()
        generation = self._auto_restart

        def again() -> None:
            if self._auto_restart == generation and self.active[SERVICE] == "auto-restart":
                self.start("systemd")

        self.clock.call_in(RESTART_S, again)

    def _hits_limit(self) -> None:
        """docker.socket fails too ("service-start-limit-hit"; socket_trigger_notify() in src/core/socket.c)."""
        self.active.update({SERVICE: "failed", SOCKET: "failed"})
        self.held = ()
        if self.result == "success":
            self.result = "start-limit-hit"

    def stop(self, by: str) -> None:
        """Stop docker.service."""
        self._auto_restart += 1
        if self.running is not None:
            self.stops += by == "us"
            self.clock.sleep(STOP_S)
            if self.running is not None and not self.running.live_restore:
                self._kill_containers(by)
        self.running, self.result = None, "success"
        self.active[SERVICE] = "inactive"
        if self.binds_at_stop is not None:
            (self.foreign_listener, seconds), self.binds_at_stop = self.binds_at_stop, None
            self.clock.call_in(seconds, self.free_port)

    def free_port(self) -> None:
        """The other program ends."""
        self.foreign_listener = ""

    def restart(self, by: str) -> bool:
        """systemctl restart docker."""
        self.stop(by)
        return self.start(by)

    def reset_failed(self) -> None:
        """systemctl reset-failed docker.service."""
        self._limit = []
        if self.active[SERVICE] == "failed":
            self.active[SERVICE] = "inactive"

    # --- dockerd --------------------------------------------------------------------------

    def _dockerd(self, by: str) -> bool:
        """What dockerd does with what systemd has loaded and the files say now."""
        self.invocation = invocation(len(self.starts))
        commands = {setting.value for setting in self.loaded.service.unit.settings if setting.key == "ExecStartPre"}
        commands.update(f"{command.path} {self.text(command.path)}" for command in self.loaded.service.exec_start)
        if by == "us" and commands - self.commands:
            self.unjudged[len(self.starts)] = tuple(sorted(commands - self.commands))
        self.commands |= commands
        with Rootfs(str(self.root)) as rootfs:
            service = self.loaded.service
            inherited = {name: Variable(value) for name, value in self.environment.items()}
            environment = resolve_environment(service, rootfs, SYSTEMD, inherited,
                                              descriptor_count(self.loaded.sockets))
            arguments, daemon = daemon_of(service, environment, rootfs, DOCKERD)
            layer = layer_of("loaded", service, environment, arguments, daemon, self.loaded.sockets, DOCKERD)
            now = self.loaded._replace(daemon=daemon, layer=layer, arguments=arguments)
            has_bad_tls = _has_bad_tls(rootfs, now)
        commands_before = [setting.value for setting in service.unit.settings if setting.key == "ExecStartPre"]
        text = " ".join(layer.argv) + (self.text("/etc/docker/daemon.json") or "")
        fate = self.next_starts.pop(0) if self.next_starts else ""
        fails = fate == "refuses" or "/bin/false" in commands_before or any(
            option in text for option in FAILING_OPTIONS)
        fails |= self.foreign_listener in {binding.key for binding in layer.bindings}
        uses_fd = any(host.startswith("fd://") for host in layer.hosts)
        # "no sockets found via socket activation" (moby daemon/listeners, listenFD()).
        fails |= (uses_fd and not self.held) or self.text(DOCKERD_FILE) != WORKING_DOCKERD
        if not layer.starts or has_bad_tls or fails:
            self.clock.sleep(REFUSAL_S)
            return False
        started_ns = int(self.clock.wall.timestamp() * 1e9)
        plain = any(binding.is_tcp and binding.tls is Tls.NONE for binding in layer.bindings)
        self.clock.sleep(TCP_PAUSE_S if self.is_slow or (plain and "--tls=false" not in layer.argv) else START_S)
        if not daemon.live_restore:
            self._kill_containers(by)
        self._pid += 1
        passed = {canonical(sock.address): sock for sock in self.held}
        sockets: list[tuple[SocketOwner, bool]] = [(sock, True) for sock in self.held] if uses_fd else []
        for binding in layer.bindings:
            # What docker.socket lists and does not hold, systemd opens when docker.socket is started, not dockerd.
            if binding.via is not Via.SOCKET_UNIT and not (uses_fd and binding.key in passed):
                sockets.append((SocketOwner(binding.address, self.inode()), False))
        if fate == "deaf":
            sockets = []
        environ = {name: variable.value or "" for name, variable in environment.variables.items()}
        process = Process(self._pid, layer.argv, {**environ, "INVOCATION_ID": self.invocation}, started_ns, SERVICE,
                          DOCKERD_FILE)
        self.running = Running(process, layer, daemon.tls.mode, daemon.live_restore, tuple(sockets))
        self.active[SERVICE] = "active"
        if self.dies_after_s is not None:
            self.clock.call_in(self.dies_after_s, lambda: self._die(process.pid))
        return True

    def _die(self, pid: int) -> None:
        if self.running is not None and self.running.process.pid == pid:
            self._failed()

    def kill(self) -> None:
        """dockerd is killed from outside; containers outlive it."""
        if self.running is not None:
            self._failed()

    def _kill_containers(self, by: str) -> None:
        by = "us, unseen" if by == "us" and self.has_unseen else by
        self.killed += [(self.clock.seconds, by) for _ in self.containers]
        self.containers.clear()

    def reload_dockerd(self) -> None:
        """systemctl reload docker: dockerd reads live-restore anew, and nothing that matters here besides."""
        if self.running is not None:
            self.running = self.running._replace(live_restore=self.read().daemon.live_restore)

    # --- what is so -----------------------------------------------------------------------

    def is_open(self, address: str) -> bool:
        """Whether somebody on the network reaches a TCP address that dockerd, or systemd for it, holds."""
        port = split_host_port(address)[1]
        return not any(split_host_port(rejection.address)[1] == port for rejection in self.blocked)

    def open_addresses(self) -> tuple[str, ...]:
        """The TCP addresses at which the network reaches Docker without a client certificate."""
        sockets = [sock for sock, _ in self.running.sockets] if self.running is not None else []
        sockets += [sock for sock in self.held if self.active[SOCKET] == "active"]
        is_mutual = self.running is not None and self.running.tls is Tls.MUTUAL
        return tuple(sorted({sock.address for sock in sockets if sock.address.startswith("tcp://")
                             and "127.0.0.1" not in sock.address and not is_mutual and self.is_open(sock.address)}))

    def most_allowed(self, restarts: int) -> int:
        """The largest budget that was in force so far: what was allowed then still counts now."""
        self._budgets.append(restarts)
        return max(self._budgets)

    def moment(self) -> None:
        """Let somebody do something at this call, if that is due."""
        if self.meanwhile is not None:
            calls, happen = self.meanwhile
            self.meanwhile = (calls - 1, happen) if calls else None
            if not calls:
                happen()

    def tick(self) -> None:
        """The same, and let the agent be killed at this call, if that is due."""
        self.moment()
        self.end_agent()

    def end_agent(self) -> None:
        """Let the agent be killed at this call, if that is due."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                # What it has not stored is asked again.
                del self.probes[self.probed_before:]
                raise Crash


def _has_bad_tls(rootfs: Rootfs, configured: Configured) -> bool:
    return any(finding.severity == "error" for finding in bad_tls_files.check(Observation(rootfs, configured), None))
