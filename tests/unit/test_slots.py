"""`correct.fleet`: a restart needs a slot. What is decided, and what the agent does for each failure of the lock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from dockerd_guard.agent.fleet_slot import under
from dockerd_guard.agent.reconcile import by_hand
from dockerd_guard.fleet.lock import Fault, Host, LockError, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.decide import Verdict, forget_policy, retry_now
from dockerd_guard.plan.memory import FleetMemory, Memory, OwedSlot, Refusal
from dockerd_guard.plan.slots import granted, must_ask, not_asked, refused, retry_in_s
from dockerd_guard.policy.model import Fleet, LockKind
from dockerd_guard.policy.reader import parse_policy, read_policy
from dockerd_guard.report import plan as report
from dockerd_guard.rootfs import Rootfs
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import Crash, SimulatedHost
from tests.support.fleet_lock import ETCD, FLEETLOCK, PORT, PROCEED, lock_policy, service
from tests.support.passes import blocked, messages, run, starts_by_us
from tests.support.remembered import APPLY, BUSY, HOLD, NOTHING, RELOAD, RESTART, STOPS, WRITE
from tests.support.situations import (
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    Outcome,
    Remember,
    ago,
    containers,
    decided,
    do,
    dropin,
    guarded,
    opened,
    policy,
    reload,
    remove,
    restart,
    sleep,
)

pytestmark = pytest.mark.libraries

LOCK = Verdict.LOCK
NOW = Instant(datetime(2026, 11, 25, tzinfo=UTC), "boot", 1000.0)
SLOT = Slot("prod", "id", 0, 7, 1)
FULL = "the lock service says full"


def with_slot(now: Instant, memory: Memory) -> Memory:
    return granted(memory, SLOT)


def after(fault: Fault, seconds_ago: float = 0.0) -> Remember:
    """The memory after a request was refused, so long ago."""
    return lambda now, memory: memory._replace(fleet=memory.fleet._replace(
        refusal=Refusal(ago(now, seconds_ago), fault, "no", "Wait", 3, 4.0)))


# --- decisions ------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What happened and is remembered; and the decision: verdict, steps, what holds the restart, when to look again."""

    name: str
    verdict: Verdict
    happened: tuple[Act, ...] = ()
    steps: tuple[str, ...] = ()
    hold: str = ""
    memory: Remember | None = None
    wake_s: float | None = None


