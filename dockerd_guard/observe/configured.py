"""The configured layer: what the files on disk say, where systemd's reading and dockerd's meet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dockerd_guard.dockerd.command import program_of
from dockerd_guard.dockerd.daemon import Daemon, resolve_daemon
from dockerd_guard.dockerd.flags import UNKNOWN
from dockerd_guard.dockerd.hosts import InvalidHost, parse_host
from dockerd_guard.dockerd.version import NEWEST as NEWEST_DOCKERD
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe.collisions import dockerd_collision, socket_collision, units_collide
from dockerd_guard.observe.observation import CONFIGURED, Configured, Layer
from dockerd_guard.observe.versions import dockerd_version
from dockerd_guard.systemd.assignments import Environment
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import Argument, expand, too_long
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.sockets import Listen, load_socket, sockets_for
from dockerd_guard.systemd.units import NEWEST as NEWEST_SYSTEMD
from dockerd_guard.systemd.units import detect_version, load_service

if TYPE_CHECKING:
    from dockerd_guard.rootfs import Rootfs
    from dockerd_guard.systemd.exec import Command
    from dockerd_guard.systemd.sockets import Socket
    from dockerd_guard.systemd.units import Service


NO_SOCKETS = ("failed to load listeners: no sockets found via socket activation: "
              "make sure the service was started by systemd")
"""What dockerd says when fd:// finds nothing passed (moby daemon/listeners/listeners_linux.go)."""

ACCEPTING = ("Stream", "SequentialPacket")
"""Kinds of sockets that connections come in by (Go's net.FileListener takes both)."""

_LISTENERS_APART = Version(24)
"""From here on one listener that breaks does not end the others."""

FIRST_PASSED_FD = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3)): fd://3 is the first socket passed."""


def observe_configured(
    rootfs: Rootfs, *, dockerd: Version | None = None, systemd: int | None = None, unit: str | None = None,
) -> Configured:
    """Read the configured layer of a tree, for these versions, or those found in it, or the newest."""
    systemd = systemd or detect_version(rootfs) or NEWEST_SYSTEMD
    dockerd = dockerd or dockerd_version(rootfs)
    service = load_service(rootfs, unit or daemon_unit(rootfs, systemd), systemd)
    sockets = tuple(socket for socket in sockets_for(rootfs, service, systemd) if _may_start(rootfs, socket))
    environment = resolve_environment(service, rootfs, systemd, descriptors=descriptor_count(sockets))
    arguments, daemon = daemon_of(service, environment, rootfs, dockerd)
    layer = layer_of(CONFIGURED, service, environment, arguments, daemon, sockets, dockerd)
    if layer.refused_by != "systemd" and (reason := _unmet(rootfs, service, sockets, systemd)):
        layer = layer._replace(starts=False, refused_by="systemd", reason=reason)
    if service.unit.load_state == "bad-setting":
        layer = layer._replace(hosts=tuple(_all_hosts(service, environment, rootfs, dockerd)))
    return Configured(layer, service, sockets, environment, arguments, daemon, systemd,
                      dockerd or NEWEST_DOCKERD, dockerd is not None)


def _may_start(rootfs: Rootfs, socket: Socket) -> bool:
    """Whether its ConditionPathExists= hold (systemd.unit(5)): a start that does not meet them is left out,
    and nothing is passed. Other conditions ask for what no file tells."""
    paths: list[str] = []
    for setting in socket.unit.settings:
        if setting.section == "Unit" and setting.key.startswith("Condition"):
            if not setting.value:
                paths.clear()
            elif setting.key == "ConditionPathExists":
                paths.append(setting.value)
    return all((rootfs.stat(path.lstrip("|!")) is None) == ("!" in path[:2]) for path in paths
               if path.lstrip("|!").startswith("/") and not path.startswith("|"))


def daemon_unit(rootfs: Rootfs, systemd: int) -> str:
    """The service that runs dockerd: docker.service, or else one with another name that is there."""
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
    """What execve(2) gets for the main command, and what dockerd makes of it."""
    command = main_command(service)
    if command is None:
        return (), resolve_daemon((), {}, rootfs.read, version)
    arguments, daemon = _started(command, environment, rootfs, version)
    if _may_not_come_to(service, command):
        daemon = daemon._replace(certain=False, program=daemon.program._replace(certain=False))
    return arguments, daemon


