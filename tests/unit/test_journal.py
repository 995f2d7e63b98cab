"""The journal's entries: the documented fields and no other, an id and a page for each event."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from dockerd_guard.commands import history
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import Mode
from dockerd_guard.report import drift
from dockerd_guard.report.events import WIDTH, catalog, page, pages
from dockerd_guard.report.journal import IDENTIFIER, MESSAGE_IDS, Cause, Event, Journal, JournalEntry, Outcome

pytestmark = pytest.mark.libraries

FIELDS = ["MESSAGE_ID", "DOCKERD_GUARD_EVENT", "DOCKERD_GUARD_CAUSE", "DOCKERD_GUARD_RULE", "DOCKERD_GUARD_LAYER",
          "DOCKERD_GUARD_SOCKET", "DOCKERD_GUARD_OUTCOME", "DOCKERD_GUARD_EXPOSED", "DOCKERD_GUARD_EPISODE",
          "DOCKERD_GUARD_FILE", "DOCKERD_GUARD_LINE"]
"""A contract with whoever reads the journal: fields may come, none may go or change."""

FINDING = Finding("DG101", "error", "the Docker API listens on tcp://0.0.0.0:2375; it is open now", "configured",
                  Location("/etc/a.conf", 3, 5, 9), "safe", "tcp://0.0.0.0:2375")


def test_an_entry_has_the_documented_fields() -> None:
    entry = JournalEntry(Event.DRIFT, "open", Outcome.HELD, Cause.DRIFT, "DG101", "configured", "tcp://0.0.0.0:2375",
                  Location("/etc/a.conf", 3), None, ("DG101 tcp://*:2375",), exposed=True)
    assert list(entry.fields) == FIELDS
    assert entry.fields == dict(zip(FIELDS, (
        MESSAGE_IDS[Event.DRIFT], "drift", "drift", "DG101", "configured", "tcp://0.0.0.0:2375", "held", "yes",
        ("DG101 tcp://*:2375",), "/etc/a.conf", "3"), strict=True))
    assert JournalEntry(Event.POLICY, "in force").fields == {
        "MESSAGE_ID": MESSAGE_IDS[Event.POLICY], "DOCKERD_GUARD_EVENT": "policy"}


def test_history_reads_the_fields_that_are_written() -> None:
    assert {f"DOCKERD_GUARD_{name}" for name in history.FIELDS} == set(FIELDS) - {"MESSAGE_ID"}
    assert set(history.EVENTS) == set(map(str, Event))


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
        f"{finding.code} at /etc/a.conf:3: The Docker API listens on tcp://0.0.0.0:2375; it is open now. Anyone "
        "who can reach it from the network has root on this host. Next: ")
    assert words in entry.message
    assert (entry.episodes, entry.exposed) == ((f"{finding.code} tcp://*:2375",), True)


@pytest.mark.parametrize(("finding", "fact"), [
    (FINDING, "DG101 tcp://*:2375"),
    (FINDING._replace(socket="tcp://[::]:2375", location=None), "DG101 tcp://*:2375"),
    (FINDING._replace(code="DG304", socket=None), "DG304 configured /etc/a.conf"),
    (FINDING._replace(code="DG308", socket=None, location=None, layer="running"), "DG308 running"),
])
def test_what_makes_two_findings_one_fact(finding: Finding, fact: str) -> None:
    assert finding.fact == fact


@pytest.mark.parametrize("event", Event)
def test_each_event_has_an_id_and_a_page_with_cause_consequence_and_next_step(event: Event) -> None:
    assert re.fullmatch("[0-9a-f]{32}", MESSAGE_IDS[event])
    assert re.findall(r"^## (.*)$", page(event), re.MULTILINE) == ["Cause", "Consequence", "Next step"]


def test_the_catalog_is_made_of_the_pages() -> None:
    entries = catalog().split("-- ")[1:]
    assert [entry[:32] for entry in entries] == [MESSAGE_IDS[event] for event in Event]
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
