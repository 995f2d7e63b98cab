"""What the agent publishes: the status file, the metrics, the STATUS= line."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dockerd_guard.agent import status_file, textfile
from dockerd_guard.agent.drift_tracker import DriftTracker
from dockerd_guard.agent.publisher import Publisher, Standing, policy_changed_at
from dockerd_guard.agent.states import AgentState
from dockerd_guard.agent.status_file import published
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.instant import Instant
from dockerd_guard.plan.memory import Attempt, Contained, HeldCorrection, Memory
from dockerd_guard.report.journal import Event, JournalEntry, Outcome
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.support.situations import do, opened, policy, read_policy

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
POLICY = read_policy("sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: none}]")
BUSY = (f"another dockerd-guard is correcting this host, noticed at {NOON.astimezone():%Y-%m-%d %H:%M:%S}; "
        "nothing is corrected until it ends")
STANDING = Standing(AgentState.WATCHING, POLICY, NOON, "", Memory(), False, 0, 1.0, 0.0)
OPEN = Finding("DG101", "error", "the API listens on TCP", "configured", None, "safe", "tcp://0.0.0.0:2375")
FILE = Finding("DG401", "warning", "a file is loose.", "configured")
HELD = Memory(held=HeldCorrection("outside the window", NOON, None))


class Published:
    """A publisher whose files are in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = RecordedJournal()
        self.tracker = DriftTracker(self.journal)
        self.publisher = Publisher(self.journal, self.tracker, str(directory))

    @property
    def metrics(self) -> str:
        return (self.directory / "metrics/dockerd-guard.prom").read_text()


