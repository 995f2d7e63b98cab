"""DG101: the API listens where the policy does not say."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import declared_places, fix_of_open, how, places, state

CODE = "DG101"
TITLE = "the API listens where the policy does not say"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each place that is not declared."""
    if policy is None:
        return
    declared = declared_places(policy)
    told: set[str] = set()
    for place in places(seen):
        binding = place.binding
        if binding.key in declared or binding.key in told:
            continue
        told.add(binding.key)
        yield Finding(
            CODE,
            "error",
            f"the Docker API listens on {binding.address}{how(place)}, which the policy does not declare"
            f"{state(seen, place.layers)}",
            place.layers[0],
            binding.source,
            fix_of_open(seen, policy, place),
            binding.address,
        )
