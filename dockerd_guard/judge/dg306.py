"""DG306: a daemon.json key that looks right and does nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dockerd_guard.judge.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy import Policy
from dockerd_guard.tree import Unreadable

TITLE = "a daemon.json key that looks right and does nothing"

SINGULAR = {
    "host": "hosts",
    "label": "labels",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "log-opt": "log-opts",
    "storage-opt": "storage-opts",
    "registry-mirror": "registry-mirrors",
    "insecure-registry": "insecure-registries",
    "authorization-plugin": "authorization-plugins",
    "default-ulimit": "default-ulimits",
    "add-runtime": "runtimes",
    "config-file": "",
    "help": "",
    "version": "",
    "validate": "",
}
"""Names of flags that moby's findConfigurationConflicts lets pass and that no field of its config has,
with the key that is meant."""

_TLS = ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey")
_OBJECTS = (
    "log-opts",
    "runtimes",
    "features",
    "builder",
    "default-network-opts",
    "proxies",
    "default-ulimits",
    "storage-opts",
    "labels",
    "containerd",
    "nri",
)
"""Keys whose values are objects of their own names."""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each such key of the outermost object."""
    daemon = seen.configured.daemon
    if daemon.config_error is not None or not daemon.keys:
        return
    nested: dict[str, list[str]] | None = None
    for key in daemon.keys:
        if key.name in SINGULAR:
            meant = f"; the key is {SINGULAR[key.name]}" if SINGULAR[key.name] else ""
            yield Finding(
                "DG306",
                "warning",
                f"{key.name} has no effect in {daemon.config_file}{meant}",
                CONFIGURED,
                key.location,
            )
            continue
        if nested is None:
            nested = _nested(seen)
        if names := nested.get(key.name):
            yield Finding(
                "DG306",
                "warning",
                f"{' and '.join(names)} inside {key.name} have no effect: dockerd takes "
                f"them from the outermost object of {daemon.config_file} only",
                CONFIGURED,
                key.location,
            )


def _nested(seen: Observation) -> dict[str, list[str]]:
    """Keys about listening that stand in an object inside, by the name of that object."""
    try:
        text = seen.tree.read(seen.configured.daemon.config_file).decode("utf-8-sig", "replace")
        value = json.loads(text)
    except (FileNotFoundError, Unreadable, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {
        name: [key for key in ("hosts", *_TLS) if key in inside]
        for name, inside in value.items()
        if isinstance(inside, dict) and name not in _OBJECTS
    }
