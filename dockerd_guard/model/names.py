"""Names of units and of our own files. No I/O."""

from __future__ import annotations

UNITS = "/etc/systemd/system"

SERVICE = "docker.service"

SOCKET = "docker.socket"

SAVED_SUFFIX = ".dockerd-guard-saved"
"""Suffix of a saved file. Neither systemd nor dockerd reads such a file."""

BEFORE_OURS = "zy-"
"""Prefix for the new name of a drop-in that sorted after ours."""

DROPIN_NAME = "zz-dockerd-guard.conf"
"""Our drop-in. systemd applies drop-ins sorted by file name, regardless of the directory (systemd.unit(5))."""
