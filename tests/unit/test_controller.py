"""The agent's passes on a simulated host: what comes of each fault that was seen on a machine, and what is logged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from dockerd_guard.agent.controller import RETRY_AFTER_ERROR_S, RETRY_S
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.memory import ManualFix
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.systemd.manager import Unavailable
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import SimulatedHost, SimulatedManager, SimulatedNetwork
from tests.support.situations import (
    DIRECTORY,
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    POLICY,
    containers,
    daemon_json,
    do,
    dropin,
    environment,
    fault,
    link,
    opened,
    policy,
    reload,
    remove,
    restart,
    sleep,
    stop,
    write,
)

ENFORCE = "mode: enforce\nsockets: [fd://]\n"


@pytest.fixture
def agent(host: SimulatedHost) -> SimulatedAgent:
    return SimulatedAgent(host, RecordedJournal())


def events(agent: SimulatedAgent) -> list[str]:
    """The events since the last call."""
    found = [str(entry.event) for entry in agent.journal.entries]
    agent.journal.entries.clear()
    return found


def messages(agent: SimulatedAgent, event: str) -> list[str]:
    return [entry.message for entry in agent.journal.entries if entry.event == event]


def run(agent: SimulatedAgent, seconds: float, resync_s: float = 300.0) -> int:
    """Let the agent look whenever it wants to, for so long; the number of passes."""
    end = agent.host.clock.seconds + seconds
    passes = 0
    while agent.host.clock.seconds < end:
        wake_s = agent.run_pass()
        passes += 1
        agent.host.clock.sleep(max(min(resync_s if wake_s is None else wake_s, resync_s), 0.1))
    return passes


def starts_by_us(host: SimulatedHost) -> int:
    return sum(start.by == "us" for start in host.starts)


# --- issue 12, point 3 ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["-H fd:// --storage-driver=zfs", f"{OPEN} --storage-driver=zfs",
                                       f"{OPEN} --bridge=nope0"])
def test_restart_loop(agent: SimulatedAgent, arguments: str) -> None:
    """At most the budget of starts, whatever state docker.service is in (I2)."""
    do(agent.host, opened(arguments))
    run(agent, 60, resync_s=2)
    run(agent, 3400, resync_s=60)
    assert starts_by_us(agent.host) <= 3
    assert agent.host.open_addresses() == ()


def test_containers_killed_by_a_live_restore_that_is_only_pending(agent: SimulatedAgent) -> None:
    """daemon.json turns live-restore off without a reload; then the policy changes so that a restart is needed (I1)."""
    do(agent.host, (containers(1),))
    agent.run_pass()
    do(agent.host, (daemon_json('{"live-restore": false}'),
                    policy(f"{ENFORCE.replace('fd://', '''fd://, {address: 'tcp://127.0.0.1:2375', tls: none}''')}")))
    run(agent, 3600)
    assert agent.host.killed == []
    assert starts_by_us(agent.host) == 0
    assert agent.controller.memory.held is not None
    assert agent.controller.memory.held.reason.startswith("live-restore is off in the configuration that a restart")


def test_containers_killed_after_dockerd_died(agent: SimulatedAgent) -> None:
    """They outlive dockerd; a start without live-restore would stop them (I1)."""
    do(agent.host, (*opened("-H fd:// --tlsverify"), sleep(120), daemon_json("{}"), containers(2)))
    run(agent, 3600)
    assert agent.host.killed == []


def test_docker_left_dead_by_a_pending_tls_flag(agent: SimulatedAgent) -> None:
    """The restart would load TLS files that are missing (I3)."""
    do(agent.host, (*opened(), daemon_json('{"live-restore": true, "tls": true}')))
    run(agent, 3600)
    assert agent.host.running is not None
    assert starts_by_us(agent.host) == 0
    assert agent.host.open_addresses() == ()
    agent.journal.entries.clear()
    do(agent.host, (daemon_json('{"live-restore": true}'),))
    agent.run_pass()
    assert agent.host.running.layer.hosts == ("fd://",)


@pytest.mark.parametrize("restarts", ["live-restore", "never"])
def test_code_before_the_gate(agent: SimulatedAgent, restarts: str) -> None:
    """Nothing is executed before a restart is allowed, and never another binary than the running one (I4)."""
    do(agent.host, (policy(f"{ENFORCE}correct: {{restart: {restarts}}}\n"), write("/srv/x/dockerd", "x"),
                    write(OVERRIDE, "[Service]\nEnvironment=LD_PRELOAD=/srv/x.so\nExecStart=\n"
                                    "ExecStart=/srv/x/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"), reload))
    run(agent, 60, resync_s=5)
    assert set(agent.host.executed) <= {"/usr/bin/dockerd"}
    if restarts == "never":
        assert agent.host.executed == []


def test_somebody_elses_unit_moved(agent: SimulatedAgent) -> None:
    """A late drop-in that is a link is set aside as a link (I5)."""
    ship = "/etc/systemd/system/audit-ship.service"
    text = f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n"
    do(agent.host, (write(ship, text), link(LATE, ship), reload, restart))
    agent.run_pass()
    assert agent.host.text(ship) == text
    assert not (agent.host.root / LATE.lstrip("/")).is_symlink()
    saved = agent.host.root / f"{LATE}.dockerd-guard-saved".lstrip("/")
    assert str(saved.readlink()) == ship
    assert agent.host.open_addresses() == ()


def test_pending_changes_bypassed_by_a_name(agent: SimulatedAgent) -> None:
    """`zy-` in front does not make a drop-in one that we set aside."""
    agent.run_pass()
    do(agent.host, (*opened(), sleep(1), write(f"{DIRECTORY}/zy-evil.conf", "[Service]\nExecStartPre=/bin/false\n")))
    run(agent, 600)
    assert starts_by_us(agent.host) == 0
    held = agent.controller.memory.held
    assert held is not None
    assert held.reason.endswith(f"ExecStartPre= ({DIRECTORY}/zy-evil.conf:2)")


def test_not_tried_again_when_the_cause_is_repaired(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """dockerd does not start with a label in daemon.json, which nothing could predict (I9)."""
    monkeypatch.setattr("tests.simulation.host.FAILING_OPTIONS", ('"labels"',))
    do(agent.host, (*opened(), daemon_json('{"live-restore": true, "labels": ["x=y"]}')))
    agent.run_pass()
    assert "corrected" not in events(agent)
    assert agent.controller.memory.attempt is not None
    agent.host.clock.sleep(10)
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.HOLD
    do(agent.host, (daemon_json('{"live-restore": true}'),))
    agent.run_pass()
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)


def test_not_tried_again_when_the_disk_has_room_again(agent: SimulatedAgent) -> None:
    do(agent.host, (*opened(), fault(disk_errno=28)))
    agent.run_pass()
    assert "No space left on device" in messages(agent, "failed")[0]
    assert "make this writable" in messages(agent, "failed")[0].lower()
    events(agent)
    for _ in range(5):
        agent.host.clock.sleep(5)
        agent.run_pass()
    assert "failed" not in events(agent), "one entry, although nothing can be stored"
    assert agent.host.open_addresses() == (), "it is contained"
    do(agent.host, (fault(disk_errno=0),))
    agent.run_pass()
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)


def test_edits_taken_for_a_war(agent: SimulatedAgent) -> None:
    """Four different late drop-ins within a minute are corrected at once, each (I8)."""
    for number in range(4):
        agent.host.clock.sleep(10)
        do(agent.host, (dropin(OPEN, f"{DIRECTORY}/zzz{number}.conf"), reload))
        agent.run_pass()
        assert agent.controller.decision.verdict is Verdict.APPLY
        assert agent.host.text(f"{DIRECTORY}/zzz{number}.conf") is None
    assert "contested" not in events(agent)


def test_the_same_drop_in_again_and_again_is_contested(agent: SimulatedAgent) -> None:
    for _ in range(6):
        do(agent.host, (dropin(OPEN, LATE), reload))
        agent.run_pass()
        agent.host.clock.sleep(10)
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    assert len(messages(agent, "contested")) == 1
    assert LATE in messages(agent, "contested")[0]
    assert agent.host.text(LATE) is not None
    wake_s = agent.controller.wake_s
    assert wake_s is not None
    agent.host.clock.sleep(wake_s)
    agent.run_pass()
    assert agent.host.text(LATE) is None


def test_contained_late_while_contested(agent: SimulatedAgent) -> None:
    """Containment never waits (I8)."""
    for _ in range(6):
        do(agent.host, (dropin(OPEN, LATE), reload))
        agent.run_pass()
        agent.host.clock.sleep(10)
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    do(agent.host, (sleep(60), restart))
    assert agent.host.open_addresses()
    agent.run_pass()
    assert agent.host.open_addresses() == ()
    agent.host.blocked, agent.host.table = (), 99
    agent.controller.containment.restore()
    assert agent.host.open_addresses() == ()


def test_contained_for_ever_without_nftables(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contained, then python3-nftables is removed, then corrected: nothing stays blocked (I13)."""
    do(agent.host, (policy(f"{ENFORCE}correct: {{restart: never}}\n"), *opened()))
    agent.run_pass()
    assert agent.host.blocked
    do(agent.host, (fault(nftables_is_gone=True),))
    run(agent, 600)
    do(agent.host, (sleep(60), restart))
    agent.run_pass()
    agent.run_pass()
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)
    assert agent.host.blocked == ()
    assert agent.controller.memory.contained.methods == ()


