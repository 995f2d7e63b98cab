"""DG401: unit files, daemon.json, certificates or keys with loose owner or mode."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import FileStatus

CODE = "DG401"
TITLE = "unit files, daemon.json, certificates or keys with loose owner or mode (CIS Docker Benchmark 3.x)"

_DOCKER_DIRECTORY = "/etc/docker"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each file that other users than root can write, and for a private key that they can read.

    If the root directory (`--root`) belongs to another user, files of that user count as files of root.
    """
    top = seen.rootfs.stat("/")
    if top is None:
        return
    key = _key(seen)
    for path in dict.fromkeys(_paths(seen)):
        entry = seen.rootfs.stat_if_possible(path)
        if entry is None or entry.is_character_device:
            continue
        for severity, problem in _problems(entry, top, path == key):
            yield Finding(CODE, severity, f"{path} {problem}", CONFIGURED, Location(path))


def _paths(seen: Observation) -> Iterator[str]:
    configured = seen.configured
    for unit in (configured.service.unit, *(socket.unit for socket in configured.sockets)):
        if unit.fragment:
            yield unit.fragment
        yield from unit.dropins
    for file in configured.service.environment_files:
        yield file.path
    yield _DOCKER_DIRECTORY
    yield configured.daemon.config_file
    tls = configured.daemon.tls
    if tls.mode is not Tls.NONE:
        yield from (posixpath.join("/", path) for path in (tls.ca, tls.cert, tls.key) if path)


def _key(seen: Observation) -> str | None:
    tls = seen.configured.daemon.tls
    return posixpath.join("/", tls.key) if tls.mode is not Tls.NONE and tls.key else None


def _problems(entry: FileStatus, top: FileStatus, is_key: bool) -> Iterator[tuple[Severity, str]]:
    mode = entry.mode & 0o7777
    if entry.uid not in (0, top.uid):
        yield "error", f"belongs to uid {entry.uid}, not to root: its owner controls where the Docker API listens"
    own_group = top.uid != 0 and entry.gid == top.gid
    if mode & 0o002:
        yield (
            "error",
            f"is writable by every user (mode {mode:04o}): any user can change where the Docker API listens",
        )
    elif mode & 0o020 and not own_group:
        recommended = "0755" if entry.is_directory else "0644"
        yield "warning", f"is writable by group {entry.gid} (mode {mode:04o}): use {recommended} or stricter"
    if is_key and mode & 0o004:
        yield (
            "error",
            f"is the private key of the server and readable by every user (mode {mode:04o}): use 0400",
        )
    elif is_key and mode & 0o040 and not own_group:
        yield (
            "warning",
            f"is the private key of the server and readable by group {entry.gid} (mode {mode:04o}): use 0400",
        )
