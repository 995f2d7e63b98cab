"""The decisions: one row each. A situation of a host, what is remembered and the policy; and what is decided.

No machine: the observations are made of the simulated host (tests/simulation).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from dockerd_guard.agent.reconcile import by_hand
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE
from dockerd_guard.plan.actions import Actions, required_actions
from dockerd_guard.plan.decide import (
    Decision,
    Result,
    Verdict,
    decide,
    foreign_inputs,
    forget_policy,
    inputs,
    obstructed,
    record,
    retry_now,
    started_at,
)
from dockerd_guard.plan.gate import Cost, Hold, RestartFacts
from dockerd_guard.plan.memory import Attempt, Contained, CorrectedFile, HeldCorrection, Intent, Memory, digest
from dockerd_guard.plan.plan import Change
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from tests.simulation.host import SimulatedHost
from tests.support.situations import (
    DAEMON_JSON,
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    Outcome,
    Remember,
    ago,
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
    restart_socket,
    seen_on,
    sleep,
    stop,
    write,
)

WRITE, RELOAD = "write 1 file", "reload systemd"
RESTART, START = "restart docker.service", "start docker.service"
CORRECT = (WRITE, RELOAD, RESTART)

SOCKET_OPEN = (listens("/run/docker.sock", "2375"), reload, restart_socket)
WITH_CERTIFICATES = "sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}]\n"
NO_CERTIFICATES = "; ".join(
    f"{flag} /etc/docker/{name}.pem is missing: dockerd will not start with TLS"
    for flag, name in (("tlscacert", "ca"), ("tlscert", "server-cert"), ("tlskey", "server-key")))
NO_START = f"dockerd would not start: {NO_CERTIFICATES}"
FIX_THIS = "Fix this; the agent retries automatically"

FAILED = (daemon_json("{}"), *opened("-H fd:// --tlsverify"), sleep(120))
"""Docker is down because of its TLS flags, and live-restore is off."""


def vanish(host: SimulatedHost) -> None:
    """The containers end."""
    host.containers.clear()


BUSY = (daemon_json("{}"), restart, containers(2))
"""Containers run without live-restore."""
DIED = (*opened(), guarded, fault(dies_after_s=1.0), restart, sleep(120))
"""dockerd fails soon after each start with what a correction wrote."""
STOPS = "live-restore is off: 2 running containers would be stopped"
SILENT = "dockerd does not answer; cannot check whether containers would be stopped"
OBSTACLE = f"tcp://0.0.0.0:2375 would still listen ({LATE}:3:40)"


# --- what is remembered ---------------------------------------------------------------------------


def restarted(*minutes_ago: float) -> Remember:
    return lambda now, memory: memory._replace(restarts=tuple(ago(now, 60 * minutes) for minutes in minutes_ago))


def failed(seconds_ago: float, given: str | None = None) -> Remember:
    """A correction that failed, and the inputs it was made on, None before the first observation after it."""
    return lambda now, memory: memory._replace(attempt=Attempt(ago(now, seconds_ago), "no luck", 300.0, given))


def changed(seconds_ago: float) -> Remember:
    """When a trigger last showed a change."""
    return lambda now, memory: memory._replace(changed_at=ago(now, seconds_ago))


def undone(*seconds_ago: float, path: str = OURS, after: bytes | None = None) -> Remember:
    """A correction that was undone: of the file on the disk now, or one that left this content."""
    def remember(now: Instant, memory: Memory) -> Memory:
        known = memory.corrected.get(path)
        left = known.digest if known is not None and after is None else digest(after)
        file = CorrectedFile(path, left, ago(now, 3600), tuple(ago(now, seconds) for seconds in seconds_ago), True)
        return memory._replace(corrected={**memory.corrected, path: file})
    return remember


def obstacles(*known: str) -> Remember:
    return lambda now, memory: memory._replace(obstacles=known)


def contained(*addresses: str) -> Remember:
    return lambda now, memory: memory._replace(contained=Contained(("nftables",), addresses))


def begun(*, is_applied: bool = False, was_active: bool = True, invocation: str = "earlier",
          proven_s_ago: float | None = None, changes: tuple[Change, ...] = (Change(OURS, None, b"x"),)) -> Remember:
    """A correction that was begun a minute ago."""
    return lambda now, memory: memory._replace(intent=Intent(
        changes, ago(now, 60), (), was_active, invocation, is_applied,
        None if proven_s_ago is None else ago(now, proven_s_ago)))


def both(*parts: Remember) -> Remember:
    def remember(now: Instant, memory: Memory) -> Memory:
        for part in parts:
            memory = part(now, memory)
        return memory
    return remember


# --- the table ------------------------------------------------------------------------------------


def starting(host: SimulatedHost) -> None:
    """dockerd runs and has not reported READY=1 yet."""
    host.active[SERVICE] = "activating"


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


NOTHING, WAIT, RECOVER = Verdict.NOTHING, Verdict.WAIT, Verdict.RECOVER
ROLL_BACK, HOLD, BACK_OFF, APPLY = Verdict.ROLL_BACK, Verdict.HOLD, Verdict.BACK_OFF, Verdict.APPLY

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
    Row("through docker.socket", APPLY, SOCKET_OPEN, (WRITE, RELOAD, "restart docker.socket", RESTART)),
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
        ("restart docker.socket", RESTART)),
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

    # Corrections that were interrupted, and such that dockerd failed with.
    Row("an interrupted correction comes first", RECOVER, opened(), (START,), memory=begun(), required=CORRECT),
    Row("also where nothing is wrong", RECOVER, (), (START,), memory=begun(), required=()),
    Row("also where the policy only observes", RECOVER, (), (START,), memory=begun(), policy="mode: observe",
        required=()),
    Row("one start beyond the budget is for this", RECOVER, (), (START,), memory=both(begun(), restarted(50, 40, 10)),
        required=()),
    Row("but waits for a dockerd that is starting", WAIT, (starting,), memory=begun(), required=(), wake_s=5.0,
        hold="dockerd is starting; an interrupted correction is finished or undone afterwards"),
    Row("and not for long", RECOVER, (sleep(121), starting), memory=begun(), required=()),
    Row("one only", RECOVER, memory=both(begun(), restarted(50, 40, 20, 10))),
    Row("one only in the period", RECOVER, (), (START,), memory=both(begun(), restarted(60, 40, 20, 10)), required=()),
    Row("dockerd failed with a correction", ROLL_BACK, DIED, (START,), required=()),
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
    check(decision, outcome)


def test_the_same_situation_is_decided_the_same_again(host: SimulatedHost) -> None:
    do(host, (*opened(), fault(engine_is_silent=True)))
    first, second = (decided(host, read_policy(""), failed(1)) for _ in range(2))
    assert (first.assessment.decision, first.memory) == (second.assessment.decision, second.memory)


def check(decision: Decision, outcome: Outcome) -> None:
    """What is true of every decision."""
    is_undoing = decision.verdict in (RECOVER, ROLL_BACK)
    assert is_undoing or (decision.verdict is APPLY) == decision.actions.anything
    assert is_undoing or set(decision.actions.steps()) <= set(decision.required.steps())
    assert (decision.verdict is BACK_OFF) == (decision.contested is not None)
    if decision.verdict is APPLY:
        assert decision.intent is not None
        assert not decision.intent.is_applied
        paths = {change.path for change in decision.intent.changes}
        assert {change.path for change in decision.actions.changes} <= paths
    if decision.actions.starts_dockerd and not is_undoing:
        assert outcome.memory.restarts[-1] == outcome.now


# --- what else a decision holds -------------------------------------------------------------------


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
    assert intent == Intent(outcome.assessment.plan.changes, outcome.now, ("docker.service",), True, "invocation-1")
    do(host, (remove(OVERRIDE), *SOCKET_OPEN))
    intent = decided(host, read_policy("")).assessment.decision.intent
    assert intent is not None
    assert intent.stops == ("docker.socket", "docker.service")


@pytest.mark.parametrize(("happened", "stops", "was_active"), [
    ((dropin(OPEN),), (), True),
    ((*opened("-H fd:// --tlsverify"), sleep(120)), (), False),
    ((dropin(OPEN), stop), (), False),
])
def test_an_intent_stops_only_what_runs(
    host: SimulatedHost, happened: tuple[Act, ...], stops: tuple[str, ...], was_active: bool
) -> None:
    do(host, happened)
    intent = decided(host, read_policy("")).assessment.decision.intent
    assert intent is not None
    assert (intent.stops, intent.was_active, intent.is_applied, intent.proven_by) == (stops, was_active, False, None)
    assert intent.invocation == ("invocation-0" if was_active else "")


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
    decision, _ = decide(outcome.now, seen, (), plan, read_policy(""), Memory())
    assert decision.verdict is APPLY
    assert decision.intent is not None
    assert decision.intent.stops == ("docker-tcp.socket",)
    of_files = required_actions(seen._replace(loaded=None), plan._replace(changes=FOREIGN), read_policy(""))
    assert of_files == Actions(FOREIGN)
    assert required_actions(seen, plan._replace(obstacles=("x",)), read_policy("")) == Actions()


# --- forecast: fix and diff -----------------------------------------------------------------------


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
    assert (decision.intent is not None) == (decision.verdict is APPLY)
    check(decision, outcome)


# --- the memory after a decision ------------------------------------------------------------------

HELD: Remember = lambda now, memory: memory._replace(held=HeldCorrection("x", ago(now, 60).wall, None, "y"))  # noqa: E731


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

FOREIGN = (Change("/etc/elsewhere", None, b"x"),)
"""A change that is not on the disk, so that nothing is rolled back."""


class Probation(NamedTuple):
    """An intent, and what becomes of it: `kept` as it was, `gone`, `proven` from now on, or `unproven`."""

    name: str
    intent: Remember
    expected: str
    happened: tuple[Act, ...] = ()


PROBATIONS = (
    Probation("dockerd has not been started since", begun(is_applied=True, invocation="invocation-0", changes=FOREIGN),
              "kept"),
    Probation("dockerd was started since", begun(is_applied=True, changes=FOREIGN), "proven"),
    Probation("it has run for a while", begun(is_applied=True, changes=FOREIGN, proven_s_ago=29.5), "kept"),
    Probation("it has run long enough", begun(is_applied=True, changes=FOREIGN, proven_s_ago=30), "gone"),
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


# --- inputs ---------------------------------------------------------------------------------------


def digest_of(host: SimulatedHost, text: str) -> str:
    outcome = decided(host, read_policy(text))
    with Rootfs(str(host.root)) as rootfs:
        return inputs(seen_on(host, rootfs), outcome.assessment.plan, outcome.assessment.policy)


LOOPBACK = "sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}]"

CHANGED_INPUTS = (
    ("a drop-in", opened(), "", (dropin(f"{OPEN} --debug"),)),
    ("a drop-in of the same size", opened(), "", (sleep(1), dropin(OPEN))),
    ("a late drop-in", opened(), "", (dropin(OPEN, LATE),)),
    ("the unit", opened(), "", (sleep(1), lambda host: host.touch("/usr/lib/systemd/system/docker.service"))),
    ("docker.socket", opened(), "", (sleep(1), lambda host: host.touch("/usr/lib/systemd/system/docker.socket"))),
    ("an environment file that was missing", opened(), "", (write("/etc/default/docker", ""),)),
    ("daemon.json", opened(), "", (sleep(1), daemon_json('{"live-restore": true}'))),
    ("a certificate that was missing", opened(), LOOPBACK, (write("/etc/docker/server-cert.pem", "x"),)),
    ("a key", opened(), LOOPBACK, (write("/etc/docker/server-key.pem", "x"),)),
    ("a CA", opened(), LOOPBACK, (write("/etc/docker/ca.pem", "x"),)),
    ("where a link leads", (*opened(), write("/srv/daemon.json", "{}"), link(DAEMON_JSON, "/srv/daemon.json")), "", (
        sleep(1), write("/srv/daemon.json", "{}"))),
    ("the disk", opened(), "", (fault(disk_errno=28),)),
    ("the manager's environment", opened(), "", (environment(DOCKER_OPTS="--debug"),)),
    ("the unit's state", opened(), "", (stop,)),
    ("the socket unit's state", opened(), "", (lambda host: host.active.update({"docker.socket": "failed"}),)),
    ("what would be written", opened(), "", (dropin(f"{OPEN}  --debug "), sleep(0))),
)


@pytest.mark.parametrize(("name", "happened", "text", "then"), CHANGED_INPUTS, ids=lambda value: value if isinstance(
    value, str) else "")
def test_a_failure_is_retried_when_an_input_changes(
    host: SimulatedHost, name: str, happened: tuple[Act, ...], text: str, then: tuple[Act, ...]
) -> None:
    """I9."""
    do(host, happened)
    before = digest_of(host, text)
    assert digest_of(host, text) == before
    host.clock.sleep(60)
    assert digest_of(host, text) == before
    do(host, then)
    assert digest_of(host, text) != before


def test_the_policy_is_an_input(host: SimulatedHost) -> None:
    do(host, opened())
    assert digest_of(host, "") != digest_of(host, "correct: {budget: 4/1h}")


def linked_daemon_json(host: SimulatedHost) -> None:
    do(host, (*opened(), write("/srv/daemon.json", "{}"), link(DAEMON_JSON, "/srv/daemon.json")))


@pytest.mark.parametrize(("written", "then", "is_foreign"), [
    ((), sleep(0), False),
    ((OURS,), dropin(OPEN, OURS), False),
    (("/srv/daemon.json",), write("/srv/daemon.json", "{ }"), False),
    ((OURS,), write("/srv/daemon.json", "{ }"), True),
    ((OURS,), dropin(f"{OPEN} --debug"), True),
    ((OURS,), environment(DOCKER_OPTS="--debug"), True),
    ((OURS,), stop, False),
    ((OURS,), fault(disk_errno=28), False),
])
def test_own_writes_are_not_foreign_inputs(
    host: SimulatedHost, written: tuple[str, ...], then: Act, is_foreign: bool
) -> None:
    def digest_now() -> str:
        outcome = decided(host, read_policy(""))
        with Rootfs(str(host.root)) as rootfs:
            return foreign_inputs(seen_on(host, rootfs), outcome.assessment.plan, read_policy(""), written)

    linked_daemon_json(host)
    before = digest_now()
    do(host, (sleep(1), then))
    assert (digest_now() != before) is is_foreign


@pytest.mark.parametrize(("foreign", "verdict"), [(None, HOLD), ("", HOLD), ("other", APPLY)])
def test_what_was_repaired_before_the_first_look_at_the_host_is_noticed(
    host: SimulatedHost, foreign: str | None, verdict: Verdict
) -> None:
    """I9."""
    do(host, opened())
    outcome = decided(host, read_policy(""))
    decision = outcome.assessment.decision
    written = tuple(each.path for each in decision.actions.changes)
    attempt = Attempt(host.clock.now(), "no luck", 300.0, None, True,
                      decision.foreign if foreign is None else foreign, written)
    again = decided(host, read_policy(""), lambda _, memory: memory._replace(attempt=attempt)).assessment.decision
    assert again.verdict is verdict


def test_inputs_are_known_without_systemd(host: SimulatedHost) -> None:
    do(host, opened())
    outcome = decided(host, read_policy(""))
    with Rootfs(str(host.root)) as rootfs:
        seen = seen_on(host, rootfs)._replace(loaded=None)
        assert inputs(seen, outcome.assessment.plan, read_policy("")) != digest_of(host, "")


# --- record ---------------------------------------------------------------------------------------

NOW = Instant(datetime(2026, 11, 25, 12, tzinfo=UTC), "boot", 5000.0)
FIVE_MIN = read_policy("")
TEN_SECONDS = read_policy("watch: {resync: 10s}")
PLAIN = Decision(APPLY)
STARTS = PLAIN._replace(actions=Actions(restart=True), required=Actions(restart=True))
REMEMBERED = Memory(restarts=(ago(NOW, 60), ago(NOW, 1)), attempt=Attempt(ago(NOW, 60), "old", 300.0, "inputs"),
                    held=HeldCorrection("old", NOW.wall, None))
CHANGE = Change(OURS, None, b"new")


class Recorded(NamedTuple):
    """A result, and what the memory is afterwards: what differs from REMEMBERED."""

    name: str
    decision: Decision
    result: Result
    expected: dict[str, object]
    policy: Policy = FIVE_MIN


RECORDED = (
    Recorded("it complies", PLAIN, Result(True), {"attempt": None, "held": None}),
    Recorded("done with a restart: the count made before is replaced by what happened", STARTS,
             Result(True, starts=(NOW,)), {"attempt": None, "held": None, "restarts": (ago(NOW, 60), NOW)}),
    Recorded("decided to restart, and never came to it", STARTS, Result(False, error="full", unwritable=True),
             {"restarts": (ago(NOW, 60),), "attempt": Attempt(NOW, "full", 60.0)}),
    Recorded("rolled back: two starts", STARTS,
             Result(False, error="no", was_rolled_back=True, starts=(ago(NOW, 2), NOW)),
             {"restarts": (ago(NOW, 60), ago(NOW, 2), NOW), "attempt": Attempt(NOW, "no", 300.0, None, True)}),
    Recorded("it failed", PLAIN, Result(False, error="no"), {"attempt": Attempt(NOW, "no", 300.0)}),
    Recorded("it failed, under a shorter resync", PLAIN, Result(False, error="no"),
             {"attempt": Attempt(NOW, "no", 10.0)}, TEN_SECONDS),
    Recorded("it could not be written, under a shorter resync", PLAIN, Result(False, error="full", unwritable=True),
             {"attempt": Attempt(NOW, "full", 10.0)}, TEN_SECONDS),
    Recorded("something else changed a file meanwhile: no failure of ours", PLAIN,
             Result(False, error="changed", interference=OURS), {}),
    Recorded("something else undid the change meanwhile", PLAIN._replace(actions=Actions((CHANGE,))),
             Result(False, error="changed", interference=OURS),
             {"corrected": {OURS: CorrectedFile(OURS, digest(b"new"), NOW)}}),
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
    assert record(NOW, row.decision, row.result, row.policy, REMEMBERED)._asdict() == {
        **REMEMBERED._asdict(), **row.expected}


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


def test_the_invocation_of_dockerd(host: SimulatedHost) -> None:
    with Rootfs(str(host.root)) as rootfs:
        assert started_at(seen_on(host, rootfs)) == "invocation-0"
    host.stop("admin")
    with Rootfs(str(host.root)) as rootfs:
        assert started_at(seen_on(host, rootfs)) == ""


def test_what_a_decision_and_a_result_are_unless_they_say_otherwise() -> None:
    assert Decision(NOTHING) == (NOTHING, Actions(), Actions(), Cost.NOTHING, None, None, (),
                                 RestartFacts(is_active=False), None, None, "")
    assert Result(True) == (True, (), None, "", False, "", False, (), (), True, None)
    assert [str(verdict) for verdict in Verdict] == [
        "nothing", "wait", "recover", "roll back", "hold", "back off", "apply"]
