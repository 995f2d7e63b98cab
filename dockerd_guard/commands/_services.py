"""Services of Compose and containers of Podman in files: those that hand the API socket to the network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.carriers import PublishedApi, Service
from dockerd_guard.observe.observation import CONFIGURED
from dockerd_guard.observe.quadlets import quadlet_of

_BASE = re.compile(r"(?:docker-)?compose\.ya?ml(?:\.[a-z0-9]{1,8})?")
"""Names of files of Compose that others in the directory are merged with, as compose.override.yaml is."""


class ServiceFile(NamedTuple):
    """The services of a file by name, and how a place in it is converted to one of the file on the command line."""

    services: Mapping[str, Service]
    where: Callable[[int, int], tuple[int, int]]


def findings_of(files: Mapping[str, ServiceFile]) -> Iterator[tuple[str, Finding]]:
    """Yield the name of a service that has the API socket and a finding for each port that it publishes. A file is
    judged together with those of its directory that belong to it."""
    groups: dict[str, dict[str, ServiceFile]] = {}
    for file, content in files.items():
        groups.setdefault(_directory(file), {})[file] = content
    found: dict[Location, tuple[str, Finding]] = {}
    for group in groups.values():
        base = {file: content for file, content in group.items() if _is_base(file)}
        for together in (base, *({**base, file: content} for file, content in group.items() if file not in base)):
            together |= {other: files[other] for _, other in _extended(together) if other in files}
            for where, api in _published(together):
                found.setdefault(where, (api.service, _finding(api, where)))
    yield from found.values()


def not_known(files: Mapping[str, ServiceFile]) -> Iterator[str]:
    """Yield what is not known of services: the one that they extend in a file that is not there; of those with the API
    socket the network of a container that is in no file, and keys without a certain value."""
    known = {name for content in files.values() for name in content.services}
    for place, other in _extended(files):
        if other not in files:
            yield f"{place} extends one of {other}, which is not read"
    for file, content in files.items():
        for name, service in content.services.items():
            if service.has_socket and service.unknown:
                yield f"{file}: {name} has the API socket, and the value of its {service.unknown} is not known"
            for other in service.networks if service.has_socket else ():
                if other not in known:
                    yield f"{file}: {name} has the API socket and the network of {other}, whose ports are not known"


def _extended(files: Mapping[str, ServiceFile]) -> Iterator[tuple[str, str]]:
    """Yield each service that extends one of another file, and that file."""
    for file, content in files.items():
        for name, service in content.services.items():
            if service.extends_file:
                yield f"{file}: {name}", os.path.normpath(os.path.join(os.path.dirname(file), service.extends_file))


def _directory(file: str) -> str:
    quadlet = quadlet_of(file)
    return os.path.dirname(os.path.abspath(quadlet[0] if quadlet is not None else file))


def _is_base(file: str) -> bool:
    return _BASE.fullmatch(os.path.basename(file)) is not None or quadlet_of(file) is not None


def _published(files: Mapping[str, ServiceFile]) -> Iterator[tuple[Location, PublishedApi]]:
    """Yield the ports of services with the socket, in these files merged."""
    parts: dict[str, list[tuple[str, Service]]] = {}
    for file, content in files.items():
        for name, service in content.services.items():
            parts.setdefault(name, []).append((file, service))
    for name, own in parts.items():
        whole = list(own)
        for _, service in own:
            for base in service.extends:
                whole += parts.get(base, ())
        if any(service.has_socket for _, service in whole):
            networks = [part for _, service in whole for other in service.networks for part in parts.get(other, ())]
            for file, service in (*whole, *networks):
                for api in service.published:
                    line, column = files[file].where(api.line, api.column)
                    yield Location(file, line, column, column + api.end_column - api.column), api._replace(service=name)


def _finding(api: PublishedApi, where: Location) -> Finding:
    is_local = api.port.startswith(("127.", "[::1]", "localhost:"))
    # The name may be an expression of a template.
    container = f"the container {api.service}" if api.service else "a container"
    use, way = (f"publishes port {api.port}", "this port") if api.port else ("uses the host's network", "its ports")
    return Finding(
        "DG108", "warning" if is_local else "error",
        f"{container} mounts the API socket and {use}: who controls it through {way} has root "
        "access to the host", CONFIGURED, where)
