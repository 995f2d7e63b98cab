"""DG402: live-restore is off."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import RUNNING, Observation
from dockerd_guard.policy.model import Mode, Policy, Restart
from dockerd_guard.rootfs import Unreadable

CODE = "DG402"
TITLE = "live-restore is off: a correction would stop containers"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding if the policy is enforced and a restart of the running dockerd would stop containers."""
    if policy is None or policy.mode is not Mode.ENFORCE or policy.correct.restart is Restart.NEVER:
        return
    if seen.running is None or seen.running.process.is_before_exec or seen.running.daemon.live_restore:
        return
    daemon = seen.running.daemon
    consequence = (
        "a correction that needs a restart waits (restart: live-restore)"
        if policy.correct.restart is Restart.LIVE_RESTORE
        else "a correction that needs a restart stops all containers"
    )
    key = next((key.location for key in daemon.keys if key.name == "live-restore"), None)
    try:
        exists = seen.rootfs.stat(daemon.config_file) is not None
    except Unreadable:
        exists = True
    yield Finding(
        CODE,
        "warning",
        f"live-restore is off in the running dockerd: {consequence}; set \"live-restore\": true in "
        f"{daemon.config_file} and run `systemctl reload docker`, which does not restart dockerd",
        RUNNING,
        key or (Location(daemon.config_file) if exists else None),
    )
