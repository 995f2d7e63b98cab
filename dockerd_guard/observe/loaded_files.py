"""Whether systemd has loaded the files of docker.service as they are on disk."""

from __future__ import annotations

from dockerd_guard.observe.observation import Loaded, Observation

CONTROL = "/system.control/"
"""Drop-ins of `systemctl set-property`."""


def is_loaded(seen: Observation) -> bool:
    """Return whether systemd has loaded docker.service from the files that are on disk; False where it is not known.

    NeedDaemonReload compares times, and misses new directories of drop-ins (systemd/systemd#31752): the names of the
    files are compared as well.
    """
    if seen.loaded is None:
        return False
    known, on_disk = seen.loaded.service.unit, seen.configured.service.unit
    resolve = seen.rootfs.resolve
    # Which of two aliases' drop-ins of one name systemd reads is not known (Unit.ambiguity).
    is_same = (on_disk.ambiguity is not None or sorted(known.dropins) == sorted(on_disk.dropins)) and (
        known.fragment == on_disk.fragment or (known.fragment is not None and on_disk.fragment is not None
                                               and resolve(known.fragment) == resolve(on_disk.fragment)))
    return is_same and (not seen.loaded.need_daemon_reload or has_appended_dropin(seen, seen.loaded))


def has_appended_dropin(seen: Observation, loaded: Loaded) -> bool:
    """Return whether systemd knows all drop-ins, and only their order differs from the one on disk.

    `systemctl set-property` and IPAddressDeny= of containment add a drop-in and apply it at once. systemd appends it to
    its list (unit_write_setting() in src/core/unit.c), compares that with the sorted one, and sets NeedDaemonReload.
    """
    known, on_disk = loaded.service.unit.dropins, seen.configured.service.unit.dropins
    return known != on_disk and sorted(known) == sorted(on_disk) and any(CONTROL in path for path in known)
