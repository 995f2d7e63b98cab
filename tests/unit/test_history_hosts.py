"""History of many hosts: which host an entry belongs to, the outputs, limits, and what cannot be read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dockerd_guard.commands import _episodes, _journal
from dockerd_guard.commands._episodes import history
from dockerd_guard.report import history as report
from dockerd_guard.report import json_output, timeline
from dockerd_guard.report.history import Record
from tests.support import golden
from tests.support.command_line import run
from tests.support.journal_entries import OPEN, SVG, at, contained, drift, ended, start, tried

HEX = "0123456789abcdef"


def of(record: Record, name: str, machine: str = "a", boot: str = "") -> Record:
    """The entry of a host, with a machine ID and a boot ID of one digit for each host."""
    return record._replace(host=name, machine_id=machine * 32, boot=(boot or machine) * 32,
                           run=f"{record.run}{machine}{boot}")


def alternating(*records: Record) -> list[Record]:
    """The entries as journalctl merges them."""
    return sorted(records, key=lambda record: record.at)


@pytest.mark.parametrize(("entries", "hosts"), [
    ([of(start(0), "web1", "a"), of(start(0), "web2", "b")], ["web1", "web2"]),
    # One name, two machines.
    ([of(start(0), "web1", "a"), of(start(0), "web1", "b")], ["web1 (aaaaaaaa)", "web1 (bbbbbbbb)"]),
    ([of(start(0), "web1", "a")._replace(machine_id="a" * 31 + "0"), of(start(0), "web1", "a", "b")],
     [f"web1 ({'a' * 31}0)", f"web1 ({'a' * 32})"]),
    # One machine ID, two machines: copies of a disk image.
    ([of(start(0), "web1", "a", "1"), of(start(0), "web2", "a", "2"), of(start(9), "web1", "a", "1")],
     ["web1", "web2"]),
    # Renamed while it runs, for instance by DHCP, and after a reboot again.
    ([of(start(0), "localhost", "a", "1"), of(start(1), "web1", "a", "1")], ["web1"]),
    ([of(start(0), "localhost", "a", "1"), of(start(1), "web1", "a", "1"), of(start(2), "localhost", "a", "2"),
      of(start(3), "web1", "a", "2")], ["web1"]),
    ([of(start(0), "web1", "a", "1"), of(start(1), "web1", "a", "2"), of(start(2), "web1", "a", "3")], ["web1"]),
    # Both are called localhost at first.
    ([of(start(0), "localhost", "a"), of(start(0), "localhost", "b"), of(start(1), "web1", "a"),
      of(start(1), "web2", "b")], ["web1", "web2"]),
    # No fields at all.
    ([start(0), start(1)], ["unknown"]),
    ([start(0)._replace(host="x" * 5000, machine_id="y" * 5000)], ["x" * 64]),
])
def test_an_entry_belongs_to_a_host(entries: list[Record], hosts: list[str]) -> None:
    assert [host.label for host in history(entries, at(1000), by_host=True).hosts] == hosts


FLEET = alternating(
    of(start(0), "web1", "a"), of(start(1), "web2", "b"), of(start(2), "web3", "c"),
    of(drift(10, exposed=True), "web1", "a"), of(drift(12, exposed=True), "web2", "b"),
    of(ended(14), "web1", "a"), of(tried(15, "held", "held"), "web2", "b"), of(contained(16), "web2", "b"),
    of(Record(at(20), "blind", outcome="failed"), "web3", "c"),
)
"""web1 is corrected, web2 is blocked and waits, web3 has no drift and sees less."""


def test_agents_of_different_hosts_do_not_end_each_others_episodes() -> None:
    found = history(FLEET, at(5000), by_host=True)
    assert [(found.hosts[episode.host].name, episode.outcome, episode.exposed_s(found.now), episode.lasts)
            for episode in found.episodes] == [("web1", "repaired", 4, False), ("web2", "held", 4, True)]
    # Both were open at one time: of many hosts, times are added up.
    assert found.exposed_s == {0: 4, 1: 4}


def test_without_by_host_the_journal_is_that_of_one_host() -> None:
    found = history([of(each, "web1", "a", HEX[number]) for number, each in enumerate([start(0), drift(10)])], at(20))
    assert (found.hosts, len(found.episodes)) == ((), 1)


def lines(records: list[Record], columns: int | None = None) -> str:
    found = history(records, at(5000), by_host=True)
    return "".join(f"{line}\n" for line in report.lines(found, columns=columns, colour=False, zone=UTC))


def test_outputs() -> None:
    golden.check(lines(FLEET), "report/history-hosts.txt")
    golden.check(lines(FLEET, 40), "report/history-hosts-narrow.txt")
    assert lines(FLEET[:3]) == "No drift on 3 hosts since 2026-11-23 12:00:00.\n"
    golden.check_json(report.to_json(history(FLEET, at(5000), by_host=True)), "report/history-hosts.json")


def test_keys_of_one_host_stay_in_the_json_of_many() -> None:
    one, many = (report.to_json(history(FLEET, at(5000), by_host=by_host)) for by_host in (False, True))
    assert many.keys() - one.keys() == {"hosts"}
    assert many["episodes"][0].keys() - one["episodes"][0].keys() == {"host", "machine_id"}
    assert not one.keys() - many.keys()
    assert not one["episodes"][0].keys() - many["episodes"][0].keys()


def rows(records: list[Record]) -> list[str | None]:
    """The labels of the lanes, from top to bottom."""
    picture = ET.fromstring(timeline.svg(history(records, at(5000), by_host=True), "log", UTC))
    texts = [text for text in picture.iter(f"{SVG}text")
             if text.get("x") == "24.0" and float(text.get("y", "")) > timeline.BARS_TOP + timeline.BARS_HEIGHT]
    return [text.text for text in texts]


def test_the_timeline_has_a_row_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(FLEET) == ["web1", "web2", "web3"]
    # Two sockets that are open at one time are one exposure of the host.
    both = [drift(10, exposed=True), drift(10, "DG104 tcp:", exposed=True), ended(20, "kept", OPEN, "DG104 tcp:")]
    twice = [*FLEET[:3], *(of(each, "web2", "b") for each in both)]
    picture = timeline.svg(history(twice, at(5000), by_host=True), "log", UTC)
    assert (rows(twice), "2 x, open 10 s" in picture) == (["web2", "web1", "web3"], True)
    many = [of(start(number), f"web{number}", "a", f"{number:x}") for number in range(40)]
    assert len(rows(many)) == 40
    monkeypatch.setattr(timeline, "MAX_HOST_LANES", 10)
    assert rows(many)[8:] == ["web16", "31 others"]


@pytest.mark.parametrize("name", [
    "\x1b[2J", "<b>&\"'", "\u202egpj", "a\nb", "\udcff", "::error::x", "##[command]x", "\0", "",
])
def test_host_names_are_escaped(name: str) -> None:
    records = [of(start(0), name, "a"), of(drift(10, exposed=True), name, "a"), of(start(0), name, "b")]
    shown = lines(records)
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 2
    assert "##[" not in shown
    found = history(records, at(5000), by_host=True)
    shown = json_output.dump(report.to_json(found))
    assert shown.isascii()
    assert "##[" not in shown
    assert len(json.loads(shown)["hosts"]) == 2
    assert ET.fromstring(timeline.svg(found, "log", UTC)) is not None


def test_the_clock_of_another_host_may_be_wrong() -> None:
    """An entry of the future counts as one of now; the picture ends there."""
    records = [of(start(0), "web1"), of(drift(10**11), "web1"), of(start(-10**9), "web2", "b")]
    found = history(sorted(records, key=lambda record: record.at), at(100), by_host=True)
    assert [episode.span.begun for episode in found.episodes] == [at(100)]
    assert ET.fromstring(timeline.svg(found, "log", UTC)) is not None


def many(count: int, make: Callable[[int], Record]) -> list[Record]:
    return [of(start(0), "web1"), *(of(make(number), "web1") for number in range(count))]


@pytest.mark.parametrize(("limit", "entries", "kept", "left_out"), [
    ("MAX_HOSTS", [of(start(0), f"web{number}", HEX[number]) for number in range(7)], 0,
     ("2 entries of more hosts",)),
    ("MAX_EPISODES", many(7, lambda number: ended(number, "kept", f"DG101 {number}")), 5, ("2 earlier episodes",)),
    ("MAX_OPEN", many(7, lambda number: drift(number, f"DG101 {number}")), 5, ("2 ongoing episodes",)),
    ("MAX_TIMES", [*many(1, drift), *many(8, lambda number: tried(number, "held", "held"))], 1, ()),
])
def test_limits(limit: str, entries: list[Record], kept: int, left_out: tuple[str, ...],
                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_episodes, limit, 5)
    found = history(entries, at(1000), by_host=True)
    assert (len(found.episodes), found.left_out) == (kept, left_out)


def test_a_host_cannot_fill_the_memory_with_long_values() -> None:
    long = "x" * 1_000_000
    found = drift(10)._replace(message=long, file=long, socket=long, episodes=(long,) * 3)
    records = [of(start(0), "web1"), of(found, "web1")]
    (episode,) = history(records, at(100), by_host=True).episodes
    assert max(len(value) for value in episode if isinstance(value, str)) == _episodes.MAX_CHARACTERS


def test_a_host_cannot_fill_the_memory_with_boots_and_names() -> None:
    hosts = _episodes._Hosts()
    for number in range(100):
        hosts.add(of(start(number), "web1")._replace(boot=f"b{number}"))
        hosts.add(of(start(number), f"web{number}")._replace(boot=f"b{number}"))
    assert len(hosts._by_name) <= _episodes.MAX_NAMES
    assert len(hosts._by_boot) == 1


FLOODS: dict[str, Callable[[int], Record]] = {
    "contained and released": lambda number: contained(number, ("contained", "released")[number % 2]),
    "exposed and not": lambda number: drift(number, exposed=number % 2 == 0),
    "always another agent process": lambda number: drift(number, run=f"r{number}"),
    "always another drift": lambda number: drift(number, f"DG101 tcp://*:{number}"),
    "ends without a begin": lambda number: ended(number, "kept", f"DG101 {number}"),
    "always another boot": lambda number: start(number)._replace(boot=f"b{number}"),
    "always another name": lambda number: start(number)._replace(host=f"h{number}"),
    "always another host": lambda number: start(number)._replace(host=f"h{number}", boot=f"b{number}"),
    "degraded visibility": lambda number: Record(at(number), "blind", outcome=("failed", "repaired")[number % 2]),
}


def work(make: Callable[[int], Record], count: int) -> int:
    """The number of function calls for a history with so many entries."""
    entries = [of(start(0), "web1"), of(drift(0), "web1"), *(make(number) for number in range(count))]
    calls = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        history(entries, at(count), by_host=True)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("make", FLOODS.values(), ids=FLOODS.keys())
def test_work_is_linear(make: Callable[[int], Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_episodes, "MAX_TIMES", 20)
    first, second, third = (larger - smaller for smaller, larger in
                            pairwise([work(make, count) for count in (250, 500, 1000, 2000)]))
    assert second <= 2.5 * first + 300 or third <= 2.5 * second + 300, (first, second, third)


JOURNALCTL = """#!/bin/sh
[ "$#" -eq 1 ] || printf '%s\\n' "$*" >> "{directory}/called"
[ ! -e "{directory}/warnings" ] || cat "{directory}/warnings" >&2
cat "{directory}/rows"
"""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Path]:
    """A directory whose `rows` and `warnings` are what the journalctl of its `bin` prints, and with `remote`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/journalctl").write_text(JOURNALCTL.format(directory=tmp_path))
    (tmp_path / "bin/journalctl").chmod(0o755)
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote/remote-web1.journal").touch()
    (tmp_path / "rows").write_text("")
    yield tmp_path


