"""DG201: `hosts` both as a flag and in daemon.json."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.config import SET_TWICE
from dockerd_guard.model.address import Via
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import argument_location, fix_for_foreign_file

CODE = "DG201"
TITLE = "`hosts` both as a flag and in daemon.json: dockerd will not start"


def is_conflict(seen: Observation) -> bool:
    """Return whether dockerd refuses to start because hosts are set twice (moby: findConfigurationConflicts)."""
    reason = seen.configured.daemon.reason or ""
    _, both, names = reason.partition(f"{SET_TWICE}: ")
    return bool(both) and "hosts" in names.split(", ")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding, located at the first -H."""
    if not is_conflict(seen):
        return
    daemon = seen.configured.daemon
    flag = next(entry for entry in daemon.hosts if entry.via is Via.FLAG)
    key = next((key.location for key in daemon.keys if key.name == "hosts"), None)
    yield Finding(
        CODE,
        "error",
        f"dockerd will not start: hosts are set by -H here and by hosts in {key or daemon.config_file}; "
        "dockerd accepts only one of them",
        CONFIGURED,
        argument_location(seen, flag.argument),
        fix_for_foreign_file(policy),
    )
