"""DG306: a daemon.json key that looks right and does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.options import options_of
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG306"
TITLE = "a daemon.json key that looks right and does nothing"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each key that dockerd lets pass and makes nothing of (moby's
    findConfigurationConflicts knows more names than its config has fields)."""
    daemon = seen.configured.daemon
    outer = {key.inside for key in daemon.keys}
    for key in daemon.keys:
        if key.effective or key.name in outer:
            continue
        if key.inside is not None:
            message = (
                f"{key.name} inside {key.inside} has no effect: dockerd takes it from the outermost object "
                f"of {daemon.config_file} only"
            )
        else:
            option = options_of(None).by_name.get(key.name)
            if option is None:
                continue  # dockerd does not let it pass: DG205
            meant = f"; the key is {option.key}" if option.key else ""
            message = f"{key.name} has no effect in {daemon.config_file}{meant}"
        yield Finding(CODE, "warning", message, CONFIGURED, key.location)
