"""`correct.splay`: when each host of a fleet restarts dockerd, and how that is shown."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from dockerd_guard.agent.reconcile import by_hand
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.machine_id import machine_id
from dockerd_guard.observe.observation import EngineAnswer
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.gate import BY_HAND, Hold, RestartFacts, may_restart
from dockerd_guard.plan.memory import HeldCorrection, NeededRestart
from dockerd_guard.plan.splay import _share
from dockerd_guard.policy.model import Correct, Policy
from dockerd_guard.policy.reader import parse_policy, read_policy
from dockerd_guard.policy.values import parse_window
from dockerd_guard.report import plan as report
from dockerd_guard.report.correction import hold_text
from dockerd_guard.rootfs import Rootfs
from tests.simulation.agent import SimulatedStateFiles
from tests.simulation.clock import BOOT_ID
from tests.simulation.host import SimulatedHost
from tests.support.passes import starts_by_us
from tests.support.remembered import APPLY, CORRECT, HOLD, NOTHING, RELOAD, RESTART, START, STOPS, WRITE, vanish
from tests.support.situations import (
    OPEN,
    OVERRIDE,
    Act,
    Outcome,
    containers,
    daemon_json,
    decided,
    do,
    dropin,
    fault,
    guarded,
    opened,
    policy,
    reload,
    remove,
    restart,
    sleep,
    stop,
    write,
)

pytestmark = pytest.mark.libraries

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
"""A Monday."""
NOW = Instant(NOON, "boot", 100_000.0)
MACHINE_ID, APP_SPECIFIC = "3d1219c7c4c5404aaa1f6d2a48adfda4", "28a511d43a904103968fb838342be6e4"
"""The second is what systemd-id128 prints."""
MIN, HOUR = timedelta(minutes=1), timedelta(hours=1)
SAFE = Engine("26.1.5", live_restore=True, containers_running=2, in_swarm=False)
RUNS = RestartFacts(is_active=True, engine=EngineAnswer(SAFE), next_live_restore=True)
SPREAD = "the policy spreads restarts over 20min"


def correct(text: str) -> Correct:
    """The `correct` section of a policy."""
    return parse_policy(f"version: 1\nsockets: [fd://]\ncorrect: {text}\n".encode()).correct


# --- the gate -------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """A host that waits half of the splay: the policy, how long the restart has been needed (minutes), and what holds
    it: until when, and another reason than the splay."""

    name: str
    correct: str
    needed_min: float | None = None
    due: datetime | None = None
    reason: str = SPREAD


TURNS = (
    Turn("no splay", "{}"),
    Turn("needed from now on", "{splay: 20min}", None, NOON + 10 * MIN),
    Turn("needed for 4 minutes", "{splay: 20min}", 4, NOON + 6 * MIN),
    Turn("it is its turn", "{splay: 20min}", 10),
    Turn("its turn has passed", "{splay: 20min}", 5000),
    # All hosts of the fleet see the window open at one moment.
    Turn("before the window", "{splay: 20min, window: '14:00-16:00 UTC'}", 5000, NOON + 2 * HOUR + 10 * MIN,
         "outside the window 14:00-16:00 UTC"),
    Turn("the window has just opened", "{splay: 20min, window: '12:00-13:00 UTC'}", 5000, NOON + 10 * MIN),
    Turn("it has just opened again after 5 minutes",
         "{splay: 20min, window: '12:00-11:55 UTC'}", 5000, NOON + 10 * MIN),
    Turn("it opened 4 minutes ago", "{splay: 20min, window: '11:56-13:00 UTC'}", 5000, NOON + 6 * MIN),
    Turn("it is its turn in the window", "{splay: 20min, window: '11:50-13:00 UTC'}", 5000),
    Turn("needed since the window opened", "{splay: 20min, window: '11:00-13:00 UTC'}", 4, NOON + 6 * MIN),
    Turn("its turn is after the window's end", "{splay: 20min, window: '11:00-12:05 UTC'}", None,
         NOON + 23 * HOUR + 10 * MIN),
    # Half of the window, or it would never be its turn.
    Turn("the window is shorter than the splay", "{splay: 1d, window: '12:00-12:10 UTC'}", 5000, NOON + 5 * MIN,
         "the policy spreads restarts over 1d"),
    Turn("the same, and it is its turn", "{splay: 1d, window: '11:50-12:10 UTC'}", 5000),
    Turn("the window began before midnight", "{splay: 20h, window: 'Sun 23:00-22:00 UTC'}", 5000),
    Turn("the window is always open", "{splay: 20min, window: '00:00-24:00 UTC'}", None, NOON + 10 * MIN),
    Turn("it is always open, and due after midnight", "{splay: 1d, window: '00:00-24:00 UTC'}", 0, NOON + 12 * HOUR,
         "the policy spreads restarts over 1d"),
)


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.name)
def test_when_it_is_the_turn_of_a_host(turn: Turn) -> None:
    since = None if turn.needed_min is None else NOW._replace(
        wall=NOON - turn.needed_min * MIN, since_boot_s=NOW.since_boot_s - turn.needed_min * 60)
    facts = RUNS._replace(share=0.5, needed_since=since)
    expected = Hold(turn.reason, turn.due, BY_HAND, is_due=True) if turn.due is not None else None
    assert may_restart(correct(turn.correct), facts, (), NOW) == expected


@pytest.mark.parametrize("wall", [NOON + timedelta(days=400), NOON - timedelta(days=400)])
def test_a_wall_clock_that_was_set_moves_no_turn(wall: datetime) -> None:
    facts = RUNS._replace(share=0.5, needed_since=NOW)
    later = Instant(wall, "boot", NOW.since_boot_s + 9 * 60)
    hold = may_restart(correct("{splay: 20min}"), facts, (), later)
    assert hold is not None
    assert hold.until == wall + MIN
    later = later._replace(since_boot_s=NOW.since_boot_s + 600)
    assert may_restart(correct("{splay: 20min}"), facts, (), later) is None


def test_a_host_without_a_share_waits_for_no_turn() -> None:
    assert may_restart(correct("{splay: 20min}"), RUNS, (), NOW) is None


def test_a_dockerd_that_is_down_waits_for_no_turn() -> None:
    facts = RUNS._replace(is_active=False, share=0.5)
    assert may_restart(correct("{splay: 20min, window: '14:00-16:00 UTC'}"), facts, (), NOW) is None


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(("window", "moment", "since"), [
    ("Sat 02:00-05:00", "2026-11-21 01:59", None),
    ("Sat 02:00-05:00", "2026-11-21 02:00", "2026-11-21 02:00+01:00"),
    ("Sat 02:00-05:00", "2026-11-21 04:59", "2026-11-21 02:00+01:00"),
    ("Sat 02:00-05:00", "2026-11-21 05:00", None),
    ("Sat 22:00-02:00", "2026-11-22 01:59", "2026-11-21 22:00+01:00"),
    ("Sat,Sun 00:00-24:00", "2026-11-22 13:00", "2026-11-21 00:00+01:00"),
    ("00:00-24:00", "2026-11-22 13:00", None),
    # An hour that is skipped, and one that comes twice: the second opening begins anew.
    ("Sun 02:30-05:00", "2026-03-29 04:00", "2026-03-29 03:00+02:00"),
    ("Sun 01:30-05:00", "2026-10-25 04:00", "2026-10-25 01:30+02:00"),
])
def test_since_when_a_window_is_open(window: str, moment: str, since: str | None) -> None:
    when = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(BERLIN))
    opened = parse_window(f"{window} {BERLIN}").opened(when.astimezone(UTC))
    assert (opened.isoformat(" ", "minutes") if opened is not None else None) == since


@pytest.mark.parametrize("restart_s", [1, 17])
def test_a_fleet_is_spread_evenly(restart_s: int) -> None:
    """1000 hosts and 30 minutes: without the splay all restart at once."""
    begins = [_share(f"{number:032x}", "policy") * 1800 for number in range(1000)]
    at_once = Counter(second for begin in begins for second in range(int(begin), int(begin) + restart_s + 1))
    assert max(at_once.values()) < 8 + 2 * restart_s
    assert 0 <= min(begins) < 20
    assert 1780 < max(begins) < 1800


def test_the_share_depends_on_host_and_policy() -> None:
    assert len({_share("a", "p"), _share("b", "p"), _share("a", "q")}) == 3
    assert _share("a", "p") == _share("a", "p")


@pytest.mark.parametrize(("text", "found"), [
    (f"{MACHINE_ID}\n", APP_SPECIFIC),
    ("uninitialized\n", ""), ("", ""), ("0" * 32, ""), ("3D1219C7C4C5404AAA1F6D2A48ADFDA4", ""), ("x" * 10**6, ""),
    (MACHINE_ID * 2, ""),
])
def test_machine_id(host: SimulatedHost, text: str, found: str) -> None:
    host.put("/etc/machine-id", text)
    with Rootfs(str(host.root)) as rootfs:
        assert machine_id(rootfs) == found


# --- the decisions --------------------------------------------------------------------------------

SPLAY = "correct: {splay: 20min}"
IN_FORCE = policy(f"mode: enforce\nsockets: [fd://]\n{SPLAY}")
HALF_S = 600.0


@pytest.fixture(autouse=True)
def half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host waits half of the splay; with a machine ID, a quarter."""
    shares = {BOOT_ID: 0.5, APP_SPECIFIC: 0.25}
    monkeypatch.setattr("dockerd_guard.plan.splay._share", lambda machine_id, policy: shares[machine_id])


