"""The configured layer, resolved from the files on disk as systemd and dockerd read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dockerd_guard.dockerd.command import program_of
from dockerd_guard.dockerd.daemon import Daemon, resolve_daemon
from dockerd_guard.dockerd.flags import UNKNOWN
from dockerd_guard.dockerd.hosts import NO_SOCKETS, InvalidHost, parse_host
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, Version
from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe.collisions import dockerd_collision, socket_collision, units_collide
from dockerd_guard.observe.observation import CONFIGURED, Configured, Layer
from dockerd_guard.observe.versions import dockerd_version
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.systemd.assignments import Environment, Variable
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import Argument, expand, too_long
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.manager_conf import default_environment
from dockerd_guard.systemd.sockets import Listen, load_socket, sockets_for
from dockerd_guard.systemd.units import NEWEST_SYSTEMD, detect_version, load_service

if TYPE_CHECKING:
    from dockerd_guard.rootfs import Rootfs
    from dockerd_guard.systemd.exec import Command
    from dockerd_guard.systemd.sockets import Socket
    from dockerd_guard.systemd.units import Service


ACCEPTING = ("Stream", "SequentialPacket")
"""Socket types that accept connections (Go's net.FileListener supports both)."""

_INDEPENDENT_LISTENERS = Version(24)
"""Since this version dockerd continues to serve other listeners if one fails."""

FIRST_PASSED_FD = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3)): fd://3 is the first passed socket."""


def observe_configured(
    rootfs: Rootfs, *, dockerd: Version | None = None, systemd: int | None = None, unit: str | None = None,
    manager_environment: Mapping[str, str] | None = None,
) -> Configured:
    """Resolve the configured layer below a root directory.

    The versions default to those installed there, then to the newest implemented ones.
    """
    systemd = systemd or detect_version(rootfs) or NEWEST_SYSTEMD
    dockerd = dockerd or dockerd_version(rootfs)
    service = load_service(rootfs, unit or daemon_unit(rootfs, systemd), systemd)
    sockets = tuple(socket for socket in sockets_for(rootfs, service, systemd) if _may_start(rootfs, socket))
    inherited = None if manager_environment is None else _environment_after_reload(
        rootfs, manager_environment, systemd)
    environment = resolve_environment(service, rootfs, systemd, inherited, descriptor_count(sockets))
    arguments, daemon = daemon_of(service, environment, rootfs, dockerd)
    layer = layer_of(CONFIGURED, service, environment, arguments, daemon, sockets, dockerd)
    if layer.refused_by != "systemd" and (reason := _dependency_error(rootfs, service, sockets, systemd)):
        layer = layer._replace(starts=False, refused_by="systemd", reason=reason)
    if service.unit.load_state == "bad-setting":
        layer = layer._replace(hosts=tuple(_all_hosts(service, environment, rootfs, dockerd)))
    return Configured(layer, service, sockets, environment, arguments, daemon, systemd,
                      dockerd or NEWEST_DOCKERD, dockerd is not None, manager_environment)


def _environment_after_reload(rootfs: Rootfs, now: Mapping[str, str], systemd: int) -> dict[str, Variable]:
    """Return the manager's environment block with DefaultEnvironment= of its files, which a daemon-reload applies.

    A variable with another value stays: `systemctl set-environment` overrides the files (systemctl(1)).
    """
    files = {name: variable for name, variable in default_environment(rootfs, systemd).items()
             if now.get(name, variable.value) == variable.value}
    return {**{name: Variable(value) for name, value in now.items()}, **files}


def _may_start(rootfs: Rootfs, socket: Socket) -> bool:
    """Whether ConditionPathExists= of a socket unit is met (systemd.unit(5)). If not, the unit is not started and
    passes no sockets. Other conditions depend on more than files and are not evaluated."""
    paths: list[str] = []
    for setting in socket.unit.settings:
        if setting.section == "Unit" and setting.key.startswith("Condition"):
            if not setting.value:
                paths.clear()
            elif setting.key == "ConditionPathExists":
                paths.append(setting.value)
    return all((rootfs.stat_if_possible(path.lstrip("|!")) is None) == ("!" in path[:2]) for path in paths
               if path.lstrip("|!").startswith("/") and not path.startswith("|"))


