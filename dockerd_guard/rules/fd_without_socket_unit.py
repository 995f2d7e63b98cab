"""DG202: fd:// with no socket unit to pass anything."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.configured import passed_by
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import argument_location
from dockerd_guard.systemd.loading import Unit

CODE = "DG202"
TITLE = "`fd://` with no socket unit to pass anything"


def is_without_sockets(seen: Observation) -> bool:
    """Return whether dockerd expects sockets from systemd and no socket unit passes any (moby: daemon/listeners)."""
    configured = seen.configured
    return (
        configured.service.unit.load_state == "loaded"
        and not any(passed_by(configured.sockets))
        and any(host.address.startswith("fd://") for host in configured.daemon.hosts)
    )


def _place(unit: Unit) -> str:
    """Where the reason is that a unit does not load, as the end of a message."""
    location = next((problem.location for problem in unit.problems if problem.effect == "refused"), None)
    return f" ({location})" if location is not None and location.line > 1 else ""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding, located at the fd://."""
    if not is_without_sockets(seen):
        return
    host = next(host for host in seen.configured.daemon.hosts if host.address.startswith("fd://"))
    not_loaded = next(
        (
            f"; {socket.unit.name} does not load: {socket.unit.reason}{_place(socket.unit)}"
            for socket in seen.configured.sockets
            if socket.unit.reason
        ),
        "",
    )
    has_other = policy is not None and all(socket.address != "fd://" for socket in policy.sockets)
    yield Finding(
        CODE,
        "error",
        f"dockerd will not start: {host.address} expects sockets from systemd, but no socket unit passes any"
        f"{not_loaded}",
        CONFIGURED,
        host.location or argument_location(seen, host.argument),
        "safe" if has_other else None,
    )
