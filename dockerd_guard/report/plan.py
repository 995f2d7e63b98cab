"""Output of `diff` and `fix`, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dockerd_guard.plan.assessment import Assessment, not_listening, other_ways
from dockerd_guard.plan.decide import Decision, Result, Verdict
from dockerd_guard.plan.gate import Cost, Hold
from dockerd_guard.policy.model import Policy

SCHEMA = 1

DECLARED = "Docker listens as declared"
_COMPLY = "the files comply with the policy"

_COSTS = {
    Cost.NOTHING: "nothing",
    Cost.RELOAD: "a reload of systemd; nothing is restarted",
    Cost.RESTART: "a restart of docker.service; containers keep running",
    Cost.CONTAINERS: "a restart of docker.service, which stops",
}


def as_declared(others: tuple[str, ...]) -> str:
    """That docker.service complies, and which other programs listen for the API (other_ways())."""
    if not others:
        return DECLARED
    return f"docker.service listens as declared; other ways to the API: {', '.join(others)} (`dockerd-guard lint`)"


def diff_text(assessment: Assessment, containers: tuple[str, ...]) -> str:
    """The changes as unified diffs, their cost, and the hold."""
    return "\n".join(_diff_lines(assessment, containers)) + "\n"


def _diff_lines(assessment: Assessment, containers: tuple[str, ...]) -> Iterator[str]:
    seen, policy, findings, plan, decision = assessment
    for change in plan.changes:
        yield change.diff().rstrip("\n")
    if plan.obstacles:
        yield "Drop-ins of dockerd-guard alone cannot make this host comply:"
        for obstacle in plan.obstacles:
            yield f"  {obstacle}"
    elif not decision.required.anything:
        down = not_listening(seen, policy)
        is_seen = seen.loaded is not None and seen.listening is not None
        yield f"Nothing to change: {as_declared(other_ways(findings)) if is_seen and down is None else _COMPLY}."
        if down is not None:
            yield from _down_lines(down)
        elif seen.troubles:
            yield "Unknown: where Docker listens now; this was not seen."
        return
    elif seen.loaded is None:
        yield "Cost: unknown without access to systemd (--root, or no D-Bus)."
    elif seen.listening is None:
        yield "Cost: unknown; the sockets of dockerd were not seen."
    else:
        yield f"Steps: {', '.join(decision.required.steps())}."
        yield f"Cost: {_cost_text(decision, containers)}."
    yield from _slot_lines(decision, policy)
    if decision.hold is not None:
        yield f"Held: {_hold_text(decision.hold)}."
        if decision.hold.next_step:
            yield f"Next: {decision.hold.next_step}."
        if decision.contain:
            yield ("In mode: enforce the agent blocks at the network meanwhile: "
                   f"{', '.join(exposure.address for exposure in decision.contain)}.")


def _slot_lines(decision: Decision, policy: Policy) -> Iterator[str]:
    if decision.verdict is Verdict.LOCK and policy.correct.fleet is not None:
        yield f"The restart needs a slot of the group {policy.correct.fleet.group}; see `dockerd-guard fleet`."


def _down_lines(down: Hold) -> tuple[str, str]:
    return f"{down.reason}.", f"Next: {down.next_step}."


def _cost_text(decision: Decision, containers: tuple[str, ...]) -> str:
    if decision.required.start:
        return "a start of docker.service, which does not run"
    if decision.cost is Cost.CONTAINERS:
        stopped = (*containers, *decision.facts.of_sockets, *decision.facts.dependents)
        return f"{_COSTS[decision.cost]} {', '.join(stopped) or 'running containers'}"
    return _COSTS[decision.cost]


def _hold_text(hold: Hold) -> str:
    word = "restart due" if hold.is_due else "until"
    return hold.reason + (f", {word} {hold.until:%Y-%m-%d %H:%M %Z}" if hold.until is not None else "")


def diff_json(assessment: Assessment, containers: tuple[str, ...]) -> dict[str, Any]:
    """`diff` as JSON. `cost` is one of nothing, reload, restart, containers; null if unknown."""
    decision, plan = assessment.decision, assessment.plan
    known = assessment.seen.loaded is not None and assessment.seen.listening is not None
    down = None if plan.obstacles or decision.required.anything else not_listening(assessment.seen, assessment.policy)
    blocked = decision.contain if decision.hold is not None else ()
    return {
        "schema": SCHEMA,
        "changes": [{"path": change.path, "diff": change.diff()} for change in plan.changes],
        "obstacles": list(plan.obstacles),
        "steps": list(decision.required.steps()) if known else [],
        "cost": str(decision.cost) if known else None,
        "containers": list(containers) if decision.cost is Cost.CONTAINERS else [],
        "held": _hold_json(decision.hold or down),
        "cut_off": [exposure.address for exposure in blocked],
    }


def outcome_text(result: Result, down: Hold | None, others: tuple[str, ...] = ()) -> str:
    """`fix` as text. `down`: why Docker does not listen, where the files comply (not_listening()). `others`: addresses
    of other programs (other_ways())."""
    lines = [f"{step[:1].upper()}{step[1:]}." for step in result.steps]
    if result.is_done and down is not None:
        lines += (f"{_COMPLY.capitalize()}.", *_down_lines(down))
    elif result.is_done:
        lines.append(f"{as_declared(others)}.")
    elif result.hold is not None:
        lines.append(f"Held: {_hold_text(result.hold)}.")
        if result.hold.next_step:
            lines.append(f"Next: {result.hold.next_step}.")
    else:
        lines.append(f"{'Rolled back' if result.was_rolled_back else 'Failed'}: {result.error}.")
    return "\n".join(lines) + "\n"


def outcome_word(result: Result) -> str:
    """The outcome in CFEngine's terms."""
    if result.is_done:
        return "repaired" if result.steps else "kept"
    return "held" if result.hold is not None else "failed"


def outcome_json(result: Result, cost: Cost, down: Hold | None) -> dict[str, Any]:
    """`fix` as JSON; `down` as for outcome_text()."""
    if down is not None:
        result = result._replace(is_done=bool(result.steps), hold=down)
    return {
        "schema": SCHEMA, "outcome": outcome_word(result), "steps": list(result.steps), "cost": str(cost),
        "held": _hold_json(result.hold), "error": result.error or None, "rolled_back": result.was_rolled_back,
    }


def _hold_json(hold: Hold | None) -> dict[str, str | None] | None:
    if hold is None:
        return None
    return {"reason": hold.reason, "until": hold.until.isoformat() if hold.until is not None else None}
