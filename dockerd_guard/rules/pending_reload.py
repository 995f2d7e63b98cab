"""DG307: systemd has not loaded what is on disk."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.loaded_files import has_appended_dropin
from dockerd_guard.observe.observation import LOADED, Loaded, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import command_location

CODE = "DG307"
TITLE = "systemd has not loaded what is on disk"

FILE_MODIFIED = "a file of docker.service was modified on disk"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding, located at the difference.

    NeedDaemonReload is not sufficient: it misses new drop-in directories and files with an old mtime
    (systemd/systemd#31752, systemd/systemd#4500). The values are compared as well.
    """
    if seen.loaded is None:
        return
    differs = _difference(seen, seen.loaded)
    if differs is not None:
        change, location = differs
        # NeedDaemonReload compares mtimes: touch(1) sets it although no value differs.
        severity: Severity = "info" if change == FILE_MODIFIED else "warning"
        yield Finding(
            CODE,
            severity,
            f"{change} since systemd loaded its units; it takes effect after `systemctl daemon-reload`, at the next "
            "start of docker.service",
            LOADED,
            location,
            "safe" if policy is not None else None,
        )


def _difference(seen: Observation, loaded: Loaded) -> tuple[str, Location | None] | None:
    disk = seen.configured
    if disk.service.unit.load_state != loaded.service.unit.load_state:
        old_state, new_state = loaded.service.unit.load_state, disk.service.unit.load_state
        return f"docker.service changed from {old_state} to {new_state} on disk", command_location(seen)
    if disk.layer.argv != loaded.layer.argv:
        return "the command of docker.service changed on disk", command_location(seen)
    old = {listen.address for socket in loaded.sockets for listen in socket.listen}
    new = {listen.address: listen.location for socket in disk.sockets for listen in socket.listen}
    if old != new.keys():
        location = next((source for address, source in new.items() if address not in old), None)
        return "ListenStream= of the socket units changed on disk", location
    if loaded.need_daemon_reload and not has_appended_dropin(seen, loaded):
        fragment = disk.service.unit.fragment
        return FILE_MODIFIED, Location(fragment) if fragment else None
    return None
