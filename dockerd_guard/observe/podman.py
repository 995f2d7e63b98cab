"""TCP addresses of `podman system service`, which serves the Docker-compatible API (podman-system-service(1))."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.sockets import sockets_for
from dockerd_guard.systemd.units import Service

_WITH_VALUE = frozenset((
    "--cgroup-manager", "--conmon", "--config", "--connection", "--events-backend", "--hooks-dir", "--identity",
    "--imagestore", "--log-level", "--module", "--network-cmd-path", "--network-config-dir", "--out", "--root",
    "--runroot", "--runtime", "--runtime-flag", "--ssh", "--storage-driver", "--storage-opt", "--tmpdir", "--url",
    "--volumepath", "-c", "-t", "--time", "--cors", "--pprof-address", "--tls-ca", "--tls-cert", "--tls-key",
    "--tls-client-ca",
))
"""Options of podman and of `system service` that take the next word as their value."""


class Endpoint(NamedTuple):
    """A TCP address. `is_verified`: clients need a certificate."""

    address: str
    location: Location
    is_verified: bool


def podman_endpoints(rootfs: Rootfs, service: Service, systemd: int) -> Iterator[Endpoint]:
    """Yield the TCP addresses on which a service serves Podman's API: that of its command, or those of its sockets."""
    environment = resolve_environment(service, rootfs, systemd)
    for command in service.exec_start:
        arguments = expand(command, environment)
        words = [argument.text for argument in arguments]
        given = _service_arguments(words)
        if given is None:
            continue
        address, is_verified = given
        if address is None:
            for socket in sockets_for(rootfs, service, systemd):
                for listen in socket.listen:
                    if listen.kind == "Stream" and not listen.address.startswith(("/", "@", "vsock:")):
                        yield Endpoint(f"tcp://{listen.address}", listen.location, is_verified)
        elif words[address].startswith("tcp:"):
            yield Endpoint(f"tcp://{words[address].removeprefix('tcp:').lstrip('/')}",
                           arguments[address].location or command.location, is_verified)


def _service_arguments(words: list[str]) -> tuple[int | None, bool] | None:
    """Return the index of the address that `podman system service` is given, None for an activated socket, and
    whether clients need a certificate; None for any other command."""
    start = next((index for index, word in enumerate(words) if posixpath.basename(word) == "podman"), None)
    if start is None:
        return None
    positional: list[int] = []
    index = start + 1
    while index < len(words):
        if words[index] in _WITH_VALUE:
            index += 1
        elif words[index] and not words[index].startswith("-"):
            positional.append(index)
        index += 1
    if [words[index] for index in positional[:2]] != ["system", "service"]:
        return None
    is_verified = any(word.startswith("--tls-client-ca") for word in words)
    return (positional[2] if len(positional) > 2 else None), is_verified