def daemon_unit(rootfs: Rootfs, systemd: int) -> str:
    """Return the name of the service that runs dockerd: docker.service, or else one whose name contains `docker`."""
    files = unit_files(rootfs, systemd)
    if files.fragment(SERVICE).path is None:
        for name in files.with_suffix(".service"):
            if "docker" in name:
                service = load_service(rootfs, name, systemd)
                if service.exec_start and _runs_dockerd(service, service.exec_start[-1]):
                    return name
    return SERVICE


def daemon_of(
    service: Service, environment: Environment, rootfs: Rootfs, version: Version | None
) -> tuple[tuple[Argument, ...], Daemon]:
    """Return the arguments of execve(2) for the main command, and dockerd's configuration."""
    command = main_command(service)
    if command is None:
        return (), resolve_daemon((), {}, _reader(rootfs), version)
    arguments, daemon = _resolve_command(service, command, environment, rootfs, version)
    if _may_follow_dockerd(service, command):
        daemon = daemon._replace(certain=False, program=daemon.program._replace(certain=False))
    return arguments, daemon


def _resolve_command(
    service: Service, command: Command, environment: Environment, rootfs: Rootfs, version: Version | None
) -> tuple[tuple[Argument, ...], Daemon]:
    arguments = expand(command, environment)
    # Use the path of the executable: with `@` argv[0] is arbitrary, and sh is a link to some shell.
    path = command.shell if "|" in command.prefixes else command.path
    shell = rootfs.resolve(path) if path.endswith("/sh") else None
    words = (shell or path, *(argument.text for argument in arguments[1:]))
    # dockerd uses passed descriptors only if these variables are set, which `env -i` removes.
    passed = dict.fromkeys(environment.unknown_variables.intersection(("LISTEN_FDS", "LISTEN_PID")), UNKNOWN)
    return arguments, resolve_daemon(
        words, {**passed, **values(environment)}, _reader(rootfs), version, service.working_directory)


def _reader(rootfs: Rootfs) -> Callable[[str], bytes]:
    """Return a function that reads daemon.json, and programs, which may be scripts that start dockerd.

    A program is no configuration: that it exceeds the limits of the configuration is no finding.
    """
    def read(path: str) -> bytes:
        status = rootfs.stat(path)
        if status is not None and status.is_file and status.mode & 0o111:
            if status.size > rootfs.limits.file_bytes:
                raise Unreadable(path, f"is larger than {rootfs.limits.file_bytes >> 20} MiB")
            content = rootfs.read_table(path)
            if content.startswith((b"\x7fELF", b"#!")):
                return content
        return rootfs.read(path)

    return read


def _runs_dockerd(service: Service, command: Command) -> bool:
    """Whether a command starts dockerd, by the unit alone: environment files rarely change the program."""
    arguments = expand(command, {assigned.name: assigned.variable for assigned in service.environment})
    program = program_of((command.path, *(argument.text for argument in arguments[1:])), {}, None)
    return program.certain and program.reason is None


def main_command(service: Service) -> Command | None:
    """Return the command that starts dockerd. Of several (Type=oneshot) it is the first one that does, since
    dockerd does not exit and later ones are not executed."""
    for command in service.exec_start[:-1] if service.type == "oneshot" else ():
        if _runs_dockerd(service, command):
            return command
    return service.exec_start[-1] if service.exec_start else None


def _may_follow_dockerd(service: Service, main: Command) -> bool:
    """Whether an earlier ExecStart= mentions dockerd and may start it, too, such as an unsupported script."""
    before = service.exec_start[:service.exec_start.index(main)] if service.type == "oneshot" else ()
    return any("dockerd" in word.text for command in before for word in command.argv)


def values(environment: Environment) -> Mapping[str, str]:
    """Return the environment of the process."""
    return {name: variable.value for name, variable in environment.variables.items()}


