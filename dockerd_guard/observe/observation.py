"""What was seen of a host: the four layers, and what each was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.dockerd.command import is_dockerd
from dockerd_guard.model.address import Binding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.engine import Engine

if TYPE_CHECKING:
    from dockerd_guard.dockerd.daemon import Daemon
    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.rootfs import Rootfs
    from dockerd_guard.systemd.assignments import Environment
    from dockerd_guard.systemd.exec import Argument
    from dockerd_guard.systemd.sockets import Socket
    from dockerd_guard.systemd.units import Service

CONFIGURED = "configured"
LOADED = "loaded"
RUNNING = "running"
LISTENING = "listening"
LAYERS = (CONFIGURED, LOADED, RUNNING, LISTENING)
"""Their order is the way of a change: written, loaded, started with, listening."""


class Layer(NamedTuple):
    """One view of where the Docker API listens.

    `starts`: would systemd load it and dockerd accept it; else `refused_by` is `systemd` or
    `dockerd` and `reason` says it in their words. `argv` is what execve(2) gets. `hosts` are as
    this dockerd normalises them; where it does not start, everything that is written.
    `reason` may also say what could not be told (a wrapper that text cannot see through).
    """

    name: str
    starts: bool
    refused_by: str | None
    reason: str | None
    argv: tuple[str, ...]
    hosts: tuple[str, ...]
    bindings: tuple[Binding, ...]


class Configured(NamedTuple):
    """The configured layer and what it was read from.

    Where nothing tells which dockerd this is, `dockerd_version` is the newest known, and what any
    release takes is let pass (`known_dockerd` is None then).
    """

    layer: Layer
    service: Service
    sockets: tuple[Socket, ...]
    environment: Environment
    arguments: tuple[Argument, ...]
    daemon: Daemon
    systemd_version: int
    dockerd_version: Version
    is_dockerd_known: bool = True
    manager_environment: Mapping[str, str] | None = None
    """The environment that PID 1 passes to all services (`systemctl show-environment`), None where it was not asked."""

    @property
    def known_dockerd(self) -> Version | None:
        """The version to read other arguments by."""
        return self.dockerd_version if self.is_dockerd_known else None


class Loaded(NamedTuple):
    """The loaded layer: what PID 1 has in memory, and the state of the units."""

    layer: Layer
    service: Service
    sockets: tuple[Socket, ...]
    arguments: tuple[Argument, ...]
    daemon: Daemon
    active_state: str
    main_pid: int
    need_daemon_reload: bool
    socket_states: Mapping[str, str]
    dependents: tuple[str, ...]
    """Units that stop when docker.service stops (RequiredBy=, BoundBy=, ConsistsOf=), and run now."""


class Process(NamedTuple):
    """One dockerd process. `started_ns` is its start by the wall clock, `unit` its systemd unit or "",
    `executable` the file it runs, whatever argv[0] says; "" where we may not look. One that is `in_container` has a
    PID namespace of its own, and most likely other files. `argv` and `environ` are empty where `uid` is not root's, and
    it is not the main process of docker.service."""

    pid: int
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    started_ns: int
    unit: str
    executable: str = ""
    parent: int = 0
    in_container: bool = False
    uid: int = 0

    @property
    def program(self) -> str:
        """What it goes by: its file where that is a dockerd, which runs as one under any name."""
        if is_dockerd(self.executable):
            return self.executable
        return self.argv[0] if self.argv else ""


class Running(NamedTuple):
    """The running layer: what the dockerd process of docker.service was started with."""

    layer: Layer
    process: Process
    daemon: Daemon


class Other(NamedTuple):
    """A dockerd of this host that docker.service did not start, and the sockets it listens on."""

    process: Process
    bindings: tuple[Binding, ...]


class Listening(NamedTuple):
    """The listening layer: the sockets the kernel holds for it.

    `held_by_systemd` are the addresses that PID 1 holds for a socket unit; while docker.service
    is down, a connection to one of them starts it.
    """

    layer: Layer
    held_by_systemd: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    """Those of them where dockerd has put a socket of its own (`-H unix://`): nothing reaches systemd's any more."""


class Trouble(NamedTuple):
    """A question that could not be answered: what it was about, and why not."""

    location: Location
    text: str


class EngineAnswer(NamedTuple):
    """What decides whether containers survive a restart of dockerd.

    `engine` is the verified answer of the dockerd of docker.service, None without one; `problem` says why there is
    none. `shims` is the number of containers that Docker's containerd runs, whether dockerd runs or not.
    `embeds_containerd`: dockerd started containerd itself, as a child process.
    """

    engine: Engine | None = None
    problem: str = ""
    shims: int = 0
    embeds_containerd: bool = False


class Observation(NamedTuple):
    """One look at a host. The live layers are None where there is nothing to ask (`--root`)."""

    rootfs: Rootfs
    configured: Configured
    loaded: Loaded | None = None
    running: Running | None = None
    listening: Listening | None = None
    others: tuple[Other, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    engine: EngineAnswer | None = None
    """Asked only before a restart."""
    disk_problem: str = ""
    """Why files of the host cannot be written now: `No space left on device`, `Read-only file system`, or nothing."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are there, in the order of LAYERS."""
        parts = (self.configured, self.loaded, self.running, self.listening)
        return tuple(part.layer for part in parts if part is not None)
