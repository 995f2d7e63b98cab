"""Services of Compose and containers of Podman in files: those that hand the API socket to the network."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.compose import ENGINE_PORTS, HOST, SOCKET, Application, Mount, PublishedApi, Service
from dockerd_guard.observe.compose_variables import variables_of
from dockerd_guard.observe.observation import CONFIGURED
from dockerd_guard.observe.quadlets import drop_in_names, is_drop_in, quadlet_of
from dockerd_guard.observe.socket_mounts import is_socket_path
from dockerd_guard.rootfs import Rootfs, Unreadable

_T = TypeVar("_T")

MAX_OTHERS = 20
"""Services that one service extends, or whose networks or mounts it has."""

MAX_DROP_INS = 100
"""Drop-ins of one container."""

MAX_PARENTS = 8
"""Directories above a script in which files may be that its commands name."""

MAX_FILES = 2_000
"""Files that are merged, counted as often as they are."""

MAX_SHOWN = 3

MAX_VARIABLES_BYTES = 1024 * 1024

_UNREAD: Mapping[str, str] = MappingProxyType({})
"""The variables of a file `.env` that is larger."""

_BASE = re.compile(r"(?:docker-)?compose\.ya?ml(?:\.[a-z0-9]{1,8})?")
"""Names of files of Compose that others in the directory are merged with, as compose.override.yaml is."""

_OVERRIDE = re.compile(r"(?:docker-)?compose\.override\.ya?ml(?:\.[a-z0-9]{1,8})?")


class ServiceFile(NamedTuple):
    """What a file defines, how a place in it is converted to one of the `file` on the command line, and the variables
    of the file `.env` beside it."""

    file: str
    application: Application
    where: Callable[[int, int], tuple[int, int]]
    variables: Mapping[str, str] = MappingProxyType({})


class Part(NamedTuple):
    """What one file says about a service."""

    file: str
    service: Service


class Container(NamedTuple):
    """What all files say about a service: its parts, those first that others are merged into; what it mounts, what it
    publishes and in which file, and the services whose network or mounts it has too."""

    parts: list[Part]
    mounts: list[Mount]
    published: list[tuple[str, PublishedApi]]
    networks: list[str]
    volumes_from: list[str]


def variables_beside(root: str, file: str) -> Mapping[str, str]:
    """The variables that a file `.env` in the directory of a Compose file sets. A link that leads out of the directory
    is not followed: the log of a CI system must not show other files."""
    directory = os.path.dirname(os.path.abspath(file))
    with Rootfs(root) as rootfs:
        try:
            resolved = rootfs.resolve(f"{directory}/.env") or ""
            entry = rootfs.stat(resolved) if os.path.dirname(resolved) == rootfs.resolve(directory) else None
            if entry is not None and entry.is_file:
                return variables_of(rootfs.read_table(resolved).decode("utf-8", "replace")
                                    ) if entry.size <= MAX_VARIABLES_BYTES else _UNREAD
        except (Unreadable, FileNotFoundError):
            pass
    return {}


class Services:
    """The services of files. Those of a directory that belong together are judged together."""

    def __init__(self, files: Mapping[str, ServiceFile]) -> None:
        self._files = files
        self._by_path = {os.path.abspath(file): file for file in files}
        self._room = MAX_FILES
        self.exposed = set[str]()
        """Names of services with findings, two of which may be about one port."""

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each port that a service with the API socket publishes."""
        found: dict[Location, Finding] = {}
        for scope in self._scopes:
            for name in scope.with_socket:
                for file, api in scope.published(name):
                    self.exposed.add(name)
                    line, column = self._files[file].where(api.line, api.column)
                    where = Location(self._files[file].file, line, column, column + api.end_column - api.column)
                    found.setdefault(where, _finding(name, api, where))
        yield from found.values()

    @cached_property
    def with_socket(self) -> dict[str, dict[str, Service]]:
        """The services that mount the API socket, by file and name."""
        found: dict[str, dict[str, Service]] = {}
        for scope in self._scopes:
            for name in scope.with_socket:
                for file, service in scope.container(name).parts:
                    found.setdefault(file, {})[name] = service
        return found

    def not_known(self) -> Iterator[str]:
        """Yield what is not known of services: other files that are not there; of those with the API socket the network
        of a container that is in no file, and keys without a certain value; and mounts of those with a port."""
        told = set[str]()
        known = {name for content in self._files.values() for name, _ in content.application.services}
        for file, content in self._files.items():
            for where, other in self._others(file):
                if os.path.abspath(other) not in self._by_path and other not in told:
                    told.add(other)
                    yield f"{where} {other}, which is not read"
            for remote in content.application.remote:
                yield f"{file}:{content.where(remote.line, 1)[0]}: includes another file that is not read"
            if content.variables is _UNREAD and content.application.variables:
                yield f"{_beside(file, '.env')}: larger than {MAX_VARIABLES_BYTES >> 20} MiB; not read"
            # The variables of an application have precedence in the files that it includes.
            others = _reached(file, self._included)[1:]
            deciding = {name for name, value in content.variables.items() if value == HOST or is_socket_path(value)
                        } if others else frozenset[str]()
            for other in others if deciding else ():
                if any(self._files[other].variables.get(name) != content.variables[name]
                       for name in self._files[other].application.variables & deciding):
                    yield f"{file}: includes {other}, whose variables are not known"
        for file, services in self.with_socket.items():
            for name, service in services.items():
                if service.unknown:
                    yield f"{file}: {name} has the API socket, and the value of its {service.unknown} is not known"
                for other in service.networks:
                    if other not in known:
                        yield f"{file}: {name} has the API socket and the network of {other}, whose ports are not known"
        yield from self._not_followed()

    def _not_followed(self) -> Iterator[str]:
        """Yield what is not known of services in all of their files, or is too much."""
        for file, name, port in dict.fromkeys(way for scope in self._scopes for way in scope.engines):
            yield f"{file}: {name} runs docker-in-docker and {port}: whether its API needs a certificate is not known"
        excess = dict.fromkeys(name for scope in self._scopes for name in scope.excess)
        if excess:
            yield (f"{', '.join(islice(excess, MAX_SHOWN))}: extends more than {MAX_OTHERS} services, or has the "
                   f"networks or mounts of as many, or more than {MAX_DROP_INS} drop-ins; the others are not read")
        if self._room < 0:
            yield f"more than {MAX_FILES:,} files of Compose include or are merged with others; not all are judged"
        mounts = {(file, name, mount.variable): None for scope in self._scopes for name in scope.names
                  for file, service in scope.container(name).parts for mount in service.mounts
                  if mount.variable and scope.published(name)}
        for file, name, variable in mounts:
            yield f"{file}: {name} publishes a port, and whether {variable} is the API socket is not known"

    def _others(self, file: str) -> Iterator[tuple[str, str]]:
        """Yield what refers to another file, as the beginning of a sentence, and its path."""
        content = self._files[file]
        for name, service in content.application.services:
            if service.extends_file:
                yield f"{file}: {name} extends one of", _beside(file, service.extends_file)
        for other in content.application.included:
            yield f"{file}: includes", _beside(file, other)
        for other in _listed(file, content):
            yield f"{file}: the file .env beside it has in COMPOSE_FILE", other

    @cached_property
    def _scopes(self) -> list[_Scope]:
        """Files that are merged, each time."""
        groups: dict[str, list[str]] = {}
        for file, content in self._files.items():
            if not content.application.lists:
                groups.setdefault(_directory(file), []).append(file)
        found = []
        for group in groups.values():
            base = [file for file in group if _is_base(file)]
            override = [file for file in group if _OVERRIDE.fullmatch(os.path.basename(file)) is not None]
            listed = [self._by_path[path] for path in map(os.path.abspath, _listed(group[0], self._files[group[0]]))
                      if path in self._by_path]
            # `docker compose` merges the override into the file that it finds, and takes what .env lists instead.
            default = listed or [*base, *override]
            parts = [(files, files) for files in (default, *([] if set(base) <= set(default) else [base])) if files]
            parts += [([*base, file], [file]) for file in group if file not in {*base, *override, *listed}]
            found += [scope for files, judged in parts if (scope := self._scope(files, judged)) is not None]
        named = dict.fromkeys(self._named_by_commands())
        return found + [scope for files in named if (scope := self._scope(files, files)) is not None]

    def _named_by_commands(self) -> Iterator[tuple[str, ...]]:
        """Yield the files that a command merges. They are relative to the directory of the script or to one above."""
        for file, content in self._files.items():
            for names in content.application.lists:
                directory = os.path.dirname(os.path.abspath(file))
                for _ in range(MAX_PARENTS):
                    paths = [self._by_path.get(os.path.normpath(os.path.join(directory, name)), "") for name in names]
                    if all(paths):
                        yield tuple(paths)
                        break
                    directory = os.path.dirname(directory)

    def _scope(self, files: Sequence[str], judged: Sequence[str]) -> _Scope | None:
        """Files with those that they include, which come first. Services of some of them are `judged`. None if too
        many are merged."""
        included = [_reached(file, self._included, max(self._room, 1)) for file in files]
        self._room -= sum(map(len, included)) if len(files) > 1 or len(included[0]) > 1 else 0
        if self._room < 0:
            return None
        own = dict.fromkeys(chain.from_iterable(map(reversed, included)))
        return _Scope(self._files, self._by_path, list(own), {
            file for each in included if each[0] in judged for file in each})

    def _included(self, file: str) -> Iterator[str]:
        for other in self._files[file].application.included:
            if (path := os.path.abspath(_beside(file, other))) in self._by_path:
                yield self._by_path[path]


