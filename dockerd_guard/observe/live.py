"""The live layers of this host: loaded, running, listening.

Each has the same type as the configured layer, so that all are compared in the same way. Missing information (no
D-Bus, no permission to read a process) is reported, never guessed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from typing import TYPE_CHECKING

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.model.address import Binding, Evidence, Scope, Tls, Via, canonical, scope_of, split_host_port
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe import processes
from dockerd_guard.observe.configured import (
    daemon_of,
    descriptor_count,
    dockerd_syntax,
    layer_of,
    observe_configured,
    passed_by,
)
from dockerd_guard.observe.kernel import HostKernel, UnitStates
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
from dockerd_guard.observe.probes import NOTHING_KNOWN, Known, with_probes
from dockerd_guard.observe.started import Started, started
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.assignments import Assigned, EnvironmentFile, Variable
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import SHELL, Command
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.manager import Refused
from dockerd_guard.systemd.sockets import Listen, Socket
from dockerd_guard.systemd.words import Word, quote_word

if TYPE_CHECKING:
    from dockerd_guard.dockerd.daemon import Daemon
    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.systemd.manager import Manager, UnitState
    from dockerd_guard.systemd.units import Service

NOWHERE = Location("(systemd)", 0, 0, 0)

DOCKERD = "dockerd"

STOP_WITH = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
"""Properties with the units that stop with a unit (systemd.unit(5): Requires=, Requisite=, BindsTo=, PartOf=,
StopPropagatedFrom=). A restart of docker.service leaves those of the last one stopped (systemd 262)."""

PRIVATE_SOCKETS = ("metrics.sock", "libnetwork/", "swarm/")
"""Internal UNIX sockets of dockerd below --exec-root, which do not serve the API (moby daemon/metrics_unix.go,
libnetwork/sandbox_externalkey_unix.go, daemon/cluster)."""


def observe_host(
    rootfs: Rootfs, manager: Manager | None, kernel: HostKernel, *, dockerd: Version | None = None,
    known: Known = NOTHING_KNOWN
) -> Observation:
    """Observe all four layers of this host. Without a manager, `loaded` is None. `known`: from earlier observations.

    Raises Unavailable if the connection to systemd is lost.
    """
    troubles: list[Trouble] = []
    systemd = manager.version() if manager is not None else None
    environment = None if manager is None else _assignments(manager.environment())
    configured = observe_configured(rootfs, dockerd=dockerd, systemd=systemd, manager_environment=environment)
    loaded = None
    others: tuple[Other, ...] = ()
    if manager is None:
        troubles.append(Trouble(NOWHERE, "cannot query systemd over D-Bus: the loaded layer is unknown"))
    else:
        loaded = observe_loaded(rootfs, manager, configured)
    try:
        sockets = kernel.sockets()
        sockets.expect(binding.address for layer in (configured.layer, loaded.layer if loaded else None)
                       if layer is not None for binding in layer.bindings)
        running, others = observe_running(rootfs, configured, loaded, sockets, kernel, known)
        listening = observe_listening(running, loaded, sockets)._replace(
            opening=tuple(_socket_units_open(configured, loaded, sockets)))
    except PermissionError as error:
        troubles.append(Trouble(NOWHERE, f"cannot read the sockets of dockerd: {error.strerror}: "
                                         f"{error.filename}; "
                                         f"{'run as root' if os.geteuid() else 'CAP_SYS_PTRACE is missing'}"))
        running, listening = None, None
    seen = Observation(rootfs, configured, loaded, running, listening, others, tuple(troubles))
    return with_probes(seen, known.probes)


def _assignments(texts: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def observe_loaded(rootfs: Rootfs, manager: Manager, configured: Configured) -> Loaded:
    """Return the loaded layer: docker.service and its socket units in the memory of PID 1."""
    state = manager.unit(SERVICE)
    states: dict[str, str] = {}
    started_ns: dict[str, int] = {}
    of_sockets: dict[str, tuple[str, ...]] = {}
    sockets = []
    for name in state.texts("TriggeredBy"):
        if name.endswith(".socket"):
            unit = manager.unit(name)
            states[name] = unit.text("ActiveState")
            started_ns[name] = manager.wall_clock_ns(
                unit.number("InactiveExitTimestamp"), unit.number("InactiveExitTimestampMonotonic"))
            of_sockets[name] = tuple(dependents(manager, unit))
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
    inherited = {name: Variable(value) for name, value in (configured.manager_environment or {}).items()}
    environment = resolve_environment(
        service, rootfs, configured.systemd_version, inherited, descriptor_count(tuple(sockets)))
    arguments, daemon = daemon_of(service, environment, rootfs, configured.known_dockerd)
    layer = layer_of(LOADED, service, environment, arguments, daemon, tuple(sockets), configured.known_dockerd)
    is_restarting = state.text("SubState").startswith("auto-restart")
    return Loaded(
        layer=layer._replace(bindings=tuple(_with_source(layer.bindings, configured.layer))),
        service=service, sockets=tuple(sockets), arguments=arguments, daemon=daemon,
        # systemd reports `activating` between two attempts to restart a service that fails.
        active_state="failed" if is_restarting else state.text("ActiveState"), is_restarting=is_restarting,
        main_pid=state.number("MainPID"), restarted_too_often=is_restarted_too_often(state),
        need_daemon_reload=state.properties.get("NeedDaemonReload") is True,
        socket_states=states, dependents=tuple(dependents(manager, state)),
        invocation=state.hexadecimal("InvocationID"), units_loaded_ns=manager.units_loaded_ns(),
        booted_ns=manager.booted_ns(), socket_started_ns=started_ns,
        socket_dependents=of_sockets,
        active_dependencies=frozenset(_active(manager, _dependencies(rootfs, configured))),
    )


def _dependencies(rootfs: Rootfs, configured: Configured) -> Iterator[str]:
    """Yield the names of the units that links start with docker.service or docker.socket."""
    files = unit_files(rootfs, configured.systemd_version)
    for unit in (configured.service.unit, *(socket.unit for socket in configured.sockets)):
        yield from map(posixpath.basename, files.dependency_links(unit.name, unit.names))


def observe_running(  # noqa: PLR0913, PLR0917 -- what each layer was observed with
    rootfs: Rootfs, configured: Configured, loaded: Loaded | None, sockets: processes.Sockets, kernel: HostKernel,
    known: Known
) -> tuple[Running | None, tuple[Other, ...]]:
    """Return the running layer of docker.service, None if its dockerd does not run; and all other dockerds."""
    main = loaded.main_pid if loaded is not None else 0
    daemons = kernel.daemons(main)
    ours = daemons.get(main) or next(
        (process for process in daemons.values()
         if process.unit == SERVICE and not process.in_container and not process.uid), None)
    if ours is None and main:
        ours = kernel.process(main)

    def read_other(process: Process) -> Daemon:
        # Do not read files: its argv may refer to any file, and there may be many such processes.
        if not processes.is_daemon(process):
            # It has the executable of dockerd under another name.
            process = process._replace(argv=(DOCKERD, *process.argv[1:]))
        daemon = resolve_daemon((process.program, *process.argv[1:]), process.environ, _no_file,
                                configured.known_dockerd)
        # The default of a rootless dockerd (contrib/dockerd-rootless.sh: XDG_RUNTIME_DIR).
        return daemon._replace(exec_root=f"/run/user/{process.uid}/docker") if process.uid else daemon

    def other(process: Process) -> Other:
        start, held = Started(read_other(process), None), sockets.of_other(process.pid)
        found = _api_sockets(start, held, knows_all=_knows_all(process, start, sockets))
        namespace = kernel.network_namespace(process.pid)
        bindings = tuple(_in_namespace(found, namespace))
        hosts = tuple(host.address for host in start.daemon.hosts if start.daemon.program.certain
                      and host.via is Via.FLAG and host.address.startswith(("tcp://", "unix://")))
        if process.in_container:
            # Its UNIX sockets are files of the container.
            bindings = tuple(binding for binding in bindings if binding.is_tcp)
            hosts = tuple(host for host in hosts if host.startswith("tcp://"))
        is_young = (time.time_ns() - process.started_ns) / 1e9 < processes.START_PAUSE_S
        to_open = _in_namespace((_live_binding(host, start, Via.FLAG, Evidence.PROC) for host in hosts), namespace)
        return Other(process, bindings, not bindings and is_young, hosts, namespace,
                     tuple(_opening(to_open, sockets, kernel)) if is_young else ())

    found = (other(process) for process in daemons.values() if ours is None or process.pid != ours.pid)
    others = tuple(each for each in found if each.bindings or not each.process.in_container or each.is_starting)
    if ours is None:
        return None, others
    start = started(ours, rootfs, known.start, configured.known_dockerd)
    daemon = start.daemon
    sockets.expect(host.address for host in daemon.hosts)
    namespace = kernel.network_namespace(ours.pid)
    bindings, reason = _running_bindings(ours, start, sockets, namespace)
    starts = daemon.starts or reason is not None
    layer = Layer(RUNNING, True if starts else daemon.starts, None, reason, ours.argv,
                  tuple(host.address for host in daemon.hosts),
                  tuple(_with_source(bindings, configured.layer)))
    return Running(layer, ours, daemon, start.config, namespace=namespace,
                   opening=tuple(_opening(layer.bindings, sockets, kernel))), others


def _no_file(path: str) -> bytes:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def observe_listening(running: Running | None, loaded: Loaded | None, sockets: processes.Sockets) -> Listening:
    """Return the listening layer: the sockets of docker.service, and those PID 1 holds for its socket units."""
    units = loaded.sockets if loaded is not None else ()
    declared = {canonical(dockerd_syntax(item.address)): item for socket in units for item in socket.listen}
    held = tuple(sorted({sock.address for sock in sockets.reachable(1) if canonical(sock.address) in declared}))
    own = {canonical(sock.address) for sock in sockets.of(running.process.pid)
           if sock.inode not in sockets.inodes(1)} if running is not None else set()
    bindings = _reachable_bindings(
        running.process, Started(running.daemon, running.config), sockets, running.namespace) if running else ()
    known = {canonical(binding.address): binding for binding in running.layer.bindings} if running else {}
    found = tuple(
        binding._replace(via=binding.via if binding.via is Via.SOCKET_UNIT else like.via, source=like.source)
        if (like := known.get(canonical(binding.address))) is not None else binding
        for binding in bindings)
    layer = Layer(LISTENING, True, None, None if running else "dockerd is not running",
                  running.process.argv if running else (),
                  tuple(binding.address for binding in found), found)
    return Listening(layer, held, tuple(address for address in held if canonical(address) in own))


def _running_bindings(
    process: Process, start: Started, sockets: processes.Sockets, namespace: str
) -> tuple[tuple[Binding, ...], str | None]:
    """Return the bindings that this process was started with, and why they are incomplete, or None.

    Passed sockets are those it shares with PID 1. If its hosts are unknown, the bindings are its listening sockets.
    """
    daemon = start.daemon
    if not start.knows_hosts:
        cause = (f"dockerd runs although its command line was considered invalid ({daemon.reason})"
                 if not daemon.starts else
                 daemon.reason or daemon.config_error or f"{daemon.config_file} was changed after dockerd started")
        found = _reachable_bindings(process, start, sockets, namespace)
        return found, f"{cause}; its listening sockets are shown"
    bindings: list[Binding] = []
    for host in daemon.hosts:
        if host.address.startswith("fd://"):
            bindings += (
                _live_binding(sock.address, start, Via.SOCKET_UNIT, Evidence.KERNEL)
                for sock in sockets.of(1) if sock.inode in sockets.inodes(process.pid))
        else:
            evidence = Evidence.PROC if host.via is Via.FLAG else start.config
            own = _live_binding(host.address, start, host.via, evidence)._replace(source=host.location)
            bindings += _in_namespace([own], namespace)
    return tuple(bindings), None


def _opening(bindings: Iterable[Binding], sockets: processes.Sockets, kernel: HostKernel) -> Iterator[Binding]:
    """Yield the TCP bindings of a dockerd that it could open now, as the kernel will show them. Go opens a wildcard of
    either family as `[::]` where the kernel has IPv6 (favoriteAddrFamily in net/ipsock_posix.go)."""
    for binding in _free(bindings, sockets):
        is_both = binding.scope is Scope.WILDCARD and kernel.has_ipv6()
        yield binding._replace(address=f"tcp://[::]:{split_host_port(binding.address)[1]}") if is_both else binding


def _free(
    bindings: Iterable[Binding], sockets: processes.Sockets, passed_over: Set[str] = frozenset()
) -> Iterator[Binding]:
    """Yield the TCP bindings of this host on which nothing listens but what is passed over."""
    taken = sockets.tcp_addresses() - passed_over
    ports = {address.rpartition(":")[2] for address in taken}
    for binding in bindings:
        port = binding.key.rpartition(":")[2]
        # A socket on another address of the host is not in the way (ip(7)).
        is_taken = port in ports if binding.scope is Scope.WILDCARD else (
            not taken.isdisjoint((binding.key, f"tcp://*:{port}")))
        if binding.is_tcp and not binding.namespace and not is_taken:
            yield binding


def _socket_units_open(
    configured: Configured, loaded: Loaded | None, sockets: processes.Sockets
) -> Iterator[Binding]:
    """Yield the TCP addresses that systemd opens when a socket unit of docker.service starts, and on which nobody else
    listens. A unit that is not in its memory is loaded from the files then, without a reload; it may have been since
    systemd was asked."""
    known = loaded.socket_states if loaded is not None else {}
    of_systemd = frozenset(canonical(sock.address) for sock in sockets.of(1))
    units = (*(loaded.sockets if loaded is not None else ()),
             *(socket for socket in configured.sockets if socket.unit.name not in known))
    yield from _free((Binding(address, scope_of(address), Tls.UNKNOWN, Via.SOCKET_UNIT, source)
                      for address, source in passed_by(units)), sockets, of_systemd)


def _reachable_bindings(
    process: Process, start: Started, sockets: processes.Sockets, namespace: str
) -> tuple[Binding, ...]:
    """Return the API sockets of a process. Those that PID 1 has passed to it are in the network namespace of
    PID 1, also after it has closed its own descriptors (src/core/socket.c, socket_deserialize_item)."""
    own, inodes = sockets.reachable(process.pid), sockets.inodes(1)
    knows_all = _knows_all(process, start, sockets)
    if not namespace:
        return tuple(_api_sockets(start, own, inodes, knows_all=knows_all))
    passed = sockets.of_host(process.pid)
    inodes = {sock.inode for sock in passed}
    own = tuple(sock for sock in own if sock.inode not in inodes)
    return (*_api_sockets(start, passed, inodes, knows_all=knows_all),
            *_in_namespace(_api_sockets(start, own, knows_all=knows_all), namespace))


def _knows_all(process: Process, start: Started, sockets: processes.Sockets) -> bool:
    """Whether a dockerd serves its API on its hosts alone, and on what systemd has passed to it and holds too. It keeps
    a passed socket that systemd has closed since, which LISTEN_FDS= of its start shows (sd_listen_fds(3))."""
    passed = process.environ.get("LISTEN_FDS", "0")
    return start.knows_hosts and bool(process.environ) and passed.isdecimal() and (
        int(passed[:9]) <= len({sock.inode for sock in sockets.of(process.pid)} & sockets.inodes(1)))


def _in_namespace(bindings: Iterable[Binding], namespace: str) -> Iterator[Binding]:
    """Yield the bindings with the namespace. The file of a UNIX socket is in none; an abstract name is (unix(7))."""
    for binding in bindings:
        is_file = binding.address.startswith("unix://") and not binding.address.startswith("unix://@")
        yield binding if is_file else binding._replace(namespace=namespace)


def _api_sockets(
    start: Started, held: Iterable[processes.SocketOwner], passed: Collection[int] = (), *, knows_all: bool
) -> Iterator[Binding]:
    """Yield the listening sockets of a dockerd that serve its API, as far as can be determined.

    `passed` are the inode numbers of the sockets that systemd holds too. dockerd also listens for swarm and metrics,
    and on the published ports of containers: for good with `userland-proxy: false` (moby, libnetwork/portmapper,
    dummyProxy), from Docker 28 on until it passes the socket to docker-proxy. `knows_all`: it serves its API on its
    hosts and on `passed` sockets alone, which nothing changes after its start.
    """
    daemon = start.daemon
    metrics = canonical(f"tcp://{daemon.metrics_addr}") if daemon.metrics_addr else ""
    private = tuple(canonical(f"unix://{daemon.exec_root}/{name}") for name in PRIVATE_SOCKETS)
    ports = {split_host_port(host.address)[1] for host in daemon.hosts if host.address.startswith("tcp://")}
    # A passed socket and one of dockerd's own may have the same path. dockerd's own replaces the other.
    for address, sock in {canonical(sock.address): sock for sock in held}.items():
        is_passed = sock.inode in passed
        if address.startswith(private):
            continue
        if address.startswith("tcp://") and not is_passed and split_host_port(address)[1] not in ports and (
                address == metrics or knows_all):
            continue
        yield _live_binding(sock.address, start, Via.SOCKET_UNIT if is_passed else Via.FLAG, Evidence.KERNEL)


def _live_binding(address: str, start: Started, via: Via, evidence: Evidence | None) -> Binding:
    tls, tls_evidence = start.tls if address.startswith("tcp://") else (Tls.NONE, None)
    return Binding(address, scope_of(address), tls, via, None, evidence, tls_evidence)


def _with_source(bindings: tuple[Binding, ...], like: Layer) -> Iterator[Binding]:
    """Yield the bindings with their locations in the files, if the files still have them."""
    sources = {canonical(binding.address): binding.source for binding in like.bindings}
    for binding in bindings:
        found = sources.get(canonical(binding.address))
        yield binding._replace(source=found if binding.source in (None, NOWHERE) else binding.source)


def dependents(manager: UnitStates, state: UnitState) -> Iterator[str]:
    """Yield the active units that stop with this one, but docker.service and its socket units."""
    names = {name for kind in STOP_WITH for name in state.texts(kind)} - {SERVICE}
    return _active(manager, (name for name in names if not name.endswith((".socket", ".target"))))


def _active(manager: UnitStates, names: Iterable[str]) -> Iterator[str]:
    """Yield those units that are active or on their way there, sorted."""
    for name in sorted(set(names)):
        try:
            if manager.unit(name).text("ActiveState") in ("active", "activating", "reloading"):
                yield name
        except Refused:
            continue


def _may_start(rootfs: Rootfs, state: UnitState) -> bool:
    """Whether ConditionPathExists= is met. Rows of Conditions are (type, trigger, negate, parameter, result)."""
    return all((rootfs.stat_if_possible(str(row[3])) is None) == row[2] for row in state.tuples("Conditions")
               if row[0] == "ConditionPathExists" and not row[1])


def _loaded_unit(state: UnitState) -> Unit:
    load_state = state.text("LoadState")
    return Unit(
        state.name, load_state,  # type: ignore[arg-type]
        None if load_state == "loaded" else state.load_error or f"Unit {state.name} is {load_state}.",
        state.text("FragmentPath") or None, state.texts("DropInPaths"), state.texts("Names"))


def _loaded_command(row: tuple[object, ...], like: Service) -> Command:
    """Convert a row of ExecStartEx: path, argv, flags, and the result of the last start."""
    path = str(row[0])
    argv, flags = (tuple(map(str, texts)) for texts in row[1:3])  # type: ignore[call-overload]
    # With `|` the path is a placeholder for the user's shell, and argv[0] of a login shell begins with a dash
    # (systemd.service(5)).
    shell = next((command.shell for command in like.exec_start if "|" in command.prefixes), SHELL)
    prefixes = "" if "via-shell" not in flags else "|@" if argv[:1] == ("-sh",) else "|"
    return Command(path, tuple(Word(word, quote_word(word)) for word in argv), prefixes, "no-env-expand" in flags,
                   NOWHERE, Word(path, quote_word(path)), shell)


def is_restarted_too_often(state: UnitState) -> bool:
    """Return whether a service hit its start limit after its main process was stopped, and had ended without an error.

    systemd 262 reports the start limit where the process failed, too; 252 and 257 keep the first failure.
    """
    return state.text("Result") == "start-limit-hit" and (
        state.number("ExecMainCode"), state.number("ExecMainStatus")) == (os.CLD_EXITED, 0)


def _loaded_socket(state: UnitState) -> Socket:
    return Socket(
        _loaded_unit(state),
        tuple(Listen(str(row[0]), str(row[1]), NOWHERE) for row in state.tuples("Listen")),
        SERVICE, state.properties.get("Accept") is True, state.number("SocketMode"),
        state.text("SocketUser") or None, state.text("BindIPv6Only"))


@contextlib.contextmanager
def observer(
    manager: Manager, kernel: HostKernel, root: str = "/", known: Callable[[], Known] = lambda: NOTHING_KNOWN
) -> Iterator[Callable[[], Observation]]:
    """Return a function that observes this host. Each call closes the Rootfs of the previous observation."""
    with contextlib.ExitStack() as latest:
        def observe() -> Observation:
            latest.close()
            return observe_host(latest.enter_context(Rootfs(root)), manager, kernel, known=known())

        yield observe