def test_fd_lost_with_daemon_jsons_hosts(agent: SimulatedAgent) -> None:
    hosts = '["fd://", "tcp://127.0.0.1:2375"]'
    do(agent.host, (dropin(""), daemon_json(f'{{"live-restore": true, "hosts": {hosts}}}'), reload, restart))
    run(agent, 600)
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)
    assert any(is_passed for _, is_passed in agent.host.running.sockets)


def test_fd_lost_with_a_unit_without_hosts(agent: SimulatedAgent) -> None:
    do(agent.host, opened(""))
    run(agent, 600)
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)


def test_a_docker_that_is_down_only_because_of_its_tls_flags(agent: SimulatedAgent) -> None:
    do(agent.host, (*opened("-H fd:// --tlsverify --tlscacert=ca.pem"), sleep(120)))
    assert agent.host.active["docker.service"] == "failed"
    run(agent, 600)
    assert agent.host.running is not None
    assert starts_by_us(agent.host) == 1


def test_a_docker_that_is_down_is_brought_up_when_the_budget_allows(agent: SimulatedAgent) -> None:
    do(agent.host, (policy(f"{ENFORCE}correct: {{budget: 1/1h}}\n"), *opened()))
    agent.run_pass()
    do(agent.host, (sleep(60), remove(OURS), dropin("-H fd:// --tlsverify"), reload, restart, sleep(120)))
    agent.run_pass()
    assert agent.host.running is None
    assert agent.controller.memory.held is not None
    events(agent)
    agent.run_pass()
    assert events(agent) == [], "it is not reported as corrected"
    run(agent, 7200)
    assert agent.host.running is not None
    assert starts_by_us(agent.host) == 2


