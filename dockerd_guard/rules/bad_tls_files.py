"""DG206: TLS files missing, unreadable, mismatched, expired or expiring."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.certificates import Certificate, certificates, public_key_of
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules._common import argument_location

CODE = "DG206"
TITLE = "TLS files missing, unreadable, mismatched, expired or expiring"

EXPIRES_SOON = timedelta(days=30)

_CONSEQUENCE = "dockerd will not start with TLS"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield a finding for each problem with the TLS files that dockerd is configured to use.

    A file that this process has no permission to read is not a finding.
    """
    tls = seen.configured.daemon.tls
    if tls.mode is Tls.NONE or not any(binding.is_tcp for binding in seen.configured.layer.bindings):
        return
    roles = {"tlscacert": tls.ca if tls.mode is Tls.MUTUAL else None, "tlscert": tls.cert, "tlskey": tls.key}
    contents: dict[str, bytes] = {}
    for role, path in roles.items():
        if not path:
            if role != "tlscacert":
                yield _finding(seen, role, f"TLS is on, but {role} is not set: {_CONSEQUENCE}")
            continue
        try:
            contents[role] = seen.rootfs.read(posixpath.join("/", path))
        except FileNotFoundError:
            yield _finding(seen, role, f"{role} {path} is missing: {_CONSEQUENCE}")
        except Unreadable as error:
            if path not in seen.rootfs.denied:
                yield _finding(seen, role, f"{role} {error}: {_CONSEQUENCE}")
    yield from _check_contents(seen, roles, contents)


def _check_contents(
    seen: Observation, roles: dict[str, str | None], contents: dict[str, bytes]
) -> Iterator[Finding]:
    now = datetime.now(UTC)
    leaf: Certificate | None = None
    for role in ("tlscacert", "tlscert"):
        if role not in contents:
            continue
        try:
            chain = certificates(contents[role])
        except ValueError as error:
            yield _finding(seen, role, f"{role} {roles[role]} cannot be used ({error}): {_CONSEQUENCE}")
            continue
        leaf = chain[0] if role == "tlscert" else leaf
        yield from _check_dates(seen, role, f"{role} {roles[role]}", chain[0], now)
    if "tlskey" in contents:
        try:
            key = public_key_of(contents["tlskey"])
        except ValueError as error:
            yield _finding(
                seen, "tlskey", f"tlskey {roles['tlskey']} cannot be used ({error}): {_CONSEQUENCE}"
            )
            return
        if leaf is not None and key is not None and key != leaf.public_key:
            yield _finding(
                seen,
                "tlskey",
                f"tlskey {roles['tlskey']} does not match tlscert {roles['tlscert']}: {_CONSEQUENCE}",
            )


def _check_dates(
    seen: Observation, role: str, name: str, certificate: Certificate, now: datetime
) -> Iterator[Finding]:
    if reason := certificate.out_of_date(now):
        yield _finding(seen, role, f"{name} {reason}: clients reject it")
    elif certificate.not_after < now + EXPIRES_SOON:
        yield _finding(seen, role, f"{name} expires on {certificate.not_after:%Y-%m-%d}", "warning")


def _finding(seen: Observation, role: str, message: str, severity: Severity = "error") -> Finding:
    return Finding(CODE, severity, message, CONFIGURED, _location(seen, role))


def _location(seen: Observation, role: str) -> Location | None:
    """Return the location of the option that names this file, else of the option that turns TLS on."""
    daemon = seen.configured.daemon
    flags = {flag.name: flag for flag in daemon.flags}
    keys = {key.name: key.location for key in daemon.keys}
    for name in (role, "tlsverify", "tls"):
        if name in flags:
            value = flags[name].value_argument
            return argument_location(seen, flags[name].argument if value is None else value)
        if name in keys:
            return keys[name]
    return None