class _Scope:
    """Files of one application, merged."""

    def __init__(
        self, files: Mapping[str, ServiceFile], by_path: Mapping[str, str], own: list[str], judged: Collection[str]
    ) -> None:
        self._files, self._by_path = files, by_path
        self.excess: dict[str, None] = {}
        """Names of services with more others, or drop-ins, than are looked at."""
        self._parts = self._by_name(own)
        self._of_other_files: dict[str, dict[str, list[Part]]] = {}
        self._containers: dict[str, Container] = {}
        self._resources = {key: value for file in own for key, value in files[file].application.resources.items()
                           if value}
        is_changed = any(files[file].application.resources for file in judged)
        self.names = [name for name, parts in self._parts.items()
                      if is_changed or any(part.file in judged for part in parts)]

    @cached_property
    def with_socket(self) -> list[str]:
        """The names of services that mount the API socket."""
        return [name for name in self.names if any(
            self._resource(mount.resource) == SOCKET
            for each in self._reached(name, lambda each: each.volumes_from) for mount in each.mounts)]

    def published(self, name: str) -> list[tuple[str, PublishedApi]]:
        """Return the ports of a service, and networks in which all of them are reachable; each with its file."""
        found = []
        for each in self._reached(name, lambda each: each.networks):
            for file, api in each.published:
                network = self._resource(api.network)
                if not api.network or network:
                    found.append((file, api._replace(network=network)))
        return found

    @property
    def engines(self) -> Iterator[tuple[str, str, str]]:
        """Yield the files and names of services that run docker-in-docker, and how its API is published."""
        for name in self.names:
            parts = self.container(name).parts
            if any(service.is_engine for _, service in parts):
                ports = ENGINE_PORTS.union(*(service.engine_ports for _, service in parts))
                for file, api in self.published(name):
                    if api.may_be(ports) and not api.is_local:
                        yield self._files[file].file, name, _use(api)

    def container(self, name: str) -> Container:
        """Merge what files say about a service, and about those that it extends."""
        if name not in self._containers:
            self._containers[name] = _merged(self._parts_of(name))
        return self._containers[name]

    def _resource(self, name: str) -> str:
        kind, _, unit = name.partition("/")
        others = (f"{kind}/{each}" for each in drop_in_names(unit))
        return name if name in (SOCKET, HOST) else next(
            (self._resources[each] for each in chain((name,), others) if each in self._resources), "")

    def _reached(self, name: str, others: Callable[[Container], list[str]]) -> list[Container]:
        """Return a service and those whose network or mounts it has."""
        return [self.container(each) for each in self._limited(
            name, _reached(name, lambda each: others(self.container(each))))]

    def _parts_of(self, name: str) -> list[Part]:
        """Return the parts of a service, after those of the services that it extends."""
        return [part for file, each in reversed(self._limited(name, _reached(("", name), self._extended)))
                for part in self._own(file, each)]

    def _limited(self, name: str, found: list[_T]) -> list[_T]:
        if len(found) >= MAX_OTHERS:
            self.excess[name] = None
        return found

    def _extended(self, service: tuple[str, str]) -> Iterator[tuple[str, str]]:
        """Yield the services that one extends, each with its file, which is empty for those of this application."""
        for file, part in self._own(*service):
            other = os.path.abspath(_beside(file, part.extends_file)) if part.extends_file else ""
            yield from ((self._by_path.get(other, other) or service[0], base) for base in part.extends)

    def _own(self, file: str, name: str) -> list[Part]:
        return (self._of_file(file) if file else self._parts).get(name, [])

    def _of_file(self, file: str) -> dict[str, list[Part]]:
        if file not in self._of_other_files:
            self._of_other_files[file] = self._by_name([file] if file in self._files else [])
        return self._of_other_files[file]

    def _by_name(self, files: Iterable[str]) -> dict[str, list[Part]]:
        found: dict[str, list[Part]] = {}
        for file in files:
            for name, service in self._files[file].application.services:
                found.setdefault(name, []).append(Part(file, service))
        return self._with_drop_ins(found)

    def _with_drop_ins(self, found: dict[str, list[Part]]) -> dict[str, list[Part]]:
        """Add the drop-ins of several containers of Podman to each. Of those of one name the most specific one applies,
        and they apply in the order of their names."""
        drop_ins = {name: own for name, parts in found.items() if (own := [
            part for part in parts if is_drop_in(part.file)])}
        merged, used = dict[str, list[Part]](), set[str]()
        for name, parts in found.items() if drop_ins else ():
            of_file = [part for part in parts if not is_drop_in(part.file)]
            by_name: dict[str, Part] = {}
            for other in drop_in_names(name) if of_file else ():
                used |= {other} & drop_ins.keys()
                for part in islice(drop_ins.get(other, ()), MAX_DROP_INS + 1):
                    by_name.setdefault(os.path.basename(part.file), part)
            if len(by_name) > MAX_DROP_INS:
                self.excess[name] = None
            merged[name] = [*of_file, *(by_name[each] for each in sorted(by_name)[:MAX_DROP_INS])] if of_file else parts
        return {name: parts for name, parts in merged.items() if name not in used or any(
            not is_drop_in(part.file) for part in parts)} if drop_ins else found


