"""Services of Compose files: what they mount and publish (docs.docker.com/reference/compose-file)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from dockerd_guard.observe import container_commands
from dockerd_guard.observe.compose_variables import interpolated
from dockerd_guard.observe.dockerd_commands import hosts_of
from dockerd_guard.observe.dockerfiles import images_of
from dockerd_guard.observe.socket_mounts import is_socket_device, is_socket_path, names_socket
from dockerd_guard.observe.yaml_nodes import MERGE, Node, Scalar, items_of, text_of, value_of

HOST, SOCKET = "host", "socket"
"""Resources: the network of the host, and a volume, secret or config that is the API socket or a directory with it."""

OPEN_DRIVERS = ("macvlan", "ipvlan")
"""Drivers of networks in which containers have addresses of the host's network, with all of their ports
(docs.docker.com/engine/network/drivers)."""

_UNKNOWN_SOCKET = re.compile(r"(?:\$|\{\{).*sock", re.IGNORECASE | re.DOTALL)
"""A source of a mount that is a variable without a value, and the socket by its name."""

ENGINE_PORTS = frozenset((2375, 2376))
_ENGINE = re.compile(r"\bdind\b")
"""Images in which dockerd listens on these ports (docker-library/docker, dockerd-entrypoint.sh)."""

MAX_BUILDS = 100
"""Different builds of one file that are read."""

_IMAGE = "docker-image://"

_COMMANDS = ("entrypoint", "command")
_PORT = re.compile(r".{0,300}:([0-9]{1,5})", re.DOTALL)
_ANY_PORT = frozenset(range(65536))

_ALL = "*"
_REMOTE = re.compile(r"[a-z0-9+.-]{1,20}://|[^/]{1,100}@[^/]{1,100}:|.{1,400}\.git(?:[#@]|\Z)|(?:git|oci):", re.DOTALL)


class PublishedApi(NamedTuple):
    """A port that a service publishes. It is at `line`, and empty where the service is in a `network` in which all of
    its ports are: HOST, or the name of a resource. `key` is what publishes it. `target` is the port in the container,
    or several (8000-8010); empty if it is not known."""

    port: str
    line: int
    column: int
    end_column: int
    key: str = "ports"
    network: str = ""
    is_local: bool = False
    target: str = ""

    def may_be(self, ports: Collection[int]) -> bool:
        """Whether it may be one of these ports in the container."""
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/tcp)?", self.target)
        return found is None or any(int(found[1]) <= port <= int(found[2] or found[1]) for port in ports)


class Mount(NamedTuple):
    """What a service mounts by one of its keys: a resource, which may be the API socket. `variable` is a source with an
    unknown value."""

    key: str
    resource: str = SOCKET
    variable: str = ""


class Build(NamedTuple):
    """How the image of a service is built (docs.docker.com/reference/compose-file/build): a Dockerfile by its path, or
    its text; a stage of it; arguments, and images in place of others."""

    file: str
    text: str = ""
    target: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    contexts: tuple[tuple[str, str], ...] = ()


class Service(NamedTuple):
    """A service of Compose, or a container of Podman: what it mounts and publishes.

    `networks` are the services, or the pod, whose network it uses; `extends` those whose keys it has too, in its own or
    in `extends_file`; `volumes_from` those whose mounts it has; `unknown` a key with an unknown value; `mode` its
    network_mode. `reset` are keys that a file before this one does not add to; all of them for "*". `is_engine`: it
    runs docker-in-docker, whose API has the ports ENGINE_PORTS, or those of `engine_ports` if its command has hosts.
    `build` is how its image is built.
    """

    mounts: tuple[Mount, ...] = ()
    published: tuple[PublishedApi, ...] = ()
    networks: tuple[str, ...] = ()
    extends: tuple[str, ...] = ()
    unknown: str = ""
    extends_file: str = ""
    volumes_from: tuple[str, ...] = ()
    mode: str = ""
    reset: frozenset[str] = frozenset()
    is_engine: bool = False
    engine_ports: frozenset[int] = frozenset()
    build: Build | None = None


class Application(NamedTuple):
    """What a file defines: services, several with one name if it has several documents; `resources` by `KEY/NAME`; and
    the files that it includes. `remote` are those that are not in a file system, or have variables of another file;
    `variables` those that decide about mounts and networks. `lists` are files that a command of the file merges."""

    services: tuple[tuple[str, Service], ...] = ()
    resources: Mapping[str, str] = MappingProxyType({})
    included: tuple[str, ...] = ()
    remote: tuple[Scalar, ...] = ()
    variables: frozenset[str] = frozenset()
    lists: tuple[tuple[str, ...], ...] = ()

    @property
    def is_relevant(self) -> bool:
        """Whether it may have to do with the API socket or its way to the network, or decides what others do."""
        return bool(self.included or self.remote or any(self.resources.values())) or any(
            service.mounts or service.reset or service.extends or any(api.key != _DEFAULT for api in service.published)
            for _, service in self.services)


_DEFAULT = "default"
"""Key of the network of a service that names none."""


def application_of(roots: list[Node], name: str, variables: Mapping[str, str]) -> Application:
    """Return what the documents of a file define; nothing if it is no Compose file, of which `name` is a sign."""
    reader = _Reader(variables)
    services, resources, included, remote = [], dict[str, str](), list[str](), list[Scalar]()
    for root in chain.from_iterable(map(_definitions, roots)):
        own = list(reader.services(root))
        services += own
        if own or "compose" in name or isinstance(value_of(root, "services"), dict):
            resources |= reader.resources(root)
            for path, is_plain in reader.included(root):
                value = reader.text(path)
                if _REMOTE.match(value) is not None or "$" in value or not is_plain:
                    remote.append(path)
                else:
                    included.append(value)
    return Application(tuple(services), resources, tuple(included), tuple(remote), frozenset(reader.used))


def with_builds(application: Application, text_of_file: Callable[[str], str | None]) -> Application:
    """Return the application with the services that run docker-in-docker because their Dockerfile begins with it. Those
    beyond MAX_BUILDS do as well: what is not read counts as open."""
    known: dict[Build, bool] = {}
    services = []
    for name, service in application.services:
        build = service.build
        if build is not None and build not in known:
            known[build] = len(known) >= MAX_BUILDS or _builds_engine(build, text_of_file)
        is_engine = service.is_engine or (build is not None and known[build])
        services.append((name, service._replace(is_engine=is_engine)))
    return application._replace(services=tuple(services))


def _builds_engine(build: Build, text_of_file: Callable[[str], str | None]) -> bool:
    images = images_of(build.text or text_of_file(build.file) or "", dict(build.arguments), dict(build.contexts))
    return images is None or _ENGINE.search(images.get(build.target.lower(), "")) is not None


def partial_services(root: Node) -> Iterator[Scalar]:
    """Yield the merge keys (`<<`) of services."""
    for _, _, service in _services(root):
        if isinstance(service, dict) and MERGE in service:
            yield service[MERGE][0]


def evaluated_lines(root: Node, name: str, lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the first and last lines of commands of containers. What they start listens in the container, whose ports
    are evaluated. A command that runs another container is not."""
    for _, _, service in chain.from_iterable(map(_services, _definitions(root))):
        if not isinstance(service, dict) or ("compose" not in name and service.keys().isdisjoint(("image", "build"))):
            continue
        for key, value in (service[each] for each in _COMMANDS if each in service):
            words = [value] if isinstance(value, Scalar) else value
            is_alone = not lines[key.line - 1][:key.column - 1].strip()
            if is_alone and isinstance(words, list) and all(isinstance(word, Scalar) for word in words) and (
                    container_commands.first_exposed(" ".join(word.text for word in words)) is None):
                yield key.line, max(word.last_line for word in (key, *words))


