"""Passes of the agent while another process holds the lock of the state directory: nothing is corrected or stored."""

from __future__ import annotations

import pytest

from dockerd_guard.agent import controller
from dockerd_guard.containment.containment import Method
from dockerd_guard.model.address import Via
from dockerd_guard.plan.decide import forget_policy
from dockerd_guard.plan.exposures import Exposure
from dockerd_guard.plan.memory import Contained, ManualFix, Memory
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import Crash
from tests.support.passes import ENFORCE, blocked, bus_down, events, messages, run
from tests.support.situations import (
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

NEVER = f"{ENFORCE}correct: {{restart: never}}\n"


def run_without_lock(agent: SimulatedAgent) -> None:
    agent.controller.run_pass([], watch=lambda rootfs, policy: (), owns_state=False)


def stored(agent: SimulatedAgent) -> Contained:
    return SimulatedStateFiles(agent.host).load().contained


def test_without_the_lock_a_drift_is_reported_and_contained_only(agent: SimulatedAgent) -> None:
    agent.run_pass()
    do(agent.host, opened())
    starts = len(agent.host.starts)
    for _ in range(3):
        run_without_lock(agent)
    assert events(agent) == ["drift", "contained"]
    assert blocked(agent)
    assert agent.controller.exposed == 0
    assert (len(agent.host.starts), agent.host.text(OURS)) == (starts, None)
    agent.run_pass()
    assert events(agent) == ["corrected", "released"]
    assert stored(agent) == Contained()


def test_what_is_blocked_without_the_lock_is_stored_with_it(agent: SimulatedAgent) -> None:
    """The other process stores its memory of before in between."""
    do(agent.host, (policy(NEVER),))
    agent.run_pass()
    fix = SimulatedStateFiles(agent.host)
    of_fix = fix.load()
    do(agent.host, opened())
    run_without_lock(agent)
    assert blocked(agent)
    assert stored(agent) == Contained(), "nothing is written without the lock"
    fix.save(of_fix.with_restart(agent.host.clock.now()))
    agent.run_pass()
    assert stored(agent).methods == (Method.NFTABLES,)
    assert SimulatedStateFiles(agent.host).load().restarts, "what the other process stored stays"


def test_what_is_released_without_the_lock_is_stored_with_it(agent: SimulatedAgent) -> None:
    do(agent.host, (policy(NEVER), *opened()))
    agent.run_pass()
    assert stored(agent).addresses
    do(agent.host, (remove(OVERRIDE), remove(OURS), restart, sleep(60)))
    run_without_lock(agent)
    assert not blocked(agent)
    agent.run_pass()
    assert stored(agent) == Contained()
    assert not blocked(agent)


def test_a_drift_that_another_process_corrects_ends_with_its_report(agent: SimulatedAgent) -> None:
    """The end of a drift is not reported as done by somebody else (I10)."""
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"), *opened()))
    agent.run_pass()
    agent.fix()
    run_without_lock(agent)
    assert messages(agent, "corrected") == []
    state = SimulatedStateFiles(agent.host)
    drift = next(iter(agent.controller._tracker.drifts))
    state.save(state.load()._replace(manual_fixes=(ManualFix("repaired", ("wrote x",), (drift,)),)))
    run_without_lock(agent)
    assert state.load().manual_fixes, "reported by the pass that can store that"
    agent.run_pass()
    assert messages(agent, "corrected") == ["Corrected by `dockerd-guard fix`: wrote x."]


def test_the_steps_of_another_process_are_no_drifts(agent: SimulatedAgent) -> None:
    agent.run_pass()
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"), stop))
    for _ in range(3):
        run_without_lock(agent)
        agent.host.clock.sleep(3)
    assert events(agent) == ["policy"]
    agent.host.clock.sleep(60)
    run_without_lock(agent)
    reported = events(agent)
    agent.run_pass()
    assert reported + events(agent) == ["drift"] * len(reported), "a process that hangs delays no report for ever"


def test_what_failed_under_the_old_policy_is_forgotten_with_the_lock(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[Memory] = []

    def forget(memory: Memory) -> Memory:
        forgotten.append(memory)
        return forget_policy(memory)

    monkeypatch.setattr(controller, "forget_policy", forget)
    do(agent.host, (*opened(), fault(disk_errno=28)))
    agent.run_pass()
    do(agent.host, (policy(f"{ENFORCE}watch: {{resync: 1min}}\n"), fault(disk_errno=0)))
    run_without_lock(agent)
    assert "policy" in events(agent)
    agent.run_pass()
    assert [memory.attempt is None for memory in forgotten] == [False, False]
    agent.run_pass()
    assert len(forgotten) == 2
    assert agent.host.text(OURS) is not None


def test_what_is_blocked_without_the_lock_stays_blocked_while_dockerd_is_stopped(agent: SimulatedAgent) -> None:
    """Its next start opens the port again."""
    do(agent.host, (policy(NEVER),))
    agent.run_pass()
    do(agent.host, opened())
    run_without_lock(agent)
    do(agent.host, (stop,))
    for _ in range(2):
        run_without_lock(agent)
        assert blocked(agent)


def test_what_is_blocked_without_the_lock_is_stored_by_a_pass_that_ends_early(agent: SimulatedAgent) -> None:
    do(agent.host, (policy(NEVER),))
    agent.run_pass()
    do(agent.host, opened())
    run_without_lock(agent)
    bus_down(agent)
    agent.run_pass()
    assert stored(agent).addresses == tuple(blocked(agent)) != ()


def test_a_block_between_two_passes_is_stored_by_the_next(agent: SimulatedAgent) -> None:
    """Nobody holds the lock then."""
    do(agent.host, (policy(NEVER), *opened()))
    agent.run_pass()
    before = stored(agent)
    agent.controller.containment.block_at_once((Exposure("tcp://192.0.2.1:2376", "DG101", Via.FLAG),))
    assert stored(agent) == before
    bus_down(agent)
    agent.run_pass()
    assert "tcp://192.0.2.1:2376" in stored(agent).addresses


def test_a_drift_of_the_previous_agent_ends_with_the_lock(agent: SimulatedAgent) -> None:
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"), *opened()))
    agent.run_pass()
    drifts = agent.controller._tracker.lasting(agent.host.clock.now().wall)
    again = SimulatedAgent(agent.host, RecordedJournal())
    again.controller._tracker.go_on_from(drifts)
    run_without_lock(again)
    assert len(again.controller._tracker.lasting(agent.host.clock.now().wall)) == len(drifts)
    again = SimulatedAgent(agent.host, RecordedJournal())
    again.controller._tracker.go_on_from(drifts)
    agent.fix()
    run_without_lock(again)
    assert messages(again, "corrected") == []
    again.run_pass()
    assert messages(again, "corrected")


def test_a_fix_that_is_killed_is_undone_or_finished(agent: SimulatedAgent) -> None:
    """Its lock ends with it, and it leaves its intent."""
    agent.run_pass()
    do(agent.host, opened())
    agent.host.crash_in = 8
    with pytest.raises(Crash):
        agent.fix()
    agent.host.crash_in = None
    intent = SimulatedStateFiles(agent.host).load().intent
    assert intent is not None
    run_without_lock(agent)
    assert blocked(agent)
    assert SimulatedStateFiles(agent.host).load().intent == intent
    run(agent, 120, resync_s=10)
    assert agent.host.open_addresses() == ()
    assert agent.host.running is not None
    assert not blocked(agent)


def test_a_port_is_blocked_without_systemd_and_without_the_lock(agent: SimulatedAgent) -> None:
    agent.run_pass()
    bus_down(agent)
    do(agent.host, opened())
    run_without_lock(agent)
    assert blocked(agent)
    assert stored(agent) == Contained()


def test_each_step_of_another_process_changes_no_entry(agent: SimulatedAgent) -> None:
    """The text of a drift shows how far it got. That it is open now is reported all the same."""
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"), dropin(OPEN)))
    agent.run_pass()
    events(agent)
    do(agent.host, (reload,))
    run_without_lock(agent)
    assert "drift" not in events(agent)
    do(agent.host, (restart,))
    run_without_lock(agent)
    assert [entry.exposed for entry in agent.journal.entries if entry.event == "drift"] == [True]
    events(agent)
    do(agent.host, (stop,))
    run_without_lock(agent)
    assert events(agent) == []
