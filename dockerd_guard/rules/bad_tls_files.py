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
    """What is wrong with the files that dockerd is told to use for TLS. A key we may not read is not
    held against it."""
    tls = seen.configured.daemon.tls
    # dockerd loads them whatever its hosts are (moby cmd/dockerd/daemon.go, newAPIServerTLSConfig).
    if tls.mode is Tls.NONE:
        return
    roles = {"tlscacert": tls.ca if tls.mode is Tls.MUTUAL else None, "tlscert": tls.cert, "tlskey": tls.key}
    contents: dict[str, bytes] = {}
    for role, path in roles.items():
        if not path:
            if role != "tlscacert":
                yield _finding(seen, role, f"TLS is on and no {role} is given: {_CONSEQUENCE}")
            continue
        try:
            contents[role] = seen.rootfs.read(posixpath.join("/", path))
        except FileNotFoundError:
            yield _finding(seen, role, f"{role} {path} is missing: {_CONSEQUENCE}")
        except Unreadable as error:
            if path not in seen.rootfs.denied:
                yield _finding(seen, role, f"{role} {error}: {_CONSEQUENCE}")
    yield from _inside(seen, roles, contents)


def _inside(seen: Observation, roles: dict[str, str | None], contents: dict[str, bytes]) -> Iterator[Finding]:
    now = datetime.now(UTC)
    leaf: Certificate | None = None
    for role in ("tlscacert", "tlscert"):
        if role not in contents:
            continue
        try:
            chain = certificates(contents[role])
        except ValueError as error:
            yield _finding(seen, role, f"{role} {roles[role]} cannot be used, {error}: {_CONSEQUENCE}")
            continue
        leaf = chain[0] if role == "tlscert" else leaf
        yield from _dates(seen, role, f"{role} {roles[role]}", chain[0], now)
    if "tlskey" in contents:
        try:
            key = public_key_of(contents["tlskey"])
        except ValueError as error:
            yield _finding(
                seen, "tlskey", f"tlskey {roles['tlskey']} cannot be used, {error}: {_CONSEQUENCE}"
            )
            return
        if leaf is not None and key is not None and key != leaf.public_key:
            yield _finding(
                seen,
                "tlskey",
                f"tlskey {roles['tlskey']} does not belong to tlscert {roles['tlscert']}: {_CONSEQUENCE}",
            )


def _dates(
    seen: Observation, role: str, what: str, certificate: Certificate, now: datetime
) -> Iterator[Finding]:
    if wrong := certificate.out_of_date(now):
        yield _finding(seen, role, f"{what} {wrong}: clients refuse it")
    elif certificate.not_after < now + EXPIRES_SOON:
        yield _finding(seen, role, f"{what} expires on {certificate.not_after:%Y-%m-%d}", "warning")


def _finding(seen: Observation, role: str, message: str, severity: Severity = "error") -> Finding:
    return Finding(CODE, severity, message, CONFIGURED, _where_given(seen, role))


def _where_given(seen: Observation, role: str) -> Location | None:
    """Where this file is named, else where TLS is turned on."""
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
