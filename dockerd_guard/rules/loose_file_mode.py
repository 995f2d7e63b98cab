"""DG401: unit files, daemon.json, certificates or keys with loose owner or mode."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import FileStatus, Unreadable

CODE = "DG401"
TITLE = "unit files, daemon.json, certificates or keys with loose owner or mode"

_DOCKER_DIRECTORY = "/etc/docker"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each file that others than root can change, or a key that they can read.

    Below a root that is not root's own (one that a user has unpacked) that user stands for root.
    """
    top = seen.rootfs.stat("/")
    if top is None:
        return
    key = _key(seen)
    for path in dict.fromkeys(_paths(seen)):
        try:
            entry = seen.rootfs.stat(path)
        except Unreadable:
            continue
        if entry is None or entry.is_character_device:
            continue
        for severity, said in _loose(entry, top, path == key):
            yield Finding(CODE, severity, f"{path} {said}", CONFIGURED, Location(path))


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


def _loose(entry: FileStatus, top: FileStatus, is_key: bool) -> Iterator[tuple[Severity, str]]:
    mode = entry.mode & 0o7777
    if entry.uid not in (0, top.uid):
        yield "error", f"belongs to uid {entry.uid}, not to root: its owner decides where Docker listens"
    own_group = top.uid != 0 and entry.gid == top.gid
    if mode & 0o002:
        yield (
            "error",
            f"is writable by every user (mode {mode:04o}): any of them decides where Docker listens",
        )
    elif mode & 0o020 and not own_group:
        meant = "0755" if entry.is_directory else "0644"
        yield "warning", f"is writable by group {entry.gid} (mode {mode:04o}); {meant} or stricter is meant"
    if is_key and mode & 0o004:
        yield (
            "error",
            f"is the server's private key and readable by every user (mode {mode:04o}); 0400 is meant",
        )
    elif is_key and mode & 0o040 and not own_group:
        yield (
            "warning",
            f"is the server's private key and readable by group {entry.gid} (mode {mode:04o}); 0400 is meant",
        )
