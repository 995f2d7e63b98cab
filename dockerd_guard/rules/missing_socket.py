"""DG102: a declared socket is missing."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, LISTENING, LOADED, RUNNING, Layer, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import declared_places, fix_for_missing, namespace_of

CODE = "DG102"
TITLE = "a declared socket is missing"

_MISSING_FROM = {
    CONFIGURED: "the files on disk do not configure it",
    LOADED: "the units that systemd has loaded do not configure it",
    RUNNING: "the running dockerd was started without it",
    LISTENING: "nothing listens there",
}


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each declared socket that a layer lacks, for the first such layer."""
    if policy is None:
        return
    for key, declared in declared_places(policy).items():
        lacking = tuple(layer for layer in seen.layers if not _has(layer, key))
        if not lacking:
            continue
        layers = tuple(layer.name for layer in lacking)
        yield Finding(
            CODE,
            "error",
            f"{declared.address} is declared, but {_reason(lacking[0], key)}{_what_is_there(seen, declared.address)}",
            layers[0],
            declared.location,
            None if any(namespace_of(layer, key) for layer in lacking) else fix_for_missing(seen, layers),
            declared.address,
        )


def _what_is_there(seen: Observation, address: str) -> str:
    """What is at the path of a UNIX socket, where it is no socket: systemd or dockerd would delete it."""
    path = address.removeprefix("unix://")
    entry = seen.rootfs.stat_if_possible(path, follow=False) if path.startswith("/") else None
    return "" if entry is None or stat.S_ISSOCK(entry.mode) else f"; a {entry.kind} is there"


def _has(layer: Layer, key: str) -> bool:
    return layer.starts and namespace_of(layer, key) == ""


def _reason(layer: Layer, key: str) -> str:
    if layer.starts and (namespace := namespace_of(layer, key)):
        return f"dockerd has it in the network namespace {namespace}, not in that of the host"
    if layer.starts:
        return _MISSING_FROM[layer.name]
    return f"docker.service cannot start: {layer.refused_by or 'systemd'}: {layer.reason}"
