"""Files that carry other files: cloud-init's `write_files`, Butane, Ignition, tasks of Ansible with `content`, and
ConfigMaps of Kubernetes; and Compose files.

They are read as YAML events, so every value keeps its location. JSON is read as YAML.
"""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

from dockerd_guard.observe.compose import Application, application_of, evaluated_lines, partial_services
from dockerd_guard.observe.encoded_texts import MAX_BYTES, data_url, unzipped
from dockerd_guard.observe.socket_mounts import names_socket
from dockerd_guard.observe.yaml_nodes import (
    Node,
    Scalar,
    UnreadableYaml,
    decoded_base64,
    documents,
    items_of,
    text_of,
    value_of,
)

_CARRIES = re.compile(
    r"write_files|daemon\.json|containerd/config\.toml|"
    r"docker[\w.@-]{0,60}\.(?:service|socket)|^[ \t]{0,20}variant[ \t]{0,20}:|"
    r"\"?ignition\"?[ \t]{0,20}:|^[ \t{]{0,80}\"?services\"?[ \t]{0,20}:|"
    r"\"?kind\"?[ \t]{0,20}:[ \t]{0,20}[\"']?(?:ConfigMap|Secret)\b",
    re.MULTILINE)
_OF_COMPOSE = re.compile(r"^[ \t{]{0,80}\"?(?:include|volumes|secrets|configs|networks)\"?[ \t]{0,20}:", re.MULTILINE)
_CLOUD_CONFIG = re.compile(r"(?:##[ \t]{0,8}template:[^\n]{0,80}\n)?#cloud-config")
_IS_CARRIER = re.compile(r"^#cloud-config|write_files|^[ \t]{0,20}variant[ \t]{0,20}:|\"ignition\"", re.MULTILINE)
_NAMES = ("daemon.json", "docker.service", "docker.socket")


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


def carries(name: str, text: str) -> bool:
    """Whether a file may be one of these, by its name and words."""
    if _CLOUD_CONFIG.match(text) is not None:
        return True
    if not name.lower().endswith((".yml", ".yaml", ".ign", ".bu", ".fcc", ".json", ".cfg")):
        return False
    return _CARRIES.search(text) is not None or (
        "compose" in name and (names_socket(text) or _OF_COMPOSE.search(text) is not None))


def is_packed(name: str, data: bytes) -> bool:
    """Whether a file is user data of cloud-init that is compressed or has several parts, which are not read."""
    return re.match(rb"(?:MIME-Version|Content-Type):[ \t]{0,8}[^\n]{0,80}(?:1\.0|multipart)", data) is not None or (
        data.startswith(b"\x1f\x8b") and re.search(r"user-?data|cloud-?(?:init|config)", name) is not None)


def is_carrier(text: str) -> bool:
    """Whether a file is there to carry files, and not only a YAML file with a text in it."""
    return _IS_CARRIER.search(text) is not None


class Read(NamedTuple):
    """What a file carries. `merged` are keys that name other configurations, which are not read; `partial` are
    services into which other keys are merged, which are not read either; `evaluated` the lines of commands that are."""

    files: list[Carried]
    application: Application
    merged: list[Scalar]
    partial: list[Scalar]
    evaluated: list[tuple[int, int]]


def read(name: str, text: str, variables: Mapping[str, str] = MappingProxyType({})) -> Read:
    """Return the carried files, and what a Compose file defines with these variables. Raises UnreadableYaml."""
    # Compose and Kubernetes refuse a key that is there twice. cloud-init takes the last one.
    roots = list(documents(text, has_alternatives=_CLOUD_CONFIG.match(text) is None))
    found = Read([], application_of(roots, name, variables), [], [], [])
    lines = text.split("\n")
    total = 0
    for root in roots:
        for carried in chain(_ignition(root), _contents(root)):
            total += len(carried.content or b"")
            if total > MAX_BYTES:
                raise UnreadableYaml(f"the files in it have more than {MAX_BYTES >> 20} MiB together",
                                     carried.first_line)
            found.files.append(carried._replace(path=_normal(carried.path)))
        if names_socket(text):
            found.partial.extend(partial_services(root))
        found.merged.extend(_merged(root))
        found.evaluated.extend(evaluated_lines(root, name, lines))
    return found


