"""The journal's entries: the documented fields and no other, an id and a page for each event."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from dockerd_guard import cli
from dockerd_guard.agent import loop
from dockerd_guard.commands import _journal
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import Mode
from dockerd_guard.report import drift
from dockerd_guard.report.events import WIDTH, catalog, page, pages
from dockerd_guard.report.journal import (
    IDENTIFIER,
    PRIORITIES,
    Cause,
    Event,
    Journal,
    JournalEntry,
    Outcome,
)

pytestmark = pytest.mark.libraries

FIELDS = ["MESSAGE_ID", "DOCKERD_GUARD_EVENT", "DOCKERD_GUARD_CAUSE", "DOCKERD_GUARD_RULE", "DOCKERD_GUARD_LAYER",
          "DOCKERD_GUARD_SOCKET", "DOCKERD_GUARD_OUTCOME", "DOCKERD_GUARD_EXPOSED", "DOCKERD_GUARD_EPISODE",
          "DOCKERD_GUARD_FILE", "DOCKERD_GUARD_LINE"]
"""A contract with whoever reads the journal: fields may come, none may go or change."""

FINDING = Finding("DG101", "error", "the Docker API listens on tcp://0.0.0.0:2375; it listens there now", "configured",
                  Location("/etc/a.conf", 3, 5, 9), "safe", "tcp://0.0.0.0:2375")

ENTRY = JournalEntry(Event.DRIFT, "open", Outcome.HELD, Cause.DRIFT, "DG101", "configured", "tcp://0.0.0.0:2375",
                     Location("/etc/a.conf", 3), None, ("DG101 tcp://*:2375",), exposed=True)

SENT = [
    "SYSLOG_IDENTIFIER=dockerd-guard", "OBJECT_SYSTEMD_UNIT=docker.service", f"MESSAGE_ID={Event.DRIFT.message_id}",
    "DOCKERD_GUARD_EVENT=drift", "DOCKERD_GUARD_CAUSE=drift", "DOCKERD_GUARD_RULE=DG101",
    "DOCKERD_GUARD_LAYER=configured", "DOCKERD_GUARD_SOCKET=tcp://0.0.0.0:2375", "DOCKERD_GUARD_OUTCOME=held",
    "DOCKERD_GUARD_EXPOSED=yes", "DOCKERD_GUARD_EPISODE=DG101 tcp://*:2375", "DOCKERD_GUARD_FILE=/etc/a.conf",
    "DOCKERD_GUARD_LINE=3", "PRIORITY=4", "MESSAGE=open"]
"""What journald gets for ENTRY."""


@pytest.fixture
def journald(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The entries that pystemd sends: it builds only beside libsystemd."""
    sent: list[list[str]] = []
    journal = SimpleNamespace(sendv=lambda *fields: sent.append(list(fields)))
    monkeypatch.setitem(sys.modules, "pystemd", SimpleNamespace(journal=journal))
    return sent


def test_a_block_that_was_missing_has_its_time() -> None:
    fields = JournalEntry(Event.CONTAINED, "blocked again", open_s=0.2834).fields
    assert fields["DOCKERD_GUARD_OPEN_SECONDS"] == "0.283"


def test_an_entry_has_the_documented_fields() -> None:
    assert list(ENTRY.fields) == FIELDS
    assert ENTRY.fields == dict(zip(FIELDS, (
        Event.DRIFT.message_id, "drift", "drift", "DG101", "configured", "tcp://0.0.0.0:2375", "held", "yes",
        ("DG101 tcp://*:2375",), "/etc/a.conf", "3"), strict=True))
    assert JournalEntry(Event.POLICY, "in force").fields == {
        "MESSAGE_ID": Event.POLICY.message_id, "DOCKERD_GUARD_EVENT": "policy"}


