"""The policy file that `init` writes, with comments."""

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
"""Column of the comment beside a line."""

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./:+-]*(?<!:)\Z")

_VIA = {
    Via.FLAG: "-H", Via.DAEMON_JSON: "hosts", Via.SOCKET_UNIT: "ListenStream=", Via.DEFAULT: "dockerd's default",
}

SCHEMA_FILE = "/usr/share/dockerd-guard/policy.schema.json"
"""The installed JSON Schema, for editors."""

TLS_PORT = "2376"
"""The default port with TLS (IANA: docker-s)."""


def text(found: Adoption) -> str:
    """The policy file."""
    return "\n".join(_lines(found)) + "\n"


def summary(found: Adoption, path: str, saved: str | None) -> Iterator[str]:
    """A summary of what was written, for the terminal."""
    if saved is not None:
        yield clean(f"The previous file is kept as {saved}.")
    yield clean(f"Wrote {path}: {len(found.declared) or 1} declared, mode: observe.")
    for entry in found.dangers:
        yield clean(f"DANGER: {entry.binding.address} gives root {scope_text(entry.binding)}; "
                    "the file contains a safer alternative.")
    if found.findings:
        codes = ", ".join(sorted({finding.code for finding in found.findings}))
        yield f"`dockerd-guard lint` reports {codes}; see `dockerd-guard explain CODE`."
    yield "Next: Review and edit the file. A saved file takes effect at once; `dockerd-guard check` shows its meaning."


def _lines(found: Adoption) -> Iterator[str]:
    yield f"# yaml-language-server: $schema={SCHEMA_FILE}"
    yield from _comment(
        "Where the Docker API of this host listens. Written by `dockerd-guard init` from the state of the host at "
        "that time, not from what it should be. Review and edit it; a saved file takes effect at once. Check it: "
        "dockerd-guard check; dockerd-guard lint; dockerd-guard diff. All keys: dockerd-guard.yaml(5).")
    for remark in found.remarks:
        yield "#"
        yield from _comment(remark)
    if found.findings:
        yield "#"
        yield from _comment("Findings of `dockerd-guard lint` with this policy; see `dockerd-guard explain CODE`:")
        yield from _findings(found.findings)
    if found.differences or found.obstacles:
        yield "#"
        yield from _comment("Result of `dockerd-guard diff` with this policy:")
        for path in found.differences:
            yield from _comment(f"would change {path}", "#   ")
        for obstacle in found.obstacles:
            yield from _comment(obstacle, "#   ")
    yield from ("", "version: 1", "")
    yield from _mode(found)
    yield from ("", "# All sockets of the Docker API, in the syntax of dockerd's -H. Any other socket is drift.",
                "sockets:")
    yield from _sockets(found)
    yield from _socket_unit(found)
    yield from _tls(found)
    yield from (
        "", "# Limits of corrections, watching of the host, accepted findings: these are the defaults.",
        "#correct:", "#  restart: live-restore", "#  budget: 3/1h", "#  foreign_files: true", "#  contain: true",
        "#watch:", "#  settle: 100ms", "#  resync: 5min", "#waive: []")


def _mode(found: Adoption) -> Iterator[str]:
    yield "# observe: report drift in the journal, change nothing. enforce: correct it too."
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
        yield from _left_out(entry, f"{entry.value} is open now, but no file configures it: with this policy it is "
                                    "drift. To allow it, declare it:")
        if not entry.refused:
            yield from (f"  # {line[2:]}" for line in _item(entry.binding.address, entry.binding.tls))


def _through_fd(entries: list[AdoptedSocket]) -> Iterator[str]:
    tcp = [entry for entry in entries if entry.binding.is_tcp]
    if tcp:
        yield from _socket("fd://", tcp[0].binding, tcp)
    else:
        yield _beside("  - fd://", "what docker.socket passes on" if not entries else _origin(entries[0].binding))


def _socket(value: str, binding: Binding, entries: list[AdoptedSocket]) -> Iterator[str]:
    """An item of `sockets`, with a warning before it if it gives root to clients."""
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
    shown = "without TLS" if binding.tls is Tls.NONE else "with TLS but without client certificates"
    yield from _comment(f"DANGER: {binding.address} gives the Docker API, and with it root, {scope_text(binding)}, "
                        f"{shown}. Safer: remove it{' (from listen, below)' if entry.by_fd else ''}, because "
                        "`docker -H ssh://USER@HOST` needs no port; or require client certificates:", "  # ")
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
    yield from ("", "# The sockets of fd://: ListenStream= of docker.socket and other units that feed docker.service.",
                "socket_unit:")
    if len(values) == 1:
        yield f"  listen: [{values[0]}]"
        return
    yield "  listen:"
    for entry in found.declared:
        if entry.by_fd:
            yield _beside(f"    - {_scalar(entry.value)}", _origin(entry.binding))


def _tls(found: Adoption) -> Iterator[str]:
    yield from ("", "# Files given to dockerd if a socket above has TLS.")
    if found.tls:
        yield "tls:"
        yield from (f"  {key}: {_scalar(path)}" for key, path in found.tls)
    else:
        yield from ("#tls:", "#  ca: /etc/docker/ca.pem", "#  cert: /etc/docker/server-cert.pem",
                    "#  key: /etc/docker/server-key.pem")


def _findings(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Each code once, with its first location."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    for code, found in sorted(by_code.items()):
        # Lines of the policy itself are not final until these comments are in it.
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
    """A YAML scalar, quoted if needed."""
    return value if _PLAIN.match(value) else "'" + value.replace("'", "''") + "'"


class AdoptedSocket(NamedTuple):
    """A socket of the API. `value`: its name in the policy, an address or for `fd://` the ListenStream=. `key`:
    its canonical address. `refused`: why it cannot be declared."""

    binding: Binding
    value: str
    key: str
    refused: str | None = None

    @property
    def by_fd(self) -> bool:
        return self.binding.via is Via.SOCKET_UNIT


class Adoption(NamedTuple):
    """The content of a policy for a host, with comments.

    `declared` and `refused` are in the order of the host's configuration. `only_live`: open now, but in no file.
    `tls`: keys and paths of the TLS files. `remarks`: sentences about the whole. `findings`, `differences`
    (paths) and `obstacles`: the results of lint and diff with this policy. `before_enforce`: findings that
    lint would add in `mode: enforce`.
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
        """Declared sockets that give root to anyone who can connect."""
        return tuple(entry for entry in self.declared
                     if entry.binding.is_tcp and entry.binding.tls is not Tls.MUTUAL)