def _started(
    command: Command, environment: Environment, rootfs: Rootfs, version: Version | None
) -> tuple[tuple[Argument, ...], Daemon]:
    arguments = expand(command, environment)
    # What is run is the file: with `@` argv[0] is any word, and sh is some shell.
    path = command.shell if "|" in command.prefixes else command.path
    shell = rootfs.resolve(path) if path.endswith("/sh") else None
    words = (shell or path, *(argument.text for argument in arguments[1:]))
    # However many descriptors there are, dockerd looks for them only where it is told so: `env -i` takes that away.
    passed = dict.fromkeys(environment.unknown_variables.intersection(("LISTEN_FDS", "LISTEN_PID")), UNKNOWN)
    return arguments, resolve_daemon(words, {**passed, **values(environment)}, rootfs.read, version)


def _runs_dockerd(service: Service, command: Command) -> bool:
    """By the unit alone: what its environment files say may change the arguments, hardly the program."""
    arguments = expand(command, {assigned.name: assigned.variable for assigned in service.environment})
    program = program_of((command.path, *(argument.text for argument in arguments[1:])), {}, None)
    return program.certain and program.reason is None


def main_command(service: Service) -> Command | None:
    """The ExecStart= that counts: of several (Type=oneshot) the first that is a dockerd, which does not
    end, so that those behind it are never run."""
    for command in service.exec_start[:-1] if service.type == "oneshot" else ():
        if _runs_dockerd(service, command):
            return command
    return service.exec_start[-1] if service.exec_start else None


def _may_not_come_to(service: Service, main: Command) -> bool:
    """Whether an ExecStart= before this one may be a dockerd, too: a script that names it and cannot be read."""
    before = service.exec_start[:service.exec_start.index(main)] if service.type == "oneshot" else ()
    return any("dockerd" in word.text for command in before for word in command.argv)


def values(environment: Environment) -> Mapping[str, str]:
    """The environment as a process sees it."""
    return {name: variable.value for name, variable in environment.variables.items()}


def layer_of(  # noqa: PLR0913, PLR0917
    name: str, service: Service, environment: Environment, arguments: tuple[Argument, ...], daemon: Daemon,
    sockets: tuple[Socket, ...], version: Version | None,
) -> Layer:
    """Put both readings together to one layer."""
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
    elif wrong := _wrong_descriptor(daemon, (*_descriptors(sockets), *_opened(service)), version):
        refused_by, reason = "dockerd", wrong
    elif taken := dockerd_collision((host.address for host in daemon.hosts), sockets):
        refused_by, reason = "dockerd", f"failed to load listeners: {taken}: bind: address already in use"
    elif not daemon.certain:
        reason = daemon.reason or "what the wrapper runs cannot be told from the files"
    elif command is not None and (index := _untold_host(arguments, daemon)) is not None:
        reason = f"what {command.argv[index].text} stands for cannot be told from the files"
    elif doubt := next((unit.ambiguity for unit in (service.unit, *(each.unit for each in sockets)) if unit.ambiguity), None):
        reason = doubt
    return Layer(name, refused_by is None, refused_by, reason,
                 tuple(argument.text for argument in arguments),
                 tuple(host.address for host in daemon.hosts), bindings)


def _untold_host(arguments: tuple[Argument, ...], daemon: Daemon) -> int | None:
    """The first word of the command that gives a host, or may, and whose value no file tells."""
    hosts = {host.argument for host in daemon.hosts}
    return next((argument.word for index, argument in enumerate(arguments)
                 if not argument.certain and (index in hosts or not argument.text)), None)


