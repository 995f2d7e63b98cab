"""Files that carry other files: cloud-init's `write_files`, Butane, Ignition, tasks of Ansible with `content`, and
ConfigMaps of Kubernetes; and services of Compose files that hand the API socket to the network.

They are read as YAML events, so every value keeps its location, and aliases are not expanded. JSON is read as YAML.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

MAX_DEPTH = 40
MAX_CARRIED_BYTES = 1024 * 1024

_CARRIES = re.compile(
    r"write_files|daemon\.json|docker\.service|docker\.socket|^[ \t]{0,20}variant[ \t]{0,20}:|"
    r"\"?ignition\"?[ \t]{0,20}:|^[ \t]{0,80}\"?services\"?[ \t]{0,20}:",
    re.MULTILINE)
_IS_CARRIER = re.compile(r"\A#cloud-config|write_files|^[ \t]{0,20}variant[ \t]{0,20}:|\"ignition\"", re.MULTILINE)
_NAMES = ("daemon.json", "docker.service", "docker.socket")
_SOCKET = re.compile(r"(?:docker|podman)\.sock")


class Scalar(NamedTuple):
    """A value: its text, line and column from 1, and, for a literal block, the indentation of its lines."""

    text: str
    line: int
    column: int
    indent: int | None = None


Node = Scalar | list[Any] | dict[str, Any]
"""A list of nodes, or a mapping of keys to pairs of the key's Scalar and a node."""


class Carried(NamedTuple):
    """A file within a file. `first_line` and `indent` place its text; `indent` is None if its lines have no
    place of their own, as in base64, and all of them are at `first_line`."""

    path: str
    content: bytes
    first_line: int
    column: int
    indent: int | None


class PublishedApi(NamedTuple):
    """A service of a Compose file that mounts the API socket and publishes a port. `port` is at `line`."""

    service: str
    port: str
    line: int
    column: int
    end_column: int


