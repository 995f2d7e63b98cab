"""Which dockerd a root directory holds, from its package database: no program of it is run."""

from __future__ import annotations

from dockerd_guard.dockerd.version import Version
from dockerd_guard.rootfs import Rootfs, Unreadable

PACKAGES = ("docker-ce", "docker.io", "moby-engine", "docker-engine")
"""Debian packages that bring dockerd; the first that is installed counts."""

DPKG_STATUS = "/var/lib/dpkg/status"


def dockerd_version(rootfs: Rootfs) -> Version | None:
    """The version of the dockerd that dpkg installed, or None when dpkg knows of none.

    Reads dpkg's database (dpkg(1), FILES): stanzas of `Field: value` lines, apart by blank lines.
    """
    try:
        status = rootfs.read(DPKG_STATUS)
    except (FileNotFoundError, Unreadable):
        return None
    for package in PACKAGES:
        start = (b"\n" + status).find(f"\nPackage: {package}\n".encode())
        if start < 0:
            continue
        stanza = status[start : status.find(b"\n\n", start)]
        fields = dict(
            line.split(b": ", 1) for line in stanza.split(b"\n") if b": " in line and line[:1] != b" "
        )
        if not fields.get(b"Status", b"").endswith(b" installed"):
            continue
        # An epoch comes first, as in 5:28.5.2-1~debian.13~trixie.
        text = fields.get(b"Version", b"").decode("ascii", "replace").rpartition(":")[2]
        try:
            return Version.parse(text)
        except ValueError:
            return None
    return None
