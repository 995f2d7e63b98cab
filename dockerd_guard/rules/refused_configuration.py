"""DG205: dockerd will refuse its arguments or its daemon.json."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules._common import argument_location, command_location
from dockerd_guard.rules.fd_without_socket_unit import is_without_sockets
from dockerd_guard.rules.hosts_conflict import is_conflict
from dockerd_guard.rules.invalid_host import refusals

_TYPOGRAPHIC = re.compile("[\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u00ab\u00bb]")

_JSON_CAUSES = (
    ("after top-level value", "}]", "a closing bracket too many"),
    ("after top-level value", "", "a second JSON document begins here, and dockerd accepts one: merge them"),
    ("after object key:value pair", '"', "a comma is probably missing before it"),
    ("after array element", "\"[{0123456789-tfn", "a comma is probably missing before it"),
    ("looking for beginning of object key string", "}", "the comma before it is not allowed"),
    ("looking for beginning of value", "]}", "the comma or colon before it has no value"),
    ("looking for beginning", "/#", "JSON has no comments"),
    ("looking for beginning", "'", "JSON needs double quotes"),
    ("looking for beginning of object key string", "", "a key needs double quotes"),
    ("looking for beginning of value", "TF", "JSON has true and false in lower case"),
    ("unexpected end of JSON input", "", "a closing bracket or quote is missing"),
)
"""Part of the error of encoding/json, characters where it occurs (empty: any), and the likely cause."""

CODE = "DG205"
TITLE = "dockerd will refuse its arguments or its daemon.json"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding if dockerd refuses its configuration for a reason that no other rule reports."""
    configured = seen.configured
    daemon = configured.daemon
    if daemon.starts and daemon.config_error is not None and daemon.config_file not in seen.rootfs.unread:
        message = f"cannot read {daemon.config_file}, its settings are unknown: {daemon.config_error}"
        yield Finding(CODE, "warning", message, CONFIGURED, Location(daemon.config_file))
    reason = daemon.reason
    if daemon.starts or reason is None or configured.service.unit.load_state != "loaded":
        return
    if is_conflict(seen) or is_without_sockets(seen) or any(refusals(seen)):
        return
    message = f"dockerd will not start: {reason}{_likely_cause(seen, reason)}"
    yield Finding(CODE, "error", message, CONFIGURED, _location(seen, reason))


def _likely_cause(seen: Observation, reason: str) -> str:
    """Return what probably causes an error, as the end of a message; empty if nothing is likely."""
    daemon = seen.configured.daemon
    if reason.endswith("accepts no argument(s)."):
        arguments = [argument.text for argument in seen.configured.arguments]
        for before, argument in pairwise(arguments):
            if re.match("(fd|tcp|unix)://", argument) and before not in ("-H", "--host"):
                return f" {argument} is not preceded by -H"
        return ""
    if daemon.config_error is None or daemon.config_error_at is None:
        return ""
    try:
        lines = seen.rootfs.read(daemon.config_file).decode("utf-8", "replace").split("\n")
    except (FileNotFoundError, Unreadable):
        return ""
    location = daemon.config_error_at
    rest = lines[location.line - 1][location.column - 1:][:1] if location.line <= len(lines) else ""
    cause = _json_cause(daemon.config_error, rest)
    quoted = next((number for number, line in enumerate(lines, 1) if _TYPOGRAPHIC.search(line)), None)
    if quoted is not None:
        cause = f"{cause + '; ' if cause else ''}line {quoted} has typographic quotes, and JSON needs \""
    return f" ({cause})" if cause else ""


def _json_cause(error: str, letter: str) -> str:
    """Return the likely cause of a syntax error at this character of a JSON file."""
    for text, letters, cause in _JSON_CAUSES:
        if text in error and (not letters or (letter and letter in letters)):
            return cause
    return ""


def _location(seen: Observation, reason: str) -> Location | None:
    """Return the location of the key or argument that the error names, else of the file or the command."""
    daemon = seen.configured.daemon
    # Not the path of the file: names may be part of it.
    names = set(re.findall(r"[^\s:,\"'()]+", reason.replace(daemon.config_file, "")))
    names |= {part for name in names if name.startswith("Config.") for part in name.split(".")}
    key = next((key.location for key in daemon.keys if key.name in names), None)
    if daemon.config_error is not None or daemon.config_file in reason:
        return key or daemon.config_error_at or Location(daemon.config_file)
    if key is not None:
        return key
    argument = next((flag.argument for flag in daemon.flags if f"--{flag.name}" in names), None)
    if argument is None:
        argument = next((index for index, each in enumerate(seen.configured.arguments[1:], 1)
                         if each.text.partition("=")[0] in names), None)
    return argument_location(seen, argument) or command_location(seen)
