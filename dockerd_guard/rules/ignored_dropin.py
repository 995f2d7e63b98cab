"""DG301: a drop-in that systemd ignores, masks or shadows; a directory or file that is never read."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SAVED_SUFFIX
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.lookup import SEARCH_PATH

CODE = "DG301"
TITLE = (
    "a drop-in that systemd ignores, masks or shadows; a directory or file that looks like one and is never read"
)

_DISABLED_SUFFIXES = (
    "~",
    ".bak",
    ".orig",
    ".old",
    ".save",
    ".disabled",
    ".dpkg-new",
    ".dpkg-old",
    ".dpkg-dist",
    ".rpmnew",
    ".rpmsave",
)
"""Suffixes of files that are disabled on purpose, or that a package manager or an editor has left."""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each file without effect in the drop-in directories of docker.service and its sockets."""
    reported: set[str] = set()
    for unit in (seen.configured.service.unit, *(socket.unit for socket in seen.configured.sockets)):
        for problem in unit.problems:
            if problem.effect == "file-ignored" and problem.location.file not in reported:
                reported.add(problem.location.file)
                yield Finding(
                    CODE,
                    "warning",
                    f"this file has no effect: {problem.text}",
                    CONFIGURED,
                    problem.location,
                )
        for path in _misnamed(seen.rootfs, unit):
            if path not in reported:
                reported.add(path)
                yield Finding(
                    CODE,
                    "warning",
                    "this file has no effect: systemd reads only drop-ins named *.conf",
                    CONFIGURED,
                    Location(path),
                )


def _misnamed(rootfs: Rootfs, unit: Unit) -> Iterator[str]:
    for directory in SEARCH_PATH:
        for name in rootfs.names_if_possible(f"{directory}/{unit.name}.d"):
            path = f"{directory}/{unit.name}.d/{name}"
            if name.endswith((".conf", *_DISABLED_SUFFIXES)) or name.startswith(".") or SAVED_SUFFIX in name:
                continue
            content = rootfs.read_if_possible(path) or b""
            if b"[Service]" in content or b"[Socket]" in content:
                yield path
