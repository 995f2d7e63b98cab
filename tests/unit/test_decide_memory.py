"""What is remembered after a decision and after its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.actions import Actions, started_at
from dockerd_guard.plan.decide import (
    Decision,
    Result,
    Verdict,
    forget_policy,
    obstructed,
    record,
    retry_now,
    retry_s,
    wake_s,
)
from dockerd_guard.plan.gate import Cost, Hold, RestartFacts
from dockerd_guard.plan.memory import (
    Attempt,
    Contained,
    CorrectedFile,
    HeldCorrection,
    Intent,
    Memory,
    NeededRestart,
    digest,
)
from dockerd_guard.plan.plan import Change
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from tests.simulation.host import SimulatedHost, invocation
from tests.support.remembered import (
    APPLY,
    DIED,
    FIX_THIS,
    FOREIGN,
    NO_START,
    NOTHING,
    OBSTACLE,
    ROLL_BACK,
    SILENT,
    WAIT,
    WITH_CERTIFICATES,
    begun,
    both,
    changed,
    failed,
    obstacles,
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
    ago,
    decided,
    do,
    dropin,
    fault,
    guarded,
    kill,
    opened,
    read_policy,
    reload,
    remove,
    restart,
    seen_on,
    sleep,
    stop,
)

# --- the memory after a decision ------------------------------------------------------------------

HELD: Remember = lambda now, memory: memory._replace(held=HeldCorrection("x", ago(now, 60).wall, None, "y"))  # noqa: E731


def unneeded(seconds_ago: float) -> Remember:
    """Each pass since then has found that own files are to be removed, and something has just changed."""
    return both(changed(0.1), lambda now, memory: memory._replace(unneeded_since=ago(now, seconds_ago)))


@pytest.mark.parametrize(("remember", "verdict", "wake_s", "since_s"), [
    (changed(0.1), WAIT, 0.4, 0.0), (unneeded(4.0), WAIT, 0.4, 4.0), (unneeded(4.9), WAIT, 0.1, 4.9),
    (unneeded(5.0), APPLY, None, 5.0), (both(unneeded(99.0), undone(900)), WAIT, 1.0, 99.0),
    (both(unneeded(100.0), undone(900)), APPLY, None, 100.0),
])
def test_own_files_are_removed_from_a_host_that_is_never_quiet(
    host: SimulatedHost, remember: Remember, verdict: Verdict, wake_s: float | None, since_s: float
) -> None:
    do(host, (*opened(), guarded, remove(OVERRIDE)))
    outcome = decided(host, read_policy(""), remember)
    assert outcome.assessment.decision.verdict is verdict
    assert outcome.assessment.decision.wake_s == pytest.approx(wake_s)
    assert outcome.memory.unneeded_since is not None
    assert outcome.now.seconds_since(outcome.memory.unneeded_since) == pytest.approx(since_s)


@pytest.mark.parametrize("happened", [(), opened(), (*opened(), guarded)])
def test_it_is_forgotten_since_when_own_files_are_not_needed_where_they_are(
    host: SimulatedHost, happened: tuple[Act, ...]
) -> None:
    do(host, happened)
    assert decided(host, read_policy(""), unneeded(9.0)).memory.unneeded_since is None


@pytest.mark.parametrize(("happened", "was_starting"), [
    (opened("-H fd:// --tlsverify"), True), ((*opened("-H fd:// --tlsverify"), sleep(120)), False),
])
def test_an_intent_knows_of_a_service_that_systemd_is_about_to_restart(
    host: SimulatedHost, happened: tuple[Act, ...], was_starting: bool
) -> None:
    do(host, happened)
    intent = decided(host, read_policy("")).assessment.decision.intent
    assert intent is not None
    assert (intent.was_active, intent.was_starting) == (False, was_starting)


def held_since(reason: str, seconds_ago: float) -> Remember:
    return lambda now, memory: memory._replace(
        held=HeldCorrection(reason, ago(now, seconds_ago).wall, ago(now, 5).wall, "old"))


class Kept(NamedTuple):
    """A situation, and what the memory is after the decision: a function of the memory and the time."""

    name: str
    happened: tuple[Act, ...]
    memory: Remember
    is_so: Callable[[Memory, Instant], bool]
    policy: str = ""


KEPT = (
    Kept("nothing is held where it complies", (), HELD, lambda memory, now: memory.held is None),
    Kept("nor where the policy only observes", opened(), HELD, lambda memory, now: memory.held is None,
         "mode: observe"),
    Kept("nor what failed", opened(), failed(1), lambda memory, now: memory.attempt is None, "mode: observe"),
    Kept("nor is a correction verified", (), begun(is_applied=True, is_unverified=True, proven_s_ago=0),
         lambda memory, now: memory.intent is not None and not memory.intent.is_unverified, "mode: observe"),
    Kept("but what was restarted counts", opened(), restarted(5), lambda memory, now: len(memory.restarts) == 1,
         "mode: observe"),
    Kept("a hold ends with the correction", opened(), HELD, lambda memory, now: memory.held is None),
    Kept("a hold has a beginning", (*opened(), fault(engine_is_silent=True)), HELD,
         lambda memory, now: memory.held is not None and memory.held.since == now.wall),
    Kept("and keeps it while it is the same", (*opened(), fault(engine_is_silent=True)), held_since(SILENT, 60),
         lambda memory, now: memory.held == HeldCorrection(
             SILENT, ago(now, 60).wall, None, "Check `systemctl status docker.service`")),
    Kept("an obstacle is remembered", (dropin(OPEN, LATE), reload, restart), HELD,
         lambda memory, now: memory.obstacles == (OBSTACLE,) and memory.held is not None,
         "correct: {foreign_files: false}"),
    Kept("and forgotten when it is gone", opened(), obstacles("x"), lambda memory, now: memory.obstacles == ()),
    Kept("also where nothing is left to do", (), obstacles("x"), lambda memory, now: memory.obstacles == ()),
    Kept("an obstacle is held", (dropin(OPEN, LATE), reload, restart), obstacles(OBSTACLE),
         lambda memory, now: memory.held == HeldCorrection(
             OBSTACLE, now.wall, None, "Fix this manually, or allow `foreign_files` in the policy's `correct`"),
         "correct: {foreign_files: false}"),
    Kept("what the correction itself would break is held", (stop,), HELD,
         lambda memory, now: memory.held == HeldCorrection(NO_START, now.wall, None, FIX_THIS), WITH_CERTIFICATES),
    Kept("a failure is forgotten where it complies", (), failed(1), lambda memory, now: memory.attempt is None),
    Kept("also where dockerd is stopped", (stop,), failed(1), lambda memory, now: memory.attempt is None),
    Kept("not where dockerd does not stay up", (*opened("-H fd:// --storage-driver=zfs"), sleep(120)), failed(1),
         lambda memory, now: memory.attempt is not None),
    Kept("a failure gets its inputs from the first observation", opened(), failed(1),
         lambda memory, now: memory.attempt is not None and bool(memory.attempt.inputs)),
    Kept("a failure is forgotten once it is tried again", opened(), failed(300),
         lambda memory, now: memory.attempt is None),
    Kept("what failed is held", opened(), failed(100), lambda memory, now: memory.held == HeldCorrection(
        "the last attempt failed: no luck", now.wall, ago(now, -200).wall, FIX_THIS)),
    Kept("a dispute is held", (*opened(), guarded, sleep(60), dropin(OPEN), remove(OURS)), undone(50, 20, 10),
         lambda memory, now: memory.held == HeldCorrection(
             f"contested: another program removes {OURS}", now.wall, ago(now, -590).wall,
             "Find the program that removes it, then run `dockerd-guard fix`")),
    Kept("a restart is counted before it happens", opened(), restarted(5),
         lambda memory, now: memory.restarts == (ago(now, 300), now)),
    Kept("a start as well", (*opened("-H fd:// --tlsverify"), sleep(120)), restarted(),
         lambda memory, now: memory.restarts == (now,)),
    Kept("a held restart is not counted", (*opened(), fault(engine_is_silent=True)), restarted(),
         lambda memory, now: memory.restarts == ()),
    Kept("nor a reload", (dropin(OPEN),), restarted(), lambda memory, now: memory.restarts == ()),
    Kept("what others did to our file is remembered", (*opened(), guarded, remove(OURS)), restarted(),
         lambda memory, now: memory.corrected[OURS].undone == (now,)),
    Kept("what an interrupted correction of ours did is not", (*opened(), guarded, remove(OURS)), begun(),
         lambda memory, now: memory.corrected[OURS].undone == () and memory.corrected[OURS].is_undone),
    Kept("unless it is of other files", (*opened(), guarded, remove(OURS)), begun(changes=FOREIGN),
         lambda memory, now: memory.corrected[OURS].undone == (now,)),
    Kept("or is applied", (*opened(), guarded, remove(OURS)), begun(is_applied=True),
         lambda memory, now: memory.corrected[OURS].undone == (now,)),
    Kept("a dispute ends where it complies and nothing changes", (), undone(1, after=b"x"),
         lambda memory, now: not memory.corrected),
    Kept("or has not for ten seconds", (), both(undone(1, after=b"x"), changed(10)),
         lambda memory, now: not memory.corrected),
    Kept("not before", (), both(undone(1, after=b"x"), changed(9.9)), lambda memory, now: bool(memory.corrected)),
    Kept("what nobody undid stays", (*opened(), guarded, sleep(60)), restarted(),
         lambda memory, now: bool(memory.corrected)),
)


@pytest.mark.parametrize("row", KEPT, ids=lambda row: row.name)
def test_the_memory_after_a_decision(host: SimulatedHost, row: Kept) -> None:
    do(host, row.happened)
    outcome = decided(host, read_policy(row.policy), row.memory)
    assert row.is_so(outcome.memory, outcome.now), outcome.memory


# --- the probation of a correction ----------------------------------------------------------------

class Probation(NamedTuple):
    """An intent, and what becomes of it: `kept` as it was, `gone`, `proven` from now on, or `unproven`."""

    name: str
    intent: Remember
    expected: str
    happened: tuple[Act, ...] = ()


PROBATIONS = (
    Probation("dockerd has not been started since", begun(is_applied=True, invocation=invocation(0), changes=FOREIGN),
              "kept"),
    Probation("dockerd was started since", begun(is_applied=True, changes=FOREIGN), "proven"),
    Probation("it has run for a while", begun(is_applied=True, changes=FOREIGN, proven_s_ago=29.5), "kept"),
    Probation("it has run long enough", begun(is_applied=True, changes=FOREIGN, proven_s_ago=30), "gone"),
    Probation("it has run long enough, and is not verified",
              begun(is_applied=True, changes=FOREIGN, proven_s_ago=30, is_unverified=True), "kept"),
    Probation("it is down", begun(is_applied=True, changes=FOREIGN, proven_s_ago=10), "unproven", (stop,)),
    Probation("it is down, and was never started", begun(is_applied=True, changes=FOREIGN), "unproven", (stop,)),
    Probation("it had failed before, and is down", begun(is_applied=True, changes=FOREIGN, was_active=False), "kept",
              (*opened("-H fd:// --storage-driver=zfs"), sleep(120))),
    Probation("it had failed before, and nothing was changed", begun(is_applied=True, changes=(), was_active=False),
              "gone", (*opened("-H fd:// --storage-driver=zfs"), sleep(120))),
    Probation("it was down before, and is stopped", begun(is_applied=True, changes=FOREIGN, was_active=False), "gone",
              (stop,)),
    Probation("it was down before", begun(is_applied=True, changes=FOREIGN, was_active=False), "gone"),
    Probation("nothing was changed", begun(is_applied=True, changes=()), "gone"),
    Probation("not applied", begun(changes=()), "kept"),
)


@pytest.mark.parametrize("row", PROBATIONS, ids=lambda row: row.name)
def test_the_previous_content_is_kept_until_dockerd_has_run_with_the_new_one(
    host: SimulatedHost, row: Probation
) -> None:
    """I3."""
    do(host, row.happened)
    outcome = decided(host, read_policy(""), row.intent)
    before = row.intent(outcome.now, Memory()).intent
    assert before is not None
    assert outcome.memory.intent == {"kept": before, "gone": None, "proven": before._replace(proven_by=outcome.now),
                                     "unproven": before._replace(proven_by=None)}[row.expected]


def ours(host: SimulatedHost) -> bytes | None:
    text = host.text(OURS)
    return None if text is None else text.encode()


@pytest.mark.parametrize(("name", "change", "is_rolled_back"), [
    ("as written", lambda intent: intent, True),
    ("not applied yet", lambda intent: intent._replace(is_applied=False), False),
    ("it did not run before", lambda intent: intent._replace(was_active=False), False),
    ("it changed nothing", lambda intent: intent._replace(changes=()), False),
    ("one of two files is another now", lambda intent: intent._replace(changes=(*intent.changes, *FOREIGN)), False),
])
def test_what_dockerd_failed_with_is_rolled_back(
    host: SimulatedHost, name: str, change: Callable[[Intent], Intent], is_rolled_back: bool
) -> None:
    do(host, DIED)

    def remember(now: Instant, memory: Memory) -> Memory:
        assert memory.intent is not None
        return memory._replace(intent=change(memory.intent))

    outcome = decided(host, read_policy(""), remember)
    decision = outcome.assessment.decision
    assert (decision.verdict is ROLL_BACK) == is_rolled_back
    if is_rolled_back:
        assert decision.intent == outcome.memory.intent


@pytest.mark.parametrize(("then", "is_rolled_back"), [((), False), ((fault(dies_after_s=0.5), sleep(300)), True)])
def test_a_killed_dockerd_did_not_fail_with_a_correction_that_it_was_not_started_with(
    host: SimulatedHost, then: tuple[Act, ...], is_rolled_back: bool
) -> None:
    """I3. systemd starts it again, with the correction."""
    do(host, (dropin(OPEN), guarded, kill, *then))
    assert (decided(host, read_policy("")).assessment.decision.verdict is ROLL_BACK) is is_rolled_back
    assert ours(host) is not None


# --- record ---------------------------------------------------------------------------------------

NOW = Instant(datetime(2026, 11, 25, 12, tzinfo=UTC), "boot", 5000.0)
FIVE_MIN = read_policy("")
TEN_SECONDS = read_policy("watch: {resync: 10s}")
PLAIN = Decision(APPLY)
STARTS = PLAIN._replace(actions=Actions(restart=True), required=Actions(restart=True))
REMEMBERED = Memory(restarts=(ago(NOW, 60), ago(NOW, 1)), attempt=Attempt(ago(NOW, 60), "old", 300.0, "inputs"),
                    held=HeldCorrection("old", NOW.wall, None), needed_restart=NeededRestart(ago(NOW, 90), "x", True))
CHANGE = Change(OURS, None, b"new")


class Recorded(NamedTuple):
    """A result, and what the memory is afterwards: what differs from REMEMBERED."""

    name: str
    decision: Decision
    result: Result
    expected: dict[str, object]
    policy: Policy = FIVE_MIN
    before: Mapping[str, CorrectedFile] = {}


RECORDED = (
    Recorded("it complies", PLAIN, Result(True), {"attempt": None, "held": None}),
    Recorded("done with a restart: the count made before is replaced by what happened", STARTS,
             Result(True, starts=(NOW,)),
             {"attempt": None, "held": None, "restarts": (ago(NOW, 60), NOW), "needed_restart": None}),
    Recorded("decided to restart, and never came to it", STARTS, Result(False, error="full", unwritable=True),
             {"restarts": (ago(NOW, 60),), "attempt": Attempt(NOW, "full", 60.0)}),
    Recorded("rolled back: two starts", STARTS,
             Result(False, error="no", was_rolled_back=True, starts=(ago(NOW, 2), NOW)),
             {"restarts": (ago(NOW, 60), ago(NOW, 2), NOW), "attempt": Attempt(NOW, "no", 300.0, None, True)}),
    Recorded("it failed", PLAIN, Result(False, error="no"), {"attempt": Attempt(NOW, "no", 300.0)}),
    Recorded("it failed before anything was written: its inputs are known", PLAIN._replace(inputs="those"),
             Result(False, error="no"), {"attempt": Attempt(NOW, "no", 300.0, "those")}),
    Recorded("it failed and was undone: its inputs are those of the next look", PLAIN._replace(inputs="those"),
             Result(False, error="no", undone=(CHANGE,)), {"attempt": Attempt(NOW, "no", 300.0)}),
    Recorded("it failed, under a shorter resync", PLAIN, Result(False, error="no"),
             {"attempt": Attempt(NOW, "no", 10.0)}, TEN_SECONDS),
    Recorded("it could not be written, under a shorter resync", PLAIN, Result(False, error="full", unwritable=True),
             {"attempt": Attempt(NOW, "full", 10.0)}, TEN_SECONDS),
    Recorded("something else changed a file meanwhile: no failure of ours", PLAIN,
             Result(False, error="changed", interference=OURS), {}),
    Recorded("something else undid the change meanwhile", PLAIN._replace(actions=Actions((CHANGE,))),
             Result(False, error="changed", interference=OURS),
             {"corrected": {OURS: CorrectedFile(OURS, digest(b"new"), NOW)}}),
    Recorded("something else changed another of its files meanwhile", PLAIN._replace(
                 actions=Actions((CHANGE, CHANGE._replace(path=OVERRIDE)))),
             Result(False, error="changed", interference=OVERRIDE),
             {"corrected": {OURS: CorrectedFile(OURS, digest(b"new"), NOW, because_of=OVERRIDE),
                            OVERRIDE: CorrectedFile(OVERRIDE, digest(b"new"), NOW)}}),
    Recorded("something else undid an earlier change during a correction of something else", PLAIN,
             Result(False, error="changed", interference=OURS),
             {"corrected": {OURS: CorrectedFile(OURS, "x", ago(NOW, 9), (ago(NOW, 5), NOW), True)}},
             before={OURS: CorrectedFile(OURS, "x", ago(NOW, 9), (ago(NOW, 5),))}),
    Recorded("held in preflight", PLAIN, Result(False, hold=Hold("in use", NOW.wall, "wait")),
             {"held": HeldCorrection("in use", NOW.wall, NOW.wall, "wait")}),
    Recorded("held in preflight, for the same reason as before", PLAIN, Result(False, hold=Hold("old", None, "wait")),
             {"held": HeldCorrection("old", NOW.wall, None, "wait")}),
    Recorded("done but for the restart", PLAIN, Result(False, hold=Hold("old"), kept=(CHANGE,)),
             {"held": HeldCorrection("old", NOW.wall, None),
              "corrected": {OURS: CorrectedFile(OURS, digest(b"new"), NOW)}}),
    Recorded("files are in force", PLAIN, Result(True, kept=(CHANGE,)),
             {"attempt": None, "held": None, "corrected": {OURS: CorrectedFile(OURS, digest(b"new"), NOW)}}),
    Recorded("neither done nor failed", PLAIN, Result(False), {"attempt": None}),
)


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row.name)
def test_what_is_remembered_of_a_result(row: Recorded) -> None:
    before = REMEMBERED._replace(corrected=row.before)
    assert record(NOW, row.decision, row.result, row.policy, before)._asdict() == {
        **before._asdict(), **row.expected}


@pytest.mark.parametrize(("result", "path", "is_undone"), [
    (Result(False, error="no", undone=(CHANGE,)), OURS, True),
    (Result(False, error="no", undone=(CHANGE,)), "/etc/other", False),
    # An earlier correction stays: only the later one was undone, or the disk was full before anything was written.
    (Result(False, error="no", undone=(CHANGE._replace(path="/etc/other"),)), OURS, False),
    (Result(False, error="full", unwritable=True), OURS, False),
    (Result(False, hold=Hold("old")), OURS, False),
    (Result(True), OURS, False),
])
def test_what_we_restored_was_undone_by_nobody_else(result: Result, path: str, is_undone: bool) -> None:
    """I8: the correction failed, and its intent covers one before it."""
    file = CorrectedFile(path, digest(b"new"), ago(NOW, 60))
    decision = PLAIN._replace(intent=Intent((CHANGE,), NOW, ()))
    memory = record(NOW, decision, result, FIVE_MIN, REMEMBERED._replace(corrected={path: file}))
    assert memory.corrected == {path: file._replace(is_undone=is_undone)}


def test_a_new_policy_forgets_what_was_about_the_old_one() -> None:
    memory = REMEMBERED._replace(corrected={OURS: CorrectedFile(OURS, "x", NOW)}, obstacles=("x",),
                                 contained=Contained(("nftables",), ("tcp://0.0.0.0:2375",)))
    assert forget_policy(memory) == memory._replace(attempt=None, corrected={}, held=None, obstacles=())


def test_a_reload_retries_what_failed() -> None:
    assert retry_now(REMEMBERED) == REMEMBERED._replace(attempt=None)


def test_the_next_step_at_an_obstacle(host: SimulatedHost) -> None:
    plan = decided(host, read_policy("")).assessment.plan._replace(obstacles=("a", "b"))
    assert obstructed(plan, read_policy("")) == Hold("a; b", None, "Fix this manually")
    assert obstructed(plan, read_policy("correct: {foreign_files: false}")) == Hold(
        "a; b", None, "Fix this manually, or allow `foreign_files` in the policy's `correct`")


@pytest.mark.parametrize(("result", "seconds", "resync"), [
    (Result(False, error="x"), 300.0, "300s"),
    (Result(False, error="x", unwritable=True), 60.0, "300s"),
    (Result(False, error="x", unbindable=True), 5.0, "300s"),
    (Result(False, error="x", unwritable=True, unbindable=True), 5.0, "300s"),
    (Result(False, error="x", unwritable=True), 10.0, "10s"),
])
def test_when_a_failed_correction_is_tried_again(result: Result, seconds: float, resync: str) -> None:
    assert retry_s(result, read_policy(f"watch: {{resync: {resync}}}")) == seconds


UP, DOWN = RestartFacts(is_active=True), RestartFacts(is_active=False)
HOLD = Hold("in use")


@pytest.mark.parametrize(("decision", "result", "seconds"), [
    (Decision(APPLY, facts=UP), Result(True), None),
    (Decision(APPLY, facts=UP, wake_s=7.0), Result(True), 7.0),
    (Decision(APPLY, facts=UP), Result(False, hold=HOLD), 60.0),
    (Decision(APPLY, facts=DOWN), Result(False, hold=HOLD), 5.0),
    (Decision(APPLY, facts=UP, wake_s=7.0), Result(False, hold=HOLD), 7.0),
    (Decision(APPLY, facts=DOWN, wake_s=7.0), Result(False, hold=HOLD), 5.0),
    (Decision(APPLY, facts=UP), Result(False, error="x"), 300.0),
    (Decision(APPLY, facts=UP), Result(False, error="x", unbindable=True), 5.0),
    (Decision(APPLY, facts=UP), Result(False, error="x", hold=HOLD), 60.0),
])
def test_when_to_look_again_after_a_decision(decision: Decision, result: Result, seconds: float | None) -> None:
    """I9: what was found only while it was executed may end without any trigger."""
    assert wake_s(decision, result, FIVE_MIN) == seconds


def test_the_invocation_of_dockerd(host: SimulatedHost) -> None:
    with Rootfs(str(host.root)) as rootfs:
        seen = seen_on(host, rootfs)
        assert started_at(seen) == invocation(0)
        assert seen.running is not None
        by_hand = seen.running._replace(process=seen.running.process._replace(environ={}))
        assert started_at(seen._replace(running=by_hand)) == ""
    host.stop("admin")
    with Rootfs(str(host.root)) as rootfs:
        assert started_at(seen_on(host, rootfs)) == ""


def test_what_a_decision_and_a_result_are_unless_they_say_otherwise() -> None:
    assert Decision(NOTHING) == (NOTHING, Actions(), Actions(), Cost.NOTHING, None, None, (),
                                 RestartFacts(is_active=False), None, None, "", "", None)
    assert Result(True) == (True, (), None, "", False, "", False, (), (), (), True, None, False)
    assert [str(verdict) for verdict in Verdict] == [
        "nothing", "wait", "recover", "roll back", "hold", "back off", "lock", "apply"]
