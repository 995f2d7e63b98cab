"""DG307: systemd has not loaded what is on disk."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import LOADED, Loaded, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import command_location

CODE = "DG307"
TITLE = "systemd has not loaded what is on disk"

TOUCHED = "a file of docker.service was written on disk"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding, at what differs. NeedDaemonReload alone is no answer: it misses new directories and
    old mtimes (systemd issues 31752, 4500), so the values are compared as well."""
    if seen.loaded is None:
        return
    differs = _difference(seen, seen.loaded)
    if differs is not None:
        what, location = differs
        # By mtime alone a file that was touched is another one; all that counts here is the same.
        severity: Severity = "info" if what == TOUCHED else "warning"
        yield Finding(
            CODE,
            severity,
            f"{what} since systemd loaded its units: the next `systemctl daemon-reload` puts it in force for "
            "the next start of docker.service",
            LOADED,
            location,
            "safe" if policy is not None else None,
        )


def _difference(seen: Observation, loaded: Loaded) -> tuple[str, Location | None] | None:
    disk = seen.configured
    if disk.service.unit.load_state != loaded.service.unit.load_state:
        old_state, new_state = loaded.service.unit.load_state, disk.service.unit.load_state
        return f"docker.service was {old_state} and is {new_state} on disk", command_location(seen)
    if disk.layer.argv != loaded.layer.argv:
        return "the command of docker.service was changed on disk", command_location(seen)
    old = {listen.address for socket in loaded.sockets for listen in socket.listen}
    new = {listen.address: listen.location for socket in disk.sockets for listen in socket.listen}
    if old != new.keys():
        location = next((where for address, where in new.items() if address not in old), None)
        return "ListenStream= of the socket units was changed on disk", location
    if loaded.need_daemon_reload:
        fragment = disk.service.unit.fragment
        return TOUCHED, Location(fragment) if fragment else None
    return None
