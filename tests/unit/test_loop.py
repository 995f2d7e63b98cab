"""The agent's loop: triggers, signals, locks and notifications, with stand-ins for systemd, inotify and the network."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.agent import loop, publisher, status_file, textfile
from dockerd_guard.agent.states import AgentState
from dockerd_guard.apply.files import TEMPORARY_PREFIX
from dockerd_guard.apply.state_files import Busy, exclusive, single_agent
from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import PolicyError, PolicyProblem
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rootfs import Rootfs
from tests.simulation.agent import RecordedJournal
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedKernel
from tests.support.loop import POLICY, Loop, Notified
from tests.support.situations import OURS, do, opened


@pytest.fixture
def made(host: SimulatedHost, in_memory: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr(status_file, "PUBLIC_FILE", str(in_memory / "status.json"))
    monkeypatch.setattr(textfile, "DIRECTORY", str(in_memory / "metrics"))
    return Loop(host, in_memory, monkeypatch)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The signal handlers as they were."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def write(fd: int, data: bytes = b"x") -> None:
    os.write(fd, data)


# --- waiting --------------------------------------------------------------------------------------


def test_a_change_of_files_starts_a_pass_after_a_quiet_time(made: Loop) -> None:
    agent = made.agent
    agent._pass()
    write(made.files.write)
    assert agent._wait()
    assert made.state_of_agent() is AgentState.SETTLING
    assert agent._controller.memory.changed_at is not None
    agent._pass()
    assert made.state_of_agent() is AgentState.WATCHING


def test_a_signal_of_systemd_starts_a_pass(made: Loop) -> None:
    made.agent._pass()
    assert made.bus is not None
    write(made.bus.write)
    assert made.agent._wait()


@pytest.mark.parametrize(("unit", "is_due"), [
    ("dockerd-guard-network@7-1234-0.service", False), ("docker.service", True), ("Reloading", True),
    ("dockerd-guard-network.socket", True),
])
def test_the_end_of_our_own_network_helper_starts_no_pass(made: Loop, unit: str, is_due: bool) -> None:
    """Without nftables each pass starts it: a pass for each of its jobs would never end."""
    made.agent._pass()
    assert made.bus is not None
    while made.agent._events(0.0):
        pass
    write(made.bus.write, unit.encode())
    assert any(made.agent._events(0.0) for _ in range(2)) == is_due


def test_a_broken_bus_starts_a_pass_that_connects_again(made: Loop) -> None:
    made.agent._pass()
    first = made.bus
    assert first is not None
    first.is_broken = True
    assert made.agent._wait()
    assert made.agent._controller.manager is None
    made.agent._pass()
    assert made.bus is not first
    made.bus.is_broken = True  # type: ignore[union-attr]
    made.agent._listen()
    assert made.agent._controller.manager is None
    made.agent._listen()


def test_the_wake_of_a_pass_is_kept(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens, and the pass wants another look."""
    made.agent._pass()
    made.agent._wake_in(0.01)
    made.agent._wake_in(5.0)
    assert made.agent._wait()
    assert made.state_of_agent() is AgentState.WATCHING


