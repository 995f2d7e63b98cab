"""DG108: a container that mounts the API socket and publishes a port."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._access_paths import code_of, finding_of, observed_paths

CODE = "DG108"
TITLE = "a container that mounts the API socket and publishes a port"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each container and address; an address of both families is one."""
    reported: set[tuple[str, str]] = set()
    for path in observed_paths(seen, policy):
        key = path.container, canonical(path.address) if path.address else ""
        if code_of(path) == CODE and key not in reported:
            reported.add(key)
            yield finding_of(path)