@pytest.mark.parametrize(("entry", "sent"), [
    (ENTRY, SENT),
    (ENTRY._replace(episodes=("a", "b=c\nd")),
     [*SENT[:10], "DOCKERD_GUARD_EPISODE=a", "DOCKERD_GUARD_EPISODE=b=c\nd", *SENT[11:]]),
    (ENTRY._replace(level="info"), [*SENT[:-2], "PRIORITY=6", "MESSAGE=open"]),
    (ENTRY._replace(message="\x1b[31mred\n\udcff"), [*SENT[:-1], "MESSAGE=\ufffd[31mred \ufffd"]),
    (ENTRY._replace(location=Location("/etc/\udcff", 3)),
     [*SENT[:11], "DOCKERD_GUARD_FILE=/etc/\ufffd", *SENT[12:]]),
    (JournalEntry(Event.POLICY, "in force"),
     [*SENT[:2], f"MESSAGE_ID={Event.POLICY.message_id}", "DOCKERD_GUARD_EVENT=policy", "PRIORITY=5",
      "MESSAGE=in force"]),
])
def test_journald_fields(entry: JournalEntry, sent: list[str], journald: list[list[str]]) -> None:
    Journal("journald").write(entry)
    assert journald == [sent]


@pytest.mark.parametrize(("level", "priority"), PRIORITIES.items())
def test_a_message_without_an_event(level: str, priority: int, journald: list[list[str]]) -> None:
    Journal("journald").say("started", level)
    assert journald == [[*SENT[:2], f"PRIORITY={priority}", "MESSAGE=started"]]


def test_json_lines_have_the_fields_of_the_journal_in_lower_case(capfd: pytest.CaptureFixture[str]) -> None:
    journal = Journal("json")
    journal.write(ENTRY._replace(message="two\nlines"))
    journal.say("started")
    out, err = capfd.readouterr()
    first, second = map(json.loads, out.splitlines())
    expected = {name.lower(): value for name, _, value in (field.partition("=") for field in SENT)}
    timestamp = first.pop("timestamp")
    assert timestamp.endswith("Z")
    assert abs(datetime.fromisoformat(timestamp) - datetime.now(UTC)) < timedelta(minutes=1)
    assert first == {**expected, "level": "warning", "message": "two lines",
                     "dockerd_guard_episode": ["DG101 tcp://*:2375"]}
    assert list(second) == ["timestamp", "level", "message", "syslog_identifier", "object_systemd_unit", "priority"]
    assert err == ""


def test_a_console_line_has_time_level_and_message(capfd: pytest.CaptureFixture[str]) -> None:
    journal = Journal("console")
    journal.write(ENTRY._replace(message="\x1b[31mred"))
    journal.say("started", "notice")
    out, err = capfd.readouterr()
    assert [line.rstrip()[8:] for line in err.splitlines()] == [
        " [warning  ] \ufffd[31mred", " [notice   ] started"]
    assert out == ""


@pytest.mark.parametrize("is_terminal", [False, True])
def test_auto_logs_to_journald_and_to_a_terminal_too(
        is_terminal: bool, journald: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    Journal("auto").write(ENTRY)
    assert journald == [SENT]
    assert ("open" in stderr.getvalue()) is is_terminal


@pytest.mark.parametrize("log_format", ["json", "console", "journald"])
def test_a_broken_output_raises_nothing(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise OSError("no journal")

    monkeypatch.setitem(sys.modules, "pystemd", SimpleNamespace(journal=SimpleNamespace(sendv=refuse)))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="ascii") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        monkeypatch.setattr(sys, "stderr", broken)
        journal = Journal(log_format)
        journal.write(ENTRY)
        journal.say("\ufffd")
        monkeypatch.undo()
        # Nothing is left to be flushed at exit in the format that writes to standard output.
        if log_format != "console":
            broken.flush()
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


@pytest.mark.parametrize(("arguments", "log_format"), [
    ([], "auto"), *((["--log-format", name], name) for name in ("auto", "journald", "console", "json")),
])
def test_run_takes_a_log_format(arguments: list[str], log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, ...]] = []

    def agent(*options: str) -> int:
        given.append(options)
        return 0

    monkeypatch.setattr(loop, "run", agent)
    monkeypatch.setattr("dockerd_guard.commands.run.LIBRARIES", ())
    assert cli.main(["run", "--policy", "x", *arguments]) == 0
    assert given == [("x", log_format)]
    if log_format != "auto":
        Journal(log_format)


def test_another_log_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "--log-format", "xml"])
    assert left.value.code == 2
    assert "--log-format: invalid choice: 'xml'" in capsys.readouterr().err


