"""The live layers of this host: loaded by systemd, started with, listened on.

Each is brought into the same shape as the configured layer, so that one comparison serves all.
What cannot be asked (no D-Bus, not allowed to look into a process) is said, never guessed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.model.address import Binding, Tls, Via, canonical, scope_of
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe import processes
from dockerd_guard.observe.configured import daemon_of, descriptor_count, dockerd_syntax, layer_of, observe_configured
from dockerd_guard.observe.observation import (
    LISTENING,
    LOADED,
    RUNNING,
    Configured,
    Layer,
    Listening,
    Loaded,
    Observation,
    Other,
    Process,
    Running,
    Trouble,
)
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.assignments import Assigned, EnvironmentFile, Variable
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import SHELL, Command
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.manager import Refused
from dockerd_guard.systemd.sockets import Listen, Socket
from dockerd_guard.systemd.words import Word, quote_word

if TYPE_CHECKING:
    from dockerd_guard.dockerd.daemon import Daemon
    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.systemd.manager import Manager, UnitState
    from dockerd_guard.systemd.units import Service

NOWHERE = Location("(systemd)", 0, 0, 0)

PRIVATE_SOCKETS = ("metrics.sock", "libnetwork/", "swarm/")
"""UNIX sockets below --exec-root that are dockerd's own business: no API (moby daemon/metrics_unix.go,
libnetwork/sandbox_externalkey_unix.go, daemon/cluster)."""

SWARM_PORTS = (2377, 7946)
"""Cluster management and gossip of swarm mode (docs: Open protocols and ports): no Engine API."""


def observe_host(rootfs: Rootfs, manager: Manager | None, *, dockerd: Version | None = None) -> Observation:
    """Look at all four layers of this host. Without a manager, `loaded` stays unknown.

    Raises Unavailable when the connection to systemd breaks while it is asked.
    """
    troubles: list[Trouble] = []
    systemd = manager.version() if manager is not None else None
    configured = observe_configured(rootfs, dockerd=dockerd, systemd=systemd)
    loaded = None
    others: tuple[Other, ...] = ()
    if manager is None:
        troubles.append(Trouble(NOWHERE, "systemd cannot be asked over D-Bus: the loaded layer is not known"))
    else:
        loaded = observe_loaded(rootfs, manager, configured)
    try:
        sockets = processes.Sockets()
        sockets.expect(binding.address for layer in (configured.layer, loaded.layer if loaded else None)
                       if layer is not None for binding in layer.bindings)
        running, others = observe_running(rootfs, configured, loaded, sockets)
        listening = observe_listening(running, loaded, sockets)
    except PermissionError as error:
        troubles.append(Trouble(NOWHERE, f"the sockets of dockerd cannot be seen: {error.strerror}: "
                                         f"{error.filename}; run as root"))
        running, listening = None, None
    return Observation(rootfs, configured, loaded, running, listening, others, tuple(troubles))


def observe_loaded(rootfs: Rootfs, manager: Manager, configured: Configured) -> Loaded:
    """What PID 1 has in memory for docker.service and its sockets."""
    state = manager.unit(SERVICE)
    states: dict[str, str] = {}
    sockets = []
    for name in state.texts("TriggeredBy"):
        if name.endswith(".socket"):
            unit = manager.unit(name)
            states[name] = unit.text("ActiveState")
            if states[name] == "active" or _may_start(rootfs, unit):
                sockets.append(_loaded_socket(unit))
    service = configured.service._replace(
        unit=_loaded_unit(state),
        type=state.text("Type"),
        exec_start=tuple(_loaded_command(row, configured.service) for row in state.tuples("ExecStartEx")),
        environment=tuple(
            Assigned(name, Variable(value))
            for name, _, value in (text.partition("=") for text in state.texts("Environment"))),
        environment_files=tuple(
            EnvironmentFile(str(row[0]), bool(row[1]), NOWHERE) for row in state.tuples("EnvironmentFiles")),
        pass_environment=tuple(Word(name, name) for name in state.texts("PassEnvironment")),
        unset_environment=tuple(Word(name, name) for name in state.texts("UnsetEnvironment")),
    )
    inherited = {name: Variable(value)
                 for name, _, value in (text.partition("=") for text in manager.environment())}
    environment = resolve_environment(
        service, rootfs, configured.systemd_version, inherited, descriptor_count(tuple(sockets)))
    arguments, daemon = daemon_of(service, environment, rootfs, configured.known_dockerd)
    layer = layer_of(LOADED, service, environment, arguments, daemon, tuple(sockets), configured.known_dockerd)
    return Loaded(
        layer=layer._replace(bindings=tuple(_with_source(layer.bindings, configured.layer))),
        service=service, sockets=tuple(sockets), arguments=arguments, daemon=daemon,
        # Between two attempts to start what cannot start systemd calls it activating.
        active_state="failed" if state.text("SubState").startswith("auto-restart") else state.text("ActiveState"),
        main_pid=state.number("MainPID"),
        need_daemon_reload=state.properties.get("NeedDaemonReload") is True,
        socket_states=states, dependents=tuple(_dependents(manager, state)),
    )


def observe_running(
    rootfs: Rootfs, configured: Configured, loaded: Loaded | None, sockets: processes.Sockets
) -> tuple[Running | None, tuple[Other, ...]]:
    """What the dockerd of docker.service was started with, None when none runs; and every other dockerd."""
    main = loaded.main_pid if loaded is not None else 0
    daemons = processes.daemons(main)
    ours = daemons.get(main) or next(
        (process for process in daemons.values()
         if process.unit == SERVICE and not process.in_container and not process.uid), None)
    if ours is None and main:
        ours = processes.read_process(main)
    def read(process: Process, read_file: Callable[[str], bytes]) -> Daemon:
        return resolve_daemon((process.program, *process.argv[1:]), process.environ, read_file,
                              configured.known_dockerd)

    def read_other(process: Process) -> Daemon:
        # Its argv may name any file, and there may be many such processes.
        daemon = read(process, _nothing)
        # Of rootless ones nothing else is known (contrib/dockerd-rootless.sh: XDG_RUNTIME_DIR).
        return daemon._replace(exec_root=f"/run/user/{process.uid}/docker") if process.uid else daemon

    others = tuple(Other(process, tuple(_api_sockets(process, read_other(process), sockets.of_other(process.pid))))
                   for process in daemons.values() if ours is None or process.pid != ours.pid)
    # What a container has among its own files is its own business, as is a dockerd without anything else.
    others = tuple(
        Other(process, tuple(binding for binding in bindings if binding.is_tcp)) if process.in_container else
        Other(process, bindings) for process, bindings in others
        if not process.in_container or any(binding.is_tcp for binding in bindings))
    if ours is None:
        return None, others
    daemon = read(ours, rootfs.read)
    sockets.expect(host.address for host in daemon.hosts)
    bindings, reason = _running_bindings(rootfs, ours, daemon, sockets)
    starts = daemon.starts or reason is not None
    layer = Layer(RUNNING, True if starts else daemon.starts, None, reason, ours.argv,
                  tuple(host.address for host in daemon.hosts),
                  tuple(_with_source(bindings, configured.layer)))
    return Running(layer, ours, daemon), others


def _nothing(path: str) -> bytes:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def observe_listening(running: Running | None, loaded: Loaded | None, sockets: processes.Sockets) -> Listening:
    """The sockets the kernel holds for docker.service, and those PID 1 holds for its socket units."""
    units = loaded.sockets if loaded is not None else ()
    declared = {canonical(dockerd_syntax(item.address)): item for socket in units for item in socket.listen}
    held = tuple(sorted({sock.address for sock in sockets.reachable(1) if canonical(sock.address) in declared}))
    own = {canonical(sock.address) for sock in sockets.of(running.process.pid)
           if sock.inode not in sockets.inodes(1)} if running is not None else set()
    bindings = tuple(_api_sockets(running.process, running.daemon, sockets.reachable(running.process.pid))
                     ) if running is not None else ()
    known = {canonical(binding.address): binding for binding in running.layer.bindings} if running else {}
    found = tuple(
        binding._replace(via=like.via, source=like.source, tls=like.tls)
        if (like := known.get(canonical(binding.address))) is not None else binding
        for binding in bindings)
    layer = Layer(LISTENING, True, None, None if running else "dockerd is not running",
                  running.process.argv if running else (),
                  tuple(binding.address for binding in found), found)
    return Listening(layer, held, tuple(address for address in held if canonical(address) in own))


def _running_bindings(
    rootfs: Rootfs, process: Process, daemon: Daemon, sockets: processes.Sockets
) -> tuple[tuple[Binding, ...], str | None]:
    """Where this process was told to listen.

    Sockets that systemd passed on are those it holds together with PID 1. A daemon.json that was
    changed since says nothing of this process: then its sockets are all there is to go by.
    """
    entry = rootfs.stat(daemon.config_file)
    if not daemon.starts or (entry is not None and entry.mtime_ns > process.started_ns):
        why = (f"{daemon.config_file} was changed after dockerd started" if daemon.starts or daemon.config_error or (
            daemon.keys) else f"it runs, whatever its command line reads like here ({daemon.reason})")
        found = _api_sockets(process, daemon, sockets.reachable(process.pid))
        return tuple(found), f"{why}: these are the sockets it has"
    bindings: list[Binding] = []
    for host in daemon.hosts:
        if host.address.startswith("fd://"):
            bindings += (
                Binding(sock.address, scope_of(sock.address), _tls(sock.address, daemon), Via.SOCKET_UNIT)
                for sock in sockets.of(process.pid) if sock.inode in sockets.inodes(1))
        else:
            bindings.append(Binding(host.address, scope_of(host.address), _tls(host.address, daemon), host.via,
                                    host.location))
    return tuple(bindings), None


def _api_sockets(process: Process, daemon: Daemon, held: Iterable[processes.SocketOwner]) -> Iterator[Binding]:
    """The listening sockets of a dockerd that are (as far as can be told) its API."""
    metrics = canonical(f"tcp://{daemon.metrics_addr}") if daemon.metrics_addr else ""
    private = tuple(canonical(f"unix://{daemon.exec_root}/{name}") for name in PRIVATE_SOCKETS)
    # A socket that was passed on and one of its own may have one path: dockerd puts its own in place of the other.
    for address, sock in {canonical(sock.address): sock for sock in held}.items():
        if address == metrics or address.startswith(private):
            continue
        if address.startswith("tcp://") and int(address.rpartition(":")[2]) in SWARM_PORTS and _in_swarm(daemon):
            continue
        yield Binding(sock.address, scope_of(sock.address), _tls(sock.address, daemon), Via.FLAG)


def _in_swarm(daemon: Daemon) -> bool:
    return os.path.exists(f"{daemon.data_root}/swarm/docker-state.json")


def _tls(address: str, daemon: Daemon) -> Tls:
    return daemon.tls.mode if address.startswith("tcp://") else Tls.NONE


def _with_source(bindings: tuple[Binding, ...], like: Layer) -> Iterator[Binding]:
    """The line that made a binding, where the files say the same now."""
    sources = {canonical(binding.address): binding.source for binding in like.bindings}
    for binding in bindings:
        found = sources.get(canonical(binding.address))
        yield binding._replace(source=found if binding.source in (None, NOWHERE) else binding.source)


def _dependents(manager: Manager, state: UnitState) -> Iterator[str]:
    """Active units that a stop of this one stops too (systemd.unit(5): Requires=, BindsTo=, PartOf=)."""
    for name in sorted({*state.texts("RequiredBy"), *state.texts("BoundBy"), *state.texts("ConsistsOf")}):
        if name.endswith((".socket", ".target")):
            continue
        try:
            if manager.unit(name).text("ActiveState") in ("active", "activating", "reloading"):
                yield name
        except Refused:
            continue


def _may_start(rootfs: Rootfs, state: UnitState) -> bool:
    """Whether its ConditionPathExists= hold; rows are (type, trigger, negate, parameter, result)."""
    return all((rootfs.stat(str(row[3])) is None) == row[2] for row in state.tuples("Conditions")
               if row[0] == "ConditionPathExists" and not row[1])


def _loaded_unit(state: UnitState) -> Unit:
    load_state = state.text("LoadState")
    return Unit(
        state.name, load_state,  # type: ignore[arg-type]
        None if load_state == "loaded" else state.load_error or f"Unit {state.name} is {load_state}.",
        state.text("FragmentPath") or None, state.texts("DropInPaths"), state.texts("Names"))


def _loaded_command(row: tuple[object, ...], like: Service) -> Command:
    """A row of ExecStartEx: path, argv, flags, and what became of the last start."""
    path = str(row[0])
    argv, flags = (tuple(map(str, texts)) for texts in row[1:3])  # type: ignore[call-overload]
    # With `|` the path is a stand-in for the user's shell, and argv[0] tells a login shell by its dash
    # (systemd.service(5)).
    shell = next((command.shell for command in like.exec_start if "|" in command.prefixes), SHELL)
    prefixes = "" if "via-shell" not in flags else "|@" if argv[:1] == ("-sh",) else "|"
    return Command(path, tuple(Word(word, quote_word(word)) for word in argv), prefixes, "ignore-failure" in flags,
                   "no-env-expand" in flags, NOWHERE, Word(path, quote_word(path)), shell)


def _loaded_socket(state: UnitState) -> Socket:
    return Socket(
        _loaded_unit(state),
        tuple(Listen(str(row[0]), str(row[1]), NOWHERE) for row in state.tuples("Listen")),
        SERVICE, state.properties.get("Accept") is True, state.number("SocketMode"),
        state.text("SocketUser") or None, state.text("SocketGroup") or None, state.text("BindIPv6Only"),
        enabled=state.text("ActiveState") == "active")


@contextlib.contextmanager
def observer(manager: Manager) -> Iterator[Callable[[], Observation]]:
    """A fresh look at this host at each call, which ends the one before."""
    with contextlib.ExitStack() as latest:
        def look() -> Observation:
            latest.close()
            return observe_host(latest.enter_context(Rootfs()), manager)

        yield look
