"""Whether dockerd may be restarted now: the policy's `correct`, the engine, and the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.network import HelperUnavailable
from dockerd_guard.plan.gate import Situation, may_restart
from dockerd_guard.policy.reader import parse_policy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
IDLE = Engine("26.1.5", live_restore=False, containers_running=0, in_swarm=False)
BUSY = IDLE._replace(containers_running=2)
SAFE = BUSY._replace(live_restore=True)
SWARM = IDLE._replace(in_swarm=True)


class Case(NamedTuple):
    """A `correct` section, what the engine says, when it was restarted (minutes ago), and what holds it."""

    correct: str
    engine: Engine | None
    minutes_ago: tuple[float, ...]
    words: str
    dependents: tuple[str, ...] = ()
    until_min: float | None = None


CASES = (
    Case("{}", IDLE, (), ""),
    Case("{}", SAFE, (), ""),
    Case("{}", BUSY, (), "live-restore is off: 2 running containers would be stopped"),
    Case("{}", None, (), "dockerd does not answer; cannot check whether containers would be stopped"),
    Case("{}", SWARM, (), ""),
    Case("{}", SWARM._replace(containers_running=1, live_restore=True), (),
         "this host is in a swarm, where live-restore has no effect: its tasks would be stopped"),
    Case("{}", SAFE, (), "shop.service would be stopped with docker.service", ("shop.service",)),
    Case("{restart: always}", BUSY, (), ""),
    Case("{restart: never}", IDLE, (), "the policy has `restart: never`"),
    Case("{budget: 3/1h}", SAFE, (50, 40), ""),
    Case("{budget: 3/1h}", SAFE, (50, 40, 10), "the budget of 3/1h restarts is used up", until_min=10),
    Case("{budget: 3/1h}", SAFE, (70, 40, 10), ""),
    # The clock was set back after them: they are in the future.
    Case("{budget: 3/1h}", SAFE, (-600, -590, -580), ""),
    Case("{budget: 1/1h}", SAFE, (-600, 30), "the budget of 1/1h restarts is used up", until_min=30),
)


@pytest.mark.parametrize("case", CASES)
def test_a_restart_is_held(case: Case) -> None:
    policy = parse_policy(f"version: 1\nsockets: [fd://]\ncorrect: {case.correct}\n".encode())
    restarts = sorted(NOW - timedelta(minutes=minutes) for minutes in case.minutes_ago)
    hold = may_restart(policy.correct, Situation(case.engine, case.dependents, restarts, NOW, docker_is_active=True))
    assert (hold.reason if hold else "") == case.words
    if case.until_min is not None:
        assert hold is not None
        assert hold.until == NOW + timedelta(minutes=case.until_min)


def test_other_pending_options_hold_a_restart() -> None:
    """Also if containers may be stopped, and in a window."""
    pending_changes = ("--userns-remap (/etc/default/docker:1)", '"bip" (/etc/docker/daemon.json:2)')
    for correct in ("{}", "{restart: always, window: 'Sat 02:00-05:00 UTC'}"):
        policy = parse_policy(f"version: 1\nsockets: [fd://]\ncorrect: {correct}\n".encode())
        situation = Situation(SAFE, (), (), NOW, docker_is_active=True, pending_changes=pending_changes)
        hold = may_restart(policy.correct, situation)
        assert hold is not None
        assert hold.until is None
        assert hold.reason == ("a restart would apply other pending changes: --userns-remap (/etc/default/docker:1), "
                               '"bip" (/etc/docker/daemon.json:2)')


def test_a_stopped_docker_may_be_started() -> None:
    policy = parse_policy(b"version: 1\nsockets: [fd://]\ncorrect: {restart: never}\n")
    assert may_restart(policy.correct, Situation(None, (), (), NOW, docker_is_active=False)) is None


RESTART = "`systemctl restart docker.service`"


@pytest.mark.parametrize(("correct", "engine", "dependents", "step"), [
    ("{restart: never}", SAFE, (), f"Run {RESTART} at a suitable time"),
    ("{}", BUSY, (), 'Add `"live-restore": true` to /etc/docker/daemon.json and run `systemctl reload docker.service`, '
     f"or run {RESTART} when they may stop"),
    ("{}", SWARM._replace(containers_running=1), (), f"Drain this node, then run {RESTART}"),
    ("{}", None, (), "Check `systemctl status docker.service`"),
    ("{}", None, ("shop.service",), f"Run {RESTART} when they may stop"),
    ("{window: 'Sat 02:00-05:00 UTC'}", SAFE, (), f"Wait, or run {RESTART}"),
])
def test_a_held_restart_has_a_next_step(
        correct: str, engine: Engine | None, dependents: tuple[str, ...], step: str) -> None:
    policy = parse_policy(f"version: 1\nsockets: [fd://]\ncorrect: {correct}\n".encode())
    hold = may_restart(policy.correct, Situation(engine, dependents, (), NOW, docker_is_active=True))
    assert hold is not None
    assert hold.next_step == step


def test_a_failed_query_is_reported_as_such() -> None:
    policy = parse_policy(b"version: 1\nsockets: [fd://]\n")
    unasked = str(HelperUnavailable("Connection refused"))
    hold = may_restart(policy.correct, Situation(None, (), (), NOW, docker_is_active=True, unasked=unasked))
    reason = f"{unasked}; cannot check whether containers would be stopped"
    assert hold == (reason, None, HelperUnavailable.next_step)