def test_history_reads_the_fields_that_are_written() -> None:
    fields = {*FIELDS, "DOCKERD_GUARD_OPEN_SECONDS"} - {"MESSAGE_ID"}
    assert {f"DOCKERD_GUARD_{name}" for name in _journal.FIELDS} == fields


@pytest.mark.parametrize(("changes", "mode", "up", "words"), [
    ({}, Mode.OBSERVE, True, "`dockerd-guard diff` shows the fix"),
    ({}, Mode.ENFORCE, True, "Nothing to do, unless a `held` or `failed` entry follows"),
    ({"fix": None}, Mode.ENFORCE, True, "Fix it manually; see `dockerd-guard explain DG101`"),
    ({"code": "DG102", "layer": "listening"}, Mode.ENFORCE, False, "`systemctl start docker.service`, if"),
])
def test_a_drift_says_what_where_the_risk_and_the_next_step(
        changes: dict[str, str], mode: Mode, up: bool, words: str) -> None:
    finding = FINDING._replace(**changes)  # type: ignore[arg-type]
    entry = drift.drift_entry(finding, Cause.DRIFT, mode, exposed=True, is_docker_up=up)
    assert entry.message.startswith(
        f"{finding.code} at /etc/a.conf:3: The Docker API listens on tcp://0.0.0.0:2375; it listens there now. Anyone "
        "who can reach it from the network has root on this host. Next: ")
    assert words in entry.message
    assert (entry.episodes, entry.exposed) == ((f"{finding.code} tcp://*:2375",), True)


@pytest.mark.parametrize(("finding", "fact"), [
    (FINDING, "DG101 tcp://*:2375"),
    (FINDING._replace(socket="tcp://[::]:2375", location=None), "DG101 tcp://*:2375"),
    (FINDING._replace(code="DG107", socket="tcp://[::]:2375", namespace="net:[1]"), "DG107 tcp://*:2375 in net:[1]"),
    (FINDING._replace(code="DG304", socket=None), "DG304 configured /etc/a.conf"),
    (FINDING._replace(code="DG308", socket=None, location=None, layer="running"), "DG308 running"),
])
def test_what_makes_two_findings_one_fact(finding: Finding, fact: str) -> None:
    assert finding.fact == fact


@pytest.mark.parametrize("event", Event)
def test_each_event_has_an_id_and_a_page_with_cause_consequence_and_next_step(event: Event) -> None:
    assert re.fullmatch("[0-9a-f]{32}", event.message_id)
    assert re.findall(r"^## (.*)$", page(event), re.MULTILINE) == ["Cause", "Consequence", "Next step"]


def test_the_catalog_is_made_of_the_pages() -> None:
    entries = catalog().split("-- ")[1:]
    assert [entry[:32] for entry in entries] == [event.message_id for event in Event]
    for entry, (title, _) in zip(entries, pages().values(), strict=True):
        head, _, body = entry.partition("\n\n")
        assert head.splitlines()[1] == f"Subject: {title[:1].upper()}{title[1:]}"
        assert [paragraph.partition(": ")[0] for paragraph in body.strip().split("\n\n")] == [
            "Cause", "Consequence", "Next step"]
        assert max(map(len, body.splitlines())) <= WIDTH
        # journald takes a word between at signs for a field.
        assert "@" not in entry


def test_an_entry_reaches_journald_through_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []

    def sendv(*pairs: str, **fields: str) -> None:
        sent.append({**dict(pair.split("=", 1) for pair in pairs), **fields})

    monkeypatch.setitem(sys.modules, "pystemd", SimpleNamespace(journal=SimpleNamespace(sendv=sendv)))
    journal = Journal()
    journal.write(JournalEntry(Event.POLICY, "a {brace} and 100 %"))
    journal.say("a line", "warning")
    assert [entry["MESSAGE"] for entry in sent] == ["a {brace} and 100 %", "a line"]
    assert [entry.get("DOCKERD_GUARD_EVENT") for entry in sent] == ["policy", None]
    assert sent[1]["PRIORITY"] == "4"
    assert {entry["SYSLOG_IDENTIFIER"] for entry in sent} == {IDENTIFIER}
