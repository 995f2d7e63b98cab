"""Files that carry other files: cloud-init's `write_files`, Butane, Ignition, tasks of Ansible with `content`, and
ConfigMaps of Kubernetes; and services of Compose files that hand the API socket to the network.

They are read as YAML events, so every value keeps its location. JSON is read as YAML.
"""

from __future__ import annotations

import base64
import gzip
import re
import zlib
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

MAX_DEPTH = 40
MAX_NODES = 400_000  # what an alias stands for counts each time
MAX_CARRIED_BYTES = 1024 * 1024

_CARRIES = re.compile(
    r"write_files|daemon\.json|containerd/config\.toml|"
    r"docker[\w.@-]{0,60}\.(?:service|socket)|^[ \t]{0,20}variant[ \t]{0,20}:|"
    r"\"?ignition\"?[ \t]{0,20}:|^[ \t{]{0,80}\"?services\"?[ \t]{0,20}:",
    re.MULTILINE)
_CLOUD_CONFIG = re.compile(r"(?:##[ \t]{0,8}template:[^\n]{0,80}\n)?#cloud-config")
_IS_CARRIER = re.compile(r"^#cloud-config|write_files|^[ \t]{0,20}variant[ \t]{0,20}:|\"ignition\"", re.MULTILINE)
_NAMES = ("daemon.json", "docker.service", "docker.socket")
_SOCKET = re.compile(r"(?:docker|podman)\.sock(?![\w-]|\.\w)")
_WITH_SOCKET = ("", "/run", "/var/run")
"""Directories with the API socket, without a slash at the end: the first one is /."""

_MERGE = "<<"


class Scalar(NamedTuple):
    """A value: its text, line and column from 1, and, for a literal block, the indentation of its lines. `last_line`
    is where it ends. `is_known` is false for an alias of a list or mapping, and for binary data that is none."""

    text: str
    line: int
    column: int
    indent: int | None = None
    last_line: int = 0
    is_known: bool = True


Node = Scalar | list[Any] | dict[str, Any]
"""A list of nodes, or a mapping of keys to pairs of the key's Scalar and a node."""


class Carried(NamedTuple):
    """A file within a file. `first_line` and `indent` place its text; `indent` is None if its lines have no
    place of their own, as in base64, and all of them are at `first_line`. `content` is None if it is not in the
    file or cannot be decoded."""

    path: str
    content: bytes | None
    first_line: int
    column: int
    indent: int | None
    last_line: int = 0


class PublishedApi(NamedTuple):
    """A port that a service publishes. It is at `line`, and empty where the service uses the host's network."""

    service: str
    port: str
    line: int
    column: int
    end_column: int


class Service(NamedTuple):
    """A service of Compose, or a container of Podman: whether it mounts the API socket, and what it publishes.
    `networks` are the services, or the pod, whose network it uses; `extends` those whose keys it has too, in its own
    or in `extends_file`; `unknown` a key with an unknown value."""

    has_socket: bool
    published: tuple[PublishedApi, ...] = ()
    networks: tuple[str, ...] = ()
    extends: tuple[str, ...] = ()
    unknown: str = ""
    extends_file: str = ""


