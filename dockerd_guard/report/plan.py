"""Output of `diff` and `fix`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dockerd_guard.apply.correction import CorrectionResult
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.assessment import Assessment
from dockerd_guard.plan.gate import Cost, Hold

SCHEMA = 1

_COSTS = {
    Cost.NOTHING: "nothing",
    Cost.RELOAD: "a reload of systemd; nothing is restarted",
    Cost.RESTART: "a restart of docker.service; containers keep running",
    Cost.CONTAINERS: "a restart of docker.service, which stops",
}


def diff_text(assessment: Assessment, containers: tuple[str, ...]) -> str:
    """The changes as unified diffs, their cost, and the hold."""
    return "\n".join(_diff_lines(assessment, containers)) + "\n"


def _diff_lines(assessment: Assessment, containers: tuple[str, ...]) -> Iterator[str]:
    for change in assessment.plan.changes:
        yield change.diff().rstrip("\n")
    if assessment.plan.obstacles:
        yield "Drop-ins of dockerd-guard alone cannot make this host comply:"
        for obstacle in assessment.plan.obstacles:
            yield f"  {obstacle}"
        yield from _meanwhile(assessment)
        return
    if not assessment.actions.anything and not assessment.plan.changes:
        yield "Nothing to change: Docker listens as declared."
        return
    if assessment.seen.loaded is None:
        yield "Cost: unknown without access to systemd (--root, or no D-Bus)."
        return
    yield f"Steps: {', '.join(_steps(assessment.actions))}."
    cost = _COSTS[assessment.cost]
    if assessment.cost is Cost.CONTAINERS:
        cost += f" {', '.join((*containers, *assessment.situation.dependents)) or 'running containers'}"
    yield f"Cost: {cost}."
    if assessment.hold is not None:
        yield f"Held: {_hold_text(assessment.hold)}."
        if assessment.hold.next_step:
            yield f"Next: {assessment.hold.next_step}."
    yield from _meanwhile(assessment)


def _meanwhile(assessment: Assessment) -> Iterator[str]:
    if assessment.cut_off:
        yield f"In mode: enforce the agent blocks at the network meanwhile: {', '.join(assessment.cut_off)}."


def _steps(actions: Actions) -> Iterator[str]:
    if actions.changes:
        yield f"write {len(actions.changes)} file{'s' * (len(actions.changes) != 1)}"
    if actions.reload:
        yield "reload systemd"
    for name in actions.stop_sockets:
        yield f"stop {name}"
    if actions.restart_socket:
        yield "restart docker.socket"
    if actions.restart:
        yield "restart docker.service"


def _hold_text(hold: Hold) -> str:
    return hold.reason + (f", until {hold.until:%Y-%m-%d %H:%M %Z}" if hold.until is not None else "")


def diff_json(assessment: Assessment, containers: tuple[str, ...]) -> dict[str, Any]:
    """`diff` as JSON. `cost` is one of nothing, reload, restart, containers; null if unknown."""
    known = assessment.seen.loaded is not None
    return {
        "schema": SCHEMA,
        "changes": [{"path": change.path, "diff": change.diff()} for change in assessment.plan.changes],
        "obstacles": list(assessment.plan.obstacles),
        "steps": list(_steps(assessment.actions)),
        "cost": str(assessment.cost) if known else None,
        "containers": list(containers) if assessment.cost is Cost.CONTAINERS else [],
        "held": _hold_json(assessment.hold),
        "cut_off": list(assessment.cut_off),
    }


def outcome_text(outcome: CorrectionResult) -> str:
    """`fix` as text."""
    lines = [f"{step[:1].upper()}{step[1:]}." for step in outcome.steps]
    if outcome.done:
        lines.append("Docker listens as declared.")
    elif outcome.hold is not None:
        lines.append(f"Held: {_hold_text(outcome.hold)}.")
        if outcome.hold.next_step:
            lines.append(f"Next: {outcome.hold.next_step}.")
    else:
        lines.append(f"{'Rolled back' if outcome.rolled_back else 'Failed'}: {outcome.error}.")
    return "\n".join(lines) + "\n"


def outcome_json(outcome: CorrectionResult) -> dict[str, Any]:
    """`fix` as JSON. `outcome` uses CFEngine's terms."""
    word = ("repaired" if outcome.steps else "kept") if outcome.done else (
        "held" if outcome.hold is not None else "failed")
    return {
        "schema": SCHEMA, "outcome": word, "steps": list(outcome.steps), "cost": str(outcome.cost),
        "held": _hold_json(outcome.hold), "error": outcome.error or None, "rolled_back": outcome.rolled_back,
    }


def _hold_json(hold: Hold | None) -> dict[str, str | None] | None:
    if hold is None:
        return None
    return {"reason": hold.reason, "until": hold.until.isoformat() if hold.until is not None else None}
