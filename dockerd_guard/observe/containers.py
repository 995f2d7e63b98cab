"""Containers that have the API socket and accept connections from the network, by GET /containers/json.

The engine selects them, so that the answer is short on a host with thousands of containers.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.model.json_values import (
    JsonError,
    JsonObject,
    as_int,
    as_list,
    as_object,
    as_str,
    get,
)
from dockerd_guard.observe.observation import AccessKind, AccessPath

MAX_CONTAINERS = 1000
"""Maximum number of containers that are examined."""

HOST = "host"
"""HostConfig.NetworkMode of a container without a network namespace of its own."""

OF_CONTAINER = "container:"
"""Prefix of NetworkMode of a container that uses the network of another one."""

Query = Callable[[str], object]
"""Return the decoded answer to a GET request. Raises OSError or JsonError."""


class Container(NamedTuple):
    """One running container. `published` are TCP addresses of the host, in dockerd's syntax."""

    id: str
    name: str
    image: str
    sources: tuple[str, ...]
    published: tuple[str, ...]
    network: str


def directories_of(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths of sockets and of all directories above them, each in both spellings of /run.

    /var is not one: in a container /var/run is a link to the container's own /run.
    """
    found: set[str] = set()
    for path in paths:
        current = posixpath.normpath(path.removeprefix("/var") if path.startswith("/var/run/") else path)
        while current not in found:
            found |= {current, f"/var{current}"} if f"{current}/".startswith("/run/") else {current}
            current = posixpath.dirname(current)
    return frozenset(found)


def access_paths_of_containers(
    query: Query, sockets: Collection[str], ports: Collection[int], listening: Mapping[str, Collection[str]]
) -> tuple[AccessPath, ...]:
    """Return the access paths of containers.

    `sockets` are the paths of the API's sockets, `ports` those of the Docker API, `listening` the addresses on which a
    container listens in the network of the host, by the first 12 characters of its ID. Raises OSError, JsonError.
    """
    sources = directories_of(sockets)
    with_socket = _containers(query, {"volume": sorted(sources)})
    others = {each.network.removeprefix(OF_CONTAINER) for each in with_socket if each.network.startswith(OF_CONTAINER)}
    by_id = {each.id: each for each in (_containers(query, {"id": sorted(others)}) if others else ())}
    found: dict[tuple[str, str], AccessPath] = {}
    for container in with_socket:
        source = next((source for source in container.sources if posixpath.normpath(source) in sources), "")
        if source:
            network = by_id.get(container.network.removeprefix(OF_CONTAINER), container)
            for path in _paths(container._replace(published=(*container.published, *(
                    network.published if network is not container else ())), network=network.network),
                    source, listening.get(container.id[:12], ())):
                found[path.container, path.address] = path
    for container in _containers(query, {"publish": [str(port) for port in ports]}):
        for address in container.published:
            if int(address.rpartition(":")[2]) in ports and (container.name, address) not in found:
                found[container.name, address] = AccessPath(
                    AccessKind.API_PORT, address, program="docker", container=container.name, image=container.image,
                    is_published=True)
    return tuple(found.values())


def _paths(container: Container, source: str, listening: Collection[str]) -> Iterator[AccessPath]:
    path = AccessPath(AccessKind.CONTAINER, "", source, container=container.name, image=container.image)
    for address in container.published:
        yield path._replace(address=address, is_published=True)
    if container.network == HOST:
        for address in listening or ("",):
            yield path._replace(address=address)


def _containers(query: Query, filters: Mapping[str, list[str]]) -> tuple[Container, ...]:
    rows = as_list(as_object)(query(f"/containers/json?filters={_quoted(json.dumps(filters))}"))
    return tuple(map(_container, rows[:MAX_CONTAINERS]))


def _quoted(text: str) -> str:
    """Percent-encode every byte for a URL. urllib.parse.quote would take 0.2 MB for as long as the agent runs."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _container(row: JsonObject) -> Container:
    ident = get(row, "Id", as_str)
    names = get(row, "Names", as_list(as_str), ())
    return Container(
        ident, names[0].lstrip("/") if names else ident[:12], get(row, "Image", as_str, ""),
        tuple(get(mount, "Source", as_str, "") for mount in get(row, "Mounts", as_list(as_object), ())),
        tuple(_published(get(row, "Ports", as_list(as_object), ()))),
        get(get(row, "HostConfig", as_object, {}), "NetworkMode", as_str, ""))


def _published(ports: Iterable[JsonObject]) -> Iterator[str]:
    for port in ports:
        number, host = get(port, "PublicPort", as_int, 0), get(port, "IP", as_str, "")
        if get(port, "Type", as_str, "") == "tcp" and number and host:
            if not 0 < number < 65536:
                raise JsonError("must be a port")
            yield f"tcp://[{host}]:{number}" if ":" in host else f"tcp://{host}:{number}"
