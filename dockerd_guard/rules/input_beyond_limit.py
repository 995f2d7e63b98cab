"""DG310: a file that is too large to be judged."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG310"
TITLE = "a file that is too large to be judged"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each file that exceeds the limits of Rootfs."""
    for path, reason in seen.rootfs.unread.items():
        yield Finding(
            CODE,
            "error",
            f"this file {reason}: it is not judged, and systemd or dockerd may read it",
            CONFIGURED,
            Location(path),
        )