def layer_of(  # noqa: PLR0913, PLR0917
    name: str, service: Service, environment: Environment, arguments: tuple[Argument, ...], daemon: Daemon,
    sockets: tuple[Socket, ...], version: Version | None,
) -> Layer:
    """Combine the results for systemd and dockerd into a layer."""
    bindings = tuple(bindings_of(daemon, arguments, sockets, service))
    refused_by, reason = None, None
    command = main_command(service)
    if service.unit.load_state != "loaded":
        refused_by, reason = "systemd", service.unit.reason
    elif environment.failure:
        refused_by, reason = "systemd", environment.failure
    elif command is not None and too_long(arguments, environment.variables):
        refused_by, reason = "systemd", f"Failed to execute {command.path}: Argument list too long"
    elif not daemon.starts:
        refused_by, reason = "dockerd", daemon.reason
    elif error := _descriptor_error(daemon, (*_descriptors(sockets), *_open_file_descriptors(service)), version):
        refused_by, reason = "dockerd", error
    elif taken := dockerd_collision((host.address for host in daemon.hosts), sockets):
        refused_by, reason = "dockerd", f"failed to load listeners: {taken}: bind: address already in use"
    elif not daemon.certain:
        reason = daemon.reason or "cannot determine from the files what the wrapper runs"
    elif command is not None and (index := _unknown_host(arguments, daemon)) is not None:
        reason = f"cannot determine from the files what {command.argv[index].text} expands to"
    else:
        units = (service.unit, *(socket.unit for socket in sockets))
        reason = next((unit.ambiguity for unit in units if unit.ambiguity), None)
    return Layer(name, refused_by is None, refused_by, reason,
                 tuple(argument.text for argument in arguments),
                 tuple(host.address for host in daemon.hosts), bindings)


def _unknown_host(arguments: tuple[Argument, ...], daemon: Daemon) -> int | None:
    """Return the index of the first word of the command that is or may be a host and whose value is unknown."""
    hosts = {host.argument for host in daemon.hosts}
    return next((argument.word for index, argument in enumerate(arguments)
                 if not argument.certain and (index in hosts or not argument.text)), None)


def bindings_of(
    daemon: Daemon, arguments: tuple[Argument, ...], sockets: tuple[Socket, ...], service: Service
) -> Iterator[Binding]:
    """Yield the binding of each host. `fd://` yields one for each socket that systemd passes."""
    command = main_command(service)
    whole = command.location if command is not None else None
    passed = tuple(_descriptors(sockets))
    seen: set[str] = set()
    for host in daemon.hosts:
        if host.via is Via.FLAG and host.argument is not None and host.argument < len(arguments):
            source = _narrow(arguments[host.argument], host.offset, len(host.raw))
        else:
            source = host.location if host.via is Via.DAEMON_JSON else whole
        if not host.address.startswith("fd://"):
            address = host.address if daemon.starts else _intended_address(host.address)
            if address is not None:
                yield Binding(address, scope_of(address), _tls(address, daemon), host.via, source)
            continue
        # If dockerd refuses its configuration, a host may be given repeatedly.
        given = () if host.address in seen else _select_descriptors(passed, host.address.removeprefix("fd://"))
        seen.add(host.address)
        for item in given:
            if item.kind not in ACCEPTING:
                continue
            address, location = dockerd_syntax(item.address), item.location
            yield Binding(address, scope_of(address), _tls(address, daemon), Via.SOCKET_UNIT, location)


def passed_by(sockets: Iterable[Socket]) -> Iterator[tuple[str, Location | None]]:
    """Yield the addresses that these socket units pass, in dockerd's syntax and in the order of descriptors."""
    for item in _descriptors(sockets):
        if item.kind in ACCEPTING:
            yield dockerd_syntax(item.address), item.location


def descriptor_count(sockets: tuple[Socket, ...]) -> int | None:
    """Return the number of descriptors that these units pass. None if one of them may fail to bind its addresses:
    two units collide, or the address is vsock or link-local, which may not exist on the host."""
    passed = tuple(_descriptors(sockets))
    if units_collide(sockets) or not all(
            item.certain and not item.address.startswith(("vsock", "[fe80:")) for item in passed):
        return None
    return len(passed)