class UnreadableCarrier(Exception):
    """The file is not YAML or JSON. `line` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def carries(name: str, text: str) -> bool:
    """Whether a file may be one of these, by its name and words."""
    if _CLOUD_CONFIG.match(text) is not None:
        return True
    return name.lower().endswith((".yml", ".yaml", ".ign", ".bu", ".fcc", ".json", ".cfg")) and (
        _CARRIES.search(text) is not None or ("compose" in name and names_socket(text)))


def is_packed(name: str, data: bytes) -> bool:
    """Whether a file is user data of cloud-init that is compressed or has several parts, which are not read."""
    return re.match(rb"(?:MIME-Version|Content-Type):[ \t]{0,8}[^\n]{0,80}(?:1\.0|multipart)", data) is not None or (
        data.startswith(b"\x1f\x8b") and re.search(r"user-?data|cloud-?(?:init|config)", name) is not None)


def is_carrier(text: str) -> bool:
    """Whether a file is there to carry files, and not only a YAML file with a text in it."""
    return _IS_CARRIER.search(text) is not None


def names_socket(text: str) -> bool:
    return _SOCKET.search(text) is not None


class Read(NamedTuple):
    """What a file carries. `merged` are keys that name other configurations, which are not read; `partial` are
    services into which other keys are merged, which are not read either."""

    files: list[Carried]
    services: dict[str, Service]
    merged: list[Scalar]
    partial: list[Scalar]


def read(text: str) -> Read:
    """Return the carried files, and the services of Compose. Raises UnreadableCarrier."""
    found = Read([], {}, [], [])
    total = 0
    for root in _documents(text, text.split("\n")):
        for carried in chain(_ignition(root), _contents(root)):
            total += len(carried.content or b"")
            if total > MAX_CARRIED_BYTES:
                raise UnreadableCarrier(f"the files in it have more than {MAX_CARRIED_BYTES >> 20} MiB together",
                                        carried.first_line)
            found.files.append(carried)
        found.services.update(_compose(root))
        if names_socket(text):
            found.partial.extend(_partial_services(root))
        found.merged.extend(_merged(root))
    return found


class _Builder:
    """Builds the nodes of YAML documents from their events."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.stack: list[tuple[list[Any] | dict[str, Any], Scalar | None]] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        """Each with the number of its nodes."""
        self.begun: list[tuple[str | None, int]] = []
        """The anchor of each open list or mapping, and the number of nodes before it."""
        self.count = 0

    def add(self, event: Any) -> Node | None:
        """Take an event; return the root of a document that it completes."""
        import yaml

        if isinstance(event, yaml.CollectionEndEvent):
            done, _ = self.stack.pop()
            anchor, before = self.begun.pop()
            if isinstance(done, dict):
                _merge(done)
            if anchor is not None:
                self.anchors[anchor] = done, self.count - before
            return done if not self.stack else None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = _scalar(event, self.lines)
            self.count += 1
            if event.anchor is not None:
                self.anchors[event.anchor] = node, 1
        elif isinstance(event, yaml.AliasEvent):
            mark = event.start_mark
            place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            # An alias within what it stands for is not known.
            node, count = self.anchors.get(str(event.anchor), (Scalar("", *place, is_known=False), 1))
            self.count += count
            if self.count > MAX_NODES:
                raise UnreadableCarrier(f"more than {MAX_NODES:,} values with those of its aliases", place[0])
            self._put(node)
            return None
        elif isinstance(event, yaml.CollectionStartEvent):
            self.anchors.pop(str(event.anchor), None)
            self.begun.append((event.anchor, self.count))
            self.count += 1
            node = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        else:
            return None
        self._put(node)
        if not isinstance(node, Scalar):
            if len(self.stack) >= MAX_DEPTH:
                raise UnreadableCarrier(f"nested more than {MAX_DEPTH} levels deep", 1)
            self.stack.append((node, None))
        return None

    def _put(self, node: Node) -> None:
        if not self.stack:
            return
        parent, key = self.stack[-1]
        if isinstance(parent, list):
            parent.append(node)
        elif key is None:
            self.stack[-1] = parent, node if isinstance(node, Scalar) else Scalar("", 1, 1)
        else:
            parent[key.text] = (key, node)
            self.stack[-1] = parent, None


def _merge(node: dict[str, Any]) -> None:
    """Put the keys of merged mappings (`<<`) into a mapping that does not have them."""
    merged = node.get(_MERGE, (None, None))[1]
    mappings = merged if isinstance(merged, list) else [merged]
    if all(isinstance(mapping, dict) and _MERGE not in mapping for mapping in mappings):
        del node[_MERGE]
        node |= {key: value for mapping in reversed(mappings) for key, value in mapping.items() if key not in node}


def _documents(text: str, lines: list[str]) -> Iterator[Node]:
    import yaml

    builder = _Builder(lines)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            root = builder.add(event)
            if root is not None:
                yield root
    except UnicodeEncodeError as error:
        raise UnreadableCarrier("not UTF-8", text.count("\n", 0, error.start) + 1) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or "not YAML")
        raise UnreadableCarrier(problem, mark.line + 1 if mark is not None else 1) from None


def _scalar(event: Any, lines: list[str]) -> Scalar:
    line, column, last = event.start_mark.line + 1, event.start_mark.column + 1, event.end_mark.line + 1
    if event.tag == "tag:yaml.org,2002:binary":
        data = _base64(event.value)
        return Scalar((data or b"").decode("utf-8", "surrogateescape"), line, column, None, last, data is not None)
    if event.style != "|":
        return Scalar(event.value, line, column + (event.style in ("'", '"') and "\n" not in event.value), None, last)
    for following in range(line, min(line + 1000, len(lines))):
        if lines[following].strip():
            indent = len(lines[following]) - len(lines[following].lstrip(" "))
            return Scalar(event.value, line + 1, 1, indent, max(line, last - 1))
    return Scalar(event.value, line + 1, 1, 0, last)


def _get(node: Node, key: str) -> Node | None:
    found = node.get(key) if isinstance(node, dict) else None
    return found[1] if found is not None else None


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _items(node: Node | None) -> list[Any]:
    return node if isinstance(node, list) else []


def _contents(root: Node) -> Iterator[Carried]:
    """Mappings with a path and a content (cloud-init, Ansible), units with a name and a content (Ignition, Butane,
    Container Linux), and keys that are names of dockerd's files."""
    todo = [root]
    is_secret = _text(_get(root, "kind")) == "Secret"
    known = set[int]()
    while todo:
        node = todo.pop()
        if not isinstance(node, Scalar):
            if id(node) in known:
                continue
            known.add(id(node))
        if isinstance(node, list):
            todo += reversed(node)
        elif isinstance(node, dict):
            content, path = _get(node, "content"), _text(_get(node, "path")) or _text(_get(node, "dest"))
            if path and isinstance(content, Scalar):
                yield _carried(path, content, _decode(content, _text(_get(node, "encoding")).lower()))
            elif path and (content is not None or "<<" in node or isinstance(_get(node, "source"), dict)):
                yield _not_here(path, node)
            yield from _unit(node)
            for key, (_, value) in reversed(node.items()):
                if key in _NAMES and isinstance(value, Scalar):
                    yield from _value(key, value, is_secret=is_secret)
                todo.append(value)


