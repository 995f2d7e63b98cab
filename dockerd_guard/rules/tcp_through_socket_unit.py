"""DG104: TCP comes in through fd://."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Tls, Via, canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import fix_of_open, places, reach, state

CODE = "DG104"
TITLE = "TCP comes in through fd://"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each TCP ListenStream= that is passed to dockerd and that no policy declares so."""
    declared: set[str] = set()
    if policy is not None and any(socket.address == "fd://" for socket in policy.sockets):
        declared = {canonical(listen.address) for listen in policy.socket_unit.listen}
    for place in places(seen):
        binding = place.binding
        if not binding.is_tcp or binding.via is not Via.SOCKET_UNIT or binding.key in declared:
            continue
        yield Finding(
            CODE,
            "warning" if binding.tls is Tls.MUTUAL else "error",
            f"{binding.address} comes in through fd://: systemd opens it {reach(binding)} and passes it on, "
            f"so no -H shows it and dockerd does not warn of it{state(seen, place.layers)}",
            place.layers[0],
            binding.source,
            fix_of_open(seen, policy, place),
            binding.address,
        )
