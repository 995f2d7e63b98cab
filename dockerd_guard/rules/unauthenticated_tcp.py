"""DG103: TCP without client authentication."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Scope, Tls
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import STRENGTH, declared_places, fix_of_open, how, places, reach, state

CODE = "DG103"
TITLE = "TCP without client authentication"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each TCP place that does not ask for a client certificate."""
    declared = {} if policy is None else declared_places(policy)
    for place in places(seen):
        binding = place.binding
        if not binding.is_tcp or binding.tls is Tls.MUTUAL:
            continue
        wanted = declared.get(binding.key)
        as_declared = wanted is not None and STRENGTH.index(binding.tls) >= STRENGTH.index(wanted.tls)
        severity: Severity = "warning" if as_declared or binding.scope is Scope.LOOPBACK else "error"
        bare = binding.tls is Tls.NONE
        protection = "without TLS" if bare else "with TLS that asks no client for a certificate"
        note = f", as the policy declares in line {wanted.location.line}" if wanted and as_declared else ""
        yield Finding(
            CODE,
            severity,
            f"{binding.address}{how(place)} gives the Docker API, and with it root, {reach(binding)} "
            f"{protection}{note}{state(seen, place.layers)}",
            place.layers[0],
            binding.source,
            None if as_declared else fix_of_open(seen, policy, place),
            binding.address,
        )