def _value(name: str, value: Scalar, *, is_secret: bool) -> Iterator[Carried]:
    """The value of a key that is the name of a file: its text, or in a Secret base64."""
    if not value.is_known or "\n" in value.text.strip() or "{" in value.text:
        yield _carried(name, value, _bytes(value))
    elif is_secret:
        yield _carried(name, value, _base64(value.text))


def _unit(node: dict[str, Any]) -> Iterator[Carried]:
    name = _text(_get(node, "name"))
    if not name.endswith((".service", ".socket")):
        return
    unit = f"/etc/systemd/system/{name}"
    yield from _part(unit, node)
    for key in ("dropins", "drop-ins"):
        for drop_in in _items(_get(node, key)):
            yield from _part(f"{unit}.d/{_text(_get(drop_in, 'name'))}", drop_in)


def _part(path: str, node: Node) -> Iterator[Carried]:
    for key in ("contents", "content"):
        if isinstance(value := _get(node, key), Scalar):
            yield _carried(path, value, _bytes(value))
    if isinstance(node, dict) and "contents_local" in node:
        yield _not_here(path, node)


def _ignition(root: Node) -> Iterator[Carried]:
    """storage.files of Ignition, and of Butane, which has `inline` for `source`."""
    if _get(root, "ignition") is None and _get(root, "variant") is None:
        return
    for item in _items(_get(_get(root, "storage") or {}, "files")):
        path = _text(_get(item, "path"))
        for contents in (_get(item, "contents"), *_items(_get(item, "append"))):
            if not isinstance(contents, dict):
                continue
            inline, source = _get(contents, "inline"), _get(contents, "source")
            if isinstance(inline, Scalar):
                yield _carried(path, inline, _bytes(inline))
            elif isinstance(source, Scalar) and source.text.startswith("data:"):
                data = _data_url(source.text, _text(_get(contents, "compression")))
                yield _carried(path, source, data)._replace(indent=None)
            else:
                yield _not_here(path, contents)