def _normal(path: str) -> str:
    """A path without `.` and `..`, as cloud-init writes to (cc_write_files.py: os.path.abspath, in the directory /)."""
    if "/" not in path:
        return path
    normal = re.sub(r"\A(?:\.\./)+", "/", posixpath.normpath(path))
    return f"/{normal.lstrip('/')}" if normal.startswith("/") else normal


def _contents(root: Node) -> Iterator[Carried]:
    """Mappings with a path and a content (cloud-init, Ansible), units with a name and a content (Ignition, Butane,
    Container Linux), and keys that are names of dockerd's files."""
    todo = [root]
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
            content = value_of(node, "content")
            path = text_of(value_of(node, "path")) or text_of(value_of(node, "dest"))
            if path and isinstance(content, Scalar):
                yield _carried(path, content, _decode(content, text_of(value_of(node, "encoding")).lower()))
            elif path and (content is not None or "<<" in node or isinstance(value_of(node, "source"), dict)):
                yield _not_here(path, node)
            yield from _unit(node)
            yield from _config_map(node, known)
            for key, (_, value) in reversed(node.items()):
                if key in _NAMES and isinstance(value, Scalar) and (
                        not value.is_known or "\n" in value.text.strip() or "{" in value.text):
                    yield _carried(key, value, _bytes(value))
                todo.append(value)


def _config_map(node: dict[str, Any], known: set[int]) -> Iterator[Carried]:
    """The files in a ConfigMap or Secret of Kubernetes, in which some values are base64. Adds to what is `known`."""
    kind = text_of(value_of(node, "kind"))
    for key in ("data", "stringData", "binaryData") if kind in ("ConfigMap", "Secret") else ():
        values = value_of(node, key)
        is_packed = key == "binaryData" or (key == "data" and kind == "Secret")
        if isinstance(values, dict) and id(values) not in known:
            known.add(id(values))
            for name, (_, value) in values.items():
                if isinstance(value, Scalar) and (value.text.strip() or not value.is_known):
                    data = decoded_base64(value.text) if is_packed and value.is_known else _bytes(value)
                    yield _carried(name, value, data)


def _unit(node: dict[str, Any]) -> Iterator[Carried]:
    name = text_of(value_of(node, "name"))
    if not name.endswith((".service", ".socket")):
        return
    unit = f"/etc/systemd/system/{name}"
    yield from _part(unit, node)
    for key in ("dropins", "drop-ins"):
        for drop_in in items_of(value_of(node, key)):
            yield from _part(f"{unit}.d/{text_of(value_of(drop_in, 'name'))}", drop_in)


def _part(path: str, node: Node) -> Iterator[Carried]:
    for key in ("contents", "content"):
        if isinstance(value := value_of(node, key), Scalar):
            yield _carried(path, value, _bytes(value))
    if isinstance(node, dict) and "contents_local" in node:
        yield _not_here(path, node)


def _ignition(root: Node) -> Iterator[Carried]:
    """storage.files of Ignition, and of Butane, which has `inline` for `source`."""
    if value_of(root, "ignition") is None and value_of(root, "variant") is None:
        return
    for item in items_of(value_of(value_of(root, "storage") or {}, "files")):
        path = text_of(value_of(item, "path"))
        for contents in (value_of(item, "contents"), *items_of(value_of(item, "append"))):
            if not isinstance(contents, dict):
                continue
            inline, source = value_of(contents, "inline"), value_of(contents, "source")
            if isinstance(inline, Scalar):
                yield _carried(path, inline, _bytes(inline))
            elif isinstance(source, Scalar) and source.text.startswith("data:"):
                data = data_url(source.text, text_of(value_of(contents, "compression")))
                yield _carried(path, source, data)._replace(indent=None)
            else:
                yield _not_here(path, contents)


def _merged(root: Node) -> Iterator[Scalar]:
    """Keys of Ignition and Butane that name other configurations, which are merged or replace this one."""
    config = value_of(value_of(root, "ignition") or {}, "config")
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


def _decode(value: Scalar, encoding: str) -> bytes | None:
    """cloud-init's encodings: b64, gz, gz+b64 and their other names."""
    data = _bytes(value)
    try:
        if data is not None and ("b64" in encoding or "base64" in encoding):
            data = decoded_base64(value.text)
        if data is not None and encoding.startswith(("gz", "gzip")):
            data = unzipped(data)
    except (OSError, zlib.error, EOFError):
        return None
    return data