def row(host: str, **fields: Any) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": "1795435200000000", "DOCKERD_GUARD_EVENT": "drift", "_HOSTNAME": host,
                       "_MACHINE_ID": "a" * 32, "_BOOT_ID": host, "DOCKERD_GUARD_EPISODE": "DG101 x", **fields}) + "\n"


def called(journal: Path, *words: str) -> tuple[int, str, str]:
    """The exit code of `history`, its output and its messages."""
    done = run("history", *words, env={**os.environ, "PATH": f"{journal / 'bin'}:{os.environ['PATH']}"})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(("words", "source"), [
    ((), "--system --all --no-pager"),
    (("--journal", "remote"), "--directory={journal}/remote --quiet --no-pager"),
    (("--merge",), "--merge --quiet --no-pager"),
])
def test_journals_that_are_read(words: tuple[str, ...], source: str, journal: Path) -> None:
    (journal / "rows").write_text(row("web1") + row("web2"))
    words = tuple(str(journal / word) if word == "remote" else word for word in words)
    code, out, err = called(journal, *words, "--format=json")
    assert (code, err) == (0, "")
    assert [host["host"] for host in json.loads(out).get("hosts", ())] == (["web1", "web2"] if words else [])
    assert (journal / "called").read_text().startswith(source.format(journal=journal))