def _open_file_descriptors(service: Service) -> Iterator[Listen]:
    """Yield the descriptor of OpenFile=, which follows the sockets and which dockerd cannot use."""
    if "LISTEN_FDS" in service.set_at_start:
        yield Listen("File", "OpenFile=", Location(service.unit.fragment or ""))


def _descriptors(sockets: Iterable[Socket]) -> Iterator[Listen]:
    """Yield all passed sockets in the order of descriptors from 3, including those that dockerd cannot use."""
    for socket in sockets:
        if socket.unit.load_state == "loaded" and not socket.accept and socket_collision(socket) is None:
            yield from socket.listen


def dockerd_syntax(listen_stream: str) -> str:
    """Convert an address of the D-Bus property Listen to dockerd's syntax.

    >>> dockerd_syntax("/run/docker.sock"), dockerd_syntax("[::]:2375")
    ('unix:///run/docker.sock', 'tcp://[::]:2375')
    """
    if listen_stream.startswith(("/", "@")):
        return f"unix://{_unescape(listen_stream)}"
    if listen_stream.startswith("vsock:"):
        return f"vsock://{listen_stream.removeprefix('vsock:')}"
    address, percent, interface = listen_stream.partition("%")
    if percent and address.startswith("[fe80:"):
        return f"tcp://{address.replace(']', f'%{interface}]')}"
    # The interface is significant for link-local addresses only; others are bound on all (ipv6(7)).
    return f"tcp://{address}"


_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39}


def _unescape(path: str) -> str:
    """Undo cescape(), which sockaddr_pretty() applies to the path of a socket."""
    if "\\" not in path:
        return path
    data = re.sub(rb"\\([0-7]{3}|.)", lambda found: bytes([
        int(found[1], 8) if len(found[1]) == 3 else _ESCAPES.get(found[1].decode("ascii", "replace"), ord(found[1]))]),
        path.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "surrogateescape")


def _tls(address: str, daemon: Daemon) -> Tls:
    return daemon.tls.mode if address.startswith("tcp://") else Tls.NONE


def _dependency_error(rootfs: Rootfs, service: Service, sockets: tuple[Socket, ...], systemd: int) -> str | None:
    """Return why systemd does not start a service because of its Requires=, or None: a socket unit cannot be
    started, or a unit is masked. Other missing units are ignored: an image may lack them."""
    states: dict[str, str] = {name: socket.unit.load_state for socket in sockets for name in socket.unit.names}
    known = {name: socket for socket in sockets for name in socket.unit.names}
    files = unit_files(rootfs, systemd)
    for word in service.requires:
        name = word.text
        if name not in states:
            if files.fragment(name).masked:
                states[name] = "masked"
            elif name.endswith(".socket"):
                known[name] = load_socket(rootfs, name, systemd)
                states[name] = known[name].unit.load_state
        if (error := _LOAD_ERRORS.get(states.get(name, "loaded"))) is not None:
            return f"Failed to start {service.unit.name}: Unit {name} {error}."
        if name in known and (reason := _socket_start_error(known[name], service, rootfs, systemd)):
            return f"A dependency job for {service.unit.name} failed: {reason}"
    return None


def _socket_start_error(socket: Socket, service: Service, rootfs: Rootfs, systemd: int) -> str | None:
    """Return why a loaded socket unit does not start, or None (socket_start(), socket_open_fds() in socket.c)."""
    if (address := socket_collision(socket)) is not None:
        return f"{socket.unit.name}: Failed to create listening socket ({address}): Address already in use"
    if socket.service is None or socket.service in (service.unit.name, *service.unit.names):
        return None
    if load_service(rootfs, socket.service, systemd).unit.load_state == "loaded":
        return None
    return f"{socket.unit.name}: Socket service {socket.service} not loaded, refusing."


_LOAD_ERRORS = {"masked": "is masked", "not-found": "not found", "bad-setting": "has a bad unit file setting",
          "error": "failed to load properly"}