class _Reader:
    """Reads documents with the values of variables."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._known: dict[str, str] = {}
        self.used: set[str] = set()

    def text(self, node: Node | None, *, decides: bool = True) -> str:
        """The text of a value, with variables replaced, which are noted if they decide about mounts and networks."""
        raw = text_of(node)
        if "$" not in raw:
            return raw
        if decides and raw not in self._known:
            self.used |= set(re.findall(r"\$\{?([A-Za-z_]\w{0,200})", raw))
        if raw not in self._known:
            self._known[raw] = interpolated(raw, self._variables)
        return self._known[raw]

    def resources(self, root: Node) -> dict[str, str]:
        """The volumes, secrets, configs and networks, with what they are: SOCKET, HOST, a driver, or empty."""
        found: dict[str, str] = {}
        for name, _, volume in _entries(value_of(root, "volumes")):
            options = value_of(volume, "driver_opts") or {}
            has_socket = is_socket_path(self.text(value_of(options, "mountpoint"))) or is_socket_device(
                self.text(value_of(options, "device")), self.text(value_of(options, "o")))
            found[f"volumes/{name}"] = SOCKET if has_socket else ""
        for kind in ("secrets", "configs"):
            for name, _, value in _entries(value_of(root, kind)):
                found[f"{kind}/{name}"] = SOCKET if is_socket_path(self.text(value_of(value, "file"))) else ""
        for name, _, network in _entries(value_of(root, "networks")):
            external = value_of(network, "external")
            is_external = self.text(external) == "true"
            driver = self.text(value_of(network, "driver"))
            # `external: {name: NAME}` is the form of files before 3.5.
            old_name = self.text(value_of(external, "name")) if external is not None else ""
            is_host = HOST in (self.text(value_of(network, "name")), old_name, name if is_external else "")
            found[f"networks/{name}"] = HOST if is_host else driver if driver in OPEN_DRIVERS else ""
        return found

    def included(self, root: Node) -> Iterator[tuple[Scalar, bool]]:
        """Yield the paths of other Compose files, and whether their variables are those of `.env` beside them."""
        for item in items_of(value_of(root, "include")):
            is_long = isinstance(item, dict)
            path, given = (value_of(item, "path"), value_of(item, "env_file")) if is_long else (item, None)
            paths, files = (each if isinstance(each, list) else [each] for each in (path, given))
            own = posixpath.join(posixpath.dirname(self.text(paths[0]) if paths else ""), ".env")
            is_plain = value_of(item, "project_directory") is None and all(
                posixpath.normpath(self.text(each)) == posixpath.normpath(own) for each in files if each is not None)
            yield from ((each, is_plain) for each in paths if isinstance(each, Scalar) and each.text)

    def services(self, root: Node) -> Iterator[tuple[str, Service]]:
        for name, key, node in _services(root):
            yield name, self._service(key, node)

    def _service(self, key: Scalar, node: Node) -> Service:
        mode, extended = self.text(value_of(node, "network_mode")), value_of(node, "extends") or {}
        published = (*self._ports(node), *self._networks(key, node))
        kind, _, other = mode.partition(":")
        extends = self.text(extended) or self.text(value_of(extended, "service"))
        volumes_from = (re.sub(r":r[ow]\Z|\Acontainer:", "", self.text(item))
                        for item in items_of(value_of(node, "volumes_from")))
        return Service(
            tuple(self._mounts(node)), published, (other,) if kind in ("service", "container") else (),
            (extends,) if extends else (), self._unknown_key(node, mode), self.text(value_of(extended, "file")),
            tuple(filter(None, volumes_from)), mode, frozenset(_reset(key, node)),
            *self._engine(node), self._build(value_of(node, "build")))

    def _build(self, node: Node | None) -> Build | None:
        if node is None or isinstance(node, list):
            return None
        context = self.text(node) or self.text(value_of(node, "context")) or "."
        file = posixpath.join(context, self.text(value_of(node, "dockerfile")) or "Dockerfile")
        return Build(file, self.text(value_of(node, "dockerfile_inline"), decides=False), self.text(
            value_of(node, "target")), tuple(self._pairs(value_of(node, "args"))), tuple(
            (name, value.removeprefix(_IMAGE)) for name, value in self._pairs(value_of(node, "additional_contexts"))
            if value.startswith(_IMAGE)))

    def _pairs(self, node: Node | None) -> Iterator[tuple[str, str]]:
        """Yield the names and values of a mapping, or of a list of `NAME=VALUE`."""
        if isinstance(node, dict):
            yield from ((name, self.text(value)) for name, (_, value) in node.items())
        for item in items_of(node) if isinstance(node, list) else ():
            name, equals, value = self.text(item).partition("=")
            if equals:
                yield name, value

    def _engine(self, service: Node) -> tuple[bool, frozenset[int]]:
        """Whether a service runs docker-in-docker, and the ports that its command has."""
        command = " ".join(filter(None, (self.words(value_of(service, key)) for key in _COMMANDS)))
        ports = set[int]()
        # The entrypoint of docker-in-docker puts `dockerd` before options.
        for _, host in hosts_of(f"dockerd {command}" if command.startswith("-") else command):
            if host is None or not host.startswith(("unix:", "fd:")):
                port = _PORT.fullmatch(host or "")
                ports |= {int(port[1])} if port is not None else _ANY_PORT if "$" in (host or "$") else ENGINE_PORTS
        is_engine = _ENGINE.search(text_of(value_of(service, "image"))) is not None or (
            bool(ports) and not command.startswith("-"))
        return is_engine, frozenset(ports)

    def words(self, node: Node | None) -> str:
        """A command as one text."""
        return " ".join(map(self.text, node)) if isinstance(node, list) else self.text(node)

    def _mounts(self, service: Node) -> Iterator[Mount]:
        if self.text(value_of(service, "use_api_socket")) == "true":
            yield Mount("use_api_socket")
        for volume in items_of(value_of(service, "volumes")):
            if isinstance(volume, Scalar):
                source, _, target = self.text(volume).partition(":")
                is_named = not source.startswith(("/", ".", "~", "$", "{"))
            else:
                source, target = self.text(value_of(volume, "source")), ""
                is_named = self.text(value_of(volume, "type")) in ("volume", "")
            if names_socket(source) or names_socket(target) or (not is_named and is_socket_path(source)):
                yield Mount("volumes")
            elif _UNKNOWN_SOCKET.match(source) is not None:
                yield Mount("volumes", "", source)
            elif is_named and source:
                yield Mount("volumes", f"volumes/{source}")
        for kind in ("secrets", "configs"):
            for item in items_of(value_of(service, kind)):
                if name := self.text(item) or self.text(value_of(item, "source")):
                    yield Mount(kind, f"{kind}/{name}")

    def _networks(self, key: Scalar, service: Node) -> Iterator[PublishedApi]:
        """Yield the networks of a service in which all of its ports may be reachable, with what names them."""
        mode, networks = value_of(service, "network_mode"), value_of(service, "networks")
        if isinstance(mode, Scalar) and self.text(mode) == HOST:
            yield _network(mode, "network_mode", HOST)
        names = [each for each, _ in networks.values()] if isinstance(networks, dict) else items_of(networks)
        for each in names:
            if isinstance(each, Scalar):
                yield _network(each, "networks", f"networks/{self.text(each)}")
        yield _network(key, _DEFAULT, "networks/default")

    def _ports(self, service: Node) -> Iterator[PublishedApi]:
        for port in items_of(value_of(service, "ports")):
            if isinstance(port, dict):
                # Without `published` the port of the host is chosen at the start.
                published = value_of(port, "published") or value_of(port, "target")
                if isinstance(published, Scalar) and self.text(value_of(port, "protocol")).lower() in ("", "tcp"):
                    host_ip = value_of(port, "host_ip")
                    shown = f"{text_of(host_ip)}:{published.text}" if host_ip else published.text
                    yield _port(shown, published, f"{self.text(host_ip)}:{self.text(value_of(port, 'target'))}")
            elif isinstance(port, Scalar) and not self.text(port).lower().endswith("/udp"):
                yield _port(port.text, port, self.text(port))

    def _unknown_key(self, service: Node, mode: str) -> str:
        """The key that may publish ports and whose value is a variable or the expression of a template."""
        ports = value_of(service, "ports")
        if isinstance(ports, dict) or "{{" in text_of(ports) or "$" in text_of(ports):
            return "ports"
        return "network_mode" if re.search(r"\$|\{\{|\Aunknown", mode) is not None else ""


def is_local(port: str) -> bool:
    """Whether a port is published on the loopback address only."""
    return port.startswith(("127.", "[::1]", "::1:", "localhost:"))


def _network(at: Scalar, key: str, network: str) -> PublishedApi:
    return _port("", at)._replace(key=key, network=network)


def _port(port: str, at: Scalar, address: str = "") -> PublishedApi:
    return PublishedApi(port, at.line, at.column, at.column + len(at.text), is_local=is_local(address),
                        target=address.rpartition(":")[2])


def _reset(key: Scalar, service: Node) -> Iterator[str]:
    """Yield the keys whose values replace those of files before this one (reference/compose-file/merge)."""
    if key.tag in ("!reset", "!override"):
        yield _ALL
    if isinstance(service, dict):
        yield from (each.text for each, _ in service.values() if each.tag in ("!reset", "!override"))


def _definitions(root: Node) -> Iterator[Node]:
    """Yield a document, and the mappings within it that define services of containers as Compose does: in a task of
    Ansible, or in a job of a CI system."""
    yield root
    todo, known = [root], {id(root)}
    while todo:
        node = todo.pop()
        if isinstance(node, dict) and node is not root and any(
                isinstance(each, dict) and not each.keys().isdisjoint(("image", "build", "volumes"))
                for _, _, each in _entries(value_of(node, "services"))):
            yield node
        inner = node if isinstance(node, list) else [] if isinstance(node, Scalar) else [
            value for _, value in node.values()]
        todo += [each for each in inner if not isinstance(each, Scalar) and id(each) not in known]
        known |= set(map(id, inner))


def _services(root: Node) -> Iterator[tuple[str, Scalar, Node]]:
    """Yield the services; of the first format of Compose, which has them at the top level, those with volumes."""
    if value_of(root, "services") is not None:
        yield from _entries(value_of(root, "services"))
    else:
        yield from ((name, key, node) for name, key, node in _entries(root)
                    if isinstance(node, dict) and "volumes" in node and not node.keys().isdisjoint(("image", "build")))


def _entries(node: Node | None) -> Iterator[tuple[str, Scalar, Node]]:
    """Yield the entries of a mapping. The value of one that is reset does not count."""
    if isinstance(node, dict):
        yield from ((name, key, {} if key.tag == "!reset" else value) for name, (key, value) in node.items())