class Row(NamedTuple):
    """What happened, and the decision: its steps, what holds the restart, and in how many seconds it is due."""

    name: str
    verdict: Verdict
    happened: tuple[Act, ...] = ()
    steps: tuple[str, ...] = ()
    hold: str = ""
    due_s: float | None = None


PORT = (IN_FORCE, *opened())
PENDING = (dropin(f"{OPEN} --bip=10.1.0.1/24"), guarded)

ROWS = (
    Row("it complies", NOTHING, (IN_FORCE,)),
    Row("a restart is needed", APPLY, PORT, (WRITE, RELOAD), SPREAD, HALF_S),
    Row("a restart is needed on another host", APPLY, (*PORT, write("/etc/machine-id", f"{MACHINE_ID}\n")),
        (WRITE, RELOAD), SPREAD, HALF_S / 2),
    Row("the files are corrected at once", HOLD, (*PORT, guarded), (), SPREAD, HALF_S),
    Row("it waits", HOLD, (*PORT, guarded, sleep(400), guarded, sleep(199)), (), SPREAD, 1.0),
    Row("it is its turn", APPLY, (*PORT, guarded, sleep(600)), (RESTART,)),
    Row("only a reload is needed", APPLY, (IN_FORCE, dropin(OPEN), reload), (WRITE, RELOAD)),
    Row("no splay", APPLY, opened(), CORRECT),
    Row("Docker is down", APPLY, (IN_FORCE, *opened("-H fd:// --tlsverify"), sleep(120)), (WRITE, RELOAD, START)),
    Row("an agent that is started again goes on", HOLD, (*PORT, guarded, sleep(590), guarded), (), SPREAD, 10.0),
    Row("another need of the same host", HOLD,
        (*PORT, guarded, sleep(300), remove(OVERRIDE), restart, guarded, sleep(100), *opened(), guarded), (), SPREAD,
        HALF_S),
    # What comes and goes on one host delays nothing.
    Row("containers that came and went", APPLY, (
        IN_FORCE, daemon_json("{}"), *opened(), containers(2), guarded, sleep(500), guarded, vanish, sleep(100)),
        (RESTART,)),
    Row("something else holds it first", HOLD, (
        IN_FORCE, daemon_json("{}"), *opened(), containers(2), guarded), (), STOPS),
    # What a rollout changes on every host at once begins a new time for all.
    Row("live-restore was turned on", HOLD, (
        IN_FORCE, daemon_json("{}"), *opened(), containers(2), guarded, sleep(5000), guarded,
        daemon_json('{"live-restore": true}'), lambda host: host.reload_dockerd(), guarded), (), SPREAD, HALF_S),
    Row("a pending change was reverted", HOLD, (
        *PORT, guarded, sleep(300), *PENDING, sleep(5000), dropin(OPEN), guarded), (), SPREAD, HALF_S),
    Row("restart: never was lifted", HOLD, (
        policy("mode: enforce\nsockets: [fd://]\ncorrect: {restart: never}"), *opened(), guarded, sleep(5000),
        IN_FORCE, guarded), (), SPREAD, HALF_S),
    Row("another policy", HOLD, (
        *PORT, guarded, sleep(5000), policy(f"mode: enforce\nsockets: [fd://]\nwatch: {{settle: 1s}}\n{SPLAY}"),
        guarded), (), SPREAD, HALF_S),
    Row("the policy has only observed so far", HOLD, (
        policy(f"mode: observe\nsockets: [fd://]\n{SPLAY}"), *opened(), guarded, sleep(5000), IN_FORCE, guarded),
        (), SPREAD, HALF_S),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_decided(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    outcome = decided(host, _in_force(host))
    decision = outcome.assessment.decision
    reason = decision.hold.reason if decision.hold is not None else ""
    assert (decision.verdict, decision.actions.steps(), reason) == (row.verdict, row.steps, row.hold)
    assert (decision.hold is not None and decision.hold.is_due) == (row.due_s is not None)
    if row.due_s is not None:
        assert _due_s(outcome) == pytest.approx(row.due_s, abs=3)
        assert decision.wake_s == max(_due_s(outcome), 1.0)
        assert outcome.memory.held is not None
        assert outcome.memory.held.is_due


TLS = f"mode: enforce\nsockets: [fd://, {{address: 'tcp://127.0.0.1:2376', tls: mutual}}]\n{SPLAY}"


@pytest.mark.parametrize(("name", "happened", "is_counted"), [
    ("needed", (*PORT, guarded), True),
    ("it complies", (*PORT, guarded, sleep(600), guarded), False),
    ("it complies, and nothing is corrected", (policy("mode: observe\nsockets: [fd://]\ncorrect: {splay: 20min}"),),
     False),
    ("no splay", (*opened(), fault(engine_is_silent=True), guarded), False),
    ("it failed", (IN_FORCE, *opened("-H fd:// --tlsverify"), sleep(120)), False),
    ("it is down", (*PORT, guarded, stop), False),
    ("it complies without a start", (IN_FORCE, dropin(OPEN), reload, guarded), False),
    ("dockerd would refuse its files", (*PORT, guarded, daemon_json('{"live-restore": true, "tls": true}')), False),
    ("dockerd would refuse the policy", (policy(TLS), *opened()), False),
], ids=lambda value: value if isinstance(value, str) else "")
def test_whether_the_time_counts(host: SimulatedHost, name: str, happened: tuple[Act, ...], is_counted: bool) -> None:
    do(host, happened)
    before = NeededRestart(host.clock.now(), "of another policy", live_restore=True)
    outcome = decided(host, _in_force(host), lambda _, memory: memory._replace(
        needed_restart=memory.needed_restart or before))
    assert (outcome.memory.needed_restart is not None) == is_counted


def test_live_restore_does_not_count_where_containers_may_stop(host: SimulatedHost) -> None:
    always = policy("mode: enforce\nsockets: [fd://]\ncorrect: {restart: always, splay: 20min}")
    do(host, (always, daemon_json("{}"), *opened(), guarded, sleep(500), daemon_json('{"live-restore": true}'),
              sleep(100)))
    assert decided(host, _in_force(host)).assessment.decision.actions.steps() == (RESTART,)


def test_the_agent_restarts_once_in_its_turn(host: SimulatedHost) -> None:
    do(host, PORT)
    agent = guarded(host)
    begun, waits = host.clock.seconds, 0
    while not starts_by_us(host):
        wake_s = agent.run_pass()
        host.clock.sleep(wake_s or 0.1)
        waits += 1
    assert host.starts[-1].at - begun == pytest.approx(HALF_S, abs=2)
    assert waits < 4
    assert [str(entry.event) for entry in agent.journal.entries].count("held") == 1
    assert not agent.host.blocked


@pytest.mark.parametrize("jump_s", [-400 * 86400.0, -3600.0, 3600.0, 400 * 86400.0])
def test_a_clock_that_is_set_moves_what_is_shown_and_not_the_turn(host: SimulatedHost, jump_s: float) -> None:
    do(host, PORT)
    agent = guarded(host)
    begun, shown = host.clock.seconds, _held_until(host)
    host.clock.sleep(200)
    host.clock.wall_offset_s = jump_s
    agent.run_pass()
    assert (_held_until(host) - shown).total_seconds() == pytest.approx(jump_s, abs=1)
    while not starts_by_us(host):
        host.clock.sleep(agent.run_pass() or 0.1)
    assert host.starts[-1].at - begun == pytest.approx(HALF_S, abs=2)


def _held_until(host: SimulatedHost) -> datetime:
    """When `status` shows that the restart is due."""
    held = SimulatedStateFiles(host).load().held
    assert held is not None
    assert held.until is not None
    return held.until


def test_it_is_contained_meanwhile(host: SimulatedHost) -> None:
    """I7: to wait exposes nothing."""
    do(host, PORT)
    guarded(host)
    assert [each.address for each in host.blocked] == ["tcp://0.0.0.0:2375"]
    assert not host.open_addresses()


def test_fix_waits_for_the_turn_as_well(host: SimulatedHost) -> None:
    do(host, (policy(f"mode: observe\nsockets: [fd://]\n{SPLAY}"), *opened(), guarded, sleep(5000)))
    agent = guarded(host)
    due: list[float] = []
    for _ in range(3):
        agent.fix()
        outcome = decided(host, _in_force(host), choose=by_hand)
        due.append(_due_s(outcome) + host.clock.seconds)
        host.clock.sleep(100)
        agent.run_pass()
    assert due == pytest.approx([due[0]] * 3, abs=1)
    assert not starts_by_us(host)
    host.clock.sleep(HALF_S)
    agent.fix()
    assert starts_by_us(host) == 1


def test_what_is_shown(host: SimulatedHost) -> None:
    do(host, PORT)
    outcome = decided(host, _in_force(host), choose=by_hand)
    hold = outcome.assessment.decision.hold
    assert hold is not None
    assert hold.until is not None
    due = f"{hold.until:%Y-%m-%d %H:%M} UTC"
    assert f"Held: {SPREAD}, restart due {due}.\nNext: {BY_HAND}.\n" in report.diff_text(outcome.assessment, ())
    assert hold_text(hold) == f"held: {SPREAD}, restart due {due}"
    assert hold_text(HeldCorrection("x", NOON, NOON)) == "held until 2026-11-23 12:00 UTC: x"


def _in_force(host: SimulatedHost) -> Policy:
    with Rootfs(str(host.root)) as rootfs:
        return read_policy(rootfs)


def _due_s(outcome: Outcome) -> float:
    hold = outcome.assessment.decision.hold
    assert hold is not None
    assert hold.until is not None
    return (hold.until - outcome.now.wall).total_seconds()
