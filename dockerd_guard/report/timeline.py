"""The history of a host, or of many hosts, as a self-contained SVG.

The upper part shows how long the Docker API was open to the network in each day (or minute, hour, week, depending
on the total length), on a logarithmic scale so that seconds remain visible. The lower part has a lane with the
episodes of each socket or file, of many hosts one for each host. Tooltips show the journal entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, tzinfo
from html import escape
from typing import NamedTuple

from dockerd_guard.model.address import canonical
from dockerd_guard.report.history import Episode, History, Span, duration, merged, subject, summary
from dockerd_guard.report.text import clean, counted, stamp

WIDTH = 1200
LEFT, RIGHT = 262, 1000
"""The time axis; labels are left of it, totals right of it."""

BARS_TOP, BARS_HEIGHT = 112, 110
LANE_HEIGHT = 30
MAX_LANES = 16
MAX_HOST_LANES = 1_000
LABEL_LETTERS = 36
MIN_BAR = 4.0
"""Minimum width in pixels, so that short episodes are visible."""

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400

BUCKETS: tuple[tuple[float, str], ...] = ((MINUTE_S, "minute"), (HOUR_S, "hour"), (DAY_S, "day"), (7 * DAY_S, "week"))
MAX_BUCKETS = 380

STEPS_S = (1, 5, 15, MINUTE_S, 5 * MINUTE_S, 15 * MINUTE_S, HOUR_S, 3 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, DAY_S,
           2 * DAY_S, 7 * DAY_S)
"""Distances between ticks of the axis; longer ones are in MONTHS."""
MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 1200)
MAX_TICKS = 13

EXPOSED, BLOCKED, DRIFT, REPAIRED, KEPT, WARN, INK, PALE, LINE = (
    "#c62828", "#4a6fa5", "#e6b450", "#2e7d32", "#6b7785", "#ef6c00", "#1f2933", "#6b7785", "#e1e5ea")

STYLE = f"""\
text {{ font: 12px system-ui, "DejaVu Sans", sans-serif; fill: {INK}; }}
.title {{ font-size: 20px; font-weight: 600; }}
.pale {{ fill: {PALE}; }}
.small {{ font-size: 11px; }}
.grid {{ stroke: {LINE}; }}
"""


class Lane(NamedTuple):
    """The episodes of one socket or file, or of one host with its periods of degraded visibility."""

    label: str
    episodes: tuple[Episode, ...]
    blind: tuple[Span, ...] = ()

    def exposed_s(self, now: datetime) -> float:
        """Exposure time in seconds, of any of the episodes."""
        return sum(span.seconds(now) for span in merged(
            (span.begun, span.ended or now) for episode in self.episodes for span in episode.exposed))


class Axis(NamedTuple):
    """The time axis between LEFT and RIGHT."""

    begun: datetime
    ended: datetime
    zone: tzinfo | None

    def stamp(self, at: datetime) -> str:
        """A formatted time."""
        return stamp(at, self.zone)

    @property
    def length_s(self) -> float:
        """Length of the axis in seconds."""
        return max((self.ended - self.begun).total_seconds(), 1.0)

    def x(self, at: datetime) -> float:
        """The x coordinate of a time, clamped to the axis."""
        share = (at - self.begun).total_seconds() / self.length_s
        return LEFT + (RIGHT - LEFT) * min(max(share, 0.0), 1.0)


def svg(found: History, host: str, zone: tzinfo | None = None) -> str:
    """The SVG document. `host` is the name of the only one. Times are in `zone`, by default local."""
    axis = Axis(found.since, found.now, zone)
    lanes = tuple(_host_lanes(found) if found.hosts else _lanes(found))
    lanes_top = BARS_TOP + BARS_HEIGHT + 34
    bottom = lanes_top + LANE_HEIGHT * max(len(lanes), 1) + 8
    height = bottom + 84
    title = f"The Docker API of {counted(len(found.hosts), 'host') if found.hosts else clean(host)}"
    period = f"{_day(found.since, zone)} to {_day(found.now, zone)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(f"{title}, {period}")}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        _text(24, 38, title, "title"),
        _text(24, 60, f"{period}, observed by dockerd-guard", "pale"),
        _text(24, 80, summary(found, zone)),
        *_grid(axis, lanes_top, bottom),
        *_blind(() if found.hosts else found.blind, axis, BARS_TOP, bottom),
        *_bars(found, axis),
        *_drawn(lanes, found, axis, lanes_top),
        *_policies(() if found.hosts else found.policies, axis, bottom),
        *_legend(height - 22),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# -- exposure time -------------------------------------------------------------------------


def _bars(found: History, axis: Axis) -> Iterator[str]:
    length_s, name = next((bucket for bucket in BUCKETS if axis.length_s / bucket[0] <= MAX_BUCKETS), BUCKETS[-1])
    base = BARS_TOP + BARS_HEIGHT
    yield _text(24, BARS_TOP + 12, "Open to the network,")
    yield _text(24, BARS_TOP + 28, f"in each {name}")
    for mark_s, label in ((1, "1 s"), (MINUTE_S, "1 min"), (HOUR_S, "1 h"), (DAY_S, "1 d")):
        if mark_s <= length_s:
            y = base - BARS_HEIGHT * _share(mark_s, length_s)
            yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            yield _text(LEFT - 8, y + 4, label, "pale small", anchor="end")
    yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{base}" y2="{base}" stroke="{PALE}"/>'
    spans = found.exposed
    for index, seconds in _buckets(spans, axis.begun, length_s, found.now):
        at = axis.begun + timedelta(seconds=index * length_s)
        width = max(axis.x(at + timedelta(seconds=length_s)) - axis.x(at) - 1, 2.0)
        tall = max(BARS_HEIGHT * _share(seconds, length_s), 2.0)
        yield (f'<rect x="{min(axis.x(at), RIGHT - width):.1f}" y="{base - tall:.1f}" width="{width:.1f}" '
               f'height="{tall:.1f}" fill="{EXPOSED}"><title>{axis.stamp(at)}: open to the network for '
               f"{duration(seconds)}</title></rect>")


def _buckets(spans: Iterable[Span], begun: datetime, length_s: float, now: datetime) -> Iterator[tuple[int, float]]:
    """Index and seconds of each non-empty bucket."""
    sums: dict[int, float] = {}
    for span in spans:
        left = (span.begun - begun).total_seconds()
        right = ((span.ended or now) - begun).total_seconds()
        for index in range(int(left // length_s), int(right // length_s) + 1):
            part = min(right, (index + 1) * length_s) - max(left, index * length_s)
            if part > 0:
                sums[index] = sums.get(index, 0.0) + part
    yield from sorted(sums.items())


def _share(seconds: float, length_s: float) -> float:
    return math.log1p(min(seconds, length_s)) / math.log1p(length_s)


# -- lanes ----------------------------------------------------------------------------------------


def _lanes(found: History) -> Iterator[Lane]:
    """Lanes by exposure time; those beyond MAX_LANES share the last one."""
    groups: dict[str, list[Episode]] = {}
    labels: dict[str, str] = {}
    for episode in found.episodes:
        if episode.socket is not None:
            key, label = canonical(episode.socket), episode.socket
        else:
            key = episode.fact
            label = f"{episode.rule or ''} {(episode.file or '').rpartition('/')[2]}".strip()
        groups.setdefault(key, []).append(episode)
        labels.setdefault(key, label)
    lanes = sorted((Lane(labels[key], tuple(episodes)) for key, episodes in groups.items()),
                   key=lambda lane: (-lane.exposed_s(found.now), lane.episodes[0].socket is None,
                                     lane.episodes[0].span.begun))
    yield from _limited(lanes, MAX_LANES)


def _host_lanes(found: History) -> Iterator[Lane]:
    """A lane for each host, by exposure time and then by the number of episodes."""
    groups: dict[int, list[Episode]] = {}
    for episode in found.episodes:
        groups.setdefault(episode.host, []).append(episode)
    lanes = [Lane(host.label, tuple(groups.get(number, ())), host.blind) for number, host in enumerate(found.hosts)]
    lanes.sort(key=lambda lane: (-lane.exposed_s(found.now), -len(lane.episodes), lane.label))
    yield from _limited(lanes, MAX_HOST_LANES)


def _limited(lanes: list[Lane], most: int) -> Iterator[Lane]:
    """The lanes, of which those that are too many share the last one."""
    yield from lanes if len(lanes) <= most else lanes[:most - 1]
    if rest := lanes[most - 1:] if len(lanes) > most else ():
        yield Lane(f"{len(rest)} others", tuple(each for lane in rest for each in lane.episodes),
                   tuple(each for lane in rest for each in lane.blind))


def _drawn(lanes: tuple[Lane, ...], found: History, axis: Axis, top: int) -> Iterator[str]:
    if not lanes:
        yield _text((LEFT + RIGHT) / 2, top + LANE_HEIGHT / 2 + 4, "no drift", "pale", anchor="middle")
    for number, lane in enumerate(lanes):
        y = top + number * LANE_HEIGHT + LANE_HEIGHT / 2
        yield from _blind(lane.blind, axis, y - LANE_HEIGHT / 2, y + LANE_HEIGHT / 2)
        yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" class="grid"/>'
        yield _text(24, y + 4, _elided(lane.label))
        open_s = lane.exposed_s(found.now)
        figures = f"{len(lane.episodes)} x" + f", open {duration(open_s)}" * bool(open_s)
        yield _text(RIGHT + 20, y + 4, figures, "" if open_s else "pale")
        for episode in lane.episodes:
            yield f"<g><title>{_tooltip(episode, found.now, axis)}</title>"
            yield _bar(episode.span, axis, y, 8, DRIFT)
            yield from (_bar(span, axis, y, 14, BLOCKED) for span in episode.contained)
            yield from (_bar(span, axis, y, 20, EXPOSED) for span in episode.exposed)
            yield "</g>"
        # Marks are drawn over all bars, so that a long bar does not hide the end of a short one.
        yield from (_mark(episode, axis, y) for episode in lane.episodes)


def _bar(span: Span, axis: Axis, y: float, tall: int, colour: str) -> str:
    left, right = axis.x(span.begun), axis.x(span.ended or axis.ended)
    wide = max(right - left, MIN_BAR)
    left -= (wide - (right - left)) / 2
    return (f'<rect x="{min(left, RIGHT - wide):.1f}" y="{y - tall / 2}" width="{wide:.1f}" height="{tall}" rx="1.5" '
            f'fill="{colour}"/>')


def _mark(episode: Episode, axis: Axis, y: float) -> str:
    if episode.span.ended is None:
        is_open = any(span.ended is None for span in episode.exposed)
        return f'<path d="M{RIGHT} {y - 6}l8 6l-8 6z" fill="{EXPOSED if is_open else WARN}"/>'
    x = axis.x(episode.span.ended)
    return _disc(x, y, REPAIRED if episode.outcome == "repaired" else "#fff",
                 "#fff" if episode.outcome == "repaired" else KEPT)


def _disc(x: float, y: float, fill: str, stroke: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'


def _tooltip(episode: Episode, now: datetime, axis: Axis) -> str:
    lines = [f"{subject(episode)}, {axis.stamp(episode.span.begun)}, {duration(episode.span.seconds(now))}",
             clean(episode.message)]
    if episode.why:
        lines.append(f"{episode.outcome}: {clean(episode.why)}")
    return escape("\n".join(lines))


# -- axis and legend ------------------------------------------------------------------------------------


def _grid(axis: Axis, lanes_top: int, bottom: int) -> Iterator[str]:
    for at, label in _ticks(axis):
        x = axis.x(at)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{BARS_TOP}" y2="{bottom}" class="grid"/>'
        yield _text(x, lanes_top - 12, label, "pale small", anchor="middle")


def _ticks(axis: Axis) -> Iterator[tuple[datetime, str]]:
    """Ticks at round local times, with their labels."""
    step_s = next((step for step in STEPS_S if axis.length_s / step <= MAX_TICKS), None)
    if step_s is None:
        yield from _months(axis)
        return
    midnight = axis.begun.astimezone(axis.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    form = "%-d %b" if step_s >= DAY_S else "%-d %b %H:%M" if axis.length_s > DAY_S else (
        "%H:%M" if step_s >= MINUTE_S else "%H:%M:%S")
    first = math.ceil((axis.begun - midnight).total_seconds() / step_s)
    for number in range(first, first + MAX_TICKS + 1):
        at = midnight + timedelta(seconds=number * step_s)
        if at <= axis.ended:
            yield at, f"{at.astimezone(axis.zone):{form}}"


def _months(axis: Axis) -> Iterator[tuple[datetime, str]]:
    months = axis.length_s / (30 * DAY_S)
    apart = next((each for each in MONTHS if months / each <= MAX_TICKS), MONTHS[-1])
    at = axis.begun.astimezone(axis.zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while at <= axis.ended:
        if at >= axis.begun and (at.year * 12 + at.month - 1) % apart == 0:
            yield at, f"{at:%b %Y}" if at.month == 1 or apart >= 12 else f"{at:%b}"
        at = (at + timedelta(days=32)).replace(day=1)


def _blind(spans: tuple[Span, ...], axis: Axis, top: float, bottom: float) -> Iterator[str]:
    for span in spans:
        left, right = axis.x(span.begun), axis.x(span.ended or axis.ended)
        yield (f'<rect x="{left:.1f}" y="{top}" width="{max(right - left, MIN_BAR):.1f}" '
               f'height="{bottom - top}" fill="#9aa5b1" opacity=".35"><title>Degraded visibility, '
               f"{axis.stamp(span.begun)}</title></rect>")


def _policies(moments: tuple[datetime, ...], axis: Axis, bottom: int) -> Iterator[str]:
    yield f'<line x1="{LEFT}" x2="{RIGHT}" y1="{bottom}" y2="{bottom}" stroke="{PALE}"/>'
    for at in moments:
        yield (f'<path d="M{axis.x(at):.1f} {bottom - 1}l4.5 8h-9z" fill="{INK}"><title>policy in force, '
               f"{axis.stamp(at)}</title></path>")


def _legend(y: int) -> Iterator[str]:
    entries = (
        (f'<rect x="0" y="-9" width="16" height="14" rx="1.5" fill="{EXPOSED}"/>', "open to the network"),
        (f'<rect x="0" y="-8" width="16" height="12" rx="1.5" fill="{BLOCKED}"/>', "blocked at the network"),
        (f'<rect x="0" y="-6" width="16" height="8" rx="1.5" fill="{DRIFT}"/>', "drift"),
        (_disc(8, -2, REPAIRED, "#fff"), "corrected by the agent"),
        (_disc(8, -2, "#fff", KEPT), "resolved externally"),
        (f'<path d="M4 -8l8 6l-8 6z" fill="{WARN}"/>', "ongoing"),
        ('<rect x="0" y="-10" width="16" height="16" fill="#9aa5b1" opacity=".35"/>', "degraded visibility"),
        (f'<path d="M8 -6l4.5 8h-9z" fill="{INK}"/>', "policy in force"),
    )
    x = 24.0
    for glyph, label in entries:
        yield f'<g transform="translate({x:.0f} {y})">{glyph}{_text(22, 2, label)}</g>'
        x += 46 + 6.6 * len(label)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = f' class="{kind}"' * bool(kind) + f' text-anchor="{anchor}"' * bool(anchor)
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'


def _elided(label: str) -> str:
    label = clean(label)
    half = LABEL_LETTERS // 2
    return label if len(label) <= LABEL_LETTERS else f"{label[:half]}...{label[-half + 3:]}"


def _day(at: datetime, zone: tzinfo | None) -> str:
    return f"{at.astimezone(zone):%-d %B %Y}"
