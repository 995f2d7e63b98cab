"""DG309: docker.socket is not functional until restarted."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.configured import dockerd_syntax
from dockerd_guard.observe.observation import LISTENING, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG309"
TITLE = "docker.socket is not functional until restarted"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each active socket unit that clients cannot reach at one of its addresses.

    Either systemd has no open socket for the address (systemd's src/core/socket.c: "no open socket file descriptor
    left ... not functional until restarted"), or the socket file is gone or replaced. A replaced file is not a
    finding where the policy declares `unix://` with that path.
    """
    if seen.loaded is None or seen.listening is None:
        return
    held = {canonical(address) for address in seen.listening.held_by_systemd}
    for socket in seen.loaded.sockets:
        if seen.loaded.socket_states.get(socket.unit.name) != "active":
            continue
        streams = [listen.address for listen in socket.listen if listen.kind == "Stream"]
        lost = [address for address in streams if canonical(dockerd_syntax(address)) not in held]
        if lost:
            yield Finding(
                CODE,
                "error",
                f"{socket.unit.name} is active, but clients cannot reach it at {', '.join(lost)}: the unit was changed "
                "while it was running, or its socket file was removed or replaced; fd:// does not work there until "
                f"{socket.unit.name} is restarted with docker.service stopped",
                LISTENING,
                _location(seen, lost[0]) or (Location(socket.unit.fragment) if socket.unit.fragment else None),
                "disruptive" if policy is not None else None,
            )
    declared = {canonical(socket.address) for socket in policy.sockets} if policy is not None else set()
    for address in seen.listening.taken:
        if canonical(address) not in declared:
            path = address.removeprefix("unix://")
            yield Finding(
                CODE,
                "info",
                f"dockerd (with -H unix:// or no -H) has replaced the socket of systemd at {path}: when dockerd stops, "
                "the socket file is gone, and neither clients nor fd:// can use this path until docker.socket is "
                "restarted",
                LISTENING,
                _location(seen, path),
                None,
                address,
            )


def _location(seen: Observation, address: str) -> Location | None:
    """Return the location of the setting that gives this address to a socket unit."""
    listens = (listen for socket in seen.configured.sockets for listen in socket.listen)
    return next((listen.location for listen in listens if listen.address == address), None)
