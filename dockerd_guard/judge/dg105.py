"""DG105: TLS is weaker than declared, or looks on and is not."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.bindings import Tls
from dockerd_guard.dockerd.flags import FALSE, Flag
from dockerd_guard.judge.finding import Finding
from dockerd_guard.judge.places import (
    STRENGTH,
    argument_location,
    command_location,
    declared_places,
    fix_of_open,
    places,
    state,
)
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy import Policy
from dockerd_guard.source import Location

TITLE = "TLS is weaker than declared, or looks on and is not"

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
            yield Finding("DG105", "error", message, CONFIGURED, location)


def _weaker(seen: Observation, policy: Policy) -> Iterator[Finding]:
    declared = declared_places(policy)
    for place in places(seen):
        binding = place.binding
        wanted = declared.get(binding.key)
        if wanted is None or STRENGTH.index(binding.tls) >= STRENGTH.index(wanted.tls):
            continue
        yield Finding(
            "DG105", "error",
            f"{binding.address} has {_PROTECTS[binding.tls]}, but tls: {wanted.tls} is declared"
            f"{state(seen, place.layers)}",
            place.layers[0], binding.source, fix_of_open(seen, policy, place), binding.address,
        )


def _deceptions(seen: Observation) -> Iterator[tuple[Location | None, str]]:
    """Options that read as protection and are none (facts: moby's daemon.go, newAPIServerTLSConfig)."""
    daemon = seen.configured.daemon
    given = {flag.name: flag for flag in daemon.flags}
    keys = {key.name: key.location for key in daemon.keys}

    def where(name: str) -> Location | None:
        return argument_location(seen, given[name].argument) if name in given else keys.get(name)

    if daemon.tls.mode is Tls.SERVER:
        if _is_false(given.get("tlsverify")):
            yield where("tlsverify"), (
                "--tlsverify=false does not turn TLS off: TLS stays on and asks no client for a certificate, "
                "so whoever connects is root")
        elif "tlsverify" in keys:
            yield where("tlsverify"), (
                "tlsverify: false leaves TLS on and asks no client for a certificate, so whoever connects is "
                "root")
        else:
            yield where("tls"), (
                f"--tls alone asks no client for a certificate in dockerd {seen.configured.dockerd_version}, "
                "so whoever connects is root")
    elif daemon.tls.mode is Tls.MUTUAL and not daemon.tls.ca:
        yield where("tlsverify") or where("tls") or command_location(seen), (
            "tlsverify without tlscacert trusts every public certification authority: whoever buys a "
            "certificate from one is root")
    elif daemon.tls.mode is Tls.NONE:
        files = [name for name in _FILES if name in given or name in keys]
        if files and not _is_false(given.get("tls")):
            yield where(files[0]), (
                f"{' and '.join(files)} without tlsverify have no effect: TCP is plain text without "
                "authentication")
        variable = seen.configured.environment.variables.get("DOCKER_TLS_VERIFY")
        if variable is not None and variable.value:
            yield variable.location or command_location(seen), (
                "DOCKER_TLS_VERIFY does not turn on TLS for dockerd (only for the client): TCP is plain text "
                "without authentication")


def _is_false(flag: Flag | None) -> bool:
    return flag is not None and flag.value in FALSE
