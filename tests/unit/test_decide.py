"""The decisions: one row each. A situation of a host, what is remembered and the policy; and what is decided.

No machine: the observations are made of the simulated host (tests/simulation).
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dockerd_guard.agent.reconcile import by_hand
from dockerd_guard.plan.actions import Actions, required_actions
from dockerd_guard.plan.decide import Verdict, decide
from dockerd_guard.plan.gate import Cost, Hold
from dockerd_guard.plan.memory import HeldCorrection, Intent, Memory
from dockerd_guard.rootfs import Rootfs
from tests.simulation.host import SimulatedHost, invocation
from tests.support.remembered import (
    APPLY,
    BACK_OFF,
    BUSY,
    CORRECT,
    DIED,
    FAILED,
    FOREIGN,
    HOLD,
    NO_CERTIFICATES,
    NO_START,
    NOTHING,
    OBSTACLE,
    RECOVER,
    RELOAD,
    RESTART,
    ROLL_BACK,
    SILENT,
    SOCKET_ELSEWHERE,
    SOCKET_OPEN,
    START,
    STOPS,
    WAIT,
    WITH_CERTIFICATES,
    WRITE,
    activating,
    begun,
    both,
    changed,
    check,
    contained,
    failed,
    obstacles,
    restarted,
    starting,
    starting_since,
    undone,
    vanish,
)
from tests.support.situations import (
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    Remember,
    containers,
    daemon_json,
    decided,
    do,
    dropin,
    environment,
    fault,
    guarded,
    link,
    listens,
    opened,
    read_policy,
    reload,
    remove,
    restart,
    sleep,
    stop,
    write,
)

SCRIPT = "/usr/local/sbin/run-docker"
FROM_A_SCRIPT = ("docker.service starts dockerd from a shell command line, which dockerd-guard does not edit "
                 f"({OVERRIDE}:3:11)")


class Row(NamedTuple):
    """A situation: what happened on the host, what is remembered, the policy (`fd://`, enforced, unless it says
    otherwise). And the decision: verdict, the steps to execute, why something is held and for how long (seconds), and
    when to look again; `required` steps are the same as the executed ones unless given."""

    name: str
    verdict: Verdict
    happened: tuple[Act, ...] = ()
    steps: tuple[str, ...] = ()
    hold: str = ""
    wake_s: float | None = None
    memory: Remember | None = None
    policy: str = ""
    required: tuple[str, ...] | None = None
    until_s: float | None = None


ROWS = (
    # Nothing to do.
    Row("it complies", NOTHING),
    Row("it complies with its own drop-in", NOTHING, (*opened(), guarded, sleep(60), guarded)),
    Row("dockerd is stopped", NOTHING, (stop,)),
    Row("it failed with an option of somebody else", NOTHING, (*opened("-H fd:// --storage-driver=zfs"), sleep(120))),
    Row("only observed", NOTHING, opened(), policy="mode: observe", required=CORRECT),
    Row("only observed, and a restart would be held", NOTHING, (*BUSY, *opened()[:2], restart, containers(2)),
        hold=STOPS, policy="mode: observe", required=CORRECT),
    Row("only observed, and nothing can be done", NOTHING, opened("-H fd:// true"),
        hold='dockerd would refuse this configuration: "dockerd" accepts no argument(s).', policy="mode: observe"),

    # What is wrong is corrected, and nothing else is touched.
    Row("it listens on TCP", APPLY, opened(), CORRECT),
    Row("written, not loaded yet", APPLY, (dropin(OPEN),), (WRITE, RELOAD)),
    Row("loaded, not started yet", APPLY, (dropin(OPEN), reload), (WRITE, RELOAD)),
    Row("loaded, and the file is gone again", APPLY, (dropin(OPEN), reload, remove(OVERRIDE)), (RELOAD,)),
    Row("running, and the file is gone again", APPLY, (*opened(), remove(OVERRIDE), reload), (RESTART,)),
    Row("through docker.socket", APPLY, SOCKET_OPEN, CORRECT),
    Row("docker.socket lacks a declared path", APPLY, SOCKET_ELSEWHERE,
        (WRITE, RELOAD, "restart docker.socket", RESTART)),
    Row("a declared address is missing", APPLY, (), CORRECT, policy="sockets: [fd://, 'tcp://127.0.0.1:2375']\n".replace(
        "'tcp://127.0.0.1:2375'", "{address: 'tcp://127.0.0.1:2375', tls: none}")),
    Row("our drop-in is not needed any more", APPLY, (*opened(), guarded, remove(OVERRIDE)), (WRITE, RELOAD)),
    Row("our drop-in was removed", APPLY, (*opened(), guarded, remove(OURS)), (WRITE, RELOAD)),

    # Issue 12: faults that were seen.
    Row("Docker down only because of its TLS flags is brought up", APPLY,
        (*opened("-H fd:// --tlsverify --tlscacert=ca.pem"), sleep(120)), (WRITE, RELOAD, START)),
    Row("Docker down because of a missing certificate of a host that is not wanted", APPLY,
        (*opened("-H fd:// -H tcp://0.0.0.0:2376 --tlsverify"), sleep(120)), (WRITE, RELOAD, START)),
    Row("between two attempts of systemd to start it", APPLY, opened("-H fd:// --tlsverify"), (WRITE, RELOAD, START)),
    Row("a port opened by the manager's environment", APPLY,
        (environment(DOCKER_OPTS="-H tcp://0.0.0.0:2375"), restart), CORRECT),
    Row("fd:// among daemon.json's hosts", APPLY, (
        dropin(""), daemon_json('{"live-restore": true, "hosts": ["fd://", "tcp://127.0.0.1:2375"]}'), reload, restart),
        ("write 3 files", RELOAD, RESTART)),
    Row("a unit without -H under a policy of fd://", APPLY, opened(""),
        (WRITE, RELOAD, "restart docker.socket", RESTART)),
    Row("a late drop-in", APPLY, (dropin(OPEN, LATE), reload, restart), ("write 4 files", RELOAD, RESTART)),
    Row("pending tls in daemon.json would leave Docker dead", APPLY,
        (*opened(), daemon_json('{"live-restore": true, "tls": true}')), (WRITE, RELOAD),
        "dockerd would not start: TLS is on, but tlscert is not set: dockerd will not start with TLS; TLS is on, but "
        "tlskey is not set: dockerd will not start with TLS", 60.0, required=CORRECT),
    Row("containers killed: live-restore is off in the file, on in the engine", APPLY,
        (containers(1), *opened(), daemon_json('{"live-restore": false}')), (WRITE, RELOAD),
        "live-restore is off in the configuration that a restart would load: 1 running container would be stopped",
        60.0, required=CORRECT),

    # The gate: all but the restart is done.
    Row("containers would be stopped", APPLY, (*BUSY, *opened()[:2], restart, containers(2)), (WRITE, RELOAD), STOPS,
        60.0, required=CORRECT),
    Row("and all the rest is done", HOLD, (*BUSY, *opened()[:2], restart, containers(2), guarded), (), STOPS, 60.0,
        required=(RESTART,)),
    Row("the engine is silent", APPLY, (*opened(), fault(engine_is_silent=True)), (WRITE, RELOAD), SILENT, 5.0,
        required=CORRECT),
    Row("the engine stays silent", HOLD, (*opened(), fault(engine_is_silent=True), guarded), (), SILENT, 5.0,
        required=(RESTART,)),
    Row("the budget is used up", APPLY, opened(), (WRITE, RELOAD), "the budget of 3/1h restarts is used up", 600.0,
        restarted(50, 40, 10), until_s=600.0, required=CORRECT),
    Row("the budget is used up for less than a second", APPLY, opened(), (WRITE, RELOAD),
        "the budget of 3/1h restarts is used up", 1.0, restarted(59.9975, 40, 10), until_s=0.15, required=CORRECT),
    Row("the budget counts while Docker is down", APPLY, (*opened("-H fd:// --tlsverify"), sleep(120)), (WRITE, RELOAD),
        "the budget of 3/1h restarts is used up", 600.0, restarted(50, 40, 10), until_s=600.0,
        required=(WRITE, RELOAD, START)),
    Row("outside the window", APPLY, opened(), (WRITE, RELOAD), "outside the window 14:00-15:00 UTC", 6183.2,
        policy="correct: {window: '14:00-15:00 UTC'}", until_s=6183.2, required=CORRECT),
    Row("a restart would apply another change", APPLY, (
        *opened(), dropin(f"{OPEN} --bip=10.1.0.1/24")), (WRITE, RELOAD),
        f"a restart would apply other pending changes: --bip ({OVERRIDE}:3)", 60.0,
        required=CORRECT),
    Row("Docker is down with containers that would be stopped", APPLY,
        (daemon_json("{}"), *opened("-H fd:// --tlsverify"), sleep(120), containers(1)), (WRITE, RELOAD),
        "live-restore is off: 1 running container that outlived dockerd would be stopped", 60.0,
        required=(WRITE, RELOAD, START)),

    Row("docker.socket was corrected, and its restart held", APPLY,
        (*SOCKET_OPEN, fault(engine_is_silent=True), guarded, fault(engine_is_silent=False)),
        (RESTART,)),
    Row("the start of what had failed was held", APPLY, (*FAILED, containers(1), guarded, vanish), (START,)),
    Row("and is held still", HOLD, (*FAILED, containers(1), guarded), (),
        "live-restore is off: 1 running container that outlived dockerd would be stopped", 60.0, required=(START,)),
    Row("and somebody has changed the file since", APPLY,
        (*FAILED, containers(1), guarded, vanish, write(OURS, "[Service]\n")), (WRITE, RELOAD, START)),
    Row("and Docker was stopped since", NOTHING, (*FAILED, containers(1), guarded, vanish, stop)),

    # Nothing may be done.
    Row("an obstacle, seen for the first time", WAIT, (dropin(OPEN, LATE), reload, restart), wake_s=0.0,
        policy="correct: {foreign_files: false}"),
    Row("another obstacle than before", WAIT, (dropin(OPEN, LATE), reload, restart), wake_s=0.0,
        memory=obstacles("another"), policy="correct: {foreign_files: false}"),
    Row("an obstacle that stays", HOLD, (dropin(OPEN, LATE), reload, restart), (), OBSTACLE, 60.0, obstacles(OBSTACLE),
        "correct: {foreign_files: false}"),
    Row("docker.service is masked", HOLD, (link("/etc/systemd/system/docker.service", "/dev/null"), reload), (),
        "docker.service is masked", 60.0, obstacles("docker.service is masked")),
    Row("a script without any argument starts dockerd", HOLD,
        (write(SCRIPT, f"#!/bin/sh\nexec dockerd {OPEN}\n"),
         write(OVERRIDE, f"[Service]\nExecStart=\nExecStart=@{SCRIPT} $NONE\n"), reload),
        (), FROM_A_SCRIPT, 60.0, obstacles(FROM_A_SCRIPT)),
    Row("the correction itself would keep dockerd from starting", HOLD, (), (), NO_START,
        60.0, policy=WITH_CERTIFICATES, required=CORRECT),
    Row("the same of a Docker that is stopped", HOLD, (stop,), (), f"dockerd would not start: {NO_CERTIFICATES}", 60.0,
        policy=WITH_CERTIFICATES, required=(WRITE, RELOAD)),
    Row("an obstacle that is gone", APPLY, opened(), CORRECT, memory=obstacles("x")),
    Row("the same while the engine is silent", HOLD, (fault(engine_is_silent=True),), (),
        f"dockerd would not start: {NO_CERTIFICATES}", 5.0, policy=WITH_CERTIFICATES, required=CORRECT),

    # Removing our files from a host that complies without them.
    Row("it complies without us, as of just now", WAIT, (*opened(), guarded, remove(OVERRIDE)), wake_s=0.4,
        memory=changed(0.1), required=(WRITE, RELOAD)),
    Row("it complies without us, for half a second", APPLY, (*opened(), guarded, remove(OVERRIDE)), (WRITE, RELOAD),
        memory=changed(0.5)),
    Row("it complies without us, after a dispute", WAIT, (*opened(), guarded, remove(OVERRIDE)), wake_s=9.0,
        memory=both(changed(1.0), undone(900)), required=(WRITE, RELOAD)),
    Row("it complies without us for ten seconds, after a dispute", APPLY, (*opened(), guarded, remove(OVERRIDE)),
        (WRITE, RELOAD), memory=both(changed(10.0), undone(900))),
    Row("our file of docker.socket is not needed any more", WAIT,
        (*SOCKET_OPEN, guarded, remove("/etc/systemd/system/docker.socket.d/override.conf")), wake_s=0.4,
        memory=changed(0.1), required=(WRITE, RELOAD)),
    Row("it complies without us, and one of two corrections was undone", WAIT, (*opened(), guarded, remove(OVERRIDE)),
        wake_s=9.0, memory=both(changed(1.0), undone(900, path="/etc/elsewhere")), required=(WRITE, RELOAD)),
    Row("one of our files is removed and another one written", APPLY,
        (*opened(), guarded, remove(OVERRIDE), listens("/run/docker.sock", "2375")), ("write 2 files", RELOAD),
        memory=changed(0.0)),
    Row("a port that opened just now does not wait", APPLY, opened(), CORRECT, memory=changed(0.0)),
    Row("nor does a file that is written", APPLY, (dropin(OPEN),), (WRITE, RELOAD), memory=changed(0.0)),
    Row("nor a reload alone", APPLY, (dropin(OPEN), reload, remove(OVERRIDE)), (RELOAD,), memory=changed(0.0)),
    Row("nor a removal with a restart", APPLY,
        (*opened(), remove(OVERRIDE), write(OURS, "[Service]\n")), (WRITE, RELOAD, RESTART), memory=changed(0.0)),

    # What failed.
    Row("it failed, and nothing was observed since", HOLD, opened(), (), "the last attempt failed: no luck", 290.0,
        failed(10), until_s=290.0, required=CORRECT),
    Row("it failed, and an input has changed since", APPLY, opened(), CORRECT, memory=failed(10, "other inputs")),
    Row("it failed as long ago as a resync", APPLY, opened(), CORRECT, memory=failed(300)),
    Row("it failed almost as long ago as a resync", HOLD, opened(), (), "the last attempt failed: no luck", 0.5,
        failed(299.5), until_s=0.5, required=CORRECT),

    # Disputes.
    Row("undone twice", APPLY, (*opened(), guarded, sleep(60), dropin(OPEN), remove(OURS)), (WRITE, RELOAD),
        memory=undone(20)),
    Row("undone three times", BACK_OFF, (*opened(), guarded, sleep(60), dropin(OPEN), remove(OURS)), (),
        f"contested: another program removes {OURS}", 590.0, undone(50, 20, 10), until_s=590.0,
        required=(WRITE, RELOAD)),
    Row("undone three times, by a file", BACK_OFF,
        (*opened(), guarded, sleep(60), write(OURS, "[Service]\n"), sleep(5)), (),
        f"contested: another program writes {OURS}", 595.0, undone(50, 20, 10), until_s=595.0,
        required=(WRITE, RELOAD)),
    Row("undone three times, and the wait is almost over", BACK_OFF,
        (*opened(), guarded, sleep(60), dropin(OPEN), remove(OURS), sleep(600)), (),
        f"contested: another program removes {OURS}", 1.0, undone(650, 620, 599.9), until_s=0.1,
        required=(WRITE, RELOAD)),
    Row("undone three times, and left alone since", APPLY,
        (*opened(), guarded, sleep(60), dropin(OPEN), remove(OURS), sleep(700)), (WRITE, RELOAD),
        memory=undone(650, 640, 630)),
    Row("another correction than the one that was undone", APPLY, opened(), CORRECT,
        memory=undone(50, 20, 10, after=b"something else")),

    Row("undone three times, and it complies for a moment", BACK_OFF, (remove(OVERRIDE),), (),
        f"contested: another program removes {OURS}", 10.0, undone(50, 20, 9.9), until_s=590.1),
    Row("undone three times, and it complies for ten seconds", NOTHING, (remove(OVERRIDE),), memory=undone(50, 20, 10)),

    # Corrections that were interrupted, and such that dockerd failed with.
    Row("an interrupted correction comes first", RECOVER, opened(), (START,), memory=begun(), required=CORRECT),
    Row("also where nothing is wrong", RECOVER, (), (START,), memory=begun(), required=()),
    Row("also where the policy only observes", RECOVER, (), (START,), memory=begun(), policy="mode: observe",
        required=()),
    Row("one start beyond the budget is for this", RECOVER, (), (START,), memory=both(begun(), restarted(50, 40, 10)),
        required=()),
    Row("but waits for a dockerd that is starting", WAIT, (starting,), memory=begun(), required=(), wake_s=5.0,
        hold="dockerd is starting; an interrupted correction is finished or undone afterwards"),
    Row("still after two minutes less a second", WAIT, (sleep(119), starting), memory=begun(), required=(), wake_s=5.0,
        hold="dockerd is starting; an interrupted correction is finished or undone afterwards"),
    Row("and not for longer", RECOVER, (starting_since(120),), memory=begun(), required=()),
    Row("from its first moment on", WAIT, (starting_since(0),), memory=begun(), required=(), wake_s=5.0,
        hold="dockerd is starting; an interrupted correction is finished or undone afterwards"),
    Row("nor for one that started in the future", RECOVER, (starting_since(-1),), memory=begun(), required=()),
    Row("nor for one that has no process yet", RECOVER, (activating,), (START,), memory=begun(), required=()),
    Row("not where that stops containers", RECOVER, BUSY, memory=begun()),
    Row("but under restart: always", RECOVER, BUSY, (START,), memory=begun(), policy="correct: {restart: always}",
        required=()),
    Row("not of a dockerd that runs, under restart: never", RECOVER, memory=begun(),
        policy="correct: {restart: never}"),
    Row("one only", RECOVER, memory=both(begun(), restarted(50, 40, 20, 10))),
    Row("one only in the period", RECOVER, (), (START,), memory=both(begun(), restarted(60, 40, 20, 10)), required=()),
    Row("dockerd failed with a correction", ROLL_BACK, DIED, (START,), required=()),
    Row("also under restart: never", ROLL_BACK, DIED, (START,), policy="correct: {restart: never}", required=()),
    Row("and the budget is used up", ROLL_BACK, DIED, (START,), memory=restarted(50, 40, 10), required=()),
    Row("and more than that", ROLL_BACK, DIED, memory=restarted(50, 40, 20, 10)),
    Row("also where the policy only observes now", ROLL_BACK, DIED, (START,), policy="mode: observe", required=()),
    Row("dockerd failed, and it was down before the correction", NOTHING,
        DIED,
        memory=lambda now, memory: memory._replace(intent=memory.intent and memory.intent._replace(was_active=False))),
    Row("dockerd failed, and somebody has changed our file", APPLY,
        (*DIED, write(OURS, "[Service]\n")),
        (WRITE, RELOAD, START)),
    Row("dockerd was stopped after a correction", NOTHING, (*opened(), guarded, stop)),
    Row("a correction is not verified yet", APPLY, (), (), "", 60.0, begun(is_applied=True, is_unverified=True)),
    Row("nor is one whose dockerd is stopped", NOTHING, (stop,),
        memory=begun(is_applied=True, is_unverified=True)),
    Row("a correction is verified", NOTHING, memory=begun(is_applied=True, proven_s_ago=30)),
    Row("a correction is on probation", NOTHING, (*opened(), guarded, sleep(10)), wake_s=20.0),
    Row("a correction has proven itself", NOTHING, (*opened(), guarded, sleep(30.1))),
    Row("a correction without a restart waits for the next start", NOTHING, (dropin(OPEN), guarded, sleep(100))),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_decisions(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    outcome = decided(host, read_policy(row.policy), row.memory)
    decision = outcome.assessment.decision
    hold = decision.hold.reason if decision.hold is not None else ""
    assert (decision.verdict, decision.actions.steps(), hold) == (row.verdict, row.steps, row.hold)
    assert decision.required.steps() == (row.steps if row.required is None else row.required)
    assert decision.wake_s == pytest.approx(row.wake_s) if row.wake_s is not None else decision.wake_s is None
    until = decision.hold.until if decision.hold is not None else None
    assert (until is None) == (row.until_s is None)
    if until is not None and row.until_s is not None:
        assert (until - outcome.now.wall).total_seconds() == pytest.approx(row.until_s)
    assert bool(decision.foreign) == (decision.verdict is APPLY and decision.actions.anything)
    check(decision, outcome)


@pytest.mark.parametrize(("happened", "memory", "is_undone"), [
    ((), begun(), False),
    ((), begun(was_active=False, invocation=""), False),
    # dockerd has not been started since.
    ((), begun(invocation=invocation(0)), True),
    ((stop,), begun(), True),
    # It does not comply, or it cannot be judged whether it does.
    (opened(), begun(), True),
    ((link("/etc/systemd/system/docker.service", "/dev/null"), reload), begun(), True),
    ((sleep(121), starting), begun(), True),
    # What is left is done by the next passes.
    ((dropin(OPEN),), begun(), False),
])
def test_what_is_repaired_meanwhile_is_not_undone(
    host: SimulatedHost, happened: tuple[Act, ...], memory: Remember, is_undone: bool
) -> None:
    do(host, happened)
    outcome = decided(host, read_policy(""), memory)
    decision = outcome.assessment.decision
    assert decision.verdict is RECOVER
    assert decision.intent == (outcome.memory.intent if is_undone else None)


@pytest.mark.parametrize("missing", ["loaded", "running"])
def test_what_cannot_be_observed_is_not_repaired(host: SimulatedHost, missing: str) -> None:
    outcome = decided(host, read_policy(""), begun())
    seen, policy, findings, plan, _ = outcome.assessment
    memory = begun()(outcome.now, Memory())
    seen = seen._replace(loaded=None) if missing == "loaded" else seen._replace(running=None)
    decision, _ = decide(outcome.now, seen, findings, plan, policy, memory)
    assert (decision.verdict, decision.intent) == (RECOVER, memory.intent)


def test_the_next_step_while_dockerd_starts(host: SimulatedHost) -> None:
    do(host, (starting,))
    decision = decided(host, read_policy(""), begun()).assessment.decision
    assert decision.hold is not None
    assert decision.hold.next_step == "Wait"


def test_the_same_situation_is_decided_the_same_again(host: SimulatedHost) -> None:
    do(host, (*opened(), fault(engine_is_silent=True)))
    first, second = (decided(host, read_policy(""), failed(1)) for _ in range(2))
    assert (first.assessment.decision, first.memory) == (second.assessment.decision, second.memory)


def test_what_is_shown_of_a_held_restart(host: SimulatedHost) -> None:
    """Promise, cost and hold are one value."""
    do(host, (*opened(), fault(engine_is_silent=True)))
    outcome = decided(host, read_policy(""))
    decision = outcome.assessment.decision
    assert (decision.cost, decision.complies) == (Cost.CONTAINERS, False)
    assert decision.hold == Hold(SILENT, None, "Check `systemctl status docker.service`")
    assert [exposure.address for exposure in decision.contain] == ["tcp://0.0.0.0:2375"]
    assert (decision.facts.is_active, decision.facts.next_live_restore) == (True, True)
    assert decision.facts.engine is not None
    assert outcome.memory.held == HeldCorrection(SILENT, outcome.now.wall, None, decision.hold.next_step)


@pytest.mark.parametrize(("text", "happened", "blocked", "expected"), [
    ("", opened(), (), ["tcp://0.0.0.0:2375"]),
    ("mode: observe", opened(), (), []),
    ("correct: {contain: false}", opened(), (), []),
    ("", (), ("tcp://[::]:2375",), []),
    # Contained before, and dockerd is down: its next start would open the port again.
    ("", (*opened(), stop), ("tcp://[::]:2375",), ["tcp://[::]:2375"]),
    ("", (*opened(), stop), (), []),
])
def test_what_is_contained(
    host: SimulatedHost, text: str, happened: tuple[Act, ...], blocked: tuple[str, ...], expected: list[str]
) -> None:
    do(host, happened)
    for choose in (decide, by_hand):
        decision = decided(host, read_policy(text), contained(*blocked), choose).assessment.decision
        addresses = [exposure.address for exposure in decision.contain]
        # `fix` shows what it would contain, whatever the mode.
        is_shown = choose is by_hand and text == "mode: observe"
        assert addresses == (["tcp://0.0.0.0:2375"] if is_shown else expected)


@pytest.mark.parametrize(("happened", "text", "cost", "complies"), [
    pytest.param((), "", Cost.NOTHING, True, id="it complies"),
    pytest.param(opened(), "mode: observe", Cost.RESTART, False, id="observed only, and wrong"),
    pytest.param((dropin(OPEN),), "", Cost.RELOAD, False, id="a file and a reload"),
    pytest.param((dropin(OPEN), reload, remove(OVERRIDE)), "", Cost.RELOAD, False, id="a reload alone"),
    pytest.param(opened(), "", Cost.RESTART, False, id="a restart"),
    pytest.param((*opened(), remove(OVERRIDE), reload), "", Cost.RESTART, False, id="a restart alone"),
    pytest.param((*BUSY, *opened()[:2], restart, containers(2)), "", Cost.CONTAINERS, False, id="containers"),
    pytest.param((*opened("-H fd:// --tlsverify"), sleep(120)), "", Cost.RELOAD, False, id="a start"),
    pytest.param((dropin(OPEN, LATE), reload, restart), "correct: {foreign_files: false}", Cost.NOTHING, False,
                 id="an obstacle"),
    pytest.param((dropin(OPEN, LATE), reload, restart), "mode: observe\ncorrect: {foreign_files: false}", Cost.NOTHING,
                 False, id="observed only, and an obstacle"),
])
def test_what_it_costs(
    host: SimulatedHost, happened: tuple[Act, ...], text: str, cost: Cost, complies: bool
) -> None:
    do(host, happened)
    for choose in (decide, by_hand):
        decision = decided(host, read_policy(text), choose=choose).assessment.decision
        assert (decision.cost, decision.complies) == (cost, complies), choose


def test_a_tree_of_files_costs_a_reload(host: SimulatedHost) -> None:
    """--root: nothing is loaded and nothing runs."""
    do(host, (dropin(OPEN),))
    outcome = decided(host, read_policy(""))
    seen = outcome.assessment.seen._replace(loaded=None, running=None, listening=None, engine=None)
    for choose in (decide, by_hand):
        decision, _ = choose(outcome.now, seen, (), outcome.assessment.plan, read_policy(""), Memory())
        assert (decision.cost, decision.required.steps()) == (Cost.RELOAD, (WRITE,))


def test_an_intent_says_what_is_stopped_and_what_ran(host: SimulatedHost) -> None:
    do(host, opened())
    outcome = decided(host, read_policy(""))
    intent = outcome.assessment.decision.intent
    assert intent == Intent(outcome.assessment.plan.changes, outcome.now, ("docker.service",), True, invocation(1),
                            written=(OURS,), foreign=intent.foreign if intent is not None else "")
    do(host, (remove(OVERRIDE), *SOCKET_ELSEWHERE))
    intent = decided(host, read_policy("")).assessment.decision.intent
    assert intent is not None
    assert intent.stops == ("docker.socket", "docker.service")


@pytest.mark.parametrize(("happened", "stops", "was_active", "was_starting"), [
    ((dropin(OPEN),), (), True, False),
    ((dropin(OPEN), starting), (), True, True),
    ((*opened("-H fd:// --tlsverify"), sleep(120)), (), False, False),
    ((dropin(OPEN), stop), (), False, False),
    # It has no process yet.
    ((dropin(OPEN), activating), (), False, False),
])
def test_an_intent_stops_only_what_runs(
    host: SimulatedHost, happened: tuple[Act, ...], stops: tuple[str, ...], was_active: bool, was_starting: bool
) -> None:
    do(host, happened)
    intent = decided(host, read_policy("")).assessment.decision.intent
    assert intent is not None
    assert intent.was_starting is was_starting
    assert (intent.stops, intent.was_active, intent.is_applied, intent.proven_by) == (stops, was_active, False, None)
    assert intent.invocation == host.invocation


def test_an_intent_keeps_the_content_before_the_first_correction(host: SimulatedHost) -> None:
    """A second correction during the probation of the first: what is restored is what dockerd ran with."""
    do(host, (*opened(), guarded))
    first = decided(host, read_policy("")).memory.intent
    assert first is not None
    do(host, (dropin(f"{OPEN} --debug"),))
    second = decided(host, read_policy("")).assessment.decision.intent
    assert second is not None
    assert [(change.path, change.before) for change in second.changes] == [(OURS, None)]
    assert second.changes[0].after != first.changes[0].after


def test_a_socket_unit_that_must_not_pass_anything_is_stopped(host: SimulatedHost) -> None:
    outcome = decided(host, read_policy(""))
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    assert seen.loaded is not None
    seen = seen._replace(loaded=seen.loaded._replace(socket_states={
        "docker.socket": "active", "docker-tcp.socket": "active", "docker-old.socket": "inactive"}))
    assert required_actions(seen, plan, read_policy("")).steps() == ("stop docker-tcp.socket",)
    with Rootfs(str(host.root)) as rootfs:
        decision, _ = decide(outcome.now, seen._replace(rootfs=rootfs), (), plan, read_policy(""), Memory())
    assert decision.verdict is APPLY and decision.intent is not None
    assert decision.intent.stops == ("docker-tcp.socket",)
    of_files = required_actions(seen._replace(loaded=None), plan._replace(changes=FOREIGN), read_policy(""))
    assert of_files == Actions(FOREIGN)
    assert required_actions(seen, plan._replace(obstacles=("x",)), read_policy("")) == Actions()
