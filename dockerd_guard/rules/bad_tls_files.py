"""DG206: TLS files missing, unreadable, mismatched, expired or expiring."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding, Severity
from dockerd_guard.model.location import Location
from dockerd_guard.observe.certificates import Mismatch, check_pair, fingerprint, validity
from dockerd_guard.observe.observation import CONFIGURED, RUNNING, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules._common import argument_location

CODE = "DG206"
TITLE = "TLS files missing, unreadable, mismatched, expired or expiring; a served certificate older than the file"

EXPIRES_SOON = timedelta(days=30)

_CONSEQUENCE = "dockerd will not start with TLS"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield a finding for each problem with the TLS files that dockerd is configured to use.

    A file that this process has no permission to read is not a finding.
    """
    yield from _check_served(seen)
    tls = seen.configured.daemon.tls
    # dockerd loads them whatever its hosts are (moby cmd/dockerd/daemon.go, newAPIServerTLSConfig).
    if tls.mode is Tls.NONE:
        return
    roles = {"tlscacert": tls.ca if tls.mode is Tls.MUTUAL else None, "tlscert": tls.cert, "tlskey": tls.key}
    contents: dict[str, bytes] = {}
    for role, path in roles.items():
        if not path:
            if role != "tlscacert":
                yield _finding(seen, role, f"TLS is on, but {role} is not set: {_CONSEQUENCE}")
            continue
        try:
            contents[role] = seen.rootfs.read_table(posixpath.join("/", path))
        except FileNotFoundError:
            if not _is_credential(seen, path):
                yield _finding(seen, role, f"{role} {path} is missing: {_CONSEQUENCE}")
        except Unreadable as error:
            if path not in seen.rootfs.denied:
                yield _finding(seen, role, f"{role} {error}: {_CONSEQUENCE}")
    yield from _check_contents(seen, roles, contents)


def _is_credential(seen: Observation, path: str) -> bool:
    """Whether systemd makes this file when it starts the service (LoadCredential= and others, systemd.exec(5))."""
    unit = seen.configured.service.unit
    directory, _, name = path.rpartition("/")
    return directory == f"/run/credentials/{unit.name}" and any(
        re.fullmatch(r"(?:Load|Set)Credential(?:Encrypted)?", setting.key) is not None
        and setting.value.partition(":")[0] == name for setting in unit.settings)


def _check_served(seen: Observation) -> Iterator[Finding]:
    """dockerd reads its certificate only when it starts (moby daemon/reload.go)."""
    running = seen.running
    path = running.daemon.tls.cert if running is not None else None
    if running is None or not running.certificate or not path:
        return
    with contextlib.suppress(OSError, Unreadable, ValueError):
        if fingerprint(seen.rootfs.read(posixpath.join("/", path))) != running.certificate:
            message = (f"dockerd serves an older certificate than the one in {path}; "
                       "it reads the file only when it starts: restart docker.service")
            yield Finding(CODE, "warning", message, RUNNING, _location(seen, "tlscert"))


def _check_contents(
    seen: Observation, roles: dict[str, str | None], contents: dict[str, bytes]
) -> Iterator[Finding]:
    now = datetime.now(UTC)
    dated: list[str] = []
    for role in ("tlscacert", "tlscert"):
        if role not in contents:
            continue
        try:
            dates = validity(contents[role])
        except ValueError as error:
            yield _finding(seen, role, f"{role} {roles[role]} cannot be used ({error}): {_CONSEQUENCE}")
            continue
        dated.append(role)
        if problem := dates.problem(now):
            yield _finding(seen, role, f"{role} {roles[role]} {problem}: clients reject it")
        elif dates.not_after < now + EXPIRES_SOON:
            yield _finding(seen, role, f"{role} {roles[role]} expires on {dates.not_after:%Y-%m-%d}", "warning")
    # OpenSSL checks a key only beside its certificate.
    if "tlskey" in contents and "tlscert" in dated:
        key = f"tlskey {roles['tlskey']}"
        # OSError: OpenSSL cannot open the files, as in a chroot without /proc.
        with contextlib.suppress(OSError):
            try:
                check_pair(contents["tlscert"], contents["tlskey"])
            except Mismatch:
                yield _finding(seen, "tlskey", f"{key} does not match tlscert {roles['tlscert']}: {_CONSEQUENCE}")
            except ValueError as error:
                yield _finding(seen, "tlskey", f"{key} cannot be used ({error}): {_CONSEQUENCE}")


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
