"""Mounts of containers that have the socket of the Docker API, or of Podman's."""

from __future__ import annotations

import posixpath
import re

_SOCKET = re.compile(r"(?:(?:docker|podman)\.sock|docker\.proxy\.sock)(?![\w-]|\.\w)")
"""The socket, and that of Docker Desktop in /run/host-services."""

_WITH_SOCKET = frozenset(("/", "/run", "/var/run", "/run/podman", "/var/run/podman"))
"""Directories with the API socket."""

_OF_ACCOUNT = re.compile(r"(?:/var)?/run/user/(?:[0-9]{1,10}|\$.{1,80})(?:/podman)?\Z")
"""The runtime directory of an account, with the socket of its rootless dockerd or Podman."""

_UPWARDS = re.compile(r"(?:\.\./){3,100}")
"""What leads from any directory to the root."""

_HOST_PATH = re.compile(
    r"hostPath[\"']?\s{0,8}:\s{0,80}\{?\s{0,8}(?:[\"']?type[\"']?[ \t]{0,8}:[^\n,]{0,80}[\n,]\s{0,80})?"
    r"[\"']?path[\"']?\s{0,8}:\s{0,8}[\"']?(/[^\s\"',}]{0,400})")


def names_socket(text: str) -> bool:
    return _SOCKET.search(text) is not None


def is_socket_path(path: str) -> bool:
    """Whether a path of the host is the API socket, or a directory with it."""
    path = _UPWARDS.sub("/", path, count=1) if _UPWARDS.match(path) is not None else path
    # normpath keeps two slashes at the beginning.
    whole = posixpath.normpath(f"/{path.lstrip('/')}")
    return names_socket(path) or (path.startswith("/") and (
        whole in _WITH_SOCKET or _OF_ACCOUNT.match(whole) is not None))


def is_socket_mount(text: str) -> bool:
    """Whether a mount as it is written for a command (SOURCE:TARGET, or with source=) has the API socket."""
    return names_socket(text) or is_socket_path(source_of(text))


def is_socket_device(device: str, options: str) -> bool:
    """Whether the device of a volume is the API socket, or a directory with it. Without `bind` among the options of
    mount(2), it is of a file system, or of NFS."""
    return names_socket(device) or (
        not {"bind", "rbind"}.isdisjoint(options.replace(" ", "").split(",")) and is_socket_path(device))


def has_socket_path(text: str) -> bool:
    """Whether pods of Kubernetes have the API socket, or a directory with it, by a hostPath."""
    text = re.sub(r"(?m)^[ \t]{0,200}#.*", "", text)
    return names_socket(text) or any(is_socket_path(found[1]) for found in _HOST_PATH.finditer(text))


def source_of(text: str) -> str:
    """The source of a mount as it is written for a command."""
    source = re.search(r"(?:^|,)(?:src|source)=([^,]*)", text)
    return source[1] if source is not None else text.partition(":")[0]
