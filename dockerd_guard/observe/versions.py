"""Detects the installed dockerd version from the package database, without executing dockerd."""

from __future__ import annotations

from dockerd_guard.dockerd.version import Version
from dockerd_guard.rootfs import Rootfs, Unreadable

PACKAGES = ("docker-ce", "docker.io", "moby-engine", "docker-engine")
"""Debian packages that contain dockerd. The first installed one is used."""

DPKG_STATUS = "/var/lib/dpkg/status"


def dockerd_version(rootfs: Rootfs) -> Version | None:
    """Return the version of the installed dockerd package, or None.

    Reads dpkg's database (dpkg(1), FILES): stanzas of `Field: value` lines, separated by blank lines.
    """
    try:
        status = rootfs.read_table(DPKG_STATUS)
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
        # Remove the epoch, as in 5:28.5.2-1~debian.13~trixie.
        text = fields.get(b"Version", b"").decode("ascii", "replace").rpartition(":")[2]
        try:
            return Version.parse(text)
        except ValueError:
            return None
    return None