def _merged(root: Node) -> Iterator[Scalar]:
    """Keys of Ignition and Butane that name other configurations, which are merged or replace this one."""
    config = _get(_get(root, "ignition") or {}, "config")
    for key in ("merge", "append", "replace"):
        if isinstance(config, dict) and config.get(key, (None, []))[1]:
            yield config[key][0]


def _carried(path: str, value: Scalar, content: bytes | None) -> Carried:
    is_verbatim = content is not None and content == value.text.encode("utf-8", "surrogateescape")
    return Carried(path, content, value.line, value.column, value.indent if is_verbatim else None, value.last_line)


def _not_here(path: str, node: dict[str, Any]) -> Carried:
    """A file whose content the carrying file does not have."""
    key: Scalar = next(iter(node.values()))[0] if node else Scalar("", 1, 1)
    return Carried(path, None, key.line, key.column, None, key.line)


def _bytes(value: Scalar) -> bytes | None:
    return value.text.encode("utf-8", "surrogateescape") if value.is_known else None


def _base64(text: str) -> bytes | None:
    """Decode base64 with white space; None if it is something else, as the expression of a template."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None


def _decode(value: Scalar, encoding: str) -> bytes | None:
    """cloud-init's encodings: b64, gz, gz+b64 and their other names."""
    data = _bytes(value)
    try:
        if data is not None and ("b64" in encoding or "base64" in encoding):
            data = _base64(value.text)
        if data is not None and encoding.startswith(("gz", "gzip")):
            data = _unzip(data)
    except (OSError, zlib.error, EOFError):
        return None
    return data


def _data_url(url: str, compression: str) -> bytes | None:
    head, comma, body = url.partition(",")
    if not comma:
        return None
    try:
        data = unquote_to_bytes(body)
        if head.endswith(";base64"):
            data = base64.b64decode(data, validate=True)
        return _unzip(data) if compression == "gzip" else data
    except (ValueError, OSError, zlib.error, EOFError):
        return None


def _unzip(data: bytes) -> bytes | None:
    """Decompress; None if the result is larger than is read of a file."""
    import io

    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(MAX_CARRIED_BYTES + 1)
    return content if len(content) <= MAX_CARRIED_BYTES else None


# -- Compose --------------------------------------------------------------------------------------


def _compose(root: Node) -> Iterator[tuple[str, Service]]:
    with_socket = {name for name, volume in _entries(_get(root, "volumes"))
                   if _SOCKET.search(_text(_get(_get(volume, "driver_opts") or {}, "device"))) is not None}
    of_host = {name for name, network in _entries(_get(root, "networks")) if "host" in (
        _text(_get(network, "name")), name if _text(_get(network, "external")) == "true" else "")}
    for name, node in _services(root):
        mode, extended = _get(node, "network_mode"), _get(node, "extends") or {}
        published = list(_ports(name, node))
        published += (PublishedApi(name, "", place.line, place.column, place.column + len(place.text))
                      for place in _host_networks(node, of_host))
        kind, _, other = _text(mode).partition(":")
        bases = (_text(extended) or _text(_get(extended, "service")), *(
            re.sub(r":r[ow]\Z|\Acontainer:", "", _text(item)) for item in _items(_get(node, "volumes_from"))))
        volumes = _items(_get(node, "volumes"))
        has_socket = _text(_get(node, "use_api_socket")) == "true" or any(
            _mounts_socket(volume) or _source(volume) in with_socket for volume in volumes)
        yield name, Service(has_socket, tuple(published), (other,) if kind in ("service", "container") else (),
                            tuple(filter(None, bases)), _unknown_key(node), _text(_get(extended, "file")))


