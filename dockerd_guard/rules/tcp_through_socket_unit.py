"""DG104: TCP comes in through fd://: a ListenStream= of docker.socket or of another socket unit."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Tls, Via, canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import effect, fix_for_binding, merged_bindings, scope_text

CODE = "DG104"
TITLE = "TCP comes in through `fd://`: a `ListenStream=` of docker.socket or of another socket unit"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each TCP ListenStream= that is passed to dockerd and not in `socket_unit.listen`."""
    declared: set[str] = set()
    if policy is not None and any(socket.address == "fd://" for socket in policy.sockets):
        declared = {canonical(listen.address) for listen in policy.socket_unit.listen}
    for merged in merged_bindings(seen):
        binding = merged.binding
        if not binding.is_tcp or binding.via is not Via.SOCKET_UNIT or binding.key in declared:
            continue
        yield Finding(
            CODE,
            "warning" if binding.tls is Tls.MUTUAL else "error",
            f"{binding.address} comes in through fd://: a socket unit opens it {scope_text(binding)}, "
            f"no -H shows it, and dockerd does not warn about it{effect(seen, merged)}",
            merged.layers[0],
            binding.source,
            fix_for_binding(seen, policy, merged),
            binding.address,
        )
