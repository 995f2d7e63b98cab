"""The agent's passes on a simulated host: what is logged, counted and published."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from dockerd_guard.agent.controller import (
    LOOK_AGAIN_S,
    LOOK_AT_DOCKERD_S,
    LOOK_AT_OTHERS_S,
    LOOK_AT_START_S,
    LOOK_WITHOUT_SYSTEMD_S,
    RETRY_AFTER_ERROR_S,
    RETRY_S,
)
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.observe.observation import AccessKind, AccessPath, Observation, Process
from dockerd_guard.plan.decide import MAX_QUIETS, QUIET_S, Verdict
from dockerd_guard.plan.memory import ManualFix
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.systemd.manager import Unavailable
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager, SimulatedNetwork
from tests.support.passes import ENFORCE, events, messages, run, starts_by_us
from tests.support.remembered import starting
from tests.support.situations import (
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    do,
    dropin,
    fault,
    opened,
    policy,
    reload,
    remove,
    restart,
    sleep,
    stop,
)


def test_a_drift_its_correction_and_its_end(agent: SimulatedAgent) -> None:
    agent.run_pass()
    assert events(agent) == []
    do(agent.host, opened())
    agent.run_pass()
    assert events(agent) == ["drift", "contained", "corrected"]
    assert agent.run_pass() is not None
    assert events(agent) == []
    assert agent.controller.exposed == 0


def test_exposure_ends_when_it_is_blocked_not_when_it_is_corrected(agent: SimulatedAgent) -> None:
    """I10: the correction takes as long as dockerd needs to restart."""
    at: list[tuple[int, float]] = []
    agent.controller._counted = lambda exposed, started_at: at.append((exposed, agent.host.clock.seconds))
    do(agent.host, opened())
    begun = agent.host.clock.seconds
    agent.run_pass()
    assert [exposed for exposed, _ in at] == [1, 0, 0]
    assert [seconds - begun < 0.1 for _, seconds in at] == [True, True, False]


def test_what_is_open_and_not_blocked_is_counted_as_exposed(agent: SimulatedAgent) -> None:
    do(agent.host, (policy(f"{ENFORCE}correct: {{contain: false}}\n"), *opened(), fault(engine_is_silent=True)))
    agent.run_pass()
    assert agent.controller.exposed == 1


def test_a_hold_is_logged_once_and_its_end_too(agent: SimulatedAgent) -> None:
    do(agent.host, (*opened(), fault(engine_is_silent=True)))
    assert agent.run_pass() == 5.0
    assert events(agent) == ["drift", "contained", "held"]
    assert agent.controller.exposed == 0, "an address is exposed or contained, never both (docs/metrics.md)"
    since = agent.controller.memory.held
    for _ in range(3):
        agent.host.clock.sleep(5)
        agent.run_pass()
    assert set(events(agent)) <= {"drift"}
    assert agent.controller.memory.held == since
    do(agent.host, (sleep(60), remove(OVERRIDE), restart))
    agent.host.clock.sleep(60)
    agent.run_pass()
    agent.host.clock.sleep(60)
    agent.run_pass()
    assert agent.controller.memory.held is None
    found = events(agent)
    assert "released" in found
    assert "corrected" in found


def test_what_a_held_correction_has_ended_is_logged(agent: SimulatedAgent) -> None:
    """I10: `history` showed the drift as held for ever. Docker is down, so its files were all that differed."""
    do(agent.host, (policy(f"{ENFORCE}correct: {{budget: 1/1h}}\n"), dropin(f"{OPEN} --bridge=nope0"), reload, restart))
    agent.run_pass()
    do(agent.host, (dropin(OPEN), reload))
    agent.run_pass()
    assert agent.controller.memory.held is not None and agent.host.text(OURS) is not None
    last = agent.journal.entries[-2:]
    assert [(str(entry.event), str(entry.outcome)) for entry in last] == [("held", "held"), ("corrected", "pending")]
    assert last[1].message == "Corrected so far: DG101 tcp://*:2375."
    assert last[1].episodes == ("DG101 tcp://*:2375",)


def test_another_obstacle_is_no_correction(agent: SimulatedAgent) -> None:
    """The pass that waits for it to settle."""
    do(agent.host, (policy(f"{ENFORCE}correct: {{foreign_files: false}}\n"), dropin(OPEN, LATE), reload, restart))
    agent.run_pass()
    agent.run_pass()
    assert "held" in events(agent)
    do(agent.host, (dropin(f"{OPEN} -H tcp://0.0.0.0:2376", LATE),))
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.WAIT
    assert "corrected" not in events(agent)


RELAY = AccessPath(AccessKind.FORWARDER, "tcp://0.0.0.0:5000", "it is connected to the API socket", 7, "relay",
                   serves_api=True)


def test_an_access_path_is_looked_for_last_and_blocked_by_the_next_pass(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.run_pass() is None
    found: list[AccessPath] = [RELAY]
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: tuple(found))
    assert agent.run_pass() == 0.0
    assert not agent.host.blocked
    agent.run_pass()
    assert [each.address for each in agent.host.blocked] == [RELAY.address]
    agent.host.clock.sleep(1)
    agent.run_pass()
    assert events(agent) == ["contained", "drift"]
    found.clear()
    agent.run_pass()
    agent.run_pass()
    assert not agent.host.blocked
    assert events(agent) == ["corrected", "released"]


def test_an_access_path_that_is_not_blocked_is_exposed_all_the_time(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    do(agent.host, (policy(f"{ENFORCE}correct: {{contain: false}}\n"),))
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: (RELAY,))
    agent.run_pass()
    counted: list[int] = []
    agent.controller._counted = lambda exposed, started_at: counted.append(exposed)
    agent.run_pass()
    assert counted
    assert set(counted) == {1}


def test_nothing_is_counted_as_closed_before_access_paths_are_looked_for(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that starts goes on with an exposure of the previous one only at its first count."""
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"),))
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: (RELAY,))
    counted: list[int] = []
    agent.controller._counted = lambda exposed, started_at: counted.append(exposed)
    do(agent.host, (lambda host: host.active.update({SERVICE: "activating"}),))
    agent.run_pass()
    assert counted == []
    do(agent.host, (lambda host: host.active.update({SERVICE: "active"}),))
    agent.run_pass()
    assert set(counted) == {1}


