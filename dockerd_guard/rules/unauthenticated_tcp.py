"""DG103: TCP without client authentication (any source; worse by scope)."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.address import Scope, Tls
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import (
    binding_finding,
    declared_places,
    fix_for_binding,
    merged_bindings,
    origin,
    scope_text,
)
from dockerd_guard.rules.rootless_tcp_host import enclosed_hosts

CODE = "DG103"
TITLE = "TCP without client authentication (any source; worse by scope)"

_PROTECTION = {
    Tls.NONE: "without TLS",
    Tls.SERVER: "with TLS that does not verify client certificates",
    Tls.UNKNOWN: "with TLS that cannot be determined",
}


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each TCP address where dockerd does not verify client certificates."""
    declared = {} if policy is None else declared_places(policy)
    # What is reachable in no network namespace but RootlessKit's is DG109. With an unknown version it may be open.
    enclosed = {binding.key for binding in enclosed_hosts(seen)} if seen.configured.known_dockerd is not None else set()
    for merged in merged_bindings(seen):
        binding = merged.binding
        if not binding.is_tcp or binding.tls is Tls.MUTUAL or (
                binding.key in enclosed and merged.layers == (CONFIGURED,)):
            continue
        wanted = declared.get(binding.key)
        as_declared = wanted is not None and not binding.tls.is_weaker(wanted.tls)
        severity: Severity = "warning" if as_declared or binding.scope is Scope.LOOPBACK else "error"
        protection = _PROTECTION[binding.tls]
        note = f" (declared in line {wanted.location.line} of the policy)" if wanted and as_declared else ""
        message = (f"{binding.address}{origin(merged)} exposes the Docker API, equivalent to root, "
                   f"{scope_text(binding)} {protection}{note}")
        fix = None if as_declared else fix_for_binding(seen, policy, merged)
        yield binding_finding(CODE, severity, message, seen, merged, fix)
