"""DG110: containerd's own TCP endpoint."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Scope, canonical, scope_of
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.containerd import UNIT, containerd_endpoints
from dockerd_guard.observe.observation import CONFIGURED, LISTENING, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG110"
TITLE = "containerd's own TCP endpoint"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each TCP address in containerd's configuration."""
    listening = {canonical(path.address) for path in seen.access_paths}
    for endpoint in containerd_endpoints(seen.rootfs, seen.configured.systemd_version):
        is_open = canonical(endpoint.address) in listening
        what = "its API, equivalent to root without Docker," if endpoint.is_api else "its debug interface"
        is_harmless = not endpoint.is_api or endpoint.is_verified or scope_of(endpoint.address) is Scope.LOOPBACK
        yield Finding(
            CODE, "warning" if is_harmless else "error",
            f"containerd serves {what} on {endpoint.address} ({endpoint.key})"
            + (", to clients with a certificate" if endpoint.is_verified else "")
            + ("; it listens there now" if is_open else ""),
            LISTENING if is_open else CONFIGURED, endpoint.location, None, endpoint.address, UNIT)
