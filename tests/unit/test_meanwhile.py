"""What others do while a correction is under way, at each moment of it."""

from __future__ import annotations

import pytest

from tests.simulation.histories import Action
from tests.simulation.meanwhile import EVENTS, MOMENTS, SITUATIONS
from tests.simulation.run import play


@pytest.mark.parametrize(("situation", "event"), [
    # Code in a drop-in was loaded with the correction, and run by its restart (I3, I4).
    ("exposed", "code"),
    # Containers that were started after the decision (I1).
    ("exposed_without_live_restore", "run_containers"),
    # An edit of a file that the correction changes, too (I5).
    ("exposed_by_daemon_json", "daemon_json"), ("exposed_by_daemon_json", "no_live_restore"),
    # The restart of docker.socket stopped a dockerd that somebody had just started (I1).
    ("down", "start"), ("down", "restart"),
    # The undo of a correction that failed.
    ("refused_next", "start"),
])
def test_what_others_do_meanwhile_breaks_no_invariant(situation: str, event: str) -> None:
    situations = [number for number, each in enumerate(SITUATIONS) if each.__name__.strip("_") == situation]
    events = [number for number, each in enumerate(EVENTS) if each.__name__.strip("_") == event]
    assert situations and events
    broken = {}
    for moment in range(30):
        variant = moment + MOMENTS * (events[0] + len(EVENTS) * situations[-1])
        broken[moment] = play((Action("meanwhile", variant), Action("later", 3))).violations
    assert {moment: found for moment, found in broken.items() if found} == {}
