"""DG105: TLS is weaker than declared, or looks on and is not."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.tls import Note
from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import (
    STRENGTH,
    argument_location,
    command_location,
    declared_places,
    fix_of_open,
    places,
    state,
)

CODE = "DG105"
TITLE = "TLS is weaker than declared, or looks on and is not"

_SERVER_ONLY = "it asks no client for a certificate, so whoever connects is root"
_PLAIN = "TCP is plain text without authentication"
_ANY_AUTHORITY = (
    "tlsverify without tlscacert trusts every public certification authority: whoever buys a certificate "
    "from one is root"
)
_FILES = ("tlscacert", "tlscert", "tlskey")
_PROTECTS = {
    Tls.NONE: "no TLS at all",
    Tls.SERVER: "TLS that asks no client for a certificate",
    Tls.MUTUAL: "client certificates",
}


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each socket weaker than declared, and one for each option that deceives."""
    if policy is not None:
        yield from _weaker(seen, policy)
    if any(binding.is_tcp for binding in seen.configured.layer.bindings):
        for location, message in _deceptions(seen):
            yield Finding(CODE, "error", message, CONFIGURED, location)


def _weaker(seen: Observation, policy: Policy) -> Iterator[Finding]:
    declared = declared_places(policy)
    for place in places(seen):
        binding = place.binding
        wanted = declared.get(binding.key)
        if wanted is None or STRENGTH.index(binding.tls) >= STRENGTH.index(wanted.tls):
            continue
        yield Finding(
            CODE,
            "error",
            f"{binding.address} has {_PROTECTS[binding.tls]}, but tls: {wanted.tls} is declared"
            f"{state(seen, place.layers)}",
            place.layers[0],
            binding.source,
            fix_of_open(seen, policy, place),
            binding.address,
        )


def _deceptions(seen: Observation) -> Iterator[tuple[Location | None, str]]:
    """Options that read as protection and are none (moby's daemon.go, newAPIServerTLSConfig)."""
    daemon = seen.configured.daemon
    given = {flag.name: flag for flag in daemon.flags}
    keys = {key.name: key.location for key in daemon.keys if key.inside is None}
    variable = seen.configured.environment.variables.get("DOCKER_TLS_VERIFY")

    def where(*names: str) -> Location | None:
        for name in names:
            if name in given:
                return argument_location(seen, given[name].argument)
            if name in keys:
                return keys[name]
        return command_location(seen)

    for note in daemon.tls.notes:
        if note is Note.VERIFY_OFF:
            yield where("tlsverify"), f"tlsverify=false does not turn TLS off: {_SERVER_ONLY}"
        elif note is Note.NO_CA:
            yield where("tlsverify", "tls"), _ANY_AUTHORITY
        elif note is Note.CERTIFICATES_ALONE:
            files = [name for name in _FILES if name in given or name in keys]
            verb = "have" if files[1:] else "has"
            yield where(*files), f"{' and '.join(files)} without tlsverify {verb} no effect: {_PLAIN}"
        elif note is Note.ENVIRONMENT_IGNORED and daemon.tls.mode is Tls.NONE:
            location = variable.location if variable is not None else None
            yield (
                location or command_location(seen),
                f"DOCKER_TLS_VERIFY turns on TLS for the client, not for dockerd: {_PLAIN}",
            )
    if daemon.tls.mode is Tls.SERVER and Note.VERIFY_OFF not in daemon.tls.notes:
        version = seen.configured.dockerd_version
        yield where("tls"), f"tls alone is not enough for dockerd {version}: {_SERVER_ONLY}"