def test_a_dockerd_that_starts_is_looked_at_until_it_listens_on_tcp(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd announces the end of the start. dockerd has listened before, and answers no request until then."""
    asked: list[str] = []

    def access_paths(kernel: SimulatedKernel, seen: Observation, *_: object) -> tuple[AccessPath, ...]:
        asked.append(seen.loaded.active_state if seen.loaded is not None else "")
        return ()

    monkeypatch.setattr(SimulatedKernel, "access_paths", access_paths)
    for arguments, fate, wake_s in ((OPEN, "deaf", LOOK_AT_DOCKERD_S), (OPEN, "", None), ("-H fd://", "deaf", None)):
        do(agent.host, (sleep(100), policy("mode: observe\nsockets: [fd://]\n"), fault(next_starts=[fate]),
                        *opened(arguments), starting))
        agent.run_pass()
        agent.host.clock.sleep(1)
        found = agent.run_pass()
        assert (found == LOOK_AT_DOCKERD_S) is (wake_s is not None), (arguments, fate)
    assert asked == []
    # A request to one that stops would make docker.socket start the next one.
    do(agent.host, (lambda host: host.active.update({SERVICE: "active"}),))
    agent.run_pass()
    asked.clear()
    do(agent.host, (lambda host: host.active.update({SERVICE: "deactivating"}),))
    agent.run_pass()
    assert asked == []
    do(agent.host, (lambda host: host.active.update({SERVICE: "active"}),))
    agent.run_pass()
    assert asked


@pytest.mark.parametrize("state", ["activating", "deactivating"])
def test_a_new_agent_keeps_what_is_blocked_until_it_can_look_for_access_paths(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """I8: docker.service starts or stops when the agent does, as at boot."""
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: (RELAY,))
    SimulatedAgent(host, RecordedJournal()).run_pass()
    before = [rejection.address for rejection in host.blocked]
    assert before
    asked: list[str] = []

    def access_paths(*_: object) -> tuple[AccessPath, ...]:
        asked.append(state)
        return (RELAY,)

    monkeypatch.setattr(SimulatedKernel, "access_paths", access_paths)
    host.active[SERVICE] = state
    SimulatedAgent(host, RecordedJournal()).run_pass()
    assert ([rejection.address for rejection in host.blocked], asked) == (before, [])


@pytest.mark.parametrize("is_young", [True, False])
def test_a_program_that_has_just_begun_to_listen_is_looked_at_again(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, is_young: bool) -> None:
    agent.run_pass()
    monkeypatch.setattr(SimulatedKernel, "has_young_listener", lambda _: is_young)
    assert (agent.run_pass() == LOOK_AGAIN_S) is is_young


def test_access_paths_that_change_all_the_time_do_not_keep_the_agent_busy(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(10))
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: (RELAY._replace(pid=next(numbers)),))
    agent.run_pass()
    assert [agent.run_pass() for _ in range(3)] == [0.5, 0.5, 0.5] or agent.controller.wake_s == LOOK_AGAIN_S


def test_what_was_blocked_stays_blocked_while_a_new_agent_looks_for_access_paths(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: (RELAY,))
    agent.run_pass()
    assert [each.address for each in agent.host.blocked] == [RELAY.address]
    blocked: list[list[str]] = []

    def looked(kernel: object, seen: Observation, network: object, manager: object, known: tuple[str, ...]
               ) -> tuple[AccessPath, ...]:
        blocked.append([each.address for each in agent.host.blocked])
        assert known == (RELAY.address,)
        return (RELAY,)

    monkeypatch.setattr(SimulatedKernel, "access_paths", looked)
    again = SimulatedAgent(agent.host, RecordedJournal())
    again.run_pass()
    assert blocked == [[RELAY.address]] * 2
    assert "released" not in events(again)


OF_CONTAINER = AccessPath(AccessKind.CONTAINER, "tcp://0.0.0.0:7000", "it mounts /run/docker.sock", container="relay",
                          serves_api=True, is_published=True)


def test_what_is_blocked_of_a_container_stays_so_until_an_engine_has_answered(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent starts while docker.service is stopped, and containers have outlived dockerd (live-restore)."""
    both = (RELAY, OF_CONTAINER)
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: both)
    agent.run_pass()
    agent.run_pass()
    assert {each.address for each in agent.host.blocked} == {path.address for path in both}
    monkeypatch.setattr(SimulatedKernel, "access_paths", lambda *_: ())
    monkeypatch.setattr(SimulatedKernel, "knows_containers", lambda _: False)
    monkeypatch.setattr(SimulatedKernel, "unverified", lambda kernel, seen, addresses: tuple(
        address for address in addresses if address == OF_CONTAINER.address))
    again = SimulatedAgent(agent.host, RecordedJournal())
    for _ in range(3):
        again.run_pass()
        again.host.clock.sleep(60)
    assert [each.address for each in agent.host.blocked] == [OF_CONTAINER.address]
    # Each process reports what is blocked once.
    assert [entry.event for entry in again.journal.entries if "7000" in entry.message] == ["contained"]
    monkeypatch.undo()
    again.run_pass()
    again.run_pass()
    assert not agent.host.blocked
    assert [entry.event for entry in again.journal.entries if "7000" in entry.message] == ["contained", "released"]