def test_a_warning_of_journalctl_makes_the_answer_incomplete(journal: Path) -> None:
    (journal / "rows").write_text(row("web1"))
    # More than fits into a pipe.
    (journal / "warnings").write_text("".join(f"Journal file {number} is truncated, ignoring file.\n"
                                              for number in range(5000)))
    code, out, err = called(journal, "--merge")
    assert (code, len(out.splitlines())) == (2, 2)
    assert err.splitlines()[2:] == ["dockerd-guard: Journal file 2 is truncated, ignoring file.",
                                    "dockerd-guard: 4997 more lines of journalctl"]


def test_an_entry_that_is_too_long_is_left_out(journal: Path) -> None:
    """Also its end, which looks like an entry."""
    (journal / "rows").write_text(row("web1", MESSAGE="x" * 3_000_000) + "x" * _journal.MAX_ROW_BYTES + row("web3") +
                                  row("web2"))
    code, out, _ = called(journal, "--merge", "--format=json")
    assert (code, [host["host"] for host in json.loads(out)["hosts"]]) == (0, ["web2"])


@pytest.mark.parametrize(("path", "message"), [
    ("none", "{path}: No such file or directory\ndockerd-guard: name a directory with journal files, such as "
             "/var/log/journal/remote\n"),
    ("rows", "{path}: Not a directory\ndockerd-guard: name a directory with journal files, such as "
             "/var/log/journal/remote\n"),
    ("bin", "{path} contains no journal file (*.journal)\ndockerd-guard: name a directory with journal files, such "
            "as /var/log/journal/remote\n"),
    # A journal, in which no agent has an entry.
    ("remote", "{path} contains no entry of dockerd-guard.service\ndockerd-guard: on each host, check "
               "systemd-journal-upload.service\n"),
])
def test_a_directory_that_cannot_be_read(path: str, message: str, journal: Path) -> None:
    if path == "remote":
        (journal / "rows").write_text("{}\n")
    assert called(journal, "--journal", str(journal / path)) == (
        2, "", f"dockerd-guard: {message.format(path=journal / path)}")


def test_one_source_at_a_time(journal: Path) -> None:
    code, _, err = called(journal, "--merge", "--journal", str(journal / "remote"))
    assert (code, "not allowed with argument" in err) == (2, True)
