"""What a correction does to other units: programs that systemd would run as root because of it, and that it has not run
before (I4), as commands of socket units and units that a start pulls in by links; and units that stop (I1). Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from dockerd_guard.model.names import SOCKET
from dockerd_guard.observe.loaded_files import CONTROL
from dockerd_guard.observe.observation import Configured, Loaded, Observation
from dockerd_guard.observe.started import is_newer
from dockerd_guard.plan.actions import Actions
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.sockets import Socket
from dockerd_guard.systemd.syntax import Setting

PULLS_IN = frozenset(("BindsTo", "OnFailure", "OnSuccess", "Requires", "Upholds", "Wants"))
"""Settings that start other units (systemd.unit(5))."""

OF_ADMINISTRATORS = ("/etc/", "/run/")


def dependency_links(seen: Observation, unit: Unit) -> tuple[str, ...]:
    """Return the paths of an administrator's links that make units start with this one (src/core/load-dropin.c)."""
    files = unit_files(seen.rootfs, seen.configured.systemd_version)
    return tuple(path for path in files.dependency_links(unit.name, unit.names) if path.startswith(OF_ADMINISTRATORS))


def new_dependencies(seen: Observation, unit: Unit, known_ns: int) -> Iterator[str]:
    """Yield those of these links that are newer than `known_ns`, of units that do not run anyway."""
    running = seen.loaded.active_dependencies if seen.loaded is not None else frozenset()
    for path in dependency_links(seen, unit):
        entry = seen.rootfs.stat_if_possible(path, follow=False)
        if posixpath.basename(path) not in running and (entry is None or entry.ctime_ns > known_ns):
            yield path


def socket_commands(seen: Observation, base: Configured, actions: Actions) -> tuple[str, ...]:
    """Return what the socket units would run that a correction starts or stops, with the places.

    `base`: the configuration without our own files.
    """
    loaded = seen.loaded
    if loaded is None:
        return ()
    return tuple(line for socket in base.sockets if socket.unit.name in _touched(loaded, actions)
                 for line in _of_socket(seen, loaded, socket))


def socket_dependents(seen: Observation, actions: Actions) -> tuple[str, ...]:
    """Return the active units that stop with the socket units that a correction stops, but docker.service."""
    loaded = seen.loaded
    if loaded is None:
        return ()
    touched = (*actions.stop_sockets, *(SOCKET,) * actions.restart_socket)
    return tuple(sorted({name for unit in touched for name in loaded.socket_dependents.get(unit, ())}))


def _touched(loaded: Loaded, actions: Actions) -> frozenset[str]:
    is_started = actions.starts_dockerd and loaded.socket_states.get(SOCKET, "inactive") != "active"
    return frozenset((*actions.stop_sockets, *(SOCKET,) * (actions.restart_socket or is_started)))


def _of_socket(seen: Observation, loaded: Loaded, socket: Socket) -> Iterator[str]:
    started_ns = loaded.socket_started_ns.get(socket.unit.name, 0)
    # What systemd had loaded at that start is known of files from before the boot where it has loaded them again since.
    known_ns = loaded.booted_ns if loaded.units_loaded_ns > started_ns else started_ns
    for setting in socket.unit.settings:
        place = setting.location
        if _runs_programs(setting) and place.file.startswith(OF_ADMINISTRATORS) and CONTROL not in place.file and (
                is_newer(seen.rootfs, place.file, known_ns)):
            yield f"{setting.key}= ({place.file}:{place.line})"
    yield from new_dependencies(seen, socket.unit, known_ns)


def _runs_programs(setting: Setting) -> bool:
    return bool(setting.value) and (setting.key.startswith("Exec") or setting.key in PULLS_IN)
