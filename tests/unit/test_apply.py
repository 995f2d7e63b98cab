"""What comes of executing a decision: each way in which it fails, and what is left then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.apply import context, files, preflight
from dockerd_guard.apply.context import HostClock
from dockerd_guard.apply.files import HostFiles
from dockerd_guard.apply.preflight import validate
from dockerd_guard.apply.verify import unanswered
from dockerd_guard.model.address import Tls
from dockerd_guard.model.names import UNITS
from dockerd_guard.observe.engine import Ping
from dockerd_guard.observe.network import HelperUnavailable
from dockerd_guard.observe.observation import Process
from dockerd_guard.plan.before_start import hold_before_start
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.gate import Hold
from dockerd_guard.systemd.manager import JobFailed, Refused
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedFiles, SimulatedManager, SimulatedNetwork
from tests.support.situations import (
    DIRECTORY,
    LATE,
    OPEN,
    OURS,
    Act,
    daemon_json,
    do,
    dropin,
    environment,
    fault,
    link,
    listens,
    opened,
    policy,
    read_policy,
    reload,
    remove,
    restart,
    restart_socket,
    sleep,
    write,
)

ENFORCE = "mode: enforce\nsockets: [fd://]\n"
LOOPBACK = "mode: enforce\nsockets: [fd://, {address: 'tcp://127.0.0.1:2375', tls: none}]\n"


@pytest.fixture
def agent(host: SimulatedHost) -> SimulatedAgent:
    return SimulatedAgent(host, RecordedJournal())


def entry(agent: SimulatedAgent, event: str) -> str:
    """The message of the one entry of this event, but those about what a held correction has ended."""
    found = [each.message for each in agent.journal.entries if each.event == event and each.outcome != "pending"]
    assert len(found) == 1, [(each.event, each.message) for each in agent.journal.entries]
    return found[0]


def once(method: Callable[..., object], then: Callable[[], object]) -> Callable[..., object]:
    """The method, and something else that happens after its first call."""
    calls: list[object] = []

    def call(*arguments: object, **named: object) -> object:
        result = method(*arguments, **named)
        calls.append(result)
        if len(calls) == 1:
            then()
        return result

    return call


# --- execution ------------------------------------------------------------------------------------


def test_steps_are_recorded(agent: SimulatedAgent) -> None:
    do(agent.host, opened())
    agent.run_pass()
    assert entry(agent, "corrected") == (
        f"Docker listens as declared again: wrote {OURS}; reloaded systemd; restarted docker.service; "
        "verified that every declared socket answers and no other listens.")


def test_a_file_that_something_else_writes_meanwhile_is_left_alone(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our write and the look at what systemd has loaded."""
    do(agent.host, opened())
    theirs = "[Service]\n# theirs\n"
    monkeypatch.setattr(SimulatedFiles, "put", once(SimulatedFiles.put, lambda: agent.host.put(OURS, theirs)))
    agent.run_pass()
    message = next(each.message for each in agent.journal.entries if each.event in ("failed", "rolled-back"))
    assert f"another program changed {OURS} during the correction" in message
    assert agent.host.text(OURS) == theirs
    assert agent.controller.memory.attempt is None, "it is no failure of the correction"
    assert [start.by for start in agent.host.starts if start.by == "us"] == []


