"""DG102: a declared socket is missing."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, LISTENING, LOADED, RUNNING, Layer, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import declared_places, fix_of_missing

CODE = "DG102"
TITLE = "a declared socket is missing"

_SAYS = {
    CONFIGURED: "the files on disk do not make the Docker API listen there",
    LOADED: "the units systemd has loaded do not make the Docker API listen there",
    RUNNING: "the running dockerd was started without it",
    LISTENING: "nothing listens there",
}


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each declared place, at the first layer that lacks it."""
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
            f"{declared.address} is declared, but {_why(lacking[0])}",
            layers[0],
            declared.location,
            fix_of_missing(seen, layers),
            declared.address,
        )


def _has(layer: Layer, key: str) -> bool:
    return layer.starts and any(binding.key == key for binding in layer.bindings)


def _why(layer: Layer) -> str:
    if layer.starts:
        return _SAYS[layer.name]
    return f"{layer.refused_by or 'systemd'} would refuse to start docker.service: {layer.reason}"
