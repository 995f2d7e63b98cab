"""A policy as text, with what is to be said beside each line of it: what `init` writes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.model.address import Tls, Via, split_host_port
from dockerd_guard.policy.model import POLICY_FILE
from dockerd_guard.report.text import clean
from dockerd_guard.rules._common import scope_text
from dockerd_guard.rules.registry import TITLES

if TYPE_CHECKING:
    from dockerd_guard.model.address import Binding
    from dockerd_guard.model.finding import Finding

WIDTH = 100
NOTES_FROM = 48
"""The column where a note beside a line begins."""

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./:+-]*(?<!:)\Z")

_VIA = {
    Via.FLAG: "-H", Via.DAEMON_JSON: "hosts", Via.SOCKET_UNIT: "ListenStream=", Via.DEFAULT: "dockerd's default",
}

SCHEMA_FILE = "/usr/share/dockerd-guard/policy.schema.json"
"""Where the package puts what an editor completes and checks a policy by."""

TLS_PORT = "2376"
"""Where clients look for TLS (IANA: docker-s)."""


def text(found: Adoption) -> str:
    """The whole policy, in YAML."""
    return "\n".join(_lines(found)) + "\n"


def summary(found: Adoption, path: str, saved: str | None) -> Iterator[str]:
    """What was written, in a few lines for a terminal."""
    if saved is not None:
        yield clean(f"What was there is kept as {saved}.")
    yield clean(f"Wrote {path}: {len(found.declared) or 1} declared, mode: observe.")
    for entry in found.dangers:
        scope = scope_text(entry.binding)
        yield clean(f"DANGER: {entry.binding.address} gives root {scope}; a safer line is beside it.")
    if found.findings:
        codes = ", ".join(sorted({finding.code for finding in found.findings}))
        yield f"`dockerd-guard lint` says more of {codes}; `dockerd-guard explain CODE` what to do."
    yield "Next: read it, change it, `systemctl reload dockerd-guard`."


def _lines(found: Adoption) -> Iterator[str]:
    yield f"# yaml-language-server: $schema={SCHEMA_FILE}"
    yield from _comment(
        "Where the Docker API of this host may be reached. Written by `dockerd-guard init` from what the host "
        "did then: it says what is, not yet what should be. Read it, change it, then: dockerd-guard lint; "
        "dockerd-guard diff; systemctl reload dockerd-guard. Every key: dockerd-guard.yaml(5).")
    for remark in found.remarks:
        yield "#"
        yield from _comment(remark)
    if found.findings:
        yield "#"
        yield from _comment("What `dockerd-guard lint` says of this host by this policy; `dockerd-guard explain CODE` "
                            "tells more:")
        yield from _findings(found.findings)
    if found.differences or found.obstacles:
        yield "#"
        yield from _comment("What `dockerd-guard diff` says by this policy:")
        for path in found.differences:
            yield from _comment(f"it would change {path}", "#   ")
        for obstacle in found.obstacles:
            yield from _comment(obstacle, "#   ")
    yield from ("", "version: 1", "")
    yield from _mode(found)
    yield from ("", "# All the places where the Docker API listens, and no others, in the syntax of dockerd's -H.",
                "sockets:")
    yield from _sockets(found)
    yield from _socket_unit(found)
    yield from _tls(found)
    yield from (
        "", "# What a correction may do, how the host is watched, what is known and accepted: these are the defaults.",
        "#correct:", "#  restart: live-restore", "#  budget: 3/1h", "#  foreign_files: true", "#  contain: true",
        "#watch:", "#  settle: 100ms", "#  resync: 5min", "#waive: []")


def _mode(found: Adoption) -> Iterator[str]:
    yield "# observe: report every drift in the journal, change nothing. enforce: correct it as well."
    if found.before_enforce:
        yield from _comment("Before `enforce`:")
        yield from _findings(found.before_enforce)
    yield "mode: observe"


def _sockets(found: Adoption) -> Iterator[str]:
    by_fd = [entry for entry in found.declared if entry.by_fd]
    if by_fd or not found.declared:
        yield from _through_fd(by_fd)
    for entry in found.declared:
        if not entry.by_fd:
            yield from _socket(entry.value, entry.binding, [entry])
    for entry in found.refused:
        yield from _left_out(entry, f"{entry.value} cannot be declared: {entry.refused}")
    for entry in found.only_live:
        yield from _left_out(entry, f"{entry.value} is open now, but from no line of the files: with this policy it is "
                                    "drift. If it is wanted, declare it:")
        if not entry.refused:
            yield from (f"  # {line[2:]}" for line in _item(entry.binding.address, entry.binding.tls))


def _through_fd(entries: list[AdoptedSocket]) -> Iterator[str]:
    tcp = [entry for entry in entries if entry.binding.is_tcp]
    if tcp:
        yield from _socket("fd://", tcp[0].binding, tcp)
    else:
        yield _beside("  - fd://", "what docker.socket passes on" if not entries else _origin(entries[0].binding))


def _socket(value: str, binding: Binding, entries: list[AdoptedSocket]) -> Iterator[str]:
    """One item of `sockets`, with a warning before it where it gives root away."""
    for entry in entries:
        yield from _danger(entry)
    first, *more = _item(value, binding.tls if binding.is_tcp else None)
    yield _beside(first, _origin(binding))
    yield from more


def _item(value: str, tls: Tls | None) -> Iterator[str]:
    if tls is None or value.startswith("unix://"):
        yield f"  - {_scalar(value)}"
        return
    yield f"  - address: {_scalar(value)}"
    yield f"    tls: {tls}"


def _danger(entry: AdoptedSocket) -> Iterator[str]:
    binding = entry.binding
    if not binding.is_tcp or binding.tls is Tls.MUTUAL:
        return
    shown = "without TLS" if binding.tls is Tls.NONE else "with TLS that asks no client for a certificate"
    yield from _comment(f"DANGER: {binding.address} gives the Docker API, and with it root, {scope_text(binding)}, "
                        f"{shown}. Safer: take it away{' (from listen, below)' if entry.by_fd else ''}, since "
                        "`docker -H ssh://USER@HOST` needs no port; or ask clients for a certificate:", "  # ")
    host, port = split_host_port(binding.address)
    if entry.by_fd:
        yield from ("  # - address: fd://", "  #   tls: mutual")
        return
    port = TLS_PORT if binding.tls is Tls.NONE else port
    yield f"  # - address: tcp://{f'[{host}]' if ':' in host else host}:{port}"
    yield "  #   tls: mutual"


def _left_out(entry: AdoptedSocket, why: str) -> Iterator[str]:
    yield from _comment(f"{why} ({_origin(entry.binding)})" if entry.binding.source else why, "  # ")


def _socket_unit(found: Adoption) -> Iterator[str]:
    values = [_scalar(entry.value) for entry in found.declared if entry.by_fd]
    if not values:
        return
    yield from ("", "# What fd:// stands for: the ListenStream= of docker.socket, and of others that feed it.",
                "socket_unit:")
    if len(values) == 1:
        yield f"  listen: [{values[0]}]"
        return
    yield "  listen:"
    for entry in found.declared:
        if entry.by_fd:
            yield _beside(f"    - {_scalar(entry.value)}", _origin(entry.binding))


def _tls(found: Adoption) -> Iterator[str]:
    yield from ("", "# Files given to dockerd when a socket above asks for TLS.")
    if found.tls:
        yield "tls:"
        yield from (f"  {key}: {_scalar(path)}" for key, path in found.tls)
    else:
        yield from ("#tls:", "#  ca: /etc/docker/ca.pem", "#  cert: /etc/docker/server-cert.pem",
                    "#  key: /etc/docker/server-key.pem")


def _findings(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Each code once, with the first place it was found at."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    for code, found in sorted(by_code.items()):
        # A line of the policy itself is not known before all of this stands in it.
        places = [one.location for one in found if one.location and one.location.file != POLICY_FILE]
        where = f", {places[0].file}:{places[0].line}" if places else ""
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        yield from _comment(f"{code} {TITLES[code]}{where}{more}", "#   ", "#     ")


def _origin(binding: Binding) -> str:
    where = f", {binding.source.file}:{binding.source.line}" if binding.source and binding.source.line else ""
    return f"{_VIA[binding.via]}{where}"


def _beside(line: str, note: str) -> str:
    return f"{line:<{NOTES_FROM - 2}}  # {clean(note)}"


def _comment(words: str, prefix: str = "# ", then: str | None = None) -> Iterator[str]:
    yield from textwrap.wrap(clean(words), WIDTH, initial_indent=prefix, subsequent_indent=then or prefix,
                             break_long_words=False, break_on_hyphens=False)


def _scalar(value: str) -> str:
    """A word of YAML, quoted where it would be something else without."""
    return value if _PLAIN.match(value) else "'" + value.replace("'", "''") + "'"


class AdoptedSocket(NamedTuple):
    """A place where the API listens. `value` is what the policy calls it: an address, or for what comes
    in through `fd://` the ListenStream=; `key` tells places apart. `refused` says why it cannot be declared."""

    binding: Binding
    value: str
    key: str
    refused: str | None = None

    @property
    def by_fd(self) -> bool:
        """Whether `fd://` stands for it."""
        return self.binding.via is Via.SOCKET_UNIT


class Adoption(NamedTuple):
    """A host as a policy would have it: what to declare, and all there is to say beside it.

    `declared` and `refused` are in the order the host has them. `only_live` is open now, though the files
    do not say so. `tls` are the keys and paths of the files that dockerd is given. `remarks` are sentences about
    the whole. `findings`, `differences` (paths) and `obstacles` are what lint and diff say by the policy as it
    is here; `before_enforce` what lint would say with `mode: enforce` alone.
    """

    declared: tuple[AdoptedSocket, ...]
    refused: tuple[AdoptedSocket, ...]
    only_live: tuple[AdoptedSocket, ...]
    tls: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    before_enforce: tuple[Finding, ...] = ()
    differences: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()

    @property
    def dangers(self) -> tuple[AdoptedSocket, ...]:
        """What is declared and gives root to whoever can connect."""
        return tuple(entry for entry in self.declared
                     if entry.binding.is_tcp and entry.binding.tls is not Tls.MUTUAL)
