"""DG109: a rootless TCP host that is unreachable today and opens with Docker 29.5."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Binding, Scope, Tls, Via, split_host_port
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG109"
TITLE = "a rootless TCP host that is unreachable today and opens with Docker 29.5 (detached network namespace)"

_DETACHED = Version(29, 5)
"""Since this version dockerd-rootless.sh runs dockerd in the host's network namespace by default (moby#47103)."""

_PUBLISHED = re.compile(r"(?:-p|--publish)(?:=|\s{1,16})(?P<ports>[^\s,]{1,200})/(?:tcp|udp)")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each TCP host that is reachable since 29.5 only."""
    where = "is" if seen.configured.known_dockerd is not None else "is before Docker 29.5"
    for binding in enclosed_hosts(seen):
        yield Finding(
            CODE,
            "warning",
            f"{binding.address} {where} inside the network namespace of RootlessKit only; since Docker 29.5 "
            "dockerd-rootless.sh runs dockerd in the network namespace of the host, and an upgrade opens it",
            CONFIGURED,
            binding.source,
            None,
            binding.address,
        )


def enclosed_hosts(seen: Observation) -> Iterator[Binding]:
    """Yield the TCP hosts of a dockerd that is, or may be, in RootlessKit's network namespace, and that are not
    published."""
    configured = seen.configured
    version = configured.known_dockerd
    if not configured.daemon.program.is_rootless or (version is not None and version >= _DETACHED):
        return
    variables = {name: variable.value for name, variable in configured.environment.variables.items()}
    if variables.get("DOCKERD_ROOTLESS_ROOTLESSKIT_DETACH_NETNS", "") != "" or (
            "implicit" in variables.get("DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER", "")):
        return
    flags = variables.get("DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS", "")
    published = {found["ports"].rpartition(":")[2] for found in _PUBLISHED.finditer(flags)}
    yield from (binding for binding in configured.layer.bindings
                if binding.is_tcp and binding.via in (Via.FLAG, Via.DAEMON_JSON) and binding.tls is not Tls.MUTUAL
                and binding.scope is not Scope.LOOPBACK and split_host_port(binding.address)[1] not in published)
