"""Whether systemd has loaded the files of docker.service as they are on disk."""

from __future__ import annotations

from dockerd_guard.observe.observation import Loaded, Observation
from dockerd_guard.observe.started import is_newer

CONTROL = "/system.control/"
"""Drop-ins of `systemctl set-property`."""

WRITTEN_BY_SYSTEMD = (CONTROL, "/run/systemd/transient/", "/run/systemd/generator")
"""Part of paths that systemd writes itself, those of generators at each daemon-reload (systemd.generator(7))."""


def is_loaded(seen: Observation) -> bool:
    """Return whether systemd has loaded docker.service from the files that are on disk; False where it is not known.

    NeedDaemonReload misses new directories of drop-ins (systemd/systemd#31752): the names of the files are compared as
    well. It compares mtimes, and misses a file that was put in place with an older one, as `cp -p` and `rsync -a` do
    (unit_need_daemon_reload() in src/core/unit.c): such a file is known by its ctime.
    """
    return has_loaded_these(seen) and seen.loaded is not None and not _is_replaced(seen, seen.loaded)


def has_loaded_these(seen: Observation) -> bool:
    """The same by the names and mtimes of the files alone, whatever the clock was set to since."""
    if seen.loaded is None:
        return False
    known, on_disk = seen.loaded.service.unit, seen.configured.service.unit
    resolve = seen.rootfs.resolve
    # Which of two aliases' drop-ins of one name systemd reads is not known (Unit.ambiguity).
    is_same = (on_disk.ambiguity is not None or sorted(known.dropins) == sorted(on_disk.dropins)) and (
        known.fragment == on_disk.fragment or (known.fragment is not None and on_disk.fragment is not None
                                               and resolve(known.fragment) == resolve(on_disk.fragment)))
    return is_same and (not seen.loaded.need_daemon_reload or has_appended_dropin(seen, seen.loaded))


def _is_replaced(seen: Observation, loaded: Loaded) -> bool:
    """Whether a file came or was changed since systemd loaded them."""
    unit = loaded.service.unit
    files = [path for path in (unit.fragment, *unit.dropins)
             if path is not None and not any(part in path for part in WRITTEN_BY_SYSTEMD)]
    return bool(loaded.units_loaded_ns) and any(is_newer(seen.rootfs, path, loaded.units_loaded_ns) for path in files)


def has_appended_dropin(seen: Observation, loaded: Loaded) -> bool:
    """Return whether systemd knows all drop-ins, and only their order differs from the one on disk.

    `systemctl set-property` and IPAddressDeny= of containment add a drop-in and apply it at once. systemd appends it to
    its list (unit_write_setting() in src/core/unit.c), compares that with the sorted one, and sets NeedDaemonReload.
    """
    known, on_disk = loaded.service.unit.dropins, seen.configured.service.unit.dropins
    return known != on_disk and sorted(known) == sorted(on_disk) and any(CONTROL in path for path in known)