@pytest.mark.parametrize(("uid", "wake_s"), [(0, LOOK_AT_START_S), (1000, LOOK_AT_OTHERS_S)])
def test_a_dockerd_that_does_not_listen_yet_is_looked_at_again(
        agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, uid: int, wake_s: float) -> None:
    started_ns = time.time_ns()
    monkeypatch.setattr(SimulatedKernel, "daemons", lambda kernel, main: {
        **({running.process.pid: running.process} if (running := kernel._host.running) is not None else {}),
        7: Process(7, ("dockerd",), {}, started_ns, "two.service", uid=uid)})
    agent.run_pass()
    agent.host.clock.sleep(1)
    assert agent.run_pass() == wake_s
    started_ns -= 61 * 10**9
    assert agent.run_pass() != wake_s


def test_what_is_left_of_a_hold_when_systemd_goes_away(agent: SimulatedAgent) -> None:
    do(agent.host, opened())
    do(agent.host, (fault(bus_is_gone=True),))
    assert agent.run_pass() == LOOK_WITHOUT_SYSTEMD_S
    assert "cannot query systemd: Connection refused" in messages(agent, "blind")[0]
    assert agent.controller.manager is None
    do(agent.host, (fault(bus_is_gone=False),))
    agent.run_pass()
    assert agent.controller.manager is not None
    assert agent.host.open_addresses() == ()
    assert any(text.startswith("Visibility restored") for text in messages(agent, "blind"))
    agent.controller.disconnected()
    assert agent.controller.manager is None


