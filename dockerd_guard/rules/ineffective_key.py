"""DG306: a daemon.json key that looks right and does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.options import options_of
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy

CODE = "DG306"
TITLE = "a daemon.json key that looks right and does nothing (`host`, nested objects)"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each key that dockerd accepts and ignores.

    findConfigurationConflicts in moby's daemon/config/config.go accepts the names of all flags, not only of the
    fields of its configuration.
    """
    daemon = seen.configured.daemon
    outer = {key.inside for key in daemon.keys}
    for key in daemon.keys:
        if key.effective or key.name in outer:
            continue
        if key.inside is not None:
            message = (
                f"{key.name} in {key.inside} has no effect: dockerd reads it only at the top level of "
                f"{daemon.config_file}"
            )
        else:
            option = options_of(None).by_name.get(key.name)
            if option is None:
                continue  # dockerd refuses it: DG205
            hint = f"; use {option.key}" if option.key else ""
            message = f"{key.name} has no effect in {daemon.config_file}{hint}"
        yield Finding(CODE, "warning", message, CONFIGURED, key.location)