def _host_networks(service: Node, of_host: Collection[str]) -> Iterator[Scalar]:
    """Yield what makes a service use the host's network: its mode, or the name of an external network."""
    mode, networks = _get(service, "network_mode"), _get(service, "networks")
    if isinstance(mode, Scalar) and re.fullmatch(r"host|\$\{\w+:?-host\}", mode.text) is not None:
        yield mode
    names = [key for key, _ in networks.values()] if isinstance(networks, dict) else _items(networks)
    yield from (name for name in names if isinstance(name, Scalar) and name.text in of_host)


def _unknown_key(service: Node) -> str:
    """The key that may publish ports and whose value is a variable or the expression of a template."""
    ports, mode = _get(service, "ports"), _text(_get(service, "network_mode"))
    if isinstance(ports, dict) or "{{" in _text(ports):
        return "ports"
    is_known = re.search(r"\$|\{\{|\Aunknown", mode) is None or mode.endswith("-host}")
    return "" if is_known else "network_mode"


def _entries(node: Node | None) -> Iterator[tuple[str, Node]]:
    if isinstance(node, dict):
        yield from ((name, value) for name, (_, value) in node.items())


def _source(volume: Node) -> str:
    return volume.text.partition(":")[0] if isinstance(volume, Scalar) else _text(_get(volume, "source"))


def _ports(name: str, service: Node) -> Iterator[PublishedApi]:
    for port in _items(_get(service, "ports")):
        if isinstance(port, dict):
            # Without `published` the port of the host is chosen at the start.
            published = _get(port, "published") or _get(port, "target")
            if isinstance(published, Scalar) and _text(_get(port, "protocol")) in ("", "tcp"):
                host_ip = _text(_get(port, "host_ip"))
                shown = f"{host_ip}:{published.text}" if host_ip else published.text
                yield PublishedApi(name, shown, published.line, published.column,
                                   published.column + len(published.text))
        elif isinstance(port, Scalar) and not port.text.endswith("/udp"):
            yield PublishedApi(name, port.text, port.line, port.column, port.column + len(port.text))


def _services(root: Node) -> Iterator[tuple[str, Node]]:
    """Yield the services; of the first format of Compose, which has them at the top level, those with volumes."""
    if _get(root, "services") is not None:
        yield from _entries(_get(root, "services"))
    else:
        yield from ((name, node) for name, node in _entries(root)
                    if isinstance(node, dict) and "volumes" in node and not node.keys().isdisjoint(("image", "build")))


def _partial_services(root: Node) -> Iterator[Scalar]:
    """Yield the merge keys (`<<`) of services."""
    for _, service in _services(root):
        if isinstance(service, dict) and _MERGE in service:
            yield service[_MERGE][0]


def _mounts_socket(volume: Node) -> bool:
    """Whether a volume is the API socket, or a directory with it. A variable may contain a colon."""
    if isinstance(volume, Scalar):
        return is_socket_mount(volume.text)
    source = _text(_get(volume, "source"))
    is_named = source == "" or _text(_get(volume, "type")) == "volume"
    return _SOCKET.search(source) is not None or (not is_named and source.rstrip("/") in _WITH_SOCKET)


def is_socket_mount(text: str) -> bool:
    """Whether a mount as it is written for a command (SOURCE:TARGET, or with source=) has the API socket."""
    source = re.search(r"(?:^|,)(?:src|source)=([^,]*)", text)
    start = source[1] if source is not None else text.partition(":")[0]
    return _SOCKET.search(text) is not None or (start.startswith("/") and start.rstrip("/") in _WITH_SOCKET)
