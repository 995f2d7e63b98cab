"""DG203: a host dockerd cannot parse or resolve, or parses as something else than it looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.dockerd.hosts import (
    HostEntry,
    InvalidHost,
    is_ipv4,
    listen_error,
    never_resolves,
    parse_host,
    without_credentials,
)
from dockerd_guard.model.address import Via, split_host_port
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules._common import argument_location, fix_for_foreign_file

CODE = "DG203"
TITLE = "a host dockerd cannot parse or resolve, or parses as something else than it looks like"


def refusals(seen: Observation) -> Iterator[tuple[HostEntry, str]]:
    """Yield the hosts that this dockerd refuses, each with the error of dockerd."""
    version = seen.configured.dockerd_version
    daemon = seen.configured.daemon
    for entry in daemon.hosts:
        value = entry.raw.strip()
        if entry.via is Via.DEFAULT or not value:
            continue
        try:
            address = parse_host(value, version)
            why = listen_error(address, version)
            if why is None and daemon.reason and daemon.reason == listen_error(address, version, True):
                why = daemon.reason
        except InvalidHost as error:
            why = without_credentials(str(error))
        if why is not None:
            yield entry, why


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each host that dockerd refuses or reads differently from what it looks like."""
    refused = {entry: f"dockerd will not start: {why}" for entry, why in refusals(seen)}
    names: frozenset[str] | None = None
    for entry in seen.configured.daemon.hosts:
        if entry not in refused and (why := never_resolves(entry.address)) is not None:
            names = _known_names(seen.rootfs) if names is None else names
            host = split_host_port(entry.address)[0]
            if host.lower() not in names:
                refused[entry] = (f"dockerd reads {entry.raw.strip()} as the name {host}, which {why}: dockerd will "
                                  f"not start{_intended(host)}")
    for entry in dict.fromkeys((*refused, *seen.configured.daemon.hosts)):
        message = refused.get(entry) or _misreading(entry)
        if message is None:
            continue
        is_flag = policy is not None and entry.via is Via.FLAG
        yield Finding(
            CODE,
            "error" if entry in refused else "warning",
            message,
            CONFIGURED,
            entry.location or argument_location(seen, entry.argument),
            "safe" if is_flag else fix_for_foreign_file(policy),
        )


def _intended(host: str) -> str:
    """Return what was probably meant: `0.0.0.0.2375` has a dot where the colon of the port belongs."""
    return "; a colon precedes the port, not a dot" if is_ipv4(host.rpartition(".")[0]) else ""


def _known_names(rootfs: Rootfs) -> frozenset[str]:
    """Return the names in hosts(5), in lower case."""
    text = (rootfs.read_if_possible("/etc/hosts", is_table=True) or b"").decode("utf-8", "replace")
    return frozenset(name.lower() for line in text.splitlines() for name in line.partition("#")[0].split()[1:])


def _misreading(entry: HostEntry) -> str | None:
    """Return how dockerd reads a host that looks like something else (moby: parseDaemonHost in opts/hosts.go)."""
    raw, address = entry.raw.strip(), entry.address
    if entry.via is Via.DEFAULT or not raw:
        return None
    scheme, slashes, rest = raw.partition("://")
    if not slashes:
        return _without_scheme(raw, address)
    if scheme == "unix" and rest and not rest.startswith(("/", "@")):
        return f"{raw} is a path relative to the working directory of dockerd; an absolute path is unix:///{rest}"
    if scheme == "tcp" and re.fullmatch(r":[0-9]*", rest):
        return f"{raw} does not listen on every address: without a host, dockerd uses {address}"
    if scheme == "tcp" and (dropped := re.search(r"[@?#]", rest)):
        return (f"dockerd ignores a part of {without_credentials(raw)} (delimited by {dropped[0]}) and listens on "
                f"{address}")
    return None


def _without_scheme(raw: str, address: str) -> str | None:
    if scheme := re.match(r"(fd|tcp|unix)(:|\Z)", raw):
        return f"{raw} is not read as {scheme[1]}://: without the two slashes, dockerd uses {address}"
    if raw.isdecimal():
        return f"{raw} is not read as a port: dockerd uses it as the host of {address}"
    if raw.startswith("/"):
        return f"{raw} is not read as a path: without unix://, dockerd uses {address}"
    if raw.startswith(":"):
        return f"{raw} does not listen on every address: without a host, dockerd uses {address}"
    return None
