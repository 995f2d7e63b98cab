"""The memory on disk: every field comes back, damage reads as nothing, version 0.1's files are taken over."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockerd_guard.apply import files
from dockerd_guard.apply.state_files import (
    INTENT_FILE,
    MEMORY_FILE,
    OLD_FILES,
    Busy,
    StateFiles,
    exclusive,
    single_agent,
)
from dockerd_guard.fleet.lock import Fault, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.started import StartRecord
from dockerd_guard.plan.memory import (
    Attempt,
    Contained,
    CorrectedFile,
    FleetMemory,
    HeldCorrection,
    Intent,
    ManualFix,
    Memory,
    NeededRestart,
    OwedSlot,
    Refusal,
)
from dockerd_guard.plan.plan import Change
from dockerd_guard.policy.model import Fleet, FleetTls, LockKind
from dockerd_guard.rootfs import Access, Link

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
THEN = Instant(NOON, "boot", 12.5)
LATER = Instant(NOON.replace(hour=13), "boot", 3612.5)

INTENT = Intent(
    (Change("/a", None, b"new \xff", Access(1, 2, 0o640)), Change("/b", b"old", None),
     Change("/c", Link("/x"), Link("/y")),
     Change("/d", b"", b"")),
    THEN, ("docker.socket", "docker.service"), True, "invocation", True, LATER, True, True, True,
    ("/a", "/b", "/c", "/d"), "digest")

FLEET = Fleet(LockKind.FLEETLOCK, ("https://lock",), "prod", tls=FleetTls(ca="/ca.pem"))

FULL = Memory(
    restarts=(THEN, LATER),
    attempt=Attempt(THEN, "no space", 60.5, "digest", True, "another", ("/a",)),
    corrected={"/a": CorrectedFile("/a", "digest", THEN, (THEN, LATER), True, "/b"),
               "/b": CorrectedFile("/b", "absent", LATER)},
    held=HeldCorrection("outside the window", NOON, NOON.replace(hour=14), "wait", is_due=True),
    obstacles=("one", "two"),
    contained=Contained(("nftables", "IPAddressDeny="), ("tcp://0.0.0.0:2375",)),
    start=StartRecord("invocation", b'{"a": 1}\xff', ("Service.Type=notify",)),
    manual_fixes=(ManualFix("repaired", ("wrote /a",), ("DG101 x",), "message"),),
    intent=INTENT, needed_restart=NeededRestart(THEN, "digest", live_restore=True),
    fleet=FleetMemory(Slot("prod", "id", 1, 7587, 42, "2026-11-23T12:00:00+00:00"),
                      Refusal(THEN, Fault.FULL, "full", "Wait", 3, 4.1), is_kept=True, to_stop="dead", unreachable=5,
                      unsure=Slot("prod", "id"), asked=FLEET, owed=(OwedSlot(FLEET, Slot("prod", "id"), THEN, 2),)))

VARIANTS = {
    "nothing": Memory(),
    "everything": FULL,
    "an attempt before the first observation": FULL._replace(attempt=Attempt(THEN, "x", 1.0)),
    "a hold without an end": FULL._replace(held=HeldCorrection("x", NOON, None)),
    "a start without daemon.json": FULL._replace(start=StartRecord("i", None, None)),
    "a start without settings": FULL._replace(start=StartRecord("i", b"", ())),
    "an intent that is not proven": FULL._replace(intent=INTENT._replace(proven_by=None, is_applied=False)),
    "an intent of nothing": FULL._replace(intent=Intent((), THEN, ())),
}


@pytest.fixture
def state(tmp_path: Path) -> StateFiles:
    return StateFiles(str(tmp_path))


def text_of(state: StateFiles, name: str = MEMORY_FILE) -> str:
    return (Path(state.directory) / name).read_text()


def put(state: StateFiles, text: str, name: str = MEMORY_FILE) -> None:
    (Path(state.directory) / name).write_text(text)


def test_the_fixture_has_every_field() -> None:
    """Of a new field, the default would come back whether it is stored or not."""
    for value, default in ((FULL, Memory()), (INTENT, Intent((), THEN, ())), (FULL.attempt, Attempt(LATER, "", 0.0)),
                           (FULL.corrected["/a"], CorrectedFile("", "", LATER)),
                           (FULL.held, HeldCorrection("", LATER.wall, None)),
                           (FULL.fleet, FleetMemory()), (FULL.fleet.slot, Slot("", "")),
                           (FULL.contained, Contained()), (FULL.manual_fixes[0], ManualFix("", (), ()))):
        assert value is not None
        names = {name for name in value._fields if getattr(value, name) == getattr(default, name)}
        # These are about triggers and passes of this process.
        assert names - {"changed_at", "unneeded_since", "begun"} == set()


@pytest.mark.parametrize("memory", VARIANTS.values(), ids=VARIANTS)
def test_what_is_saved_comes_back(state: StateFiles, memory: Memory) -> None:
    state.save(memory)
    assert StateFiles(state.directory).load() == memory


def test_when_something_changed_is_not_stored(state: StateFiles) -> None:
    state.save(Memory(changed_at=THEN, unneeded_since=THEN))
    assert state.load() == Memory()


def test_an_intent_is_removed(state: StateFiles) -> None:
    state.save(FULL)
    state.save(Memory())
    assert os.listdir(state.directory) == [MEMORY_FILE]
    state.save(Memory())
    assert StateFiles(state.directory).load() == Memory()


def test_nobody_else_reads_it(state: StateFiles) -> None:
    """daemon.json and drop-ins may hold secrets."""
    state.save(FULL)
    for name in (MEMORY_FILE, INTENT_FILE):
        assert stat.S_IMODE((Path(state.directory) / name).stat().st_mode) == 0o600


def test_what_is_the_same_is_not_written_again(state: StateFiles) -> None:
    """Each pass loads and saves: an idle host's disk stays idle."""
    def inode() -> tuple[int, ...]:
        return tuple((Path(state.directory) / name).stat().st_ino for name in (MEMORY_FILE, INTENT_FILE))

    state.save(FULL)
    first = inode()
    state.save(FULL)
    assert inode() == first
    loaded = state.load()
    state.save(loaded)
    assert inode() == first
    state.save(loaded._replace(obstacles=()))
    assert inode()[0] != first[0]
    assert inode()[1] == first[1]


