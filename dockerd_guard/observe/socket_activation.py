"""Services that systemd starts at a connection to a TCP socket that it holds: at rest no process of theirs runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping

from dockerd_guard.model.address import canonical
from dockerd_guard.observe.configured import dockerd_syntax
from dockerd_guard.observe.observation import Observation, Process
from dockerd_guard.observe.processes import INIT
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.sockets import load_socket
from dockerd_guard.systemd.units import load_service

MAX_UNITS = 64
"""Maximum number of socket units that are examined."""


def services_at_rest(seen: Observation, held: Mapping[int, str]) -> Iterator[tuple[str, Process]]:
    """Yield the addresses among those that PID 1 holds (by inode) that belong to a socket unit other than those of
    docker.service, each with the main command of the service as a process that does not run (PID 1, as its files are
    those of the host)."""
    docker = {canonical(address) for address in (
        *(seen.listening.held_by_systemd if seen.listening is not None else ()),
        *(binding.address for layer in seen.layers for binding in layer.bindings))}
    wanted = {canonical(address): address for address in held.values() if canonical(address) not in docker}
    version = seen.configured.systemd_version
    names = unit_files(seen.rootfs, version).with_suffix(".socket") if wanted else ()
    for name in names[:MAX_UNITS]:
        socket = load_socket(seen.rootfs, name, version)
        for address in _found(wanted, (canonical(dockerd_syntax(item.address)) for item in socket.listen)):
            service = load_service(seen.rootfs, _service(socket.service, name, accept=socket.accept), version)
            environment = resolve_environment(service, seen.rootfs, version)
            for command in service.exec_start[-1:]:
                words = tuple(argument.text for argument in expand(command, environment))
                yield address, Process(INIT, words, {}, 0, service.unit.name, os.path.realpath(command.path))


def _found(wanted: Mapping[str, str], addresses: Collection[str] | Iterator[str]) -> list[str]:
    return [wanted[address] for address in addresses if address in wanted]


def _service(service: str | None, name: str, *, accept: bool) -> str:
    """The service of a socket unit; with Accept=yes there is one for each connection, from a template."""
    if accept:
        return f"{name.removesuffix('.socket')}@.service"
    return service or f"{name.removesuffix('.socket')}.service"