@pytest.fixture
def made(in_memory: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    (in_memory / "metrics").mkdir()
    monkeypatch.setattr(status_file, "PUBLIC_FILE", str(in_memory / "public.json"))
    monkeypatch.setattr(textfile.publish, "__defaults__", (str(in_memory / "metrics"),))
    return Published(in_memory)


@pytest.mark.parametrize(("drifts", "blind", "standing", "line"), [
    ((), (), STANDING, "enforce: Docker listens as declared, on fd://, tcp://127.0.0.1:2376"),
    ((OPEN,), (), STANDING, "enforce: DG101 The API listens on TCP"),
    ((FILE, OPEN), (), STANDING, "enforce: DG101 The API listens on TCP (and 1 more; dockerd-guard status)"),
    ((), ("b", "a"), STANDING, "Degraded visibility: a"),
    ((OPEN,), ("a",), STANDING, "Degraded visibility: a; enforce: DG101 The API listens on TCP"),
    ((OPEN,), (), STANDING._replace(memory=HELD), "held: outside the window"),
    ((OPEN,), (), STANDING._replace(memory=Memory(attempt=Attempt(Instant(NOON), "x", 1.0))),
     "enforce: DG101 The API listens on TCP; the last correction failed; it is retried when something changes"),
    ((OPEN,), (), STANDING._replace(memory=HELD._replace(attempt=Attempt(Instant(NOON), "x", 1.0))),
     "held: outside the window"),
    ((), (), STANDING._replace(memory=Memory(contained=Contained(("nftables",), ("tcp://a:1", "tcp://b:2"))),
                               policy_problem="x"),
     "enforce: Docker listens as declared, on fd://, tcp://127.0.0.1:2376; blocked at the network: tcp://a:1, tcp://b:2"
     "; the policy file is invalid, the last valid policy stays in force"),
    ((), (), STANDING._replace(observed_at=None), "this host has not been checked yet"),
    ((), ("no bus",), STANDING._replace(observed_at=None),
     "Degraded visibility: no bus; this host has not been checked yet"),
    ((OPEN,), (), STANDING._replace(busy_since=NOON, memory=HELD), f"{BUSY}; enforce: DG101 The API listens on TCP"),
    ((), (), STANDING._replace(busy_since=NOON, observed_at=None), f"{BUSY}; this host has not been checked yet"),
])
def test_the_status_line(
    made: Published, drifts: tuple[Finding, ...], blind: tuple[str, ...], standing: Standing, line: str
) -> None:
    made.tracker.drifts = {finding.fact: finding for finding in drifts}
    made.tracker.blind = frozenset(blind)
    assert made.publisher.status_line(standing) == line


def test_the_status_file_and_its_copy(made: Published) -> None:
    made.tracker.drifts = {OPEN.fact: OPEN}
    made.tracker.write(JournalEntry(Event.CORRECTED, "done", outcome=Outcome.REPAIRED))
    made.publisher.publish(STANDING._replace(memory=HELD))
    public = published(status_file.PUBLIC_FILE)
    assert public is not None
    assert (public.state, public.mode, public.pid, public.held) == ("watching", "enforce", os.getpid(), HELD.held)
    assert [drift.finding for drift in public.drifts] == [OPEN]
    assert public.last is not None
    assert public.last.message == "done"
    assert made.tracker.written == []
    own = made.directory / "status.json"
    assert published(str(own)) == public
    before = own.stat().st_ino
    made.publisher.publish(STANDING._replace(memory=HELD, state=AgentState.HOLDING))
    assert own.stat().st_ino == before, "the copy has only what outlives a process"
    again = published(status_file.PUBLIC_FILE)
    assert again is not None
    assert (again.state, again.last) == ("holding", public.last)
    assert again.drifts[0].since == public.drifts[0].since


@pytest.mark.parametrize(("finding", "contained", "started_s_ago", "expected_s"), [
    (OPEN, (), 3600, 60),
    (OPEN, (), None, 60),
    # Docker was restarted meanwhile.
    (OPEN, (), 20, 20),
    # It was blocked, or another drift.
    (OPEN, ("tcp://[::]:2375",), 3600, 0),
    (FILE, (), 3600, 0),
])
def test_an_exposure_goes_on_while_no_agent_runs(  # noqa: PLR0913, PLR0917 -- a row of the table
    made: Published, monkeypatch: pytest.MonkeyPatch, finding: Finding, contained: tuple[str, ...],
    started_s_ago: float | None, expected_s: float
) -> None:
    """As after SIGKILL: the next agent finds the port open, which it was a minute ago."""
    made.tracker.drifts = {finding.fact: finding}
    made.publisher.publish(STANDING._replace(memory=Memory(contained=Contained(("nftables",), contained))))
    last = published(str(made.directory / "status.json"))
    assert last is not None
    now = last.at.timestamp() + 60
    monkeypatch.setattr(time, "time", lambda: now)
    again = Published(made.directory).publisher
    # Before the first count, as while dockerd starts.
    again.publish(STANDING)
    again.counted(1, 0.0, None if started_s_ago is None else now - started_s_ago)
    again.publish(STANDING._replace(exposed=1))
    counts = published(str(made.directory / "status.json"))
    assert counts is not None
    assert counts.counts.exposed_s == pytest.approx(expected_s, abs=0.5)


def test_a_new_process_goes_on_with_the_drifts_of_the_last_one(host: SimulatedHost, made: Published) -> None:
    do(host, (policy("mode: observe\nsockets: [fd://]\n"), *opened()))
    first = SimulatedAgent(host, RecordedJournal())
    first.controller._tracker = made.tracker
    first.run_pass()
    made.publisher.publish(STANDING)
    since = {drift.finding.fact: drift.since for drift in made.tracker.lasting(NOON + timedelta(days=9))}
    next_one = Published(made.directory)
    second = SimulatedAgent(host, next_one.journal)
    second.controller._tracker = next_one.tracker
    assert {drift.finding.fact: drift.since for drift in next_one.tracker.lasting(NOON)} == since
    second.run_pass()
    next_one.publisher.publish(STANDING)
    do(host, (lambda host: host.remove("/etc/systemd/system/docker.service.d/override.conf"),))
    host.clock.sleep(60)
    host.reload()
    host.restart("admin")
    last = Published(made.directory)
    third = SimulatedAgent(host, last.journal)
    third.controller._tracker = last.tracker
    third.run_pass()
    assert any("before this agent started" in entry.message for entry in last.journal.entries)


def test_metrics(made: Published) -> None:
    made.publisher.publish(STANDING._replace(observed_at=None))
    assert not (made.directory / "metrics/dockerd-guard.prom").exists(), "those of the process before stay"
    made.tracker.drifts = {OPEN.fact: OPEN}
    made.publisher.publish(STANDING._replace(exposed=2, is_contested=True))
    assert "DG101" in made.metrics
    assert "dockerd_guard_up 1" in made.metrics
    made.publisher.publish(STANDING._replace(state=AgentState.STOPPING))
    assert "dockerd_guard_up 0" in made.metrics


def test_metrics_that_cannot_be_written_are_reported_once(made: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(textfile, "publish", refuse)
        made.publisher.publish(STANDING)
        made.publisher.publish(STANDING)
    assert len(made.journal.lines) == 1
    assert made.journal.lines[0].endswith("Read-only file system; fix: `systemctl restart dockerd-guard`.")
    made.publisher.publish(STANDING)
    with monkeypatch.context() as patched:
        patched.setattr(textfile, "publish", refuse)
        made.publisher.publish(STANDING)
    assert len(made.journal.lines) == 2


def test_files_that_cannot_be_written_are_no_error(made: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_file, "PUBLIC_FILE", "/proc/nowhere/status.json")
    made.publisher._directory = "/proc/nowhere"
    made.publisher.publish(STANDING)


def test_when_a_policy_changed(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("")
    changed = policy_changed_at(str(tmp_path / "policy"))
    assert abs((datetime.now(UTC) - changed).total_seconds()) < 60
    assert abs((datetime.now(UTC) - policy_changed_at("/missing")).total_seconds()) < 60
