"""Names of units and of our own files, which several rooms use. No I/O."""

from __future__ import annotations

UNITS = "/etc/systemd/system"

SERVICE = "docker.service"

SOCKET = "docker.socket"

SAVED_SUFFIX = ".dockerd-guard-saved"
"""systemd and dockerd read no file of such a name; what was there is never deleted."""

BEFORE_OURS = "zy-"
"""Put before the name of a drop-in that came after ours."""

DROPIN_NAME = "zz-dockerd-guard.conf"
"""Drop-ins apply in the order of their names alone, whatever their directory (systemd.unit(5))."""
