"""DG302: a syntax error that makes systemd drop the rest of the file."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules.multiple_exec_start import is_double
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.syntax import Problem

CODE = "DG302"
TITLE = "a syntax error that makes systemd drop the rest of the file, or all of the unit"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each such error, and one for a unit that systemd refuses for another reason."""
    configured = seen.configured
    service = configured.service.unit
    if not is_double(seen):
        yield from _unit(service, configured.environment.problems)
    for socket in configured.sockets:
        yield from _unit(socket.unit, ())


def _unit(unit: Unit, more: tuple[Problem, ...]) -> Iterator[Finding]:
    told = False
    for problem in (*unit.problems, *more):
        if problem.effect == "rest-dropped":
            yield Finding(
                CODE,
                "error",
                f"systemd reads this file only to here: {problem.text}",
                CONFIGURED,
                problem.location,
            )
        elif problem.effect == "refused":
            told = True
            yield Finding(
                CODE,
                "error",
                f"systemd will not start {unit.name}: {problem.text}",
                CONFIGURED,
                problem.location,
            )
    if not told and unit.load_state in ("error", "bad-setting"):
        yield Finding(
            CODE,
            "error",
            f"systemd will not load {unit.name}: {unit.reason}",
            CONFIGURED,
            Location(unit.fragment) if unit.fragment else None,
        )