def test_another_file_that_opens_the_port_again_meanwhile_is_named(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(agent.host, (*opened(), sleep(60)))
    monkeypatch.setattr(SimulatedFiles, "put", once(
        SimulatedFiles.put, lambda: do(agent.host, (sleep(0.1), dropin(OPEN, LATE)))))
    agent.run_pass()
    message = next(each.message for each in agent.journal.entries if each.event in ("failed", "rolled-back"))
    assert f"another program changed {LATE} during the correction" in message
    assert agent.host.text(OURS) is None
    agent.run_pass()
    assert agent.host.text(LATE) is None, "the next pass corrects that"


MASK = f"{UNITS}/docker.service"
RUNTIME_MASK = "/run/systemd/system/docker.service"


@pytest.mark.parametrize(("meanwhile", "reason"), [
    # Only systemd's own environment changed, which is in no file.
    ((environment(DOCKER_OPTS="-H tcp://0.0.0.0:2376"),),
     "systemd has loaded a different configuration: fd://, tcp://0.0.0.0:2376"),
    ((link(MASK, "/dev/null"),), f"another program changed {MASK} during the correction"),
    ((link(RUNTIME_MASK, "/dev/null"),), f"another program changed {RUNTIME_MASK} during the correction"),
    ((write("/etc/default/docker", 'DOCKER_OPTS="-H tcp://0.0.0.0:2376"'),),
     "another program changed /etc/default/docker during the correction"),
    ((daemon_json('{"live-restore": true, "hosts": ["fd://"]}'),),
     "another program changed /etc/docker/daemon.json during the correction"),
], ids=["environment", "masked", "masked at run time", "environment file", "daemon.json"])
def test_only_a_file_that_changed_during_the_correction_is_named(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, meanwhile: tuple[Act, ...], reason: str
) -> None:
    """daemon.json was written last, before the correction began."""
    do(agent.host, (*opened("-H fd:// -H tcp://0.0.0.0:2375 $DOCKER_OPTS"), sleep(60),
                    daemon_json('{"live-restore":  true}'), sleep(60)))
    monkeypatch.setattr(SimulatedFiles, "put", once(
        SimulatedFiles.put, lambda: do(agent.host, (sleep(0.1), *meanwhile))))
    agent.run_pass()
    message = next(each.message for each in agent.journal.entries if each.event in ("failed", "rolled-back"))
    assert reason in message


def test_a_mask_that_systemd_has_loaded_is_reported(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemctl mask` was undone in the files before the look, and systemd has not been reloaded since."""
    def mask(host: SimulatedHost) -> None:
        do(host, (link(MASK, "/dev/null"), reload, remove(MASK)))

    do(agent.host, (*opened(), sleep(60)))
    monkeypatch.setattr(SimulatedFiles, "put", once(SimulatedFiles.put, lambda: mask(agent.host)))
    monkeypatch.setattr(SimulatedManager, "reload", lambda _: None)
    agent.run_pass()
    assert "systemd has loaded a different configuration: Unit docker.service is masked" in entry(agent, "rolled-back")


def test_systemd_that_has_not_loaded_what_was_written_is_not_restarted(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(agent.host, opened())
    monkeypatch.setattr(SimulatedHost, "reload", lambda _: None)
    agent.run_pass()
    assert "systemd has loaded a different configuration: fd://, tcp://0.0.0.0:2375" in entry(agent, "rolled-back")
    assert agent.host.text(OURS) is None
    assert agent.controller.memory.attempt is not None
    assert [start.by for start in agent.host.starts if start.by == "us"] == []


@pytest.mark.parametrize("error", [
    Refused("AccessDenied", "Access denied"), JobFailed("docker.service", "Reload", "x")])
def test_a_refused_reload_is_undone(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    do(agent.host, opened())

    def refuse(_: SimulatedManager) -> None:
        raise error

    monkeypatch.setattr(SimulatedManager, "reload", refuse)
    agent.run_pass()
    message = next(each.message for each in agent.journal.entries if each.event in ("failed", "rolled-back"))
    assert str(error) in message
    assert agent.host.text(OURS) is None


def test_docker_that_was_started_meanwhile_is_held(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped when it was observed; somebody starts it with what was loaded before our reload."""
    do(agent.host, (dropin(OPEN), reload, lambda host: host.stop("admin")))
    monkeypatch.setattr(SimulatedFiles, "put", once(SimulatedFiles.put, lambda: agent.host.start("admin")))
    agent.run_pass()
    assert "docker.service was started during the correction" in entry(agent, "held")
    agent.run_pass()
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://",)


def test_what_does_not_answer_is_rolled_back(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    do(agent.host, opened())
    monkeypatch.setattr(SimulatedNetwork, "ping", lambda *_: Ping(False, Tls.NONE, "Connection refused"))
    agent.run_pass()
    assert "unix:///run/docker.sock does not answer: Connection refused" in entry(agent, "rolled-back")
    assert agent.host.running is not None
    assert agent.host.running.layer.hosts == ("fd://", "tcp://0.0.0.0:2375")


def test_a_stop_that_hangs_is_followed_by_a_start(agent: SimulatedAgent) -> None:
    do(agent.host, (*opened(), fault(stop_hangs=True)))
    agent.run_pass()
    message = next(each.message for each in agent.journal.entries if each.event in ("failed", "rolled-back"))
    assert "job timeout" in message
    assert agent.host.running is not None


@pytest.mark.parametrize("drift", [opened(), (listens("/run/docker.sock", "2375"), reload, restart_socket)],
                         ids=["docker.service", "docker.socket"])
def test_a_stop_that_hangs_is_waited_for_once(agent: SimulatedAgent, drift: tuple[Act, ...]) -> None:
    """I12."""
    do(agent.host, (*drift, fault(stop_hangs=True)))
    begun = agent.host.clock.seconds
    agent.run_pass()
    assert agent.controller.decision.actions.starts_dockerd
    assert 240 < agent.host.clock.seconds - begun < 320


@pytest.mark.parametrize("there", ["# an administrator's\n", "[Service]\nEnvironment=A=b\n"])
def test_a_foreign_file_under_the_name_of_a_copy_is_saved(agent: SimulatedAgent, there: str) -> None:
    """I5."""
    aside = f"{DIRECTORY}/zy-zzz.conf"
    do(agent.host, (write(aside, there), dropin(OPEN, LATE), reload, restart))
    late = agent.host.text(LATE)
    agent.run_pass()
    assert agent.host.text(LATE) is None
    assert agent.host.text(f"{LATE}.dockerd-guard-saved") == late
    assert agent.host.text(f"{aside}.dockerd-guard-saved") == there
    assert agent.host.text(aside) == late
    # What we made ourselves is not saved again.
    do(agent.host, (dropin(f"{OPEN} --label a=b", LATE),))
    agent.run_pass()
    assert agent.host.text(f"{aside}.dockerd-guard-saved.2") is None


def test_a_disk_that_fails_after_some_files_is_undone(agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    do(agent.host, (dropin(OPEN, LATE), reload, restart))
    monkeypatch.setattr(SimulatedFiles, "put", once(SimulatedFiles.put, lambda: fault(disk_errno=28)(agent.host)))
    agent.run_pass()
    assert "No space left on device" in entry(agent, "failed")
    assert agent.host.text(LATE) is not None


@pytest.mark.parametrize("method", ["check", "ping"])
def test_without_the_network_helper_tcp_is_not_changed(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def gone(*_: object) -> None:
        raise HelperUnavailable("Connection refused")

    do(agent.host, (policy(LOOPBACK),))
    monkeypatch.setattr(SimulatedNetwork, method, gone)
    agent.run_pass()
    assert "cannot verify that Docker answers over TCP" in entry(agent, "held")
    assert (agent.host.text(OURS) is None) == (method == "check")


@pytest.mark.parametrize(("answers", "event", "starts"), [(True, "corrected", 1), (False, "rolled-back", 2)])
def test_verification_is_repeated_once_the_network_helper_is_back(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch, answers: bool, event: str, starts: int
) -> None:
    def gone(*_: object) -> None:
        raise HelperUnavailable("Connection refused")

    do(agent.host, (policy(LOOPBACK),))
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedNetwork, "ping", gone)
        agent.run_pass()
        patch.setattr(SimulatedNetwork, "check", gone)
        do(agent.host, (sleep(100),))
        agent.run_pass()
    assert "cannot verify that Docker answers over TCP" in entry(agent, "held")
    ended = [each.episodes for each in agent.journal.entries if each.outcome == "pending"]
    assert ended == [("DG102 tcp://127.0.0.1:2375",)]
    if not answers:
        monkeypatch.setattr(SimulatedNetwork, "ping", lambda *_: Ping(False, Tls.NONE, "timed out"))
    agent.run_pass()
    words = "verified that every declared socket answers" if answers else "does not answer: timed out"
    assert words in entry(agent, event)
    assert (agent.host.text(OURS) is not None) is answers
    assert len([start.by for start in agent.host.starts if start.by == "us"]) == starts
    assert agent.controller.memory.intent is None or not agent.controller.memory.intent.is_unverified


def test_a_copy_that_stays_is_named_and_the_correction_is_not_rolled_back(agent: SimulatedAgent) -> None:
    """I10. Another program writes to daemon.json during a correction that dockerd does not start with."""
    do(agent.host, (dropin(""), daemon_json('{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'), reload,
                    restart))
    agent.host.interferes, agent.host.next_starts = "# theirs\n", ["refuses"]
    agent.run_pass()
    assert ("/etc/docker/daemon.json.dockerd-guard-saved stays, since another program has changed "
            "/etc/docker/daemon.json") in entry(agent, "failed")
    assert agent.host.text("/etc/docker/daemon.json") == "# theirs\n"


def test_an_address_in_use_is_held_before_anything_changes(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(agent.host, (policy(LOOPBACK),))
    monkeypatch.setattr(SimulatedNetwork, "unbindable", lambda *_: "127.0.0.1:2375 is in use by another program")
    agent.run_pass()
    assert "127.0.0.1:2375 is in use by another program" in entry(agent, "held")
    assert agent.host.text(OURS) is None
    assert agent.controller.memory.restarts == (), "a restart that never came is not counted"


def test_a_unit_file_at_which_systemd_would_block_is_held(agent: SimulatedAgent) -> None:
    do(agent.host, opened())
    directory = agent.host.root / "etc/systemd/system/other.service.d"
    directory.mkdir()
    os.mkfifo(directory / "trap.conf")
    agent.run_pass()
    assert "is not a regular file; systemd would hang reading it" in entry(agent, "held")


# --- dockerd's own validation ---------------------------------------------------------------------


def test_what_dockerd_refuses_is_held_by_the_names_of_its_options(agent: SimulatedAgent) -> None:
    """I11: no values."""
    agent.ports = agent.ports._replace(validate=lambda *_: "unable to configure: log-opts: secret-value is invalid")
    agent.controller.host = agent.ports
    do(agent.host, opened())
    agent.run_pass()
    message = entry(agent, "held")
    assert "`dockerd --validate` refuses the configuration (log-opts); run it to see why" in message
    assert "secret" not in message


def test_the_edited_daemon_json_is_validated(agent: SimulatedAgent) -> None:
    given: list[tuple[object, ...]] = []
    agent.controller.host = agent.ports._replace(validate=lambda *arguments: given.append(arguments))
    do(agent.host, (dropin(""), daemon_json('{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}'), reload,
                    restart))
    # The path on the host is compared with that of the change.
    agent.run_pass()
    assert [arguments[1:3] for arguments in given] == [("/usr/bin/dockerd", ("-H", "fd://"))]


def test_validation_runs_the_binary_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: the same device and inode, a fixed environment."""
    monkeypatch.setenv("LD_PRELOAD", "")
    ran: list[tuple[object, dict[str, object]]] = []

    def run(argv: list[str], **named: object) -> subprocess.CompletedProcess[bytes]:
        config = argv[-1].partition("=")[2]
        content = Path(config).read_bytes() if config.startswith("/proc") else b""
        ran.append((argv, {**named, "content": content}))
        return subprocess.CompletedProcess(argv, code, b"", b"bad option\xff")

    monkeypatch.setattr(subprocess, "run", run)
    process = Process(os.getpid(), (), {}, 0, "docker.service")
    code = 0
    assert validate(process, sys.executable, ["-H", "fd://"], None) is None
    assert ran[0][0] == [sys.executable, "-H", "fd://", "--validate"]
    assert ran[0][1]["env"] == preflight.ENVIRONMENT
    assert ran[0][1]["executable"] == f"/proc/{os.getpid()}/exe"
    code = 1
    assert validate(process, sys.executable, [], b'{"a": 1}') == "bad option\ufffd"
    assert ran[1][1]["content"] == b'{"a": 1}'
    assert validate(process, "/bin/true", [], None) is None
    assert validate(process, str(tmp_path / "missing"), [], None) is None
    assert len(ran) == 2

    def slow(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("dockerd", 20)

    monkeypatch.setattr(subprocess, "run", slow)
    assert validate(process, sys.executable, [], None) is None


def test_validation_happens_only_before_a_start(agent: SimulatedAgent) -> None:
    do(agent.host, (dropin(OPEN),))
    agent.run_pass()
    assert agent.controller.decision.verdict is Verdict.APPLY
    assert agent.host.executed == []
    do(agent.host, (*opened("-H fd:// -H tcp://0.0.0.0:2376"), write(OURS, "[Service]\n"), reload, restart))
    agent.run_pass()
    assert agent.host.executed == ["/usr/bin/dockerd"]


def test_every_declared_socket_must_answer_as_declared() -> None:
    class Answers:
        def ping(self, address: str, tls: Tls) -> Ping:
            if "2377" in address:
                return Ping(False, Tls.NONE, "timed out")
            return Ping(True, Tls.NONE, "")

    declared = read_policy("sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}, "
                           "{address: 'tcp://127.0.0.1:2377', tls: mutual}]")
    assert list(unanswered(declared, Answers())) == [  # type: ignore[arg-type]
        "tcp://127.0.0.1:2376 accepts clients without a certificate",
        "tcp://127.0.0.1:2377 does not answer: timed out"]


# --- ports ----------------------------------------------------------------------------------------


def test_the_clock_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HostClock()
    first, second = clock.now(), clock.now()
    assert first.boot_id == Path(context.BOOT_ID_FILE).read_text().strip()
    assert 0 <= second.seconds_since(first) < 60
    assert abs((datetime.now(UTC) - first.wall).total_seconds()) < 60
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    clock.sleep(1.5)
    assert slept == [1.5]


def test_host_files_write_and_remove_below_the_root(tmp_path: Path) -> None:
    on_host = HostFiles(str(tmp_path))
    on_host.put("/etc/unit.d/a.conf", b"x", files.PUBLIC)
    assert (tmp_path / "etc/unit.d/a.conf").read_bytes() == b"x"
    (tmp_path / f"etc/unit.d/{files.TEMPORARY_PREFIX}1").write_text("")
    on_host.sweep("/etc/unit.d")
    on_host.sweep("/etc/missing")
    on_host.put("/etc/unit.d/a.conf", None, files.PUBLIC)
    assert not (tmp_path / "etc/unit.d").exists()


@pytest.mark.parametrize(("status", "expected"), [
    ((0, 100, 1), ""), ((0, 100, 0), "No space left on device"), ((0, 0, 0), ""),
    ((os.ST_RDONLY, 100, 1), "Read-only file system"),
])
def test_why_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: tuple[int, int, int], expected: str
) -> None:
    class Status:
        f_flag, f_blocks, f_bavail = status

    monkeypatch.setattr(os, "statvfs", lambda path: Status)
    assert HostFiles(str(tmp_path)).problem("/etc") == expected


def test_why_nothing_can_be_written_where_there_is_nothing(tmp_path: Path) -> None:
    assert HostFiles(str(tmp_path)).problem("/missing") == "No such file or directory"


def test_write_new_replaces_nothing(tmp_path: Path) -> None:
    files.write_new(f"{tmp_path}/a", b"1")
    with pytest.raises(FileExistsError):
        files.write_new(f"{tmp_path}/a", b"2")
    files.write_new(f"{tmp_path}/a", b"3", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"3"


def test_a_directory_that_became_a_link_does_not_redirect_a_write(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "unit.d").symlink_to("elsewhere")
    with pytest.raises(NotADirectoryError):
        files.write("/unit.d/a.conf", b"x", root=str(tmp_path))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_socket_unit_that_is_left_is_not_said_to_be_started(
    agent: SimulatedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I10. Somebody starts docker.service after the last look: its socket unit stays, since it would stop with it."""
    do(agent.host, (lambda host: host.stop("admin"), lambda host: setattr(host, "held", ())))

    def looked(*arguments: Any) -> Hold | None:
        hold = hold_before_start(*arguments)
        agent.host.start("admin")
        return hold

    monkeypatch.setattr("dockerd_guard.agent.reconcile.hold_before_start", looked)
    agent.run_pass()
    assert agent.host.held == ()
    assert "So far: reloaded systemd. Next" in entry(agent, "held")