def test_a_port_opened_by_the_managers_environment(agent: SimulatedAgent) -> None:
    do(agent.host, (environment(DOCKER_OPTS="-H tcp://0.0.0.0:2375"), restart))
    assert agent.host.open_addresses()
    agent.run_pass()
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)
    assert events(agent)[-1] in ("released", "corrected")


@pytest.mark.parametrize("how", ["fix", "agent"])
def test_records_of_a_correction_that_was_rolled_back(agent: SimulatedAgent, how: str) -> None:
    """I10: an outcome is what verify saw."""
    do(agent.host, (policy("mode: observe\nsockets: [fd://]\n"), *opened(), sleep(60)))
    agent.run_pass()
    events(agent)
    do(agent.host, (fault(stop_hangs=True),))
    if how == "fix":
        agent.fix()
    else:
        agent.host.put(POLICY, f"version: 1\n{ENFORCE}")
        agent.run_pass()
        assert "corrected" not in events(agent)
    agent.run_pass()
    assert "corrected" not in events(agent)
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://", "tcp://0.0.0.0:2375")


# --- a pass ---------------------------------------------------------------------------------------


def test_a_drift_its_correction_and_its_end(agent: SimulatedAgent) -> None:
    agent.run_pass()
    assert events(agent) == []
    do(agent.host, opened())
    agent.run_pass()
    assert events(agent) == ["drift", "corrected"]
    assert agent.run_pass() is not None
    assert events(agent) == []
    assert agent.controller.exposed == 0


def test_what_is_open_and_not_blocked_is_counted_as_exposed(agent: SimulatedAgent) -> None:
    do(agent.host, (policy(f"{ENFORCE}correct: {{contain: false}}\n"), *opened(), fault(engine_is_silent=True)))
    agent.run_pass()
    assert agent.controller.exposed == 1


def test_a_hold_is_logged_once_and_its_end_too(agent: SimulatedAgent) -> None:
    do(agent.host, (*opened(), fault(engine_is_silent=True)))
    assert agent.run_pass() == 5.0
    assert events(agent) == ["drift", "held", "contained"]
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


def test_what_is_left_of_a_hold_when_systemd_goes_away(agent: SimulatedAgent) -> None:
    do(agent.host, opened())
    do(agent.host, (fault(bus_is_gone=True),))
    assert agent.run_pass() == RETRY_S
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
    assert agent.host.blocked == ()


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
