"""Containers that systemd runs from files of Podman (podman-systemd.unit(5)): what they mount and publish."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.observe.carriers import PublishedApi, Service, is_socket_mount
from dockerd_guard.systemd.syntax import BadFileError, Setting, settings
from dockerd_guard.systemd.units import NEWEST_SYSTEMD

_PATH = re.compile(r"(?P<whole>(?:.*/)?(?P<name>[^/]+\.(?:container|pod)))(?:\.d/[^/]+\.conf)?", re.DOTALL)
_PODMAN_OPTION = re.compile(
    r"(?:^|\s)(?:(?:-v|--volume|--mount)[ =](?P<volume>\S+)|(?:-p|--publish)[ =](?P<port>\S+)|"
    r"(?P<host>--net(?:work)?[ =]host)\b)")


def quadlet_of(path: str) -> tuple[str, str] | None:
    """Return the path of a container or pod, and its name, for its file or a drop-in; None for any other file."""
    found = _PATH.fullmatch(path)
    return (found["whole"], found["name"]) if found is not None else None


def service_of(name: str, file: str, text: str) -> Service:
    """Return what a file says about a container or pod. What follows a syntax error is not read."""
    has_socket, published, pods = False, [], []
    for setting in _settings(file, text):
        at = setting.at(0, len(setting.value))
        for mount, port in _parts(setting):
            has_socket = has_socket or is_socket_mount(mount)
            if port is not None and not port.endswith("/udp"):
                published.append(PublishedApi(name, port, at.line, at.column, at.end_column))
        if setting.key == "Pod":
            pods.append(setting.value)
    return Service(has_socket, tuple(published), tuple(pods))


def _settings(file: str, text: str) -> Iterator[Setting]:
    try:
        yield from settings(text.encode("utf-8", "surrogateescape"), file, ("Container", "Pod"), [], NEWEST_SYSTEMD)
    except BadFileError:
        return


def _parts(setting: Setting) -> Iterator[tuple[str, str | None]]:
    """Yield mounts, and published ports; the port is empty for the network of the host."""
    key, value = setting.key, setting.value.strip("\"'")
    if key in ("Volume", "Mount"):
        yield value, None
    elif key == "PublishPort":
        yield "", value
    elif key == "Network" and value == "host":
        yield "", ""
    elif key == "PodmanArgs":
        for found in _PODMAN_OPTION.finditer(setting.value):
            yield found["volume"] or "", found["port"] or ("" if found["host"] else None)
