"""DG308: dockerd was not restarted since."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import RUNNING, Layer, Observation, Running
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import command_location, declared_places

CODE = "DG308"
TITLE = "dockerd was not restarted since"

_NEVER_RELOADED = ("hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey")
"""Keys of daemon.json that dockerd does not reload on SIGHUP (moby: daemon/reload.go)."""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding if a restart would start dockerd with another command line or other keys of daemon.json."""
    if seen.running is None:
        return
    target = (seen.loaded or seen.configured).layer
    fix = _fix(seen.running, target, policy)
    if target.starts and seen.running.process.argv != target.argv:
        yield Finding(
            CODE,
            "warning",
            "the command line of the running dockerd differs from the loaded docker.service; restart docker.service "
            "to apply the new one",
            RUNNING,
            command_location(seen),
            fix,
        )
    elif (location := _newer_daemon_json(seen, seen.running)) is not None:
        yield Finding(
            CODE,
            "warning",
            f"{location.file} changed after dockerd started; dockerd reads its hosts and TLS keys only at startup",
            RUNNING,
            location,
            fix,
        )


def _fix(running: Running, target: Layer, policy: Policy | None) -> Fix | None:
    """Return None where both layers comply with the policy: `fix` does not restart dockerd for other arguments."""
    if policy is None:
        return None
    declared = {(key, socket.tls) for key, socket in declared_places(policy).items()}
    if all({(binding.key, binding.tls) for binding in layer.bindings} == declared for layer in (running.layer, target)):
        return None
    return "safe" if running.daemon.live_restore else "disruptive"


def _newer_daemon_json(seen: Observation, running: Running) -> Location | None:
    keys = [key.location for key in running.daemon.keys if key.name in _NEVER_RELOADED]
    if not keys:
        return None
    entry = seen.rootfs.stat_if_possible(running.daemon.config_file)
    return keys[0] if entry is not None and entry.mtime_ns > running.process.started_ns else None
