"""History: entries of the journal in, episodes out; then as lines, as JSON and as a picture."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dockerd_guard.commands._episodes import history
from dockerd_guard.commands._journal import record_of
from dockerd_guard.report import history as report
from dockerd_guard.report import timeline
from dockerd_guard.report.history import Episode, Record, Span, merged
from tests.support import golden
from tests.support.journal_entries import EDITED, NOON, OPEN, SVG, at, contained, drift, ended, start, tried

ELSEWHERE = "DG107 tcp://*:2375 in /run/netns/vpn"


def summarized(records: list[Record], now: float = 1000) -> list[str]:
    """Each episode in one line: fact, begin-end, outcome, exposed, contained, unseen ends."""
    return [" ".join(filter(None, (
        episode.fact.split()[0], _span(episode.span), episode.outcome or "-",
        "open " + ",".join(map(_span, episode.exposed)) if episode.exposed else "",
        "contained " + ",".join(map(_span, episode.contained)) if episode.contained else "",
        "" if episode.is_begin_seen else "begin unseen", "" if episode.is_end_seen else "end unseen",
    ))) for episode in history(records, at(now)).episodes]


def _span(span: Span) -> str:
    end = f"{(span.ended - NOON).total_seconds():g}" if span.ended is not None else ""
    return f"{(span.begun - NOON).total_seconds():g}-{end}"


@pytest.mark.parametrize(("records", "episodes"), [
    ([], []),
    ([start(0)], []),
    ([start(0), drift(10), ended(14)], ["DG101 10-14 repaired"]),
    ([start(0), drift(10), ended(14, "kept")], ["DG101 10-14 kept"]),
    ([start(0), drift(10)], ["DG101 10- -"]),
    # Written, started, open, corrected: one episode, exposed from when it is open.
    ([start(0), drift(10), drift(11), drift(13, exposed=True), ended(20)], ["DG101 10-20 repaired open 13-20"]),
    ([start(0), drift(10, exposed=True), drift(12), ended(20)], ["DG101 10-20 repaired open 10-12"]),
    ([start(0), drift(10, exposed=True), tried(11, "held", "held")], ["DG101 10- held open 10-"]),
    # Contained: no longer exposed, also if the drift is reported again.
    ([start(0), drift(10, exposed=True), tried(11, "held", "held"), contained(12), drift(30, exposed=True), ended(40)],
     ["DG101 10-40 repaired open 10-12 contained 12-40"]),
    ([start(0), drift(10, exposed=True), contained(12), contained(15, "released")],
     ["DG101 10- - open 10-12,15- contained 12-15"]),
    # The same port of another network namespace is not blocked.
    ([start(0), drift(10, exposed=True), drift(11, ELSEWHERE), contained(12), ended(20, "kept", OPEN, ELSEWHERE)],
     ["DG101 10-20 kept open 10-12 contained 12-20", "DG107 11-20 kept"]),
    ([start(0), drift(10), tried(12, "rolled-back", "failed")], ["DG101 10- failed"]),
    ([start(0), drift(10), tried(12, "contested", "held"), ended(40)], ["DG101 10-40 repaired"]),
    # One correction ends two episodes.
    ([start(0), drift(10), drift(11, EDITED), ended(20, "repaired", OPEN, EDITED)],
     ["DG101 10-20 repaired", "DG304 11-20 repaired"]),
    # The same drift again is another episode.
    ([start(0), drift(10), ended(14), drift(20), ended(21)], ["DG101 10-14 repaired", "DG101 20-21 repaired"]),
    # The next agent process reports it again: the same episode.
    ([start(0), drift(10), start(50, "b"), drift(51, run="b"), ended(60, run="b")], ["DG101 10-60 repaired"]),
    # The next agent process does not report it: it ended by then.
    ([start(0), drift(10), start(50, "b"), start(500, "c")], ["DG101 10-50 kept end unseen"]),
    ([start(0), drift(10), start(500, "b")], ["DG101 10-500 kept end unseen"]),
    # The next agent process has just started.
    ([start(0), drift(10), start(990, "b")], ["DG101 10- -"]),
    # A start without a valid policy ends no episode.
    ([start(0), drift(10), Record(at(50), "policy", "bad", "b", outcome="failed"), start(60, "c"), drift(61, run="c")],
     ["DG101 10- -"]),
    # The begin is older than the journal.
    ([ended(20)], ["DG101 20-20 repaired begin unseen"]),
])
def test_entries_become_episodes(records: list[Record], episodes: list[str]) -> None:
    assert summarized(records) == episodes


def test_a_block_that_was_removed_for_a_while_is_no_block_for_so_long() -> None:
    """`never open to the network` was said of a port that a program had opened 46 times, by flushing the rules."""
    again = [contained(second)._replace(open_s=open_s) for second, open_s in ((30, 4.0), (40, 0.0), (50, 99.0))]
    (episode,) = history([start(0), drift(10), contained(12), *again, ended(60)], at(1000)).episodes
    assert [_span(span) for span in episode.contained] == ["12-26", "30-30", "50-60"]
    assert [_span(span) for span in episode.exposed] == ["26-30", "30-50"]


def test_since_leaves_out_earlier_episodes() -> None:
    records = [start(0), drift(10, exposed=True), ended(20), drift(30, exposed=True), ended(50), drift(60), ended(61)]
    found = history(records, at(1000), at(40))
    assert [episode.span.begun for episode in found.episodes] == [at(30), at(60)]
    assert [_span(span) for span in found.exposed] == ["40-50"]
    assert found.corrections == (at(50), at(61))


def test_overlapping_exposure_is_counted_once() -> None:
    assert merged([(at(5), at(9)), (at(0), at(6)), (at(20), at(21))]) == (Span(at(0), at(9)), Span(at(20), at(21)))


def test_blindness_is_a_span() -> None:
    blind = [Record(at(5), "blind", outcome="failed"), Record(at(6), "blind", outcome="failed"),
             Record(at(9), "blind", outcome="repaired")]
    assert history(blind, at(20)).blind == (Span(at(5), at(9)),)
    assert history(blind[:1], at(20)).blind == (Span(at(5)),)


def row(**fields: Any) -> bytes:
    return json.dumps({"__REALTIME_TIMESTAMP": "1795435200000000", **fields}).encode()


@pytest.mark.parametrize(("line", "record"), [
    (b"", None), (b"\n", None), (b"[]", None), (b"{}", None), (b"{", None), (row(), None),
    (row(__REALTIME_TIMESTAMP="x", DOCKERD_GUARD_EVENT="drift"), None),
    (row(__REALTIME_TIMESTAMP="9" * 30, DOCKERD_GUARD_EVENT="drift"), None),
    (row(DOCKERD_GUARD_EVENT="drift", MESSAGE="open", _SYSTEMD_INVOCATION_ID="a", DOCKERD_GUARD_LINE="7",
         DOCKERD_GUARD_EPISODE=["DG101 a", "DG102 b"], DOCKERD_GUARD_EXPOSED="yes"),
     Record(NOON, "drift", "open", "a", line=7, episodes=("DG101 a", "DG102 b"), exposed=True)),
    (row(DOCKERD_GUARD_EVENT="contained", DOCKERD_GUARD_OPEN_SECONDS="0.283"),
     Record(NOON, "contained", open_s=0.283)),
    (row(DOCKERD_GUARD_EVENT="contained", DOCKERD_GUARD_OPEN_SECONDS="1e999"), Record(NOON, "contained")),
    (row(DOCKERD_GUARD_EVENT="drift", DOCKERD_GUARD_LINE="7" * 5000, MESSAGE=[[["x"]], {}, 1e300]),
     Record(NOON, "drift")),
    (b'{"__REALTIME_TIMESTAMP": "1", "DOCKERD_GUARD_EVENT": "drift", "MESSAGE": ' + b"[" * 100_000, None),
    (row(DOCKERD_GUARD_EVENT="drift", DOCKERD_GUARD_LINE=1e999), None),
    # journalctl gives the bytes of what is not printable, and null for what is too long.
    (row(DOCKERD_GUARD_EVENT="drift", DOCKERD_GUARD_FILE=[47, 1, 255], MESSAGE=None, DOCKERD_GUARD_LINE="x"),
     Record(NOON, "drift", file="/\x01\ufffd")),
    (row(DOCKERD_GUARD_EVENT="drift", DOCKERD_GUARD_EPISODE=[[97, 1], "b"]),
     Record(NOON, "drift", episodes=("a\x01", "b"))),
    # Entries from before DOCKERD_GUARD_EPISODE=.
    (row(DOCKERD_GUARD_EVENT="drift", DOCKERD_GUARD_RULE="DG101", DOCKERD_GUARD_SOCKET="tcp://a:1"),
     Record(NOON, "drift", rule="DG101", socket="tcp://a:1", episodes=("DG101 tcp://a:1",))),
])
def test_a_line_of_journalctl_is_read(line: bytes, record: Record | None) -> None:
    assert record_of(line) == record


STORY = [
    start(0), drift(10, EDITED), drift(20, exposed=True), tried(21, "held", "held"), contained(22),
    ended(80, "repaired"), ended(3600, "kept", EDITED), drift(4000),
]


def lines(records: list[Record], columns: int | None = None, *, colour: bool = False) -> str:
    found = history(records, at(5000))
    return "".join(f"{line}\n" for line in report.lines(found, columns=columns, colour=colour, zone=UTC))


def test_history_as_lines() -> None:
    golden.check(lines(STORY), "report/history.txt")
    assert lines(STORY) == lines(STORY, 160)
    assert lines([]) == "No drift since 2026-11-23 13:23:20.\n"


def test_narrow_terminal() -> None:
    golden.check(lines(STORY, 40), "report/history-narrow.txt")
    assert max(map(len, lines(STORY, 40).splitlines())) <= 40


def test_outcome_is_coloured() -> None:
    assert "\033[32mrepaired after 1 min" in lines(STORY, 160, colour=True)


def test_output_is_printable() -> None:
    evil = drift(10)._replace(file="/etc/\x1b[2J\n\u202e.conf", socket="tcp://\x07")
    assert lines([start(0), evil], 60).isprintable() is False  # the newlines of our own
    assert all(line.isprintable() for line in lines([start(0), evil]).splitlines())


def test_history_as_json() -> None:
    golden.check_json(report.to_json(history(STORY, at(5000))), "report/history.json")


@pytest.mark.parametrize(("seconds", "words"), [
    (0.0, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.6, "1 min"), (75, "1 min 15 s"), (3600, "1 h"),
    (7260, "2 h 1 min"), (90000, "1 d 1 h"), (86400 + 59, "1 d"), (400 * 86400, "400 d"),
])
def test_durations(seconds: float, words: str) -> None:
    assert report.duration(seconds) == words


@pytest.mark.parametrize("length_s", [0, 1, 90, 5000, 40_000, 10 * 86400, 365 * 86400, 20 * 365 * 86400])
def test_the_timeline_stays_within_its_frame(length_s: float) -> None:
    records = [start(0), drift(length_s / 3, exposed=True), ended(length_s / 2), drift(length_s, exposed=True)]
    picture = ET.fromstring(timeline.svg(history(records, at(length_s)), "web1", UTC))
    width, height = (float(picture.get(name, "")) for name in ("width", "height"))
    for box in picture.iter(f"{SVG}rect"):
        x, y, wide, tall = (float(box.get(name, "0")) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert -12 <= y <= y + tall <= height
    ticks = [text for text in picture.iter(f"{SVG}text") if text.get("text-anchor") == "middle"]
    assert len(ticks) <= timeline.MAX_TICKS + 1


def test_the_timeline_shows_each_episode_with_its_end() -> None:
    picture = ET.fromstring(timeline.svg(history(STORY, at(5000)), "web1", UTC))
    titles = [title.text or "" for title in picture.iter(f"{SVG}title")]
    assert any(title.startswith("DG304, 2026-11-23 12:00:10, 59 min 50 s\nopen\nkept: ") for title in titles)
    colours = [box.get("fill") for box in picture.iter(f"{SVG}rect")]
    # One of each is the legend's. Of the exposed one is the bar above, one the lane's.
    assert [colours.count(colour) for colour in (timeline.EXPOSED, timeline.BLOCKED, timeline.DRIFT)] == [3, 2, 4]
    assert [text.text for text in picture.iter(f"{SVG}text")].count("2 x, open 2.0 s") == 1


def test_the_timeline_is_well_formed_xml() -> None:
    evil = drift(10)._replace(file="/etc/\x1b<&\"'>\0.conf", message="<script>\x01\udcff", socket="tcp://<b>&\x07")
    timeline_of = history([start(0), evil, Record(at(11), "drift", episodes=("\x02",))], at(20))
    assert ET.fromstring(timeline.svg(timeline_of, "<h&\x01>", UTC)) is not None


def test_more_lanes_than_fit_share_the_last() -> None:
    many = [drift(10 + number, f"DG304 configured /lib/{number}") for number in range(40)]
    found = history([start(0), *many], at(100))
    picture = ET.fromstring(timeline.svg(found, "web1", UTC))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert f"{40 - timeline.MAX_LANES + 1} others" in texts


def test_exposure_time_of_an_episode() -> None:
    episode = Episode(OPEN, Span(at(0)), "open", exposed=(Span(at(0), at(5)), Span(at(10))))
    assert episode.exposed_s(at(13)) == 8
