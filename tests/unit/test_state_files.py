"""The state files: what is written is read again, and anything else counts as no file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockerd_guard.apply.state_files import Contained, Intent, ManualFix, StateFiles
from dockerd_guard.plan.backoff import Correction
from dockerd_guard.plan.pending_changes import StartRecord
from dockerd_guard.plan.plan import Change
from dockerd_guard.rootfs import Access

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
INTENT = Intent((Change("/etc/\udcff", None, b"\0\xff", Access(0, 1, 0o600)), Change("/etc/a", b"", None)), NOON,
                ("docker.socket",))
NAMES = ("intent.json", "restarts.json", "contained.json", "rounds.json", "started.json", "by-hand.json")


def filled(directory: Path) -> StateFiles:
    state = StateFiles(str(directory))
    state.begin(INTENT)
    state.count_restart(NOON)
    state.contain(Contained(("nftables",), ("tcp://0.0.0.0:2375",)))
    state.keep_rounds((Correction(NOON, is_update=True),))
    state.keep_started(StartRecord("a1", b"{}"))
    state.queue_manual_fix(ManualFix(("reloaded",), ("DG101 tcp://*:2375",)))
    return state


def everything(state: StateFiles) -> tuple[object, ...]:
    return (state.intent(), state.restarts(), state.contained(), state.rounds(), state.started(),
            state.pending_manual_fix())


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    assert everything(filled(tmp_path)) == (
        INTENT, (NOON,), Contained(("nftables",), ("tcp://0.0.0.0:2375",)), (Correction(NOON, is_update=True),),
        StartRecord("a1", b"{}"), ManualFix(("reloaded",), ("DG101 tcp://*:2375",)))


NOTHING = (None, (), Contained(), (), None, None)


def test_no_files_are_no_state(tmp_path: Path) -> None:
    assert everything(StateFiles(str(tmp_path))) == NOTHING


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1e999"])
def test_damaged_files_are_no_state(tmp_path: Path, content: bytes) -> None:
    state = filled(tmp_path)
    for name in NAMES:
        (tmp_path / name).write_bytes(content)
    assert everything(state) == NOTHING


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_another_type_is_no_state(tmp_path: Path, name: str) -> None:
    """Each key in turn is a number, or is missing."""
    state = filled(tmp_path)
    data = json.loads((tmp_path / name).read_text())
    for key in data:
        for damaged in ({**data, key: 7}, {other: data[other] for other in data if other != key}):
            (tmp_path / name).write_text(json.dumps(damaged))
            assert everything(state)[NAMES.index(name)] == NOTHING[NAMES.index(name)], (key, damaged)
