"""DG208: fd:// and unix:// fight over one path."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Via, canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.configured import passed_by
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import argument_location

CODE = "DG208"
TITLE = "`fd://` and `unix://` fight over one path"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each unix:// host whose path systemd listens on, as a warning if fd:// is a host, too.

    Without fd:// the finding is information: dockerd works, and only the socket unit is useless.
    """
    hosts = seen.configured.daemon.hosts
    has_fd = any(host.address.startswith("fd://") for host in hosts)
    if not has_fd and policy is not None and any(socket.address.startswith("unix://") for socket in policy.sockets):
        return
    passed = {canonical(address): location for address, location in passed_by(seen.configured.sockets)}
    for host in hosts:
        if not host.address.startswith("unix://") or host.via is Via.DEFAULT or canonical(host.address) not in passed:
            continue
        yield Finding(
            CODE,
            "warning" if has_fd else "info",
            f"{host.address} is also the path that systemd listens on{' for fd://' if has_fd else ''} "
            f"({passed[canonical(host.address)]}): dockerd replaces the socket file and removes it when it stops; "
            "socket activation does not work after that",
            CONFIGURED,
            host.location or argument_location(seen, host.argument),
            "safe" if policy is not None and has_fd else None,
            host.address,
        )
