"""DG101: the API listens where the policy does not say."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import declared_places, effect, fix_for_binding, merged_bindings, origin

CODE = "DG101"
TITLE = "the API listens where the policy does not say"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each address that the policy does not declare."""
    if policy is None:
        return
    declared = declared_places(policy)
    reported: set[str] = set()
    for merged in merged_bindings(seen):
        binding = merged.binding
        if binding.key in declared or binding.key in reported:
            continue
        reported.add(binding.key)
        yield Finding(
            CODE,
            "error",
            f"the Docker API listens on {binding.address}{origin(merged)}, which the policy does not declare"
            f"{effect(seen, merged)}",
            merged.layers[0],
            binding.source,
            fix_for_binding(seen, policy, merged),
            binding.address,
        )
