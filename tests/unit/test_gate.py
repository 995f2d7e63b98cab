"""Whether docker.service may be restarted now: the policy's `correct`, the engine, the host, and the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest

from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.observation import EngineAnswer
from dockerd_guard.plan.gate import Cost, Hold, RestartFacts, cost, may_restart, may_stop_sockets, what_stops
from dockerd_guard.policy.model import Correct
from dockerd_guard.policy.reader import parse_policy

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
"""A Monday."""

NOW = Instant(NOON, "boot", 100_000.0)

IDLE = Engine("26.1.5", live_restore=False, containers_running=0, in_swarm=False)
BUSY = IDLE._replace(containers_running=2)
SAFE = BUSY._replace(live_restore=True)
SWARM = SAFE._replace(containers_running=1, in_swarm=True)

RUNS = RestartFacts(is_active=True, engine=EngineAnswer(SAFE), next_live_restore=True)
"""dockerd runs containers that survive a restart."""
DOWN = RestartFacts(is_active=False, engine=EngineAnswer())

RESTART = "`systemctl restart docker.service`"
BY_HAND = f"Wait, or run {RESTART}"
WHEN_STOPPABLE = f"Run {RESTART} when they may stop"
ADD_LIVE_RESTORE = ('Add `"live-restore": true` to /etc/docker/daemon.json and run `systemctl reload docker.service`, '
                    f"or run {RESTART} when they may stop")
FIX_THIS = "Fix this; the agent retries automatically"
LIVE_RESTORE_OFF = Hold("live-restore is off: 2 running containers would be stopped", None, ADD_LIVE_RESTORE)
SHOP = Hold("shop.service would be stopped with docker.service", None, WHEN_STOPPABLE)
OF_SOCKET = Hold("shop.service would be stopped with a socket unit", None,
                 "Stop these, or restart docker.socket with docker.service stopped, when they may stop")
UNRUN = Hold("systemd would run what it has not run before: ExecStartPre= (/a:1), /b", None,
             "Revert this, or restart the socket unit with docker.service stopped, at a suitable time")
OF_SOCKETS = OF_SOCKET._replace(reason="a.service, b.service would be stopped with a socket unit")
NEVER = Hold("the policy has `restart: never`", None, f"Run {RESTART} at a suitable time")
REFUSED = Hold("dockerd would not start: no certificate; no key", None, FIX_THIS)
UNASKED = Hold("dockerd does not answer; cannot check whether containers would be stopped", None,
               "Check `systemctl status docker.service`")
PENDING = Hold("a restart would apply other pending changes: --bip (/a:1), --mtu removed",
               None, f"Revert them, or run `systemctl daemon-reload` and {RESTART} at a suitable time")


def correct(text: str) -> Correct:
    """The `correct` section of a policy."""
    return parse_policy(f"version: 1\nsockets: [fd://]\ncorrect: {text}\n".encode()).correct


def engine(answer: Engine, *, shims: int = 0, embeds: bool = False) -> RestartFacts:
    """dockerd runs, and its engine answers this."""
    return RUNS._replace(engine=EngineAnswer(answer, "", shims, embeds))


def ago(minutes: float) -> Instant:
    """A moment of this boot."""
    return Instant(NOON - timedelta(minutes=minutes), "boot", NOW.since_boot_s - minutes * 60)


class Case(NamedTuple):
    """A `correct` section and what is observed; and what holds a restart, None for nothing."""

    name: str
    correct: str
    facts: RestartFacts
    hold: Hold | None = None


CASES = (
    Case("containers survive", "{}", RUNS),
    Case("no containers run", "{}", engine(IDLE)),
    Case("no containers run in a swarm", "{}", engine(IDLE._replace(in_swarm=True))),
    Case("containers would be stopped", "{}", engine(BUSY), LIVE_RESTORE_OFF),
    Case("containers may be stopped", "{restart: always}", engine(BUSY)),
    Case("one container would be stopped", "{}", engine(BUSY._replace(containers_running=1)),
         Hold("live-restore is off: 1 running container would be stopped", None, ADD_LIVE_RESTORE)),
    Case("containerd runs containers that the engine does not count", "{}", engine(IDLE, shims=2), LIVE_RESTORE_OFF),
    Case("the engine counts more than containerd", "{}", engine(BUSY, shims=1), LIVE_RESTORE_OFF),
    # I1: issue 12, "Containers killed".
    Case("the next start is without live-restore", "{}", RUNS._replace(next_live_restore=False),
         Hold("live-restore is off in the configuration that a restart would load: 2 running containers would be "
              "stopped", None, ADD_LIVE_RESTORE)),
    Case("a swarm's task", "{}", engine(SWARM),
         Hold("this host is in a swarm, where live-restore has no effect: its tasks would be stopped", None,
              f"Drain this node, then run {RESTART}")),
    Case("dockerd runs its own containerd", "{}", engine(SAFE, embeds=True),
         Hold("dockerd runs its own containerd, which stops with it: 2 running containers would be stopped", None,
              ADD_LIVE_RESTORE)),
    Case("the engine was not asked", "{}", RUNS._replace(engine=None), UNASKED),
    Case("no engine to ask, and no containers", "{}", RUNS._replace(engine=EngineAnswer())),
    Case("no engine to ask, and containers run", "{}", RUNS._replace(engine=EngineAnswer(shims=1)), UNASKED),
    Case("the engine does not answer, with a reason", "{}",
         RUNS._replace(engine=EngineAnswer(None, "dockerd is starting")),
         UNASKED._replace(reason="dockerd is starting; cannot check whether containers would be stopped")),
    Case("the engine does not answer, and nobody minds", "{restart: always}", RUNS._replace(engine=None)),
    Case("a unit stops with docker.service", "{}", RUNS._replace(dependents=("shop.service",)), SHOP),
    Case("two units stop with it", "{}", RUNS._replace(dependents=("a.service", "b.service")),
         SHOP._replace(reason="a.service, b.service would be stopped with docker.service")),
    Case("a unit stops, and the engine does not answer", "{}",
         RUNS._replace(dependents=("shop.service",), engine=None), SHOP),
    Case("a unit stops, and so would containers", "{}", engine(BUSY)._replace(dependents=("shop.service",)), SHOP),
    Case("a unit may stop", "{restart: always}", RUNS._replace(dependents=("shop.service",))),
    Case("never", "{restart: never}", engine(IDLE), NEVER),
    Case("never comes first", "{restart: never}", engine(BUSY)._replace(
        pending_changes=("x",), refusals=("y",)), NEVER),
    # dockerd that is down.
    Case("a stopped dockerd is started", "{}", DOWN),
    Case("also where restarts are never allowed", "{restart: never}", DOWN),
    Case("also where nothing was asked", "{}", DOWN._replace(engine=None)),
    Case("also outside a window", "{window: 'Sat 02:00-05:00 UTC'}", DOWN),
    Case("a socket unit would run something new", "{}", RUNS._replace(commands=("ExecStartPre= (/a:1)", "/b")), UNRUN),
    Case("also under restart: always", "{restart: always}",
         RUNS._replace(commands=("ExecStartPre= (/a:1)", "/b")), UNRUN),
    Case("and an option was changed", "{}",
         RUNS._replace(commands=("/b",), pending_changes=("--bip (/a:1)", "--mtu removed")),
         PENDING._replace(reason=f"{PENDING.reason}, /b")),
    Case("a unit stops with docker.socket", "{}", RUNS._replace(of_sockets=("shop.service",)), OF_SOCKET),
    Case("also while dockerd is down", "{}", DOWN._replace(of_sockets=("shop.service",)), OF_SOCKET),
    Case("it may stop", "{restart: always}", RUNS._replace(of_sockets=("shop.service",))),
    Case("units that depend on it are down already", "{}", DOWN._replace(dependents=("shop.service",))),
    Case("but not where its containers outlived it", "{}", DOWN._replace(engine=EngineAnswer(shims=1)),
         Hold("live-restore is off: 1 running container that outlived dockerd would be stopped", None,
              WHEN_STOPPABLE)),
    Case("unless they survive the start", "{}", DOWN._replace(engine=EngineAnswer(shims=1), next_live_restore=True)),
    Case("or may be stopped", "{restart: always}", DOWN._replace(engine=EngineAnswer(shims=1))),
    # I3.
    Case("dockerd would refuse", "{}", RUNS._replace(refusals=("no certificate", "no key")), REFUSED),
    Case("dockerd would refuse, whatever may stop", "{restart: always}", DOWN._replace(
        refusals=("no certificate", "no key")), REFUSED),
    Case("a refusal comes before what stops", "{}", engine(BUSY)._replace(
        refusals=("no certificate", "no key")), REFUSED),
    Case("other pending changes", "{}", RUNS._replace(pending_changes=("--bip (/a:1)", "--mtu removed")), PENDING),
    Case("other pending changes, whatever may stop", "{restart: always, window: 'Sat 02:00-05:00 UTC'}",
         RUNS._replace(pending_changes=("--bip (/a:1)", "--mtu removed")), PENDING),
    Case("what stops comes before pending changes", "{}", engine(BUSY)._replace(pending_changes=("x",)),
         LIVE_RESTORE_OFF),
    # The window. `next_opening` has tests of its own (test_policy.py).
    Case("in the window", "{window: 'Mon 11:00-13:00 UTC'}", RUNS),
    Case("outside the window", "{window: 'Sat 02:00-05:00 UTC'}", RUNS,
         Hold("outside the window Sat 02:00-05:00 UTC", datetime(2026, 11, 28, 2, 0, tzinfo=UTC), BY_HAND)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_holds_a_restart(case: Case) -> None:
    assert may_restart(correct(case.correct), case.facts, (), NOW) == case.hold


@pytest.mark.parametrize(("text", "facts", "hold"), [
    ("{}", RUNS, None), ("{restart: never}", RUNS, None), ("{budget: 1/1h}", DOWN, None),
    ("{}", RUNS._replace(of_sockets=("a.service", "b.service")), OF_SOCKETS),
    ("{restart: always}", RUNS._replace(of_sockets=("a.service", "b.service")), None),
    ("{restart: always}", DOWN._replace(commands=("ExecStartPre= (/a:1)", "/b"), of_sockets=("a.service",)), UNRUN),
])
def test_what_holds_the_stop_of_socket_units_alone(text: str, facts: RestartFacts, hold: Hold | None) -> None:
    assert may_stop_sockets(correct(text), facts) == hold


class Spent(NamedTuple):
    """A budget and when docker.service was restarted; the hold's text of the budget, and when it ends (minutes from
    now)."""

    name: str
    budget: str
    restarts: tuple[Instant, ...]
    text: str = ""
    until_min: float = 0.0


BEFORE_BOOT = Instant(NOON - timedelta(minutes=30), "earlier boot", 5_000.0)
IN_THE_FUTURE = Instant(NOON + timedelta(days=400), "boot", NOW.since_boot_s - 30 * 60)

BUDGETS = (
    Spent("less than the budget", "3/1h", (ago(50), ago(40))),
    Spent("all of it", "3/1h", (ago(50), ago(40), ago(10)), "3/1h", 10),
    Spent("more than it, as a rollback may take", "3/1h", (ago(55), ago(50), ago(40), ago(10)), "3/1h", 10),
    Spent("the oldest is out of the period", "3/1h", (ago(60), ago(40), ago(10))),
    Spent("the oldest is just within the period", "3/1h", (ago(59.5), ago(40), ago(10)), "3/1h", 0.5),
    Spent("in days", "1/2d", (ago(60),), "1/2d", 2 * 1440 - 60),
    Spent("in minutes", "1/90min", (ago(60),), "1/90min", 30),
    Spent("in seconds", "1/90s", (ago(1),), "1/90s", 0.5),
    Spent("the wall clock was set back by a year", "1/1h", (IN_THE_FUTURE,), "1/1h", 30),
    Spent("before a reboot", "1/1h", (BEFORE_BOOT._replace(wall=NOON - timedelta(days=3)),)),
)


@pytest.mark.parametrize("facts", [RUNS, DOWN], ids=["it runs", "it is down"])
@pytest.mark.parametrize("spent", BUDGETS, ids=lambda spent: spent.name)
def test_the_budget_counts_whatever_state_docker_is_in(spent: Spent, facts: RestartFacts) -> None:
    """I2."""
    hold = may_restart(correct(f"{{budget: {spent.budget}}}"), facts, spent.restarts, NOW)
    if not spent.text:
        assert hold is None
        return
    assert hold == Hold(f"the budget of {spent.text} restarts is used up", NOON + timedelta(minutes=spent.until_min),
                        BY_HAND)


def test_a_restart_just_before_a_reboot_counts() -> None:
    """A clock that was wrong before: what is certain is the time since boot."""
    booted = NOW._replace(since_boot_s=1500.0)
    hold = may_restart(correct("{budget: 1/1h}"), RUNS, (BEFORE_BOOT._replace(wall=NOON + timedelta(days=9)),), booted)
    assert hold is not None
    assert hold.until == NOON + timedelta(minutes=35)


@pytest.mark.parametrize(("facts", "writes", "starts", "expected"), [
    (RUNS, False, False, Cost.NOTHING),
    (RUNS, True, False, Cost.RELOAD),
    (RUNS, True, True, Cost.RESTART),
    (RUNS, False, True, Cost.RESTART),
    (engine(BUSY), True, True, Cost.CONTAINERS),
    (engine(BUSY), True, False, Cost.RELOAD),
    (DOWN, True, True, Cost.RELOAD),
    (DOWN, False, True, Cost.NOTHING),
])
def test_the_cost(facts: RestartFacts, writes: bool, starts: bool, expected: Cost) -> None:
    assert cost(writes, starts, facts) is expected


def test_what_stops_is_empty_where_nothing_does() -> None:
    assert what_stops(RUNS) == what_stops(DOWN) == ""
    assert what_stops(RestartFacts(is_active=False)) == ""


def test_what_is_shown_in_json() -> None:
    assert [str(each) for each in Cost] == ["nothing", "reload", "restart", "containers"]
    assert Hold("x") == ("x", None, "", False)
