"""DG302: a line or section that systemd skips, or a syntax error that makes it drop the rest of the file."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from functools import lru_cache

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules.multiple_exec_start import has_multiple_commands
from dockerd_guard.systemd.keys import KEYS
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.syntax import Problem

CODE = "DG302"
TITLE = "a line or section that systemd skips, or a syntax error that makes it drop the rest of the file"

_OUTSIDE = "Assignment outside of section"
_SHOWN = ("Unknown section", "Missing", _OUTSIDE, "Unknown key", "Failed to parse address value", "Address family")
"""Beginnings of the messages of systemd that quote no value (I11)."""

_VALUE = re.compile(r" in '|=|, ignoring|: ")
"""Where a message of systemd may begin to quote a value."""

_IMPORTANT = re.compile(r" (Exec|Environment|Listen|Socket|Service|Requires|RootDirectory)\w*=\Z")
"""Keys that decide where dockerd listens. An unknown key that resembles none of them is information."""

_ADDRESS = "Failed to parse address value, ignoring: Invalid argument"
_NAMED = re.compile(r"Unknown (?P<kind>section|key) '(?P<name>[^']*)'(?: in section \[(?P<section>[^]]*)\])?")


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each such line, and one for each unit that systemd refuses for another reason."""
    configured = seen.configured
    service = configured.service.unit
    yield from _skipped(service, configured.environment.problems)
    if not has_multiple_commands(seen):
        yield from _unit(service, configured.environment.problems, seen.rootfs.unread)
    for socket in configured.sockets:
        yield from _skipped(socket.unit, ())
        yield from _unit(socket.unit, (), seen.rootfs.unread)


def _unit(unit: Unit, more: tuple[Problem, ...], unread: Container[str]) -> Iterator[Finding]:
    is_reported = False
    for problem in (*unit.problems, *more):
        if problem.location.file in unread:
            is_reported = True
        elif problem.effect == "rest-dropped":
            yield Finding(
                CODE,
                "error",
                f"systemd ignores this file from here on: {problem.text}",
                CONFIGURED,
                problem.location,
            )
        elif problem.effect == "refused":
            is_reported = True
            yield Finding(
                CODE,
                "error",
                f"systemd will not start {unit.name}: {problem.text}",
                CONFIGURED,
                problem.location,
            )
    if not is_reported and unit.load_state in ("error", "bad-setting"):
        yield Finding(
            CODE,
            "error",
            f"systemd will not load {unit.name}: {unit.reason}",
            CONFIGURED,
            Location(unit.fragment) if unit.fragment else None,
        )


def _skipped(unit: Unit, more: tuple[Problem, ...]) -> Iterator[Finding]:
    """Yield one finding for each line that systemd skips; of those above the first section, the first of each file."""
    outside: set[str] = set()
    for problem in (*unit.problems, *more):
        if problem.effect != "ignored" or _is_known_later(problem):
            continue
        if problem.text.startswith(_OUTSIDE):
            if problem.location.file in outside:
                continue
            outside.add(problem.location.file)
        hint = _hint(problem, unit)
        yield Finding(
            CODE,
            "info" if problem.text.startswith("Unknown key") and not _IMPORTANT.search(hint) else "warning",
            f"systemd skips this: {_reason(problem.text)}{hint}",
            CONFIGURED,
            problem.location,
        )


def _is_known_later(problem: Problem) -> bool:
    """Whether the problem is a key that a newer systemd has. Unit files use such keys, since older ones skip them."""
    named = _NAMED.match(problem.text)
    return named is not None and f"{named['section']}.{named['name']}" in KEYS


def _reason(text: str) -> str:
    if text.startswith(_SHOWN):
        return re.sub(r"(, ignoring|\. Ignoring|, ignoring line)?(: Invalid argument)?\.?\Z", "", text)
    return _VALUE.split(text, maxsplit=1)[0]


def _hint(problem: Problem, unit: Unit) -> str:
    """Return what was probably meant, as the end of a message."""
    text = problem.text
    kind = unit.name.rpartition(".")[2]
    if text.startswith(_OUTSIDE):
        return f"; a line such as [{kind.capitalize()}] must precede the settings"
    if text == _ADDRESS:
        return next((_address_hint(setting.value) for setting in unit.settings
                     if setting.location == problem.location), "")
    named = _NAMED.match(text)
    if named is None:
        return ""
    if named["kind"] == "section":
        for other in ("service", "socket"):
            if named["name"].lower() == other:
                return (f"; section names are case-sensitive: [{other.capitalize()}]" if other == kind else
                        f"; its settings belong to a drop-in of {unit.name.rpartition('.')[0]}.{other}")
        return _nearest(named["name"], ("Unit", kind.capitalize(), "Install"), "[{}]")
    section = named["section"]
    return _nearest(named["name"], _settings_of(section), "{}=")


@lru_cache
def _settings_of(section: str) -> tuple[str, ...]:
    return tuple(key.partition(".")[2] for key in KEYS if key.startswith(f"{section}."))


def _nearest(name: str, known: tuple[str, ...], shown: str) -> str:
    near = _near(name[:80].lower(), known)
    return f"; did you mean {shown.format(near)}" if near else ""


@lru_cache
def _near(name: str, known: tuple[str, ...]) -> str:
    """Compares with hundreds of names: 10 ms, which the agent would spend in each pass."""
    from difflib import get_close_matches

    folded = {each.lower(): each for each in known}
    near = get_close_matches(name, folded, n=1, cutoff=0.75)
    return folded[near[0]] if near else ""


def _address_hint(address: str) -> str:
    """Return what ListenStream= accepts in place of this address (systemd.socket(5)). Suggests no wildcard."""
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "unix":
        return "; a path is written without unix://"
    host, colon, port = (rest if separator else address).rstrip("/").rpartition(":")
    without = " without a scheme" if separator else ""
    if not colon or not port.isdecimal():
        return f"; an address has a port: ADDRESS:PORT or [IPV6]:PORT{without}"
    if host == "localhost":
        return f"; a name is no address: 127.0.0.1:{port}{without}"
    return f"; an address is an IP address and a port{without}, such as 127.0.0.1:{port}"
