"""What `fix` and `diff` would do: the same decisions without delays."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dockerd_guard.agent.reconcile import by_hand
from dockerd_guard.plan.decide import Verdict
from tests.simulation.host import SimulatedHost
from tests.support.remembered import (
    APPLY,
    CORRECT,
    HOLD,
    NO_CERTIFICATES,
    NOTHING,
    OBSTACLE,
    RECOVER,
    RELOAD,
    SILENT,
    START,
    WITH_CERTIFICATES,
    WRITE,
    begun,
    changed,
    check,
    failed,
    restarted,
    undone,
)
from tests.support.situations import (
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    Remember,
    decided,
    do,
    dropin,
    fault,
    guarded,
    opened,
    read_policy,
    reload,
    remove,
    restart,
    sleep,
)


class Forecast(NamedTuple):
    """As Row, for `fix` and `diff`: no delays, no back-off, whatever the mode."""

    name: str
    verdict: Verdict
    happened: tuple[Act, ...] = ()
    steps: tuple[str, ...] = ()
    hold: str = ""
    memory: Remember | None = None
    policy: str = ""


FORECASTS = (
    Forecast("it complies", NOTHING),
    Forecast("only observed", APPLY, opened(), CORRECT, policy="mode: observe"),
    Forecast("it failed before", APPLY, opened(), CORRECT, memory=failed(1)),
    Forecast("contested", APPLY, (*opened(), guarded, sleep(60), dropin(OPEN), remove(OURS)), (WRITE, RELOAD),
             memory=undone(50, 20, 10)),
    Forecast("just changed", APPLY, (*opened(), guarded, remove(OVERRIDE)), (WRITE, RELOAD), memory=changed(0.1)),
    Forecast("an obstacle, seen for the first time", HOLD, (dropin(OPEN, LATE), reload, restart), (), OBSTACLE,
             policy="correct: {foreign_files: false}"),
    Forecast("the correction itself would be refused", HOLD, (), (), f"dockerd would not start: {NO_CERTIFICATES}",
             policy=WITH_CERTIFICATES),
    Forecast("the restart is held", APPLY, (*opened(), fault(engine_is_silent=True)), (WRITE, RELOAD), SILENT),
    Forecast("the restart is held, and the rest is done", HOLD, (*opened(), fault(engine_is_silent=True), guarded), (),
             SILENT),
    Forecast("the budget is used up", APPLY, opened(), (WRITE, RELOAD), "the budget of 3/1h restarts is used up",
             restarted(3, 2, 1)),
    Forecast("interrupted", RECOVER, opened(), (START,), memory=begun()),
    Forecast("applied, on probation", NOTHING, (*opened(), guarded)),
)


@pytest.mark.parametrize("row", FORECASTS, ids=lambda row: row.name)
def test_what_fix_would_do(host: SimulatedHost, row: Forecast) -> None:
    do(host, row.happened)
    outcome = decided(host, read_policy(row.policy), row.memory, by_hand)
    decision = outcome.assessment.decision
    hold = decision.hold.reason if decision.hold is not None else ""
    assert (decision.verdict, decision.actions.steps(), hold) == (row.verdict, row.steps, row.hold)
    assert decision.wake_s is None
    assert (decision.intent is not None) == (decision.verdict in (APPLY, RECOVER))
    check(decision, outcome)