ROWS = (
    Row("it complies", NOTHING, (ETCD,)),
    Row("a restart is needed", LOCK, PORT),
    Row("with a slot", APPLY, PORT, (WRITE, RELOAD, RESTART), memory=with_slot),
    Row("no lock", APPLY, opened(), (WRITE, RELOAD, RESTART)),
    # What needs no slot.
    Row("only a reload is needed", APPLY, (ETCD, dropin(OPEN), reload), (WRITE, RELOAD)),
    Row("Docker is down", APPLY, (ETCD, *opened("-H fd:// --tlsverify"), sleep(120)),
        (WRITE, RELOAD, "start docker.service")),
    # The gate comes first: no slot is taken for a restart that is not allowed here.
    Row("the gate holds it", APPLY, (ETCD, *BUSY, *opened()[:2], restart, containers(2)), (WRITE, RELOAD), STOPS,
        wake_s=60.0),
    Row("the gate holds it, though it has a slot", APPLY, (ETCD, *BUSY, *opened()[:2], restart, containers(2)),
        (WRITE, RELOAD), STOPS, with_slot, 60.0),
    Row("the splay holds it", APPLY, (
        policy("mode: enforce\nsockets: [fd://]\ncorrect: {splay: 20min, fleet: {lock: etcd, group: prod, "
               "endpoints: ['https://lock']}}"), *opened()), (WRITE, RELOAD), "the policy spreads restarts over 20min"),
    # While it is refused.
    Row("full", APPLY, PORT, (WRITE, RELOAD), "no", after(Fault.FULL), 4.0),
    Row("full, and the files are done", HOLD, (*PORT, service(fault=Fault.FULL), guarded), (), "no",
        after(Fault.FULL, 1.0), 3.0),
    Row("full, and it is time to ask again", LOCK, PORT, memory=after(Fault.FULL, 4.0)),
    Row("stopped", APPLY, PORT, (WRITE, RELOAD), "no", after(Fault.STOPPED), 4.0),
    Row("invalid", APPLY, PORT, (WRITE, RELOAD), "no", after(Fault.INVALID), 4.0),
    Row("unreachable", APPLY, PORT, (WRITE, RELOAD), "no", after(Fault.UNREACHABLE), 4.0),
    Row("unreachable, and it proceeds", APPLY, (PROCEED, *opened()), (WRITE, RELOAD, RESTART),
        memory=after(Fault.UNREACHABLE)),
    Row("TLS fails, and it proceeds", APPLY, (PROCEED, *opened()), (WRITE, RELOAD, RESTART), memory=after(Fault.TLS)),
    Row("full, and it does not proceed", APPLY, (PROCEED, *opened()), (WRITE, RELOAD), "no", after(Fault.FULL), 4.0),
    Row("stopped, and it does not proceed", APPLY, (PROCEED, *opened()), (WRITE, RELOAD), "no", after(Fault.STOPPED),
        4.0),
    Row("invalid, and it does not proceed", APPLY, (PROCEED, *opened()), (WRITE, RELOAD), "no", after(Fault.INVALID),
        4.0),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_decided(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    check(row, decide_now(host, row.memory), is_agent=True)


@pytest.mark.parametrize("row", [row for row in ROWS if "files are done" not in row.name], ids=lambda row: row.name)
def test_what_fix_would_do(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    with Rootfs(str(host.root)) as rootfs:
        check(row, decided(host, read_policy(rootfs), row.memory, by_hand), is_agent=False)


def test_diff_names_the_group(host: SimulatedHost) -> None:
    do(host, PORT)
    with Rootfs(str(host.root)) as rootfs:
        outcome = decided(host, read_policy(rootfs), None, by_hand)
    assert report.diff_text(outcome.assessment, ()).endswith(
        "Cost: a restart of docker.service; containers keep running.\n"
        "The restart needs a slot of the group prod; see `dockerd-guard fleet`.\n")


def check(row: Row, outcome: Outcome, *, is_agent: bool) -> None:
    decision = outcome.assessment.decision
    reason = decision.hold.reason if decision.hold is not None else ""
    assert (decision.verdict, decision.actions.steps(), reason) == (row.verdict, row.steps, row.hold)
    if row.wake_s is not None and is_agent:
        assert decision.wake_s == pytest.approx(row.wake_s)
    if decision.actions.starts_dockerd:
        assert decision.slot == (SLOT if row.memory is with_slot else None)
    if row.verdict is LOCK:
        assert decision.required.steps() == (WRITE, RELOAD, RESTART)
        assert not outcome.memory.restarts


def decide_now(host: SimulatedHost, memory: Remember | None = None) -> Outcome:
    with Rootfs(str(host.root)) as rootfs:
        return decided(host, read_policy(rootfs), memory)


def test_a_refusal_is_forgotten_where_no_restart_is_needed(host: SimulatedHost) -> None:
    do(host, (ETCD, dropin(OPEN), reload))
    assert decide_now(host, after(Fault.FULL)).memory.fleet.refusal is None
    for forget in (forget_policy, retry_now, not_asked):
        assert forget(after(Fault.FULL)(NOW, Memory())).fleet.refusal is None


def test_when_a_slot_is_asked_for_again() -> None:
    """Later and later, up to a minute; hosts that were refused together do not ask together."""
    error = LockError(Fault.FULL, "full", "Wait")
    times: dict[str, list[float]] = {}
    for name in ("a", "b", "c"):
        memory = Memory()
        for _ in range(30):
            memory = refused(NOW, memory, error, name)
            times.setdefault(name, []).append(retry_in_s(NOW, memory))
    for found in times.values():
        assert all(2.0 ** number / 2 <= each <= 2.0 ** number for number, each in enumerate(found[:5], start=1))
        assert all(30.0 <= each <= 60.0 for each in found[6:])
    assert len({tuple(found) for found in times.values()}) == 3
    assert must_ask(NOW, Memory())
    assert not must_ask(NOW, memory)
    assert not must_ask(NOW, granted(Memory(), SLOT))
    assert must_ask(NOW._replace(since_boot_s=1060.0), memory)


def test_requests_that_nobody_answered_are_counted() -> None:
    memory = Memory()
    for fault in Fault:
        memory = refused(NOW, memory, LockError(fault, "x", "y"), "host")
    assert memory.fleet.unreachable == 2
    assert granted(memory, SLOT).fleet.unreachable == 2


# --- the failures ---------------------------------------------------------------------------------


class Failure(NamedTuple):
    """What happens to the lock; how often dockerd is restarted, the requests of the pass, and what is so afterwards."""

    name: str
    happened: tuple[Act, ...]
    restarts: int
    requests: list[str]
    hold: str = ""
    is_so: Callable[[SimulatedAgent], bool] = lambda agent: True


TAKEN = ["acquire", "still", "release"]

FAILURES = (
    Failure("none", PORT, 1, TAKEN),
    Failure("none, by FleetLock", (FLEETLOCK, *opened()), 1, TAKEN),
    Failure("full", (*PORT, service(fault=Fault.FULL)), 0, ["acquire"], FULL),
    Failure("stopped", (*PORT, service(stopped="web3")), 0, ["acquire"], "the lock service says stopped"),
    Failure("invalid", (*PORT, service(fault=Fault.INVALID)), 0, ["acquire"], "the lock service says invalid"),
    Failure("unreachable", (*PORT, service(is_gone=True)), 0, [], "the lock service does not answer",
            lambda agent: agent.controller.memory.fleet.unreachable == 1),
    Failure("unreachable, and it proceeds", (PROCEED, *opened(), service(is_gone=True)), 1, []),
    Failure("lost before the restart", (*PORT, service(forgets="before")), 0, ["acquire", "still", "release"],
            "the slot of the group prod was lost before the restart"),
    Failure("lost during the restart", (*PORT, service(forgets="during")), 1, TAKEN, "",
            lambda agent: "the slot of the fleet was lost during the restart" in messages(agent, "corrected")[-1]),
    Failure("rolled back well", (*PORT, lambda host: host.next_starts.append("refuses")), 2, TAKEN, "",
            lambda agent: not agent.host.lock.stopped),
    Failure("rollback that fails", (*PORT, lambda host: host.next_starts.extend(["refuses"] * 9)), 2,
            ["acquire", "still", "stop", "release"], "", lambda agent: "RestartUnit" in agent.host.lock.stopped),
    Failure("rollback that fails, by FleetLock",
            (FLEETLOCK, *opened(), lambda host: host.next_starts.extend(["refuses"] * 9)), 2,
            ["acquire", "still", "stop"], "", lambda agent: agent.controller.memory.fleet.is_kept),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_one_pass(host: SimulatedHost, failure: Failure) -> None:
    do(host, failure.happened)
    agent = guarded(host)
    assert (starts_by_us(host), host.lock.requests) == (failure.restarts, failure.requests)
    held = agent.controller.memory.held
    assert (held.reason if held is not None else "") == failure.hold
    assert failure.is_so(agent)
    if failure.hold:
        # The files do not wait.
        assert host.text("/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf") is not None
        assert blocked(agent) == ["tcp://0.0.0.0:2375"]
    assert agent.controller.memory.fleet.slot is None or agent.controller.memory.fleet.is_kept
    assert host.lock.slot is None or agent.controller.memory.fleet.is_kept


@pytest.mark.parametrize("end", [service(fault=None), service(is_gone=False), service(stopped="")])
def test_it_goes_on_when_the_lock_allows_it(host: SimulatedHost, end: Act) -> None:
    do(host, (*PORT, service(fault=Fault.FULL, is_gone=True, stopped="web3")))
    agent = guarded(host)
    run(agent, 300)
    assert not starts_by_us(host)
    assert len(messages(agent, "held")) == 1
    do(host, (service(fault=None, is_gone=False, stopped=""), end))
    run(agent, 61)
    assert starts_by_us(host) == 1
    assert not blocked(agent)


def test_the_host_is_observed_again_with_the_slot(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time has passed: containers that would be stopped run by now, and no restart is made."""
    do(host, (ETCD, *BUSY, lambda host: host.containers.clear(), *opened()))
    agent = SimulatedAgent(host, RecordedJournal())
    acquire = agent.ports.lock.acquire

    def later(fleet: Fleet, asking: Host) -> Slot:
        host.containers.update((1, 2))
        return acquire(fleet, asking)
    monkeypatch.setattr(agent.ports.lock, "acquire", later)
    agent.run_pass()
    assert not starts_by_us(host)
    assert host.lock.requests == ["acquire", "release"]
    assert agent.controller.memory.held is not None
    assert agent.controller.memory.held.reason == STOPS


def test_a_lost_slot_is_asked_for_again_at_once(host: SimulatedHost) -> None:
    do(host, (*PORT, service(forgets="before")))
    agent = guarded(host)
    assert agent.controller.wake_s == 1.0
    host.clock.sleep(1.0)
    agent.run_pass()
    assert starts_by_us(host) == 1


@pytest.mark.parametrize("lock", [ETCD, FLEETLOCK])
@pytest.mark.parametrize("crash_in", range(1, 40, 2))
def test_an_agent_that_is_killed_keeps_no_slot(host: SimulatedHost, lock: Act, crash_in: int) -> None:
    """Wherever it is killed, the next one goes on with the slot, or gives it back."""
    do(host, (lock, *opened()))
    agent = guarded_until_crash(host, crash_in)
    run(agent, 200)
    assert host.lock.slot is None
    assert starts_by_us(host) >= 1
    assert all(host.lock.had_slot(start.at) for start in host.starts if start.by == "us")


def guarded_until_crash(host: SimulatedHost, crash_in: int) -> SimulatedAgent:
    first = SimulatedAgent(host, RecordedJournal())
    host.crash_in = crash_in
    try:
        first.run_pass()
    except Crash:
        host.crash_in = None
    host.crash_in = None
    return SimulatedAgent(host, first.journal)


def gone_after_still(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> SimulatedAgent:
    """An agent whose lock service goes away just before the restart."""
    agent = SimulatedAgent(host, RecordedJournal())
    still = agent.ports.lock.still

    def then_gone(fleet: Fleet, slot: Slot) -> bool:
        is_ours = still(fleet, slot)
        host.lock.is_gone = True
        return is_ours
    monkeypatch.setattr(agent.ports.lock, "still", then_gone)
    agent.run_pass()
    return agent


@pytest.mark.parametrize(("lock", "is_known"), [(FLEETLOCK, True), (ETCD, False)])
def test_a_slot_that_cannot_be_given_back(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, lock: Act, is_known: bool) -> None:
    """FleetLock forgets no host by itself: it is asked again. In etcd the lease ends."""
    do(host, (lock, *opened()))
    agent = gone_after_still(host, monkeypatch)
    assert starts_by_us(host) == 1
    assert (agent.controller.memory.fleet.slot is not None) is is_known
    host.lock.is_gone = False
    run(agent, 31)
    assert agent.controller.memory.fleet.slot is None
    assert (host.lock.slot is None) is is_known


@pytest.mark.parametrize(("lock", "is_released"), [(FLEETLOCK, True), (ETCD, False)])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_slot_whose_answer_was_lost(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, lock: Act, is_released: bool, is_killed: bool) -> None:
    """FleetLock has granted it, and the restart is not needed any more. In etcd the lease ends."""
    do(host, (lock, *opened()))
    agent = SimulatedAgent(host, RecordedJournal())
    acquire = agent.ports.lock.acquire

    def lost(fleet: Fleet, asking: Host) -> Slot:
        acquire(fleet, asking)
        raise Crash if is_killed else LockError(Fault.UNREACHABLE, "no answer", "Wait")
    monkeypatch.setattr(agent.ports.lock, "acquire", lost)
    with contextlib.suppress(Crash):
        agent.run_pass()
    assert host.lock.slot is not None
    assert not starts_by_us(host)
    do(host, (remove(OVERRIDE), remove(OURS), reload, restart))
    agent = SimulatedAgent(host, agent.journal)
    run(agent, 61)
    assert not starts_by_us(host)
    assert (host.lock.slot is None) is is_released
    assert agent.controller.memory.fleet.unsure is None


NO_LOCK = policy("mode: enforce\nsockets: [fd://]")
OTHERS = {"none": NO_LOCK, "etcd": ETCD, "another group": lock_policy(lock="fleetlock", group="other")}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("is_answered", [True, False])
def test_a_slot_of_fleetlock_is_given_back_under_another_policy(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, other: Act, is_answered: bool) -> None:
    """Also one that may have been granted (its answer was lost), and by the settings of the former policy."""
    do(host, (FLEETLOCK, *opened()))
    agent = SimulatedAgent(host, RecordedJournal())
    if not is_answered:
        acquire = agent.ports.lock.acquire

        def lost(fleet: Fleet, asking: Host) -> Slot:
            acquire(fleet, asking)
            raise LockError(Fault.UNREACHABLE, "no answer", "Wait")
        monkeypatch.setattr(agent.ports.lock, "acquire", lost)
        agent.run_pass()
        host.lock.is_gone = True
    else:
        agent = gone_after_still(host, monkeypatch)
    assert host.lock.slot is not None
    do(host, (remove(OVERRIDE), reload, restart, other))
    agent = SimulatedAgent(host, agent.journal)
    released: list[tuple[Fleet, Slot]] = []
    release = agent.ports.lock.release

    def recorded(fleet: Fleet, slot: Slot) -> bool:
        released.append((fleet, slot))
        return release(fleet, slot)
    monkeypatch.setattr(agent.ports.lock, "release", recorded)
    agent.run_pass()
    assert host.lock.slot is not None
    assert len(agent.controller.memory.fleet.owed) == 1
    host.lock.is_gone = False
    run(agent, 100)
    assert host.lock.slot is None
    assert {(fleet.lock, fleet.group) for fleet, _ in released} == {(LockKind.FLEETLOCK, "prod")}
    assert agent.controller.memory.fleet.owed == ()


@pytest.mark.parametrize("lock", LockKind)
def test_what_etcd_has_of_a_host_ends_with_its_lease(lock: LockKind) -> None:
    """Nothing is owed to it, under another policy."""
    asked = Fleet(lock, ("https://lock",), "prod")
    before = Memory(fleet=FleetMemory(SLOT, asked=asked, unreachable=2))
    owed = (OwedSlot(asked, SLOT),) if lock is LockKind.FLEETLOCK else ()
    assert under(parse_policy(b"version: 1\nsockets: [fd://]"), before).fleet == FleetMemory(unreachable=2, owed=owed)


def test_a_slot_is_not_owed_any_more_when_its_service_is_named_again(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be given back while this host restarts with it."""
    do(host, (FLEETLOCK, *opened()))
    agent = gone_after_still(host, monkeypatch)
    do(host, (NO_LOCK,))
    agent = SimulatedAgent(host, agent.journal)
    agent.run_pass()
    assert agent.controller.memory.fleet.owed
    do(host, (FLEETLOCK, service(is_gone=False)))
    agent.run_pass()
    assert host.lock.slot is None
    assert agent.controller.memory.fleet.owed == ()


def test_a_service_that_does_not_exist_any_more_is_given_up(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    do(host, (FLEETLOCK, *opened()))
    agent = gone_after_still(host, monkeypatch)
    do(host, (NO_LOCK,))
    agent = SimulatedAgent(host, agent.journal)
    run(agent, 3600)
    tries = agent.controller.memory.fleet.owed[0].tries
    assert 4 <= tries <= 8
    run(agent, 30 * 3600)
    assert agent.controller.memory.fleet.owed == ()


@pytest.mark.parametrize("lock", [FLEETLOCK, ETCD])
def test_a_slot_is_given_back_once(host: SimulatedHost, lock: Act) -> None:
    """Another program of this host may take the next one: zincati, for a reboot."""
    do(host, (lock, *opened()))
    agent = guarded(host)
    assert starts_by_us(host)
    requests = list(host.lock.requests)
    run(agent, 700)
    assert host.lock.requests == requests
    assert requests.count("release") == 1


def test_a_full_service_has_given_nothing(host: SimulatedHost) -> None:
    do(host, (FLEETLOCK, *opened(), service(fault=Fault.FULL)))
    assert guarded(host).controller.memory.fleet.unsure is None
    assert host.lock.requests == ["acquire"]


def test_a_stop_that_could_not_be_told_is_told_later(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    do(host, (*PORT, lambda host: host.next_starts.extend(["refuses"] * 99)))
    agent = gone_after_still(host, monkeypatch)
    assert agent.controller.memory.fleet.to_stop
    assert not host.lock.stopped
    host.lock.is_gone = False
    run(agent, 60)
    assert host.lock.stopped
    assert not agent.controller.memory.fleet.to_stop


def test_another_policy_without_a_lock(host: SimulatedHost) -> None:
    do(host, (*PORT, service(fault=Fault.FULL), guarded, policy("mode: enforce\nsockets: [fd://]")))
    agent = guarded(host)
    assert starts_by_us(host) == 1
    assert agent.controller.memory.fleet.refusal is None


def test_fix_asks_at_once(host: SimulatedHost) -> None:
    do(host, (*PORT, service(fault=Fault.FULL)))
    agent = guarded(host)
    do(host, (service(fault=None),))
    agent.fix()
    assert starts_by_us(host) == 1
    assert host.lock.slot is None