class UnreadableCarrier(Exception):
    """The file is not YAML or JSON. `line` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def carries(name: str, text: str) -> bool:
    """Whether a file may be one of these, by its name and words."""
    if text.startswith("#cloud-config"):
        return True
    return name.lower().endswith((".yml", ".yaml", ".ign", ".bu", ".fcc", ".json", ".cfg")) and (
        _CARRIES.search(text) is not None)


def is_carrier(text: str) -> bool:
    """Whether a file is there to carry files, and not only a YAML file with a text in it."""
    return _IS_CARRIER.search(text) is not None


def read(text: str) -> tuple[list[Carried], list[PublishedApi]]:
    """Return the carried files, and the services that publish the API. Raises UnreadableCarrier."""
    files: list[Carried] = []
    published: list[PublishedApi] = []
    lines = text.split("\n")
    for root in _documents(text, lines):
        files += _ignition(root)
        files += _contents(root)
        published += _compose(root)
    return files, published


class _Builder:
    """Builds the nodes of YAML documents from their events."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.stack: list[tuple[list[Any] | dict[str, Any], Scalar | None]] = []

    def add(self, event: Any) -> Node | None:
        """Take an event; return the root of a document that it completes."""
        import yaml

        if isinstance(event, yaml.CollectionEndEvent):
            done, _ = self.stack.pop()
            return done if not self.stack else None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = _scalar(event, self.lines)
        elif isinstance(event, yaml.AliasEvent):
            node = Scalar("", 1, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
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
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    if event.style != "|":
        return Scalar(event.value, line, column + (event.style in ("'", '"') and "\n" not in event.value))
    for following in range(line, min(line + 1000, len(lines))):
        if lines[following].strip():
            return Scalar(event.value, line + 1, 1, len(lines[following]) - len(lines[following].lstrip(" ")))
    return Scalar(event.value, line + 1, 1, 0)


def _get(node: Node, key: str) -> Node | None:
    found = node.get(key) if isinstance(node, dict) else None
    return found[1] if found is not None else None


def _text(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def _items(node: Node | None) -> list[Any]:
    return node if isinstance(node, list) else []


def _contents(root: Node) -> Iterator[Carried]:
    """Mappings with a path and a content (cloud-init, Ansible), and keys that are names of dockerd's files."""
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += reversed(node)
        elif isinstance(node, dict):
            content, path = _get(node, "content"), _text(_get(node, "path")) or _text(_get(node, "dest"))
            if isinstance(content, Scalar) and path:
                yield _carried(path, content, _decode(content.text, _text(_get(node, "encoding")).lower()))
            for key, (_, value) in reversed(node.items()):
                if isinstance(value, Scalar) and key in _NAMES and ("\n" in value.text or "{" in value.text):
                    yield _carried(key, value, value.text.encode("utf-8", "surrogateescape"))
                todo.append(value)


def _ignition(root: Node) -> Iterator[Carried]:
    """storage.files and systemd.units of Ignition, and of Butane, which has `inline` for `source`."""
    if _get(root, "ignition") is None and _get(root, "variant") is None:
        return
    for item in _items(_get(_get(root, "storage") or {}, "files")):
        contents: Node = _get(item, "contents") or {}
        inline, source = _get(contents, "inline"), _get(contents, "source")
        path = _text(_get(item, "path"))
        if isinstance(inline, Scalar):
            yield _carried(path, inline, inline.text.encode("utf-8", "surrogateescape"))
        elif isinstance(source, Scalar) and source.text.startswith("data:"):
            compression = _text(_get(contents, "compression"))
            yield _carried(path, source, _data_url(source.text, compression))._replace(indent=None)
    for item in _items(_get(_get(root, "systemd") or {}, "units")):
        name = _text(_get(item, "name"))
        whole = _get(item, "contents")
        if isinstance(whole, Scalar):
            yield _carried(f"/etc/systemd/system/{name}", whole, whole.text.encode("utf-8", "surrogateescape"))
        for drop_in in _items(_get(item, "dropins")):
            part = _get(drop_in, "contents")
            if isinstance(part, Scalar):
                path = f"/etc/systemd/system/{name}.d/{_text(_get(drop_in, 'name'))}"
                yield _carried(path, part, part.text.encode("utf-8", "surrogateescape"))


def _carried(path: str, value: Scalar, content: bytes | None) -> Carried:
    is_verbatim = content is not None and content == value.text.encode("utf-8", "surrogateescape")
    return Carried(path, content or b"", value.line, value.column, value.indent if is_verbatim else None)


def _decode(text: str, encoding: str) -> bytes | None:
    """cloud-init's encodings: b64, gz, gz+b64 and their other names."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        if "b64" in encoding or "base64" in encoding:
            data = base64.b64decode(data)
        if encoding.startswith(("gz", "gzip")):
            data = _unzip(data)
    except (ValueError, OSError, zlib.error, EOFError):
        return None
    return data


def _data_url(url: str, compression: str) -> bytes | None:
    head, comma, body = url.partition(",")
    if not comma:
        return None
    try:
        data = base64.b64decode(unquote_to_bytes(body)) if head.endswith(";base64") else unquote_to_bytes(body)
        return _unzip(data) if compression == "gzip" else data
    except (ValueError, binascii.Error, OSError, zlib.error, EOFError):
        return None


def _unzip(data: bytes) -> bytes:
    import io

    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(MAX_CARRIED_BYTES)


# -- Compose --------------------------------------------------------------------------------------


def _compose(root: Node) -> Iterator[PublishedApi]:
    services = _get(root, "services")
    if not isinstance(services, dict):
        return
    for name, (_, service) in services.items():
        if not any(_mounts_socket(volume) for volume in _items(_get(service, "volumes"))):
            continue
        for port in _items(_get(service, "ports")):
            if isinstance(port, dict):
                published = _get(port, "published")
                if isinstance(published, Scalar) and _text(_get(port, "protocol")) in ("", "tcp"):
                    host_ip = _text(_get(port, "host_ip"))
                    shown = f"{host_ip}:{published.text}" if host_ip else published.text
                    yield PublishedApi(name, shown, published.line, published.column,
                                       published.column + len(published.text))
            elif isinstance(port, Scalar) and not port.text.endswith("/udp"):
                yield PublishedApi(name, port.text, port.line, port.column, port.column + len(port.text))


def _mounts_socket(volume: Node) -> bool:
    source = volume.text.partition(":")[0] if isinstance(volume, Scalar) else _text(_get(volume, "source"))
    return _SOCKET.search(source) is not None