def bindings_of(
    daemon: Daemon, arguments: tuple[Argument, ...], sockets: tuple[Socket, ...], service: Service
) -> Iterator[Binding]:
    """Where each host stands for a place, or for the places that systemd passes on."""
    command = main_command(service)
    whole = command.location if command is not None else None
    passed = tuple(_descriptors(sockets))
    told: set[str] = set()
    for host in daemon.hosts:
        if host.via is Via.FLAG and host.argument is not None and host.argument < len(arguments):
            source = _narrowed(arguments[host.argument], host.offset, len(host.raw))
        else:
            source = host.location if host.via is Via.DAEMON_JSON else whole
        if not host.address.startswith("fd://"):
            address = host.address if daemon.starts else _meant(host.address)
            if address is not None:
                yield Binding(address, scope_of(address), _tls(address, daemon), host.via, source)
            continue
        # Where dockerd refuses something the same one may be written any number of times.
        given = () if host.address in told else _given(passed, host.address.removeprefix("fd://"))
        told.add(host.address)
        for item in given:
            if item.kind not in ACCEPTING:
                continue
            address, location = dockerd_syntax(item.address), item.location
            yield Binding(address, scope_of(address), _tls(address, daemon), Via.SOCKET_UNIT, location)


def passed_by(sockets: Iterable[Socket]) -> Iterator[tuple[str, Location | None]]:
    """The places these socket units pass on, in dockerd's syntax, in the order of their descriptors."""
    for item in _descriptors(sockets):
        if item.kind in ACCEPTING:
            yield dockerd_syntax(item.address), item.location


def descriptor_count(sockets: tuple[Socket, ...]) -> int | None:
    """How many descriptors these units pass; None where one of them may fail to bind what it listens at: of two units
    that want one address one does, and vsock and link-local addresses are there or not."""
    passed = tuple(_descriptors(sockets))
    if units_collide(sockets) or not all(
            item.certain and not item.address.startswith(("vsock", "[fe80:")) for item in passed):
        return None
    return len(passed)


def _opened(service: Service) -> Iterator[Listen]:
    """What OpenFile= passes after the sockets: a descriptor that dockerd can do nothing with."""
    if "LISTEN_FDS" in service.set_at_start:
        yield Listen("File", "OpenFile=", Location(service.unit.fragment or ""))


def _descriptors(sockets: Iterable[Socket]) -> Iterator[Listen]:
    """All that is passed, from descriptor 3 on: also what dockerd can do nothing with."""
    for socket in sockets:
        if socket.unit.load_state == "loaded" and not socket.accept and socket_collision(socket) is None:
            yield from socket.listen


def dockerd_syntax(listen_stream: str) -> str:
    """An address of the D-Bus property Listen in dockerd's syntax.

    >>> dockerd_syntax("/run/docker.sock"), dockerd_syntax("[::]:2375")
    ('unix:///run/docker.sock', 'tcp://[::]:2375')
    """
    if listen_stream.startswith(("/", "@")):
        return f"unix://{_unescaped(listen_stream)}"
    if listen_stream.startswith("vsock:"):
        return f"vsock://{listen_stream.removeprefix('vsock:')}"
    address, percent, interface = listen_stream.partition("%")
    if percent and address.startswith("[fe80:"):
        return f"tcp://{address.replace(']', f'%{interface}]')}"
    # The interface only means something to link-local addresses: all others are taken on each (ipv6(7)).
    return f"tcp://{address}"


_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39}


def _unescaped(path: str) -> str:
    """Undo what systemd shows a socket's path with (sockaddr_pretty: cescape)."""
    if "\\" not in path:
        return path
    data = re.sub(rb"\\([0-7]{3}|.)", lambda found: bytes([
        int(found[1], 8) if len(found[1]) == 3 else _ESCAPES.get(found[1].decode("ascii", "replace"), ord(found[1]))]),
        path.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "surrogateescape")


def _tls(address: str, daemon: Daemon) -> Tls:
    return daemon.tls.mode if address.startswith("tcp://") else Tls.NONE


