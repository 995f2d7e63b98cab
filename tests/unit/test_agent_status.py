"""The agent's bulletin: what it makes known comes back as it was, and nothing that is no bulletin does."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockerd_guard.agent.status_file import published
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.plan.memory import HeldCorrection
from dockerd_guard.report.agent_status import AgentStatus, Counters, Drift, LastCorrection, last_correction
from dockerd_guard.report.journal import Event, JournalEntry, Outcome

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

QUIET = AgentStatus(NOON, 42, "watching", "observe", "/etc/dockerd-guard/config.yaml", NOON, "")

LOUD = QUIET._replace(
    state="holding", mode="enforce", policy_problem="line 3: no such key", blind=("systemd cannot be asked",),
    drifts=(
        Drift(NOON, Finding("DG101", "error", "open", "configured", Location("/etc/\udcff\x01\n", 3, 4, 9), "safe",
                            "tcp://0.0.0.0:2375")),
        Drift(NOON, Finding("DG307", "warning", "not loaded", "loaded"))),
    held=HeldCorrection("outside the window", NOON, NOON), contained=("tcp://0.0.0.0:2375",),
    last=LastCorrection(NOON, "corrected", "repaired", "as declared again"),
    counts=Counters({"DG101 configured": 3}, {"repaired": 2, "held": 1}, 12.5))


@pytest.mark.parametrize("agent_status", [QUIET, LOUD, LOUD._replace(held=HeldCorrection("never", NOON, None))])
def test_what_is_written_comes_back(agent_status: AgentStatus, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(agent_status.to_json())
    assert published(str(tmp_path / "status.json")) == agent_status


@pytest.mark.parametrize("text", [
    "", "null", "[]", "{}", '"x"', "\0", "{" * 100_000, QUIET.to_json().replace("2026", "20x6"),
    QUIET.to_json().replace('"drifts": []', '"drifts": [1]'), LOUD.to_json().replace('"code"', '"cod"'),
    QUIET.to_json().replace('"pid"', '"pidd"'), LOUD.to_json().replace('"repaired": 2', '"repaired": "x"'),
    LOUD.to_json().replace('"repaired": 2', '"repaired": Infinity'), LOUD.to_json().replace("12.5", "[]"),
    LOUD.to_json().replace("12.5", "1e999"), LOUD.to_json().replace('"pid": 42', f'"pid": {"4" * 10_000}'),
    LOUD.to_json().replace('"severity": "error"', '"severity": "bad"'), LOUD.to_json().replace("+00:00", ""),
])
def test_what_is_no_bulletin_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text)
    assert published(str(tmp_path / "status.json")) is None


def test_no_file_is_no_bulletin(tmp_path: Path) -> None:
    assert published(str(tmp_path / "status.json")) is None


def test_the_last_correction_is_the_last_entry_that_names_one() -> None:
    repaired = JournalEntry(Event.CORRECTED, "as declared again", outcome=Outcome.REPAIRED)
    policy = JournalEntry(Event.POLICY, "in force")
    assert last_correction([repaired, policy], NOON) == LastCorrection(
        NOON, "corrected", "repaired", "as declared again")
    assert last_correction([policy], NOON) is None