def test_the_watchdog_is_fed_while_nothing_happens(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    made.agent._pass()
    made.notify.watchdog_s = 0.01
    made.notify.sent.clear()
    waits: list[float] = []
    events = made.agent._events

    def wait(timeout_s: float) -> bool:
        waits.append(timeout_s)
        return events(timeout_s)

    monkeypatch.setattr(made.agent, "_events", wait)
    made.agent._wake_in(0.05)
    assert made.agent._wait()
    assert waits
    assert max(waits) <= made.notify.watchdog_s
    assert made.notify.sent.count("WATCHDOG") == len(waits)


@pytest.mark.parametrize("has_new", [True, False])
def test_a_new_listening_socket_starts_a_pass_when_the_watchdog_is_fed(
    made: Loop, monkeypatch: pytest.MonkeyPatch, has_new: bool
) -> None:
    """Nothing announces a program that is started by hand."""
    made.agent._pass()
    made.notify.watchdog_s = 0.01
    monkeypatch.setattr(SimulatedKernel, "has_new_listener", lambda _: has_new)
    made.agent._wake_in(0.5)
    began = time.monotonic()
    assert made.agent._wait()
    assert (time.monotonic() - began < 0.5) == has_new
    assert (made.agent._triggered_at >= began) == has_new


def test_a_program_that_writes_all_the_time_does_not_delay_a_pass_for_ever(
    made: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_SETTLE_S", 0.1)
    made.agent._pass()
    events = made.agent._events

    def busy(timeout_s: float) -> bool:
        write(made.files.write)
        return events(timeout_s)

    monkeypatch.setattr(made.agent, "_events", busy)
    assert made.agent._wait()


@pytest.mark.parametrize(("number", "goes_on"), [
    (signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGHUP, True), (signal.SIGCONT, True)])
def test_signals(made: Loop, number: signal.Signals, goes_on: bool) -> None:
    made.agent._pass()
    made.agent._catch_signals()
    made.notify.taken()
    os.kill(os.getpid(), number)
    assert made.agent._wait() is goes_on
    assert (made.state_of_agent() is AgentState.STOPPING) is not goes_on
    assert made.notify.taken() == (["RELOADING"] if number == signal.SIGHUP else [])
    made.journal.entries.clear()
    made.agent._pass()
    if number == signal.SIGCONT:
        assert "has been continued (SIGCONT)" in made.journal.entries[0].message


def test_a_reload_retries_what_failed(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    made.agent._pass()
    retries: list[bool] = []
    real = made.agent._controller.run_pass

    def run_pass(problems: list[str], *, retry: bool, **others: Any) -> None:
        retries.append(retry)
        real(problems, retry=retry, **others)

    monkeypatch.setattr(made.agent._controller, "run_pass", run_pass)
    made.agent._signal(signal.SIGHUP)
    made.agent._pass()
    made.agent._pass()
    assert retries == [True, False]


@pytest.mark.parametrize("in_a_job", [False, True], ids=["between passes", "while a pass waits for a job of systemd"])
def test_a_flushed_table_comes_back_before_anything_else(
        made: Loop, monkeypatch: pytest.MonkeyPatch, *, in_a_job: bool) -> None:
    """I8."""
    reopened: list[float] = []
    monkeypatch.setattr(made.agent._controller.containment, "_reopened", reopened.append)
    do(made.host, opened())
    made.host.engine_is_silent = True
    made.agent._pass()
    assert made.network.follows is True
    assert made.host.blocked
    assert made.state_of_agent() is AgentState.HOLDING
    made.host.blocked, made.host.table = (), 99
    write(made.network.write)
    if in_a_job:
        made.agent._beat()
        assert made.host.blocked
    # A pass follows either way.
    assert made.agent._events(0.0)
    assert made.host.blocked
    assert len(reopened) == 1


def test_what_cannot_be_followed_is_reported_by_the_next_pass(made: Loop) -> None:
    made.network.cannot_follow = True
    made.agent._pass()
    assert made.agent._events(0.0) is False
    made.agent._pass()
    assert "cannot monitor the nftables rules: no netlink" in made.journal.entries[-1].message
    assert made.agent._events(0.0), "and looked at once more"


def test_a_change_without_a_file_event_is_confirmed_by_another_pass(made: Loop) -> None:
    made.files.confirm_s = 0.01
    made.agent._pass()
    assert made.agent._wake_at is not None
    assert made.agent._wake_at < time.monotonic() + 1
    assert made.agent._wait()
    assert made.state_of_agent() is AgentState.WATCHING, "no trigger arrived"


def test_what_is_watched(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    made.files.is_new = True
    made.files.unwatched = ("/x cannot be watched",)
    made.agent._pass()
    assert {"/policy.yaml", "/etc/docker/daemon.json"} <= made.files.paths
    assert any("/x cannot be watched" in entry.message for entry in made.journal.entries)
    assert made.agent._events(0.0), "what was not watched until now is looked at again"
    policy = parse_policy(b"version: 1\nsockets: [{address: 'tcp://127.0.0.1:2376', tls: mutual}]\n")
    with Rootfs(str(made.host.root)) as rootfs:
        made.agent._watch(rootfs, policy)
    assert {"/etc/docker/ca.pem", "/etc/docker/server-cert.pem", "/etc/docker/server-key.pem"} <= made.files.paths


def test_a_changed_table_during_a_pass_starts_another(made: Loop) -> None:
    made.agent._pass()
    made.agent._waker.drain()
    write(made.network.write)
    made.agent._pass()
    assert made.agent._events(0.0)


def test_a_new_policy_has_a_date(made: Loop, in_memory: Path) -> None:
    made.agent._pass()
    before = made.agent._policy_since
    made.policy = parse_policy(b"version: 1\nsockets: [fd://]\n")
    made.agent._pass()
    assert made.agent._controller.policy is made.policy
    assert made.agent._policy_since >= before


# --- locks ----------------------------------------------------------------------------------------


def test_a_host_that_another_process_corrects_is_observed_and_contained(
    made: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `fix` that was suspended holds the lock for ever (I7, I8)."""
    monkeypatch.setattr(publisher, "BUSY_AFTER_S", 0.0)
    do(made.host, opened())
    with exclusive(made.state.directory):
        made.agent._pass()
        made.agent._pass()
        assert made.journal.lines == ["Waiting: another dockerd-guard is correcting this host."]
        assert made.agent._wake_at is not None
        assert [str(entry.event) for entry in made.journal.entries] == ["drift", "contained"]
        assert made.host.blocked
        assert made.host.text(OURS) is None, "nothing is corrected"
        assert os.listdir(made.state.directory) == ["status.json"], "the memory belongs to the other process"
        assert made.state_of_agent() is AgentState.HOLDING
        status = made.notify.taken()[-1]
        assert status.startswith("READY another dockerd-guard is correcting this host, noticed at ")
        assert "as declared" not in status
        published = status_file.published(status_file.PUBLIC_FILE)
        assert published is not None
        assert published.held is not None
        assert published.held.reason.startswith("another dockerd-guard is correcting this host")
        assert published.drifts
    made.agent._pass()
    assert made.host.text(OURS) is not None
    assert not made.host.blocked
    assert [str(entry.event) for entry in made.journal.entries][2:] == ["corrected", "released"]
    assert made.agent._busy_since is None
    assert "another" not in made.notify.taken()[-1]


def test_a_fix_that_is_suspended_later_stops_only_corrections(made: Loop) -> None:
    made.agent._pass()
    with exclusive(made.state.directory):
        made.agent._pass()
        assert made.state_of_agent() is AgentState.WATCHING, "an ordinary fix is no hold"
        assert made.notify.taken()[-1].endswith("; enforce: Docker listens as declared, on fd://"), "it was looked"
        do(made.host, opened())
        made.agent._pass()
        assert made.host.blocked
        assert "enforce: DG101" in made.notify.taken()[-1]
        assert made.host.text(OURS) is None


def test_a_reload_while_another_process_holds_the_lock_is_kept(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    retries: list[bool] = []
    real = made.agent._controller.run_pass

    def run_pass(problems: list[str], *, retry: bool, **others: Any) -> None:
        retries.append(retry)
        real(problems, retry=retry, **others)

    monkeypatch.setattr(made.agent._controller, "run_pass", run_pass)
    with exclusive(made.state.directory):
        made.policy = parse_policy(b"version: 1\nmode: observe\nsockets: [fd://]\n")
        made.agent._signal(signal.SIGHUP)
        made.agent._pass()
        assert made.agent._controller.policy is made.policy
    made.agent._pass()
    made.agent._pass()
    assert retries == [True, True, False]


def test_temporary_files_of_another_process_stay_while_it_holds_the_lock(made: Loop) -> None:
    left = Path(made.state.directory) / f"{TEMPORARY_PREFIX}0123"
    left.touch()
    with exclusive(made.state.directory):
        made.agent._pass()
        assert left.exists()
    made.agent._pass()
    assert not left.exists(), "left by a crash"


def test_the_first_pass_removes_what_a_crash_left(made: Loop) -> None:
    """Later a temporary file may be one that is being written."""
    left = Path(made.state.directory) / f"{TEMPORARY_PREFIX}0123"
    for is_kept in (False, True):
        left.touch()
        made.agent._pass()
        assert left.exists() is is_kept


def test_a_state_directory_that_cannot_be_used_is_reported(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(loop, "exclusive", refuse)
    made.agent._pass()
    assert "cannot use the state directory" in made.journal.entries[0].message
    assert made.files.paths, "and the host is observed all the same"


def test_a_second_agent_waits_for_the_first(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RETRY_S", 0.01)
    first = single_agent(made.state.directory)
    first.__enter__()
    waited = threading.Event()
    monkeypatch.setattr(made.notify, "alive", waited.set)

    def leave() -> None:
        waited.wait(30)
        first.__exit__(None, None, None)

    thread = threading.Thread(target=leave)
    thread.start()
    with contextlib.ExitStack() as locks:
        assert made.agent._is_the_only_one(locks)
        thread.join()
        with pytest.raises(Busy):
            single_agent(made.state.directory).__enter__()
    assert len(made.journal.lines) == 1
    assert made.notify.taken()[0].startswith("READY Waiting: another agent")


def test_a_second_agent_can_be_stopped(made: Loop) -> None:
    with single_agent(made.state.directory), contextlib.ExitStack() as locks:
        made.agent._catch_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not made.agent._is_the_only_one(locks)


def test_an_agent_that_cannot_check_for_another_works(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(loop, "single_agent", refuse)
    with contextlib.ExitStack() as locks:
        assert made.agent._is_the_only_one(locks)
    assert made.journal.lines == ["Cannot check for another running agent: [Errno 30] Read-only file system"]


# --- the whole ------------------------------------------------------------------------------------


def test_a_run_from_start_to_stop(made: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    do(made.host, opened())
    passes: list[int] = []
    real = made.agent._pass

    def counted() -> None:
        real()
        passes.append(1)
        if len(passes) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            write(made.files.write)

    monkeypatch.setattr(made.agent, "_pass", counted)
    assert made.agent.run() == 0
    assert len(passes) == 2
    sent = made.notify.taken()
    assert sent[0] == "STATUS Running the first check of this host"
    assert sent[1] == "READY enforce: Docker listens as declared, on fd://"
    assert sent[-1] == "STOPPING"
    assert made.files.is_closed
    assert made.network.is_closed
    assert [str(entry.event) for entry in made.journal.entries][:4] == ["policy", "drift", "contained", "corrected"]
    status = status_file.published(status_file.PUBLIC_FILE)
    assert status is not None
    assert (status.state, status.pid) == ("stopping", os.getpid())
    made.agent._pass()


def test_run_needs_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert loop.run("/policy.yaml", "journald") == 2
    assert "the agent needs root" in capsys.readouterr().err


def test_run_needs_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, notify = RecordedJournal(), Notified()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(loop, "Journal", lambda log_format: journal)
    monkeypatch.setattr(loop, "Notify", lambda: notify)

    def invalid(*_: object, **__: object) -> None:
        raise PolicyError([PolicyProblem(Location("/policy.yaml", 1, 1, 1), "nothing there")])

    monkeypatch.setattr(loop, "load_policy", invalid)
    assert loop.run("/policy.yaml", "journald") == 2
    assert [str(entry.event) for entry in journal.entries] == ["policy"]
    assert notify.taken() == ["STATUS No valid policy; this host is not guarded: /policy.yaml:1:1: nothing there"]


def test_run_runs_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(loop, "Journal", lambda log_format: RecordedJournal())
    monkeypatch.setattr(loop, "load_policy", lambda *_, **__: POLICY)

    class Ran:
        def __init__(self, *arguments: object) -> None:
            assert arguments[:2] == ("/policy.yaml", POLICY)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(loop, "Agent", Ran)
    assert loop.run("/policy.yaml", "journald") == 0
