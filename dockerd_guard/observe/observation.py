"""The observation of a host: its four layers, and the data each was resolved from."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.dockerd.command import is_dockerd
from dockerd_guard.model.address import Binding, Evidence
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
_CONTAINER = re.compile(r"/docker[-/]([0-9a-f]{64})(?:\.scope)?(?:/|$)")
"""The control group of a container (moby daemon/oci_linux.go: withCgroups): /docker/ID by the cgroupfs driver,
docker-ID.scope by systemd's."""

LAYERS = (CONFIGURED, LOADED, RUNNING, LISTENING)
"""In the order in which a change of a file takes effect."""


class Layer(NamedTuple):
    """One view of where the Docker API listens.

    `starts`: systemd loads the unit and dockerd accepts its configuration. Otherwise `refused_by` is `systemd` or
    `dockerd`, and `reason` is its message. `argv` are the arguments of execve(2). `hosts` are normalised as
    by this dockerd; if it does not start, they are all hosts as written. `reason` may also be why something
    cannot be determined.
    """

    name: str
    starts: bool
    refused_by: str | None
    reason: str | None
    argv: tuple[str, ...]
    hosts: tuple[str, ...]
    bindings: tuple[Binding, ...]


class Configured(NamedTuple):
    """The configured layer and the data it was resolved from.

    If the version of dockerd is unknown, `dockerd_version` is the newest one, `known_dockerd` is None, and
    options of any release are accepted.
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
        """The dockerd version, None if unknown."""
        return self.dockerd_version if self.is_dockerd_known else None


class Loaded(NamedTuple):
    """The loaded layer: the units in the memory of PID 1, and their states."""

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
    """Active units that stop with docker.service (RequiredBy=, BoundBy=, ConsistsOf=)."""
    invocation: str = ""
    """Invocation ID of the last start of docker.service, also after it ended; "" before the first."""
    restarted_too_often: bool = False
    """Whether docker.service failed only since it was started too often (systemd.unit(5), StartLimitIntervalSec=)."""
    is_restarting: bool = False
    """Whether docker.service has failed, and systemd waits to start it again (systemd.service(5), Restart=)."""
    units_loaded_ns: int = 0
    """When systemd loaded the files of units for the last time, by the wall clock; 0: not known."""
    booted_ns: int = 0
    """When systemd itself was started, by the wall clock of then."""
    socket_started_ns: Mapping[str, int] = MappingProxyType({})
    """When each socket unit began to start for the last time, by the wall clock; 0: not since the boot."""
    socket_dependents: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """By socket unit: active units that stop with it, but docker.service."""
    active_dependencies: frozenset[str] = frozenset()
    """Units that links in `.wants` directories and the like start with docker.service, and that are active."""


class Process(NamedTuple):
    """One dockerd process.

    `started_ns` is its start in wall clock time, `unit` its systemd unit or "", `executable` the path of its
    executable, "" if unreadable; it `is_replaced` if that file is no longer there. A process that is `in_container`
    has its own PID namespace and probably its own root directory. `argv` and `environ` are empty if `uid` is not 0 and
    it is not the main process of docker.service. `cgroup` is the path of its control group in systemd's hierarchy.
    """

    pid: int
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    started_ns: int
    unit: str
    executable: str = ""
    parent: int = 0
    in_container: bool = False
    uid: int = 0
    cgroup: str = ""
    is_replaced: bool = False

    @property
    def container(self) -> str:
        """The ID of the Docker container it runs in, "" if none."""
        found = _CONTAINER.search(self.cgroup)
        return found[1] if found is not None else ""

    @property
    def is_before_exec(self) -> bool:
        """Whether a process of root is a child of systemd that has not executed the program of its unit yet.

        It shows the arguments and the executable of the manager, or of systemd-executor since systemd 255
        (src/core/exec-invoke.c), and has the sockets of the unit. A manager is in an init.scope; PID 1's children are
        in its own until they are in that of their unit.
        """
        if self.uid or self.in_container or self.pid == 1:
            return False
        name = posixpath.basename(self.executable)
        is_manager = self.cgroup.endswith("/init.scope") and self.unit != "init.scope"
        return name == "systemd-executor" or (name == "systemd" and not is_manager)

    @property
    def program(self) -> str:
        """The executable if its name is dockerd's, else argv[0]."""
        if is_dockerd(self.executable):
            return self.executable
        return self.argv[0] if self.argv else ""


