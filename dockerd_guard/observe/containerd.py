"""TCP endpoints in containerd's configuration (containerd-config.toml(5))."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.units import load_service

CONFIG_FILE = "/etc/containerd/config.toml"

UNIT = "containerd.service"

MAX_BYTES = 256 * 1024
"""A longer file is not read. The one that `containerd config default` prints has 10 KiB."""

MAX_IMPORTS = 32

_MENTION = re.compile(rb"address")

_OPTION = re.compile(rb"\s--?c")
"""An option that may be the one for the configuration file, in a unit file."""

GRPC_TCP_PLUGIN = "io.containerd.server.v1.grpc-tcp"
"""The plugin that has the key of [grpc] since version 4 of the format."""


class Endpoint(NamedTuple):
    """A TCP address that containerd listens on. `key` is the key as it is written; `is_api`: it serves the API, and
    not only profiles; `is_verified`: clients need a certificate."""

    address: str
    key: str
    location: Location
    is_api: bool
    is_verified: bool


def containerd_endpoints(rootfs: Rootfs, systemd: int) -> tuple[Endpoint, ...]:
    """Return the TCP endpoints in the configuration of containerd.service and in the files that it imports."""
    path = _config_file(rootfs, systemd)
    found: list[Endpoint] = []
    for file in (path, *_imports(rootfs, path)):
        text, data = _read(rootfs, file)
        found += _endpoints(file, text, data)
    return tuple(found)


def _config_file(rootfs: Rootfs, systemd: int) -> str:
    files = unit_files(rootfs, systemd)
    fragment = files.fragment(UNIT)
    if fragment.path is None or not any(_OPTION.search(_text(rootfs, path)) for path in (
            fragment.path, *files.drop_ins(UNIT, fragment.names, []))):
        return CONFIG_FILE
    service = load_service(rootfs, UNIT, systemd)
    words = [word.text for command in service.exec_start[-1:] for word in command.argv]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("-c", "--config", "-config", "--c"):
            return posixpath.normpath(value if equals else following)
    return CONFIG_FILE


def _text(rootfs: Rootfs, path: str) -> bytes:
    try:
        return rootfs.read(path)
    except (FileNotFoundError, Unreadable):
        return b""


def _read(rootfs: Rootfs, path: str) -> tuple[bytes, Mapping[str, Any]]:
    """The text and the data of a file; nothing if it is missing or invalid: containerd does not start with it."""
    text = _text(rootfs, path)
    if len(text) > MAX_BYTES or not (_MENTION.search(text) or b"imports" in text):
        return text, {}
    import tomllib

    try:
        return text, tomllib.loads(text.decode())
    except (ValueError, RecursionError):
        return text, {}


def _imports(rootfs: Rootfs, path: str) -> Iterator[str]:
    imports = _read(rootfs, path)[1].get("imports")
    for pattern in imports[:MAX_IMPORTS] if isinstance(imports, list) else ():
        if isinstance(pattern, str):
            directory, name = posixpath.split(posixpath.normpath(posixpath.join(posixpath.dirname(path), pattern)))
            for match in _matching(rootfs, directory, name):
                if match != path:
                    yield match


def _matching(rootfs: Rootfs, directory: str, name: str) -> list[str]:
    if "*" not in name:
        return [posixpath.join(directory, name)]
    from fnmatch import fnmatchcase

    try:
        names = rootfs.names(directory)
    except Unreadable:
        return []
    return [posixpath.join(directory, each) for each in sorted(names) if fnmatchcase(each, name)][:MAX_IMPORTS]


def _endpoints(file: str, text: bytes, data: Mapping[str, Any]) -> Iterator[Endpoint]:
    for table, key, is_api in (
            (_table(data, "grpc"), "tcp_address", True),
            (_table(_table(data, "plugins"), GRPC_TCP_PLUGIN), "address", True),
            (_table(data, "debug"), "address", False)):
        value = table.get(key)
        # containerd's cmd/containerd/command/main.go: a relative address of [debug] is a TCP address.
        if isinstance(value, str) and ":" in value and not value.startswith("/"):
            yield Endpoint(f"tcp://{value}", key, _location(file, text, key, value), is_api,
                           bool(table.get("tcp_tls_ca") or table.get("tls_ca")))


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _location(file: str, text: bytes, key: str, value: str) -> Location:
    """The line with this key and value; the first line if it is written in another way."""
    for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
        start = line.find(key)
        if start >= 0 and value in line[start:] and not line.lstrip().startswith("#"):
            return Location(file, number, start + 1, len(line.rstrip()) + 1)
    return Location(file)