def _descriptor_error(  # noqa: PLR0911 -- one per error of listenFD
    daemon: Daemon, passed: tuple[Listen, ...], version: Version | None
) -> str | None:
    """Return dockerd's error for its fd:// hosts and the passed sockets, or None (listenFD in listeners_linux.go)."""
    asked = [host.address.removeprefix("fd://") for host in daemon.hosts if host.address.startswith("fd://")]
    if not asked:
        return None
    environ = daemon.program.environ
    if not passed or (daemon.certain and (not environ.get("LISTEN_FDS") or "LISTEN_PID" not in environ)):
        return NO_SOCKETS
    for number in asked:
        if number in ("", "*"):
            continue
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", number, re.ASCII):
            return f"failed to load listeners: failed to parse systemd fd address: should be a number: {number}"
        if int(number) - FIRST_PASSED_FD >= len(passed):
            return "failed to load listeners: too few socket activated files passed in by systemd"
        if int(number) < FIRST_PASSED_FD:
            return f"panic: runtime error: index out of range [{int(number) - FIRST_PASSED_FD}]"
        if not _is_listener(passed[int(number) - FIRST_PASSED_FD]):
            return f"failed to load listeners: failed to listen on systemd activated file: fd {int(number)}"
    # go-systemd's activation.Files() unsets LISTEN_FDS, so a second fd:// finds no sockets.
    return NO_SOCKETS if len(asked) > 1 else _serve_error(daemon, tuple(_select_descriptors(passed, asked[0])), version)


def _is_listener(item: Listen) -> bool:
    """Whether net.FileListener() accepts the socket. This includes UNIX datagram sockets, on which accept(2) fails."""
    return (item.kind in ACCEPTING and not item.address.startswith("vsock:")) or (
        item.kind == "Datagram" and item.address.startswith(("/", "@")))


def _serve_error(daemon: Daemon, given: tuple[Listen, ...], version: Version | None) -> str | None:
    """Return the error with which dockerd exits when it serves the passed sockets, or None. Observed on 20.10,
    26.1 and 28.5."""
    if not all(map(_is_listener, given)):
        return "panic: runtime error: invalid memory address or nil pointer dereference"
    dead = next((item.address for item in given if item.kind not in ACCEPTING), None)
    others = len(daemon.hosts) > 1 or any(item.kind in ACCEPTING for item in given)
    if dead is None or (others and (version is None or version >= _INDEPENDENT_LISTENERS)):
        return None
    return f"shutting down due to ServeAPI error: accept unixgram {dead}: accept4: operation not supported"


def _select_descriptors(passed: tuple[Listen, ...], number: str) -> tuple[Listen, ...]:
    """Return the sockets of `fd://` and `fd://*` (all) or `fd://N` (the one with that descriptor)."""
    index = int(number) - FIRST_PASSED_FD if re.fullmatch(r"\+?[0-9]{1,18}", number, re.ASCII) else None
    return passed if index is None else passed[index : index + 1] if index >= 0 else ()


def _narrow(argument: Argument, offset: int, length: int) -> Location | None:
    """Return the location of the value alone, as in `-H=VALUE`, if the argument is verbatim."""
    place = argument.location
    if place is None or place.end_column - place.column != len(argument.text):
        return place
    return place._replace(column=place.column + offset, end_column=place.column + offset + length)


def _intended_address(host: str) -> str | None:
    """Return the address of a host as written, for a dockerd that refuses its configuration; None if invalid."""
    text = host if "://" in host else f"tcp://{host.removeprefix('tcp:').lstrip('/')}"
    try:
        return parse_host(text, NEWEST_DOCKERD)
    except InvalidHost:
        return None


def _all_hosts(
    service: Service, environment: Environment, rootfs: Rootfs, version: Version | None
) -> Iterator[str]:
    """Yield the hosts of all ExecStart= without duplicates, for a unit that systemd refuses."""
    found = (host.address for command in service.written
             for host in _resolve_command(service, command, environment, rootfs, version)[1].hosts)
    return iter(dict.fromkeys(found))
