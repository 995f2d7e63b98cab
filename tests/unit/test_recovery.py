"""An agent that is killed at any moment of a correction, and the one that goes on from there; `roll back`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockerd_guard.apply.rollback import Undone
from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.memory import Intent
from dockerd_guard.plan.plan import Change
from dockerd_guard.systemd.manager import Refused
from tests.simulation.agent import RecordedJournal, SimulatedAgent, SimulatedStateFiles
from tests.simulation.host import Crash, SimulatedHost
from tests.simulation.interfaces import SimulatedManager
from tests.support.remembered import starting
from tests.support.situations import (
    DAEMON_JSON,
    DIRECTORY,
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    daemon_json,
    do,
    dropin,
    fault,
    guarded,
    link,
    listens,
    opened,
    reload,
    remove,
    restart,
    restart_socket,
    sleep,
    write,
)

DRIFTS: dict[str, tuple[Act, ...]] = {
    "an override": opened(),
    "a late drop-in": (dropin(OPEN, LATE), reload, restart),
    "docker.socket": (listens("/run/docker.sock", "2375"), reload, restart_socket),
    "daemon.json": (dropin(""), daemon_json('{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'), reload,
                    restart),
    "not needed any more": (*opened(), guarded, sleep(60), guarded, remove(OVERRIDE)),
    "down because of its TLS flags": (*opened("-H fd:// --tlsverify"), sleep(120)),
}

MAX_POINTS = 60

DROPINS = "/etc/systemd/system/docker.socket.d"


def new_agent(host: SimulatedHost) -> SimulatedAgent:
    return SimulatedAgent(host, RecordedJournal())


def pass_until_done(agent: SimulatedAgent, passes: int = 12) -> None:
    """Passes until one has nothing to do."""
    for _ in range(passes):
        wake_s = agent.run_pass()
        if agent.controller.decision.verdict is Verdict.NOTHING:
            return
        agent.host.clock.sleep(max(wake_s or 0.0, 1.0))
    raise AssertionError(f"{agent.controller.decision} {[entry.message for entry in agent.journal.entries]}")


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
def test_it_is_finished_or_undone_wherever_it_is_killed(
    in_memory: Path, simulated_times: None, drift: tuple[Act, ...]
) -> None:
    points = 0
    for point in range(MAX_POINTS):
        host = SimulatedHost(in_memory / "host")
        do(host, drift)
        starts = len(host.starts)
        host.crash_in = point
        try:
            new_agent(host).run_pass()
        except Crash:
            points += 1
        else:
            break
        agent = new_agent(host)
        pass_until_done(agent)
        assert host.open_addresses() == (), point
        assert host.running is not None, point
        assert host.running.layer.hosts == ("fd://",), point
        assert len(host.starts) - starts <= 3, point
        assert not host.killed
        assert not list(host.root.rglob("*/.dockerd-guard.*")), point
        host.clock.sleep(60)
        agent.run_pass()
        # Its previous content is forgotten, except where dockerd was not started with the new one.
        intent = SimulatedStateFiles(host).load().intent
        assert intent is None or intent.proven_by is None, point
        recovered = [line for line in agent.journal.lines if "was interrupted" in line]
        assert len(recovered) <= 1, point
    assert 3 < points < MAX_POINTS


def test_nothing_is_lost_of_what_somebody_else_wrote_meanwhile(host: SimulatedHost) -> None:
    """Killed with one of two files written; an administrator edits it before the next agent starts."""
    do(host, DRIFTS["a late drop-in"])
    theirs = host.text(LATE)
    host.crash_in = 13
    with pytest.raises(Crash):
        new_agent(host).run_pass()
    assert SimulatedStateFiles(host).load().intent is not None
    do(host, (write(f"{DIRECTORY}/zy-zzz.conf", "# mine\n"),))
    agent = new_agent(host)
    agent.run_pass()
    assert "was interrupted" in agent.journal.lines[0]
    assert host.text(f"{DIRECTORY}/zy-zzz.conf") == "# mine\n"
    saved = host.text(f"{LATE}.dockerd-guard-saved")
    assert theirs in (saved, host.text(LATE))


def test_an_interrupted_correction_is_kept_in_mind_while_it_cannot_be_undone(host: SimulatedHost) -> None:
    do(host, DRIFTS["a late drop-in"])
    host.crash_in = 13
    with pytest.raises(Crash):
        new_agent(host).run_pass()
    do(host, (fault(disk_errno=30),))
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.memory.intent is not None
    assert any("Read-only file system" in line for line in agent.journal.lines)
    lines = len(agent.journal.lines)
    host.clock.sleep(10)
    agent.run_pass()
    assert len(agent.journal.lines) == lines, "it is logged once"
    do(host, (fault(disk_errno=0), sleep(10)))
    pass_until_done(agent)
    assert host.open_addresses() == ()


def test_what_dockerd_would_refuse_by_now_is_not_restored(host: SimulatedHost) -> None:
    """I3. Killed within a correction; dockerd is started with what is there, and what was there before has become
    invalid."""
    path = "/srv/config/daemon.json"
    drift = (dropin("", LATE), write(path, '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'),
             link(DAEMON_JSON, path), reload, restart, dropin(OPEN, LATE))
    host = killed_when(host, drift, lambda host: host.text(LATE) is not None and (
        not (host.root / DAEMON_JSON.lstrip("/")).is_symlink()))
    do(host, (write(path, "{"), reload, restart))
    before = len(host.starts)
    agent = new_agent(host)
    agent.run_pass()
    assert host.running is not None
    assert len(host.starts) == before
    assert "its files stay, since dockerd would refuse what was there before" in agent.journal.lines[0]
    pass_until_done(agent)
    assert host.open_addresses() == ()


@pytest.mark.parametrize("started_with", [OPEN, ""])
def test_a_dockerd_that_was_started_since_is_not_restarted_into_what_was_there_before(
        host: SimulatedHost, started_with: str) -> None:
    """I1, I3. Killed within a correction of a drop-in that was never in force; an administrator starts dockerd. With
    that drop-in it would listen on nothing that the agent could ask for its containers."""
    drift = (dropin("-H tcp://10.0.0.5:2375", LATE), reload)
    host = killed_when(host, drift, lambda host: host.text(LATE) is None)
    do(host, (dropin(started_with, OURS), reload, restart))
    host.containers = {1, 2}
    starts = len(host.starts)
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.RECOVER
    assert (host.running is not None, len(host.starts)) == (True, starts)
    pass_until_done(agent)
    assert host.running is not None and host.running.layer.hosts == ("fd://",)
    assert (host.killed, host.open_addresses(), agent.controller.decision.hold) == ([], (), None)


def killed_when(host: SimulatedHost, drift: tuple[Act, ...], is_so: Callable[[SimulatedHost], bool]) -> SimulatedHost:
    """The host with its agent killed at the first moment at which this is so."""
    for point in range(MAX_POINTS):
        host = SimulatedHost(host.root)
        do(host, drift)
        host.crash_in = point
        with contextlib.suppress(Crash):
            new_agent(host).run_pass()
        if host.crash_in is None and is_so(host):
            return host
    raise AssertionError("never")


def test_a_crash_during_the_start_of_docker_is_finished(host: SimulatedHost) -> None:
    """All files are written, docker.socket and docker.service are stopped."""
    drift = (listens("2375"), reload, restart_socket)
    host = killed_when(host, drift, lambda host: host.running is None)
    agent = new_agent(host)
    agent.run_pass()
    assert agent.journal.lines[0].endswith(
        "was interrupted: all its files are written and stay; the next pass checks the rest.")
    assert host.running is not None
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.NOTHING
    assert host.open_addresses() == ()


@pytest.mark.parametrize(("added", "verdict"), [
    ("", Verdict.RECOVER), ("ExecStartPre=/srv/x/pre\n", Verdict.HOLD), ("Wants=audit-ship.service\n", Verdict.HOLD),
])
def test_what_is_interrupted_is_not_finished_with_commands_that_have_not_run_before(
    host: SimulatedHost, added: str, verdict: Verdict
) -> None:
    """I4. docker.socket and docker.service are stopped, and somebody writes before the agent is back."""
    host = killed_when(host, (listens("2375"), reload, restart_socket), lambda host: host.running is None)
    section = "Unit" if added.startswith("Wants") else "Socket"
    do(host, (sleep(1), write(f"{DROPINS}/pre.conf", f"[{section}]\n{added}")))
    starts = list(host.starts)
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.decision.verdict is verdict
    assert (host.starts == starts) is (verdict is Verdict.HOLD)
    do(host, (remove(f"{DROPINS}/pre.conf"),))
    pass_until_done(agent)
    assert host.running is not None
    assert host.open_addresses() == ()


# --- dockerd fails after a correction -------------------------------------------------------------


def test_docker_that_dies_after_a_correction_gets_its_configuration_back(host: SimulatedHost) -> None:
    """I3."""
    do(host, (*opened(), guarded))
    assert host.text(OURS) is not None
    do(host, (fault(dies_after_s=1.0), restart, sleep(120)))
    assert host.active["docker.service"] == "failed"
    do(host, (fault(dies_after_s=None),))
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.ROLL_BACK
    assert host.text(OURS) is None
    assert host.running is not None
    assert host.running.layer.hosts == ("fd://", "tcp://0.0.0.0:2375")
    assert host.open_addresses() == (), "it is contained"
    assert agent.controller.memory.attempt is not None
    assert agent.controller.memory.attempt.was_rolled_back
    entry = next(entry for entry in agent.journal.entries if entry.event == "rolled-back")
    assert entry.outcome == "failed"
    assert SimulatedStateFiles(host).load().intent is None
    agent.run_pass()
    assert agent.controller.decision.hold is not None, "not at once again"


def test_what_changes_before_the_first_look_after_a_roll_back_counts(host: SimulatedHost) -> None:
    """I9. The administrator replaces the drop-in while the correction is rolled back."""
    do(host, (*opened(), guarded, fault(dies_after_s=1.0), restart, sleep(120), fault(dies_after_s=None)))
    agent = new_agent(host)
    agent.run_pass()
    verdicts = [agent.controller.decision.verdict]
    do(host, (dropin(OPEN, LATE),))
    agent.run_pass()
    verdicts.append(agent.controller.decision.verdict)
    assert verdicts == [Verdict.ROLL_BACK, Verdict.APPLY]
    assert host.open_addresses() == ()


def test_docker_that_fails_at_a_start_during_its_correction_is_started(host: SimulatedHost) -> None:
    """It was on its way up with hosts in two places when the files were corrected, and reached its start limit."""
    do(host, (daemon_json('{"live-restore": true, "hosts": ["fd://"]}'), starting))
    agent = new_agent(host)
    agent.run_pass()
    assert host.text(OURS) is not None
    host.running = None
    host.active["docker.service"] = "failed"
    do(host, (sleep(1),))
    agent.run_pass()
    assert host.running is not None and host.running.layer.hosts == ("fd://",)
    assert not any("not through the agent" in entry.message for entry in agent.journal.entries)


def test_a_roll_back_that_an_error_of_the_disk_interrupted_is_finished(host: SimulatedHost) -> None:
    """I3: the corrections restarted nothing, and dockerd failed when it was started with the last one later."""
    do(host, (dropin(OPEN), guarded, dropin(OPEN, OURS)))
    theirs = host.text(OURS)
    do(host, (guarded, fault(dies_after_s=1.0), restart, sleep(120), fault(dies_after_s=None, disk_errno=5)))
    agent = new_agent(host)
    agent.run_pass()
    verdicts = [agent.controller.decision.verdict]
    assert host.text(OURS) != theirs
    do(host, (fault(disk_errno=0), sleep(5)))
    agent.run_pass()
    verdicts.append(agent.controller.decision.verdict)
    assert verdicts == [Verdict.ROLL_BACK, Verdict.RECOVER]
    assert (host.text(OURS), host.running is not None, host.open_addresses()) == (theirs, True, ())


def test_a_correction_stays_where_dockerd_would_refuse_what_was_there_before(host: SimulatedHost) -> None:
    """I3: dockerd dies for another reason, and the earlier content has become invalid."""
    path = "/srv/config/daemon.json"
    do(host, (dropin(""), write(path, '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'),
              link(DAEMON_JSON, path), reload, restart, guarded))
    assert host.open_addresses() == ()
    corrected = host.text(DAEMON_JSON)
    do(host, (write(path, "{"), fault(dies_after_s=1.0), restart, sleep(120)))
    assert host.active["docker.service"] == "failed"
    do(host, (fault(dies_after_s=None),))
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.ROLL_BACK
    assert (host.text(DAEMON_JSON), host.open_addresses()) == (corrected, ())
    assert any("which stays, since dockerd would refuse what was there before" in entry.message
               for entry in agent.journal.entries)
    assert SimulatedStateFiles(host).load().intent is None
    pass_until_done(agent)
    assert host.running is not None


@pytest.mark.parametrize("errno", [28, 30])
def test_what_an_administrator_repaired_is_not_undone(host: SimulatedHost, errno: int) -> None:
    """A late drop-in was set aside, dockerd failed for another reason, and the disk kept the roll back from its end.

    The administrator removes the cause and the drop-in and starts dockerd. To undo the correction then would bring the
    drop-in back and restart dockerd with its port (I3, I14).
    """
    do(host, (dropin("-H tcp://10.0.0.5:2375", LATE), guarded, sleep(1)))
    assert host.text(LATE) is None
    do(host, (daemon_json('{"live-restore": true, "storage-driver": "zfs"}'), restart, sleep(120),
              fault(disk_errno=errno)))
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.memory.intent is not None
    host.remove(f"{DIRECTORY}/zy-zzz.conf")
    host.remove(LATE)
    do(host, (fault(disk_errno=0), daemon_json('{"live-restore": true}'), reload))
    host.reset_failed()
    assert host.restart("admin")
    starts = len(host.starts)
    agent.run_pass()
    assert (host.text(LATE), len(host.starts)) == (None, starts)
    pass_until_done(agent)
    assert (host.text(LATE), len(host.starts)) == (None, starts)
    assert host.running is not None and host.running.layer.hosts == ("fd://",)


@pytest.mark.parametrize(("happened", "path"), [
    (DRIFTS["a late drop-in"], LATE),
    ((write("/srv/zzz.conf", f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n"),
      link(LATE, "../../../../srv/zzz.conf"), reload, restart), LATE),
    (DRIFTS["daemon.json"], DAEMON_JSON),
], ids=["a late drop-in", "a link", "daemon.json"])
def test_a_full_disk_loses_no_foreign_content(host: SimulatedHost, happened: tuple[Act, ...], path: str) -> None:
    """I5: the disk is full when a correction is rolled back. The copies stay until the original is restored."""
    do(host, happened)
    content, target = host.text(path), os.path.realpath(host.root / path.lstrip("/"))
    do(host, (guarded, sleep(1), fault(dies_after_s=1.0), restart, sleep(120), fault(dies_after_s=None, disk_errno=28)))
    agent = new_agent(host)
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.ROLL_BACK
    saved = host.root / f"{path}.dockerd-guard-saved".lstrip("/")
    assert content in {file.read_text() for file in (host.root / path.lstrip("/"), saved) if file.exists()}
    do(host, (fault(disk_errno=0), sleep(5)))
    agent.run_pass()
    assert host.text(path) == content
    assert os.path.realpath(host.root / path.lstrip("/")) == target
    assert not os.path.lexists(saved)


def test_a_foreign_file_under_the_name_of_a_copy_is_restored(host: SimulatedHost) -> None:
    """I5: dockerd fails with a correction that replaced it."""
    aside = f"{DIRECTORY}/zy-zzz.conf"
    do(host, (write(aside, "# an administrator's\n"), *DRIFTS["a late drop-in"]))
    before = sorted((host.root / DIRECTORY.lstrip("/")).iterdir())
    do(host, (guarded, sleep(1), fault(dies_after_s=1.0), restart, sleep(120), fault(dies_after_s=None)))
    new_agent(host).run_pass()
    assert host.text(aside) == "# an administrator's\n"
    assert sorted((host.root / DIRECTORY.lstrip("/")).iterdir()) == before


def test_docker_that_never_comes_up_again_is_not_restarted_for_ever(host: SimulatedHost) -> None:
    """Rolled back on a disk that has become read-only, of a dockerd that fails with either configuration (I2)."""
    do(host, (*opened(), guarded, daemon_json('{"live-restore": true, "storage-driver": "zfs"}'), restart, sleep(120),
              fault(disk_errno=30)))
    before = len([start for start in host.starts if start.by == "us"])
    agent = new_agent(host)
    for _ in range(40):
        wake_s = agent.run_pass()
        host.clock.sleep(max(wake_s if wake_s is not None else 30.0, 1.0))
    ours = [start for start in host.starts if start.by == "us"]
    assert len(ours) - before <= 3


def test_what_could_not_be_undone_is_a_message() -> None:
    assert Undone((), ()).message == ""
    assert Undone(("/a: full",), ("docker.service failed",)).message == "/a: full; docker.service failed"


def test_recovery_is_reported_where_systemd_refuses(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host = killed_when(host, DRIFTS["an override"], lambda host: host.text(OURS) is not None)
    agent = new_agent(host)

    def refuse(_: SimulatedManager) -> None:
        raise Refused("Reload", "Access denied")

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedManager, "reload", refuse)
        wake_s = agent.run_pass()
    assert agent.controller.memory.intent is not None
    assert agent.journal.lines == ["Cannot finish or undo an earlier correction: Access denied."]
    assert wake_s is not None
    pass_until_done(agent)
    assert host.open_addresses() == ()
    assert host.text(DAEMON_JSON) == '{"live-restore": true}'


def test_changes_that_cancel_each_other_are_no_correction() -> None:
    """A drop-in of ours that was written and removed again is nothing to undo."""
    other = Change(OVERRIDE, b"a", b"b")
    begun = Intent((Change(OURS, None, b"x"), other), Instant(datetime.now(UTC)), ())
    intent = begun._replace(changes=begun.before((Change(OURS, b"x", None),)))
    assert intent.changes == (Change(OURS, None, None), other), "a crash may come before it is removed"
    assert intent.applied == begun._replace(changes=(other,), is_applied=True)


def test_a_copy_stays_where_another_program_writes_after_the_original_was_restored(agent: SimulatedAgent) -> None:
    """I5: the copy is the only one that is left."""
    do(agent.host, (dropin(OPEN, LATE),))
    agent.run_pass()
    saved = f"{LATE}.dockerd-guard-saved"
    content = agent.host.text(saved)
    assert content is not None
    agent.host.next_starts = ["refuses"]
    do(agent.host, (reload, restart))
    agent.host.interferes = "# theirs\n"
    agent.run_pass()
    assert agent.host.text(LATE) == "# theirs\n"
    assert agent.host.text(saved) == content
