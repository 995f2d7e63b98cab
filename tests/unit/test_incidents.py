"""What went wrong on real hosts, and what the agent does now: histories of the simulated host."""

from __future__ import annotations

import pytest

from dockerd_guard.plan.decide import Verdict
from tests.simulation.agent import SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.support.passes import ENFORCE, events, messages, run, starts_by_us
from tests.support.situations import (
    DIRECTORY,
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    POLICY,
    Act,
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
    write,
)


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


def test_an_interrupted_correction_leaves_an_earlier_one_in_force(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program writes during each correction: three are undone, and nothing that was corrected before (I8)."""
    do(agent.host, (policy(f"{ENFORCE}correct: {{restart: never}}\n"), sleep(1), *opened()))
    agent.run_pass()
    ours = agent.host.text(OURS)
    assert ours is not None
    do(agent.host, (sleep(60), dropin(OPEN, LATE)))
    reloads: list[str | None] = []
    load = SimulatedHost.reload

    def reload_meanwhile(host: SimulatedHost) -> None:
        reloads.append(host.text(OURS))
        do(host, (sleep(0.1), dropin(OPEN, LATE)))
        load(host)

    monkeypatch.setattr(SimulatedHost, "reload", reload_meanwhile)
    run(agent, 60, resync_s=1)
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    assert reloads == [ours] * 6, "one reload for each correction, one to undo it"
    intent = agent.controller.memory.intent
    assert intent is not None
    assert [change.path for change in intent.changes] == [OURS], "the earlier correction can still be undone (I3)"
    assert len(messages(agent, "contested")) == 1
    monkeypatch.setattr(SimulatedHost, "reload", load)
    do(agent.host, (remove(LATE, OURS), sleep(1), reload))
    agent.run_pass()
    assert agent.host.text(OURS) == ours, "what the other program has not undone does not wait"


@pytest.mark.parametrize("load", [(), (reload,)], ids=["loaded: as corrected", "loaded: theirs"])
def test_a_file_that_is_being_rewritten_ends_no_dispute(agent: SimulatedAgent, load: tuple[Act, ...]) -> None:
    """A shell truncates a file before it writes to it: in that moment the files comply."""
    for _ in range(4):
        do(agent.host, (dropin(OPEN, LATE), sleep(5)))
        agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    for _ in range(20):
        for text in ("", f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n"):
            do(agent.host, (sleep(0.2), *load, write(LATE, text)))
            agent.run_pass()
            assert agent.controller.decision.verdict is Verdict.BACK_OFF
    assert len(messages(agent, "contested")) == 1
    assert not [each for each in agent.journal.entries if "not through the agent" in each.message]
    do(agent.host, (remove(LATE), sleep(11)))
    agent.run_pass()
    agent.run_pass()
    assert agent.controller.decision.complies
    assert agent.controller.memory.held is None

def test_a_dispute_that_begins_at_an_empty_file_is_reported_once(agent: SimulatedAgent) -> None:
    opened_again = f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n"
    for text in (opened_again, opened_again, opened_again, ""):
        do(agent.host, (write(LATE, text), reload, sleep(1)))
        agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    do(agent.host, (write(LATE, opened_again), sleep(0.2)))
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    assert len(messages(agent, "contested")) == 1


def test_a_broken_moment_of_a_disputed_file_is_not_reported(agent: SimulatedAgent) -> None:
    """An empty daemon.json is one that dockerd refuses, and one without live-restore."""
    hosts = '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'
    do(agent.host, (containers(1),))
    for _ in range(4):
        do(agent.host, (daemon_json(hosts), sleep(5)))
        agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.BACK_OFF
    entries = len(agent.journal.entries)
    for text in ("", hosts, '{"live', hosts, "{}", hosts):
        do(agent.host, (sleep(0.2), daemon_json(text)))
        agent.run_pass()
    assert agent.journal.entries[entries:] == []
    assert agent.host.killed == []


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
