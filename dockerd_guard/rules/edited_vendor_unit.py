"""DG304: a vendor unit edited in place."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules._common import command_location

CODE = "DG304"
TITLE = "a vendor unit edited in place: the next upgrade undoes it"

PACKAGES = ("docker.io", "docker-ce", "docker-engine", "moby-engine")
"""Debian packages that contain docker.service."""

_DPKG = "/var/lib/dpkg/info"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each unit file that differs from its Debian package, by the md5sums of dpkg."""
    sums: dict[str, str] | None = None
    units = (seen.configured.service.unit, *(socket.unit for socket in seen.configured.sockets))
    for path in [unit.fragment for unit in units if unit.fragment]:
        if not path.startswith(("/usr/lib/", "/lib/")):
            continue
        if sums is None:
            sums = _packaged_sums(seen.rootfs)
        packaged = sums.get(path.removeprefix("/usr").lstrip("/"))
        if packaged is not None and packaged != _md5(seen.rootfs, path):
            command = command_location(seen)
            location = command if command is not None and command.file == path else Location(path)
            yield Finding(
                CODE,
                "warning",
                f"{path} differs from its package: the next upgrade reverts the change; move it to a drop-in",
                CONFIGURED,
                location,
            )


def _packaged_sums(rootfs: Rootfs) -> dict[str, str]:
    """Return MD5 sums by path, without the leading `usr/`: packages list unit files with or without it."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        text = (rootfs.read_if_possible(f"{_DPKG}/{package}.md5sums", is_table=True) or b"").decode("utf-8", "replace")
        for md5, path in re.findall(r"^([0-9a-f]{32})  (\S+/systemd/system/\S+)$", text, re.MULTILINE):
            found[path.removeprefix("usr/")] = md5
    return found


def _md5(rootfs: Rootfs, path: str) -> str | None:
    import hashlib

    data = rootfs.read_if_possible(path, is_table=True)
    return None if data is None else hashlib.md5(data, usedforsecurity=False).hexdigest()
