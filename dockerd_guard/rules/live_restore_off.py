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
    """One finding where a policy is enforced and the running dockerd would not leave containers alone."""
    if policy is None or policy.mode is not Mode.ENFORCE or policy.correct.restart is Restart.NEVER:
        return
    if seen.running is None or seen.running.daemon.live_restore:
        return
    daemon = seen.running.daemon
    consequence = (
        "a correction would wait, as restart: live-restore asks"
        if policy.correct.restart is Restart.LIVE_RESTORE
        else "a correction would stop containers"
    )
    key = next((key.location for key in daemon.keys if key.name == "live-restore"), None)
    try:
        is_there = seen.rootfs.stat(daemon.config_file) is not None
    except Unreadable:
        is_there = True
    yield Finding(
        CODE,
        "warning",
        f"live-restore is off in the running dockerd, so that {consequence}; it can be "
        f"turned on in {daemon.config_file} with `systemctl reload docker`, without "
        "a restart",
        RUNNING,
        key or (Location(daemon.config_file) if is_there else None),
    )
