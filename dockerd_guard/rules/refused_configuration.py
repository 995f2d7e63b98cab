"""DG205: dockerd will refuse its arguments or its daemon.json."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import argument_location, command_location
from dockerd_guard.rules.fd_without_socket_unit import is_without_sockets
from dockerd_guard.rules.hosts_conflict import is_conflict
from dockerd_guard.rules.invalid_host import refusals

CODE = "DG205"
TITLE = "dockerd will refuse its arguments or its daemon.json"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding if dockerd refuses its configuration for a reason that no other rule reports."""
    configured = seen.configured
    daemon = configured.daemon
    if daemon.starts and daemon.config_error is not None:
        message = f"cannot read {daemon.config_file}, its settings are unknown: {daemon.config_error}"
        yield Finding(CODE, "warning", message, CONFIGURED, Location(daemon.config_file))
    reason = daemon.reason
    if daemon.starts or reason is None or configured.service.unit.load_state != "loaded":
        return
    if is_conflict(seen) or is_without_sockets(seen) or any(refusals(seen)):
        return
    yield Finding(CODE, "error", f"dockerd will not start: {reason}", CONFIGURED, _location(seen, reason))


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
