"""The ID of this host in a fleet: app-specific, since machine-id(5) must not be shown to others."""

from __future__ import annotations

import hashlib
import hmac
import re

from dockerd_guard.rootfs import Rootfs, Unreadable

MACHINE_ID_FILE = "/etc/machine-id"

APPLICATION = bytes.fromhex("3d4b1b539a7c4bfe9c600b6a3d6f5e21")
"""Of dockerd-guard, as sd_id128_get_machine_app_specific(3) takes it."""


def machine_id(rootfs: Rootfs) -> str:
    """Return 32 hexadecimal digits; empty where the host has no machine ID (yet: `uninitialized`) or an invalid one.

    The same value as that of `systemd-id128 machine-id --app-specific=`.
    """
    try:
        text = rootfs.read(MACHINE_ID_FILE)[:64].decode("ascii", "replace").strip()
    except (FileNotFoundError, Unreadable):
        return ""
    if not re.fullmatch("[0-9a-f]{32}", text) or not int(text, 16):
        return ""
    derived = bytearray(hmac.digest(bytes.fromhex(text), APPLICATION, hashlib.sha256)[:16])
    # A random UUID by its form (sd-id128.c, id128_make_v4_uuid).
    derived[6] = derived[6] & 0x0F | 0x40
    derived[8] = derived[8] & 0x3F | 0x80
    return derived.hex()