def test_what_could_not_be_saved_is_still_true(state: StateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not make a failure, or a restart, be forgotten."""
    state.save(Memory())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write", full)
        with pytest.raises(OSError, match="No space"):
            state.save(FULL)
        assert state.load() == FULL
        assert StateFiles(state.directory).load() == Memory()
    state.save(state.load())
    assert StateFiles(state.directory).load() == state.load() == FULL


def test_what_another_process_saved_is_written_over(state: StateFiles) -> None:
    state.save(FULL)
    other = StateFiles(state.directory)
    other.load()
    other.save(Memory())
    assert state.load() == Memory()
    state.save(FULL)
    assert StateFiles(state.directory).load() == FULL


def test_a_crashed_writers_file_is_removed(state: StateFiles) -> None:
    put(state, "x", ".dockerd-guard.0123")
    put(state, "x", "kept")
    state.sweep()
    assert os.listdir(state.directory) == ["kept"]


def saved_text(**fields: object) -> str:
    """A memory file with other values."""
    from dockerd_guard.apply.state_files import _memory_json

    return json.dumps({**_memory_json(FULL), **fields})


DAMAGED = {
    "empty": "", "no JSON": "{", "binary": "\0\1\2", "nested": "[" * 200_000, "a list": "[]", "a number": "7",
    "a field is missing": "{}", "null": "null", "a number that is too large": saved_text(restarts=[["x", "y", 1e999]]),
    "a restart is text": saved_text(restarts=["2026-11-23T12:00:00+00:00"]),
    "a restart without a time zone": saved_text(restarts=[["2026-11-23T12:00:00", "boot", 1.0]]),
    "a time that is none": saved_text(restarts=[["yesterday", "boot", 1.0]]),
    "since boot is not a number": saved_text(restarts=[["2026-11-23T12:00:00+00:00", "boot", float("nan")]]),
    "restarts are a number": saved_text(restarts=7), "an attempt is a list": saved_text(attempt=[1]),
    "a hold without a time zone": saved_text(held={"reason": "x", "since": "2026-11-23T12:00:00", "until": None,
                                                   "next_step": ""}),
    "corrected is a number": saved_text(corrected=7), "contained is null": saved_text(contained=None),
    "a start is text": saved_text(start="x"), "manual fixes are text": saved_text(manual_fixes="x"),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damage_reads_as_nothing(state: StateFiles, text: str) -> None:
    put(state, text)
    assert state.load() == Memory()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"changes": 1}', '{"changes": [{"path": "/a"}]}', "[" * 200_000,
                                  '{"begun": ["2026-11-23T12:00:00", "", 0]}'])
def test_a_damaged_intent_reads_as_none(state: StateFiles, text: str) -> None:
    state.save(FULL)
    put(state, text, INTENT_FILE)
    assert state.load() == FULL._replace(intent=None)


def test_bytes_that_are_no_base64_read_as_nothing(state: StateFiles) -> None:
    state.save(FULL)
    put(state, text_of(state, INTENT_FILE).replace('"b2xk"', '"b"'), INTENT_FILE)
    assert state.load().intent is None


def test_what_version_0_1_left_is_taken_over(state: StateFiles) -> None:
    put(state, '{"restarts": ["2026-11-23T13:00:00+00:00", "2026-11-23T12:00:00+00:00"]}', "restarts.json")
    put(state, '{"ways": ["nftables"], "addresses": ["tcp://0.0.0.0:2375"]}', "contained.json")
    for name in OLD_FILES[2:]:
        put(state, "{}", name)
    memory = state.load()
    assert memory == Memory(restarts=(Instant(NOON), Instant(NOON.replace(hour=13))),
                            contained=Contained(("nftables",), ("tcp://0.0.0.0:2375",)))
    state.save(memory)
    assert os.listdir(state.directory) == [MEMORY_FILE]
    assert state.load() == memory


@pytest.mark.parametrize(("name", "text"), [
    ("restarts.json", '{"restarts": 7}'), ("restarts.json", '{"restarts": ["x"]}'), ("restarts.json", "["),
    ("restarts.json", '{"restarts": ["2026-11-23T12:00:00"]}'),
    ("contained.json", '{"ways": 7}'), ("contained.json", "[]"),
])
def test_damaged_files_of_version_0_1_read_as_nothing(state: StateFiles, name: str, text: str) -> None:
    put(state, text, name)
    assert state.load() == Memory()


# --- locks ----------------------------------------------------------------------------------------


def test_one_pass_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = str(tmp_path / "state")
    with exclusive(directory):
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
        with pytest.raises(Busy, match="another dockerd-guard is correcting this host"), exclusive(directory):
            raise AssertionError
        waited: list[float] = []
        monkeypatch.setattr("time.sleep", waited.append)
        monkeypatch.setattr("time.monotonic", lambda: len(waited) * 0.1)
        with pytest.raises(Busy), exclusive(directory, 0.25):
            raise AssertionError
        assert waited == [0.1, 0.1, 0.1]
    with exclusive(directory):
        pass


def test_one_agent(tmp_path: Path) -> None:
    directory = str(tmp_path / "state")
    with single_agent(directory), exclusive(directory):
        with pytest.raises(Busy, match=f"another agent, PID {os.getpid()}, guards this host already"):
            single_agent(directory).__enter__()
        (tmp_path / "state/agent.lock").write_text("")
        with pytest.raises(Busy, match="PID unknown"):
            single_agent(directory).__enter__()
    with single_agent(directory):
        assert (tmp_path / "state/agent.lock").read_text() == f"{os.getpid()}\n"
