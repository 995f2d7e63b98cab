"""DG204: more than one ExecStart=."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG204"
TITLE = "more than one `ExecStart=`: a drop-in forgot the reset"


def is_double(seen: Observation) -> bool:
    """Whether systemd refuses the service for it (service_verify in systemd's src/core/service.c)."""
    service = seen.configured.service
    return (
        len(service.exec_start) > 1 and service.type != "oneshot" and service.unit.load_state == "bad-setting"
    )


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding, at the last ExecStart=."""
    if not is_double(seen):
        return
    first, *_, last = (command.location for command in seen.configured.service.exec_start)
    yield Finding(
        CODE,
        "error",
        f"systemd will not load docker.service: this ExecStart= comes on top of the one in {first}; an empty "
        "ExecStart= must stand before it",
        CONFIGURED,
        last,
        "safe" if policy is not None else None,
    )