def _reached(start: _T, following: Callable[[_T], Iterable[_T]], limit: int = MAX_OTHERS) -> list[_T]:
    """Return a value and those that it leads to, not more than `limit`."""
    found, todo = {start: None}, deque([start])
    while todo:
        for each in following(todo.popleft()):
            if len(found) >= limit:
                return list(found)
            if each not in found:
                found[each] = None
                todo.append(each)
    return list(found)


def _merged(parts: list[Part]) -> Container:
    """Merge the parts of a service as Compose does: what one resets, or its network_mode, replaces what was before."""
    found = Container(parts, [], [], [], [])
    mode = ""
    for file, service in parts:
        replaced = service.reset | ({"network_mode"} if service.mode else set())
        if replaced:
            is_all = "*" in replaced
            found = found._replace(
                mounts=[each for each in found.mounts if not is_all and each.key not in replaced],
                published=[each for each in found.published if not is_all and each[1].key not in replaced],
                networks=[] if is_all or "network_mode" in replaced else found.networks,
                volumes_from=[] if is_all or "volumes_from" in replaced else found.volumes_from)
            mode = "" if is_all or "network_mode" in replaced else mode
        mode = service.mode or mode
        found.mounts.extend(service.mounts)
        found.published.extend((file, api) for api in service.published)
        found.networks.extend(service.networks)
        found.volumes_from.extend(service.volumes_from)
    if mode == "none":
        # Without a network, Docker and Podman publish no port.
        ignored = {api.key for _, api in found.published}
    elif mode:
        ignored = {"networks", "default"}
    else:
        ignored = {"default"} if any(api.key == "networks" for _, api in found.published) else set()
    return found._replace(published=[each for each in found.published if each[1].key not in ignored])


