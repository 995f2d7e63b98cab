"""DG308: dockerd was not restarted since."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.daemon import Daemon
from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import RUNNING, Layer, Observation, Running
from dockerd_guard.observe.started import is_unchanged
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import command_location, declared_places

CODE = "DG308"
TITLE = "dockerd was not restarted since"

_NEVER_RELOADED = ("hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey")
"""Keys of daemon.json that dockerd does not reload on SIGHUP (moby: daemon/reload.go)."""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding if a restart would start dockerd with another command line or other keys of daemon.json."""
    if seen.running is None or seen.running.process.is_before_exec:
        return
    source = seen.loaded or seen.configured
    target, daemon = source.layer, source.daemon
    fix = _fix(seen.running, target, policy)
    has_other_arguments = target.starts and seen.running.process.argv != target.argv
    if seen.running.config is not None and not _has_other_effect(seen.running, target, daemon):
        return
    if has_other_arguments:
        yield Finding(
            CODE,
            "warning",
            "the command line of the running dockerd differs from the loaded docker.service; restart docker.service "
            "to apply the new one",
            RUNNING,
            command_location(seen),
            fix,
        )
    elif (location := _changed_daemon_json(seen, seen.running, daemon)) is not None:
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


def _has_other_effect(running: Running, target: Layer, daemon: Daemon) -> bool:
    """Whether a start with the target would differ from the running dockerd in its flags, its hosts or its TLS.

    A correction may write the same in other words, as `-H` instead of `hosts`.
    """
    old, new = running.daemon, daemon
    if _other_flags(old) != _other_flags(new):
        return True
    if {canonical(host.address) for host in old.hosts} != {canonical(host.address) for host in new.hosts}:
        return True
    has_tcp = any(binding.is_tcp for layer in (running.layer, target) for binding in layer.bindings)
    return has_tcp and (old.tls.mode, old.tls.ca, old.tls.cert, old.tls.key) != (
        new.tls.mode, new.tls.ca, new.tls.cert, new.tls.key)


def _other_flags(daemon: Daemon) -> list[tuple[str, str]]:
    return sorted((flag.name, flag.value) for flag in daemon.flags if flag.name not in ("host", *_NEVER_RELOADED))


def _changed_daemon_json(seen: Observation, running: Running, daemon: Daemon) -> Location | None:
    """Return where daemon.json has a key that dockerd does not reload, if the file has changed since its start."""
    keys = [key.location for key in daemon.keys if key.name in _NEVER_RELOADED]
    if running.config is not None:
        return keys[0] if keys else Location(daemon.config_file)
    if not keys or is_unchanged(seen.rootfs, daemon.config_file, running.process.started_ns):
        return None
    return keys[0]
