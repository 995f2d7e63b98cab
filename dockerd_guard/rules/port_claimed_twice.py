"""DG209: one TCP port claimed twice."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.hosts import HostEntry
from dockerd_guard.model.address import Via
from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.location import Location
from dockerd_guard.observe.collisions import Claim, collisions
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import argument_location

CODE = "DG209"
TITLE = "one TCP port claimed twice"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each address that another host or socket unit has bound before it."""
    configured = seen.configured
    hosts = configured.daemon.hosts if configured.daemon.starts else ()
    for first, second in collisions(hosts, configured.sockets):
        source = second.source
        fix: Fix | None = None
        if isinstance(source, HostEntry):
            failing = "dockerd will not start"
            if policy is not None:
                fix = "safe" if source.via is Via.FLAG else "unsafe" if policy.correct.foreign_files else None
        else:
            failing = "systemd cannot open it and will not start the socket unit"
        yield Finding(
            CODE,
            "error",
            f"{second.address} is already taken by {first.address}{_where(seen, first)}: {failing}",
            CONFIGURED,
            _location(seen, second),
            fix,
            second.address if isinstance(source, HostEntry) else None,
        )


def _location(seen: Observation, claim: Claim) -> Location | None:
    if isinstance(claim.source, HostEntry):
        return claim.source.location or argument_location(seen, claim.source.argument)
    return claim.source.location


def _where(seen: Observation, claim: Claim) -> str:
    location = _location(seen, claim)
    setting = "a host of dockerd" if isinstance(claim.source, HostEntry) else "a socket unit"
    return f" ({setting}{f', {location}' if location else ''})"