class Running(NamedTuple):
    """The running layer: the configuration with which the dockerd process of docker.service was started."""

    layer: Layer
    process: Process
    daemon: Daemon
    config: Evidence | None = None
    """What daemon.json at the start rests on, None if it is unknown: then `daemon` is resolved without it."""
    certificate: str = ""
    """SHA-256 of the certificate that it serves, "" if none was seen."""
    namespace: str = ""
    """Its network namespace, "" for the host's own."""
    opening: tuple[Binding, ...] = ()
    """The TCP addresses of its hosts that are free, as the kernel will show them: while it starts, those that it is
    going to open."""


class Other(NamedTuple):
    """A dockerd that was not started by docker.service, and its listening sockets."""

    process: Process
    bindings: tuple[Binding, ...]
    is_starting: bool = False
    """Whether it listens nowhere yet and has not had the time to do so."""
    hosts: tuple[str, ...] = ()
    """The addresses of -H on its command line; empty if there are none or it is not known."""
    namespace: str = ""
    """Its network namespace, "" for the host's own."""
    opening: tuple[Binding, ...] = ()
    """While it starts: those TCP addresses of `hosts` that are free, as the kernel will show them."""


class AccessKind(StrEnum):
    """What an access path is: a program that names or uses the API socket, a process of docker.service that is no part
    of Docker, a program on a port of the Docker API, a container with the API socket, containerd's own TCP endpoint."""

    FORWARDER = "forwarder"
    IN_DOCKER_SERVICE = "in-docker-service"
    API_PORT = "api-port"
    CONTAINER = "container"
    CONTAINERD = "containerd"


class AccessPath(NamedTuple):
    """A TCP listener through which the Docker API can be reached, or may be, other than one of a dockerd.

    `address` is spelled as the kernel reports it, "" if unknown. `pid` is 0 if no process is known. `evidence` is why
    this is an access path, as part of a message; it contains no argument of a command line. `serves_api`: the port
    leads to the API itself, so it may be blocked. `is_published`: traffic to it is forwarded to a container.
    `is_apart`: it does not lead to docker.service, so a request cannot start that. `is_assumed`: that it serves the API
    is not known now; it did before, or when it was blocked.
    """

    kind: AccessKind
    address: str
    evidence: str = ""
    pid: int = 0
    program: str = ""
    unit: str = ""
    uid: int = 0
    container: str = ""
    image: str = ""
    serves_api: bool = False
    is_published: bool = False
    location: Location | None = None
    is_apart: bool = False
    is_assumed: bool = False


class Listening(NamedTuple):
    """The listening layer: the sockets in the kernel.

    `held_by_systemd` are the addresses that PID 1 listens on for a socket unit. While docker.service is
    inactive, a connection to one of them starts it.
    """

    layer: Layer
    held_by_systemd: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    """Those of them that dockerd has replaced by its own socket (`-H unix://`); systemd's is no longer reachable."""
    opening: tuple[Binding, ...] = ()
    """The TCP addresses of the socket units of docker.service that are free, which systemd opens when it starts them,
    or that it has opened."""


class Trouble(NamedTuple):
    """A part of the observation that failed: its location and the reason."""

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
    """One observation of a host. The live layers are None if there is no live host (`--root`)."""

    rootfs: Rootfs
    configured: Configured
    loaded: Loaded | None = None
    running: Running | None = None
    listening: Listening | None = None
    others: tuple[Other, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    engine: EngineAnswer | None = None
    """Asked only before a restart."""
    access_paths: tuple[AccessPath, ...] = ()
    """Other ways to the API than a dockerd, as last observed; they are looked for after what is urgent."""
    disk_problem: str = ""
    """Why files of the host cannot be written now: `No space left on device`, `Read-only file system`, or nothing."""
    machine_id: str = ""
    """The app-specific ID of this host (observe/machine_id.py); read only where the policy refers to a fleet."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The available layers, in the order of LAYERS."""
        parts = (self.configured, self.loaded, self.running, self.listening)
        return tuple(part.layer for part in parts if part is not None)
