"""DG105: TLS is weaker than declared, or an option that seems to protect TCP does not."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.dockerd.tls import Note
from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import (
    argument_location,
    binding_finding,
    command_location,
    declared_places,
    fix_for_binding,
    merged_bindings,
)

CODE = "DG105"
TITLE = (
    "TLS is weaker than declared, or looks on and is not "
    "(`--tlsverify=false`, certificates alone, `DOCKER_TLS_VERIFY`)"
)

_SERVER_ONLY = "dockerd does not verify client certificates, so anyone who can connect has root access"
_PLAIN = "TCP stays unencrypted and unauthenticated"
_ANY_AUTHORITY = (
    "accepts client certificates of every public certificate authority: anyone who obtains one has root access"
)
_BUNDLES = frozenset((
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
))
"""The public authorities (Go crypto/x509/root_linux.go, certFiles)."""
_FILES = ("tlscacert", "tlscert", "tlskey")
_PROTECTION = {
    Tls.NONE: "no TLS",
    Tls.SERVER: "TLS that does not verify client certificates",
    Tls.MUTUAL: "TLS with client certificates",
    Tls.UNKNOWN: "TLS that cannot be determined",
}


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each socket with weaker TLS than declared, and one for each ineffective TLS option."""
    if policy is not None:
        yield from _weaker(seen, policy)
    if any(binding.is_tcp for binding in seen.configured.layer.bindings):
        for location, message in _ineffective_options(seen):
            yield Finding(CODE, "error", message, CONFIGURED, location)


def _weaker(seen: Observation, policy: Policy) -> Iterator[Finding]:
    declared = declared_places(policy)
    for merged in merged_bindings(seen):
        binding = merged.binding
        wanted = declared.get(binding.key)
        if wanted is None or not binding.tls.is_weaker(wanted.tls):
            continue
        message = f"{binding.address} has {_PROTECTION[binding.tls]}, but the policy declares tls: {wanted.tls}"
        yield binding_finding(CODE, "error", message, seen, merged, fix_for_binding(seen, policy, merged))


def _ineffective_options(seen: Observation) -> Iterator[tuple[Location | None, str]]:
    """Yield location and message of each option that does not protect TCP as its name suggests.

    See newAPIServerTLSConfig in moby's cmd/dockerd/daemon.go (daemon/command/daemon.go since 29).
    """
    daemon = seen.configured.daemon
    given = {flag.name: flag for flag in daemon.flags}
    keys = {key.name: key.location for key in daemon.keys if key.inside is None}
    variable = seen.configured.environment.variables.get("DOCKER_TLS_VERIFY")

    def locate(*names: str) -> Location | None:
        for name in names:
            if name in given:
                return argument_location(seen, given[name].argument)
            if name in keys:
                return keys[name]
        return command_location(seen)

    for note in daemon.tls.notes:
        if note is Note.VERIFY_OFF:
            yield locate("tlsverify"), f"tlsverify=false does not turn TLS off: {_SERVER_ONLY}"
        elif note is Note.NO_CA:
            name = "tlsverify" if "tlsverify" in given or "tlsverify" in keys else "tls"
            yield locate(name), f"{name} without tlscacert {_ANY_AUTHORITY}"
        elif note is Note.CERTIFICATES_ALONE:
            files = [name for name in _FILES if name in given or name in keys]
            verb = "have" if files[1:] else "has"
            yield locate(*files), f"{' and '.join(files)} {verb} no effect without tlsverify: {_PLAIN}"
        elif note is Note.ENVIRONMENT_IGNORED and daemon.tls.mode is Tls.NONE:
            location = variable.location if variable is not None else None
            yield (
                location or command_location(seen),
                f"DOCKER_TLS_VERIFY turns on TLS in the docker client, not in dockerd: {_PLAIN}",
            )
    if daemon.tls.mode is Tls.MUTUAL and daemon.tls.ca in _BUNDLES:
        yield locate("tlscacert"), f"tlscacert {daemon.tls.ca} {_ANY_AUTHORITY}"
    if daemon.tls.mode is Tls.SERVER and Note.VERIFY_OFF not in daemon.tls.notes:
        version = seen.configured.dockerd_version
        yield locate("tls"), f"tls without tlsverify is not enough for dockerd {version}: {_SERVER_ONLY}"
