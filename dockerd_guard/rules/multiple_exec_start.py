"""DG204: more than one ExecStart=."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG204"
TITLE = "more than one `ExecStart=`: a drop-in forgot the reset"


def has_multiple_commands(seen: Observation) -> bool:
    """Return whether systemd refuses the service for this (service_verify() in systemd's src/core/service.c)."""
    service = seen.configured.service
    return (
        len(service.exec_start) > 1 and service.type != "oneshot" and service.unit.load_state == "bad-setting"
    )


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding, located at the last ExecStart=."""
    if not has_multiple_commands(seen):
        return
    first, *_, last = (command.location for command in seen.configured.service.exec_start)
    yield Finding(
        CODE,
        "error",
        f"systemd will not load docker.service: this ExecStart= adds a second command to the one in {first}; "
        "put an empty ExecStart= before it",
        CONFIGURED,
        last,
        "safe" if policy is not None else None,
    )