def test_systemd_goes_away_within_a_pass(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.run_pass()
    do(agent.host, opened())

    def gone(_: SimulatedManager) -> None:
        raise Unavailable("Connection reset by peer")

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedManager, "reload", gone)
        assert agent.run_pass() == RETRY_S
    assert agent.controller.manager is None
    run(agent, 60, resync_s=5)
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)


@pytest.mark.parametrize(("error", "text", "wake_s"), [
    (Unreadable("/etc/docker/daemon.json", "not a regular file"), "/etc/docker/daemon.json: not a regular file", None),
    (ZeroDivisionError("division by zero"),
     "internal error: ZeroDivisionError('division by zero') at test_controller.py:", RETRY_AFTER_ERROR_S),
])
def test_a_pass_never_raises(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str, wake_s: float | None
) -> None:
    def broken(*_: object) -> tuple[str, ...]:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("dockerd_guard.agent.controller.judge", broken)
        assert agent.run_pass() == wake_s
    assert text in messages(agent, "blind")[0]
    agent.run_pass()
    assert "Visibility restored" in messages(agent, "blind")[1]


def test_what_cannot_be_watched_is_reported(agent: SimulatedAgent) -> None:
    problems: list[str] = ["seen before"]
    agent.controller.run_pass(problems, watch=lambda rootfs, policy: ("/x cannot be watched",))
    assert [text.partition(": ")[2] for text in sorted(messages(agent, "blind"))] == [
        "/x cannot be watched.", "seen before."]


def test_a_new_policy_is_taken_and_an_invalid_one_is_not(agent: SimulatedAgent) -> None:
    agent.run_pass()
    do(agent.host, (policy("sockets: 7\n"),))
    agent.run_pass()
    agent.run_pass()
    found = messages(agent, "policy")
    assert len(found) == 1
    assert "last valid policy stays in force" in found[0]
    assert agent.controller.policy_problem
    events(agent)
    do(agent.host, (policy(ENFORCE),))
    agent.run_pass()
    assert agent.controller.policy_problem == ""
    assert events(agent) == []
    do(agent.host, (policy(f"{ENFORCE}watch: {{resync: 1min}}\n"),))
    agent.run_pass()
    assert events(agent) == ["policy"]
    assert agent.controller.policy.watch.resync_s == 60


def test_a_reload_retries_what_failed(agent: SimulatedAgent) -> None:
    do(agent.host, (*opened(), fault(disk_errno=28)))
    agent.run_pass()
    assert agent.controller.memory.attempt is not None
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.HOLD
    agent.run_pass(retry=True)
    assert agent.controller.decision.actions.anything


def test_what_fix_did_is_logged_once(agent: SimulatedAgent) -> None:
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"), *opened()))
    agent.run_pass()
    assert events(agent) == ["policy", "drift"]
    state = SimulatedStateFiles(agent.host)
    agent.fix()
    drift = next(iter(agent.controller._tracker.drifts))
    memory = state.load()
    state.save(memory._replace(manual_fixes=(ManualFix("repaired", ("wrote x",), (drift,)),)))
    agent.run_pass()
    assert messages(agent, "corrected") == ["Corrected by `dockerd-guard fix`: wrote x."]
    events(agent)
    agent.run_pass()
    assert events(agent) == []
    assert SimulatedStateFiles(agent.host).load().manual_fixes == ()


