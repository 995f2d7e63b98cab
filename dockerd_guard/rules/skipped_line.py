"""DG302: a syntax error that makes systemd drop the rest of the file, or refuse the unit."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules.multiple_exec_start import has_multiple_commands
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.syntax import Problem

CODE = "DG302"
TITLE = "a syntax error that makes systemd drop the rest of the file, or refuse the unit"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each such error, and one for each unit that systemd refuses for another reason."""
    configured = seen.configured
    service = configured.service.unit
    if not has_multiple_commands(seen):
        yield from _unit(service, configured.environment.problems)
    for socket in configured.sockets:
        yield from _unit(socket.unit, ())


def _unit(unit: Unit, more: tuple[Problem, ...]) -> Iterator[Finding]:
    is_reported = False
    for problem in (*unit.problems, *more):
        if problem.effect == "rest-dropped":
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