def _unmet(rootfs: Rootfs, service: Service, sockets: tuple[Socket, ...], systemd: int) -> str | None:
    """Why systemd does not start a service whose Requires= names a socket unit that it cannot start, or
    any unit that is masked. Others that are missing may only be missing from an image: they do not count."""
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
        if (said := _UNMET.get(states.get(name, "loaded"))) is not None:
            return f"Failed to start {service.unit.name}: Unit {name} {said}."
        if name in known and (reason := _unstartable(known[name], service, rootfs, systemd)):
            return f"A dependency job for {service.unit.name} failed: {reason}"
    return None


def _unstartable(socket: Socket, service: Service, rootfs: Rootfs, systemd: int) -> str | None:
    """Why a socket unit that loads does not start (socket_start and socket_open_fds in socket.c)."""
    if (address := socket_collision(socket)) is not None:
        return f"{socket.unit.name}: Failed to create listening socket ({address}): Address already in use"
    if socket.service is None or socket.service in (service.unit.name, *service.unit.names):
        return None
    if load_service(rootfs, socket.service, systemd).unit.load_state == "loaded":
        return None
    return f"{socket.unit.name}: Socket service {socket.service} not loaded, refusing."


_UNMET = {"masked": "is masked", "not-found": "not found", "bad-setting": "has a bad unit file setting",
          "error": "failed to load properly"}


def _wrong_descriptor(  # noqa: PLR0911 -- one a refusal of listenFD
    daemon: Daemon, passed: tuple[Listen, ...], version: Version | None
) -> str | None:
    """Why dockerd refuses what fd:// says of the sockets it is passed (moby listeners_linux.go, listenFD)."""
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
    # The first look takes LISTEN_FDS out of the environment (go-systemd activation.Files).
    return NO_SOCKETS if len(asked) > 1 else _breaks_down(daemon, tuple(_given(passed, asked[0])), version)


def _is_listener(item: Listen) -> bool:
    """Whether Go makes a listener of it (net.FileListener); also of a UNIX datagram socket, which accepts nothing."""
    return (item.kind in ACCEPTING and not item.address.startswith("vsock:")) or (
        item.kind == "Datagram" and item.address.startswith(("/", "@")))


def _breaks_down(daemon: Daemon, given: tuple[Listen, ...], version: Version | None) -> str | None:
    """How dockerd ends as soon as it serves on what fd:// stands for; seen on 20.10, 26.1 and 28.5."""
    if not all(map(_is_listener, given)):
        return "panic: runtime error: invalid memory address or nil pointer dereference"
    dead = next((item.address for item in given if item.kind not in ACCEPTING), None)
    others = len(daemon.hosts) > 1 or any(item.kind in ACCEPTING for item in given)
    if dead is None or (others and (version is None or version >= _LISTENERS_APART)):
        return None
    return f"shutting down due to ServeAPI error: accept unixgram {dead}: accept4: operation not supported"


def _given(passed: tuple[Listen, ...], number: str) -> tuple[Listen, ...]:
    """`fd://` and `fd://*` take all that was passed, `fd://N` the one with that descriptor."""
    index = int(number) - FIRST_PASSED_FD if re.fullmatch(r"\+?[0-9]{1,18}", number, re.ASCII) else None
    return passed if index is None else passed[index : index + 1] if index >= 0 else ()


def _narrowed(argument: Argument, offset: int, length: int) -> Location | None:
    """The place of the value alone, as in `-H=VALUE`, where the text stands as written."""
    place = argument.location
    if place is None or place.end_column - place.column != len(argument.text):
        return place
    return place._replace(column=place.column + offset, end_column=place.column + offset + length)


def _meant(host: str) -> str | None:
    """Where a host would listen that stands as written, because dockerd refuses something; None for nowhere."""
    text = host if "://" in host else f"tcp://{host.removeprefix('tcp:').lstrip('/')}"
    try:
        return parse_host(text, NEWEST_DOCKERD)
    except InvalidHost:
        return None


def _all_hosts(
    service: Service, environment: Environment, rootfs: Rootfs, version: Version | None
) -> Iterator[str]:
    """What all ExecStart= say, each host once: where systemd refuses them, everything written is told."""
    found = (host.address for command in service.written
             for host in _started(command, environment, rootfs, version)[1].hosts)
    return iter(dict.fromkeys(found))