def _beside(file: str, other: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(file), other))


def _listed(file: str, content: ServiceFile) -> Iterator[str]:
    """Yield the files that COMPOSE_FILE names (docs.docker.com/compose/how-tos/environment-variables/envvars)."""
    separator = content.variables.get("COMPOSE_PATH_SEPARATOR") or ":"
    for name in filter(None, content.variables.get("COMPOSE_FILE", "").split(separator)):
        yield _beside(file, name)


def _directory(file: str) -> str:
    quadlet = quadlet_of(file)
    return os.path.dirname(os.path.abspath(quadlet[0] if quadlet is not None else file))


def _is_base(file: str) -> bool:
    return _BASE.fullmatch(os.path.basename(file)) is not None or quadlet_of(file) is not None


def _finding(name: str, api: PublishedApi, where: Location) -> Finding:
    way = "this port" if api.port else "its ports"
    # The name may be an expression of a template.
    container = f"the container {name}" if name else "a container"
    return Finding(
        "DG108", "warning" if api.is_local else "error",
        f"{container} mounts the API socket and {_use(api)}: who controls it through {way} has root "
        "access to the host", CONFIGURED, where, container=name)


def _use(api: PublishedApi) -> str:
    if api.port:
        return f"publishes port {api.port}"
    return "uses the host's network" if api.network == HOST else f"is in a network of the driver {api.network}"