def test_what_fix_did_is_logged_once_without_systemd(agent: SimulatedAgent) -> None:
    agent.run_pass()
    state = SimulatedStateFiles(agent.host)
    state.save(state.load()._replace(manual_fixes=(ManualFix("failed", (), (), "no luck"),)))
    do(agent.host, (fault(bus_is_gone=True),))
    agent.controller.disconnected()
    for _ in range(3):
        agent.run_pass()
    do(agent.host, (fault(bus_is_gone=False),))
    agent.run_pass()
    assert len(messages(agent, "failed")) == 1


def test_what_cannot_be_contained_is_tried_again(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    do(agent.host, (*opened(), fault(engine_is_silent=True)))
    agent.run_pass()
    events(agent)

    def refuse(*_: object) -> None:
        raise Unsupported("no")

    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"),))
    with monkeypatch.context() as patched:
        patched.setattr(SimulatedNetwork, "release", refuse)
        assert (agent.run_pass() or 0) <= RETRY_S
    assert "cannot change what is blocked at the network: no" in messages(agent, "blind")[0]
    agent.run_pass()
    assert not agent.host.blocked


def test_a_trigger_is_remembered_for_this_process(agent: SimulatedAgent) -> None:
    agent.controller.changed()
    at = agent.controller.memory.changed_at
    assert at == agent.host.clock.now()
    agent.run_pass()
    assert agent.controller.memory.changed_at == at
    assert SimulatedAgent(agent.host, RecordedJournal()).controller.memory.changed_at is None


def test_a_removed_override_is_corrected_after_half_a_second(agent: SimulatedAgent) -> None:
    do(agent.host, opened())
    agent.run_pass()
    agent.host.clock.sleep(60)
    do(agent.host, (remove(OVERRIDE),))
    agent.controller.changed()
    assert agent.run_pass() == 0.5
    assert agent.host.text(OURS) is not None
    agent.host.clock.sleep(0.5)
    agent.run_pass()
    assert agent.host.text(OURS) is None


@pytest.mark.parametrize("do_nothing", [lambda host: None, stop], ids=["it runs", "it is stopped"])
def test_a_further_pass_changes_nothing(agent: SimulatedAgent, do_nothing: Callable[[SimulatedHost], None]) -> None:
    """I14."""
    do(agent.host, opened())
    run(agent, 120, resync_s=10)
    do_nothing(agent.host)
    agent.run_pass()
    starts = len(agent.host.starts)
    files = {path: path.stat().st_mtime_ns for path in agent.host.root.rglob("*") if path.is_file()}
    events(agent)
    for _ in range(5):
        agent.host.clock.sleep(300)
        agent.run_pass()
    assert {path: path.stat().st_mtime_ns for path in agent.host.root.rglob("*") if path.is_file()} == files
    assert (len(agent.host.starts), [event for event in events(agent) if event != "drift"]) == (starts, [])


def test_a_clock_that_is_set_costs_no_restart(agent: SimulatedAgent) -> None:
    do(agent.host, opened())
    agent.run_pass()
    for offset_s in (timedelta(days=-900).total_seconds(), timedelta(days=900).total_seconds()):
        agent.host.clock.wall_offset_s = offset_s
        run(agent, 60, resync_s=5)
    assert starts_by_us(agent.host) == 1


@pytest.mark.parametrize(("changes_back", "is_removed"), [(False, True), (True, False)], ids=["the same", "by turns"])
def test_own_files_are_removed_on_a_host_that_is_never_quiet(
        agent: SimulatedAgent, changes_back: bool, is_removed: bool) -> None:
    """Something unrelated that was written ten times a second kept them for as long as that lasted."""
    do(agent.host, (policy(f"{ENFORCE}correct: {{restart: always}}\n"), dropin(OPEN), reload, restart))
    agent.run_pass()
    assert agent.host.text(OURS) is not None
    for number in range(round(2 * MAX_QUIETS * QUIET_S / 0.4)):
        do(agent.host, (dropin(OPEN if changes_back and number % 2 else "-H fd://"), reload))
        agent.controller.changed()
        agent.run_pass()
        assert number or agent.host.text(OURS) is not None, "what was just written may be written again"
        agent.host.clock.sleep(0.4)
    assert (agent.host.text(OURS) is None) == is_removed
