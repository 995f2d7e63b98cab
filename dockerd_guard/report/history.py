"""The history of a host: one line for each episode, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from dockerd_guard.report.text import clean, counted, folded, painted, stamp

SCHEMA = 1

WIDE_COLUMNS = 100
"""On a narrower terminal each episode takes several short lines."""

_WORDS = {"repaired": "repaired", "kept": "resolved externally", "pending": "corrected, not verified", "held": "held",
          "failed": "failed"}
"""For the values of DOCKERD_GUARD_OUTCOME=."""

_COLOURS = {"repaired": "32", "kept": "36", "pending": "32", "held": "1;33", "failed": "1;31"}


def lines(found: History, *, columns: int | None, colour: bool, zone: tzinfo | None = None) -> Iterator[str]:
    """One line for each episode, and a summary. `columns`: the width of the terminal, None without one.

    Times are in `zone`, by default local.
    """
    if not found.episodes:
        on = f" on {counted(len(found.hosts), 'host')}" if found.hosts else ""
        yield f"No drift{on} since {stamp(found.since, zone)}."
        return
    rows = [(stamp(episode.span.begun, zone) if episode.is_begin_seen else "before the journal",
             *((clean(found.hosts[episode.host].label),) if found.hosts else ()), subject(episode), _place(episode),
             episode.cause or "-", _end(episode, found.now)) for episode in found.episodes]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for episode, (*cells, end) in zip(found.episodes, rows, strict=True):
        shown = painted(end, _COLOURS.get(episode.outcome or "", "1;31"), colour)
        if columns is None or columns >= WIDE_COLUMNS:
            padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
            yield f"{padded}  {shown}"
        else:
            begun, *texts, cause = cells
            yield begun
            for text in (*texts, f"{cause}, {end}"):
                yield from folded(text, columns, first="  ", then="  ")
    yield from folded(summary(found, zone), columns)


def subject(episode: Episode) -> str:
    """The rule and the socket of an episode."""
    return clean(" ".join(filter(None, (episode.rule or episode.fact, episode.socket))))


def summary(found: History, zone: tzinfo | None = None) -> str:
    """The summary of a history in one sentence."""
    counts = {word: sum(not episode.lasts and episode.outcome == word for episode in found.episodes)
              for word in ("repaired", "kept")}
    lasting = sum(episode.lasts for episode in found.episodes)
    parts = [counted(len(found.episodes), "episode")]
    if counts["repaired"]:
        parts.append(f"{counts['repaired']} fixed by {counted(len(found.corrections), 'correction')}")
    if counts["kept"]:
        parts.append(f"{counts['kept']} resolved externally")
    if lasting:
        parts.append(f"{lasting} ongoing")
    times = found.exposed_s
    on = f" on {counted(len(times), 'host')}" if found.hosts else ""
    parts.append(f"open to the network for {duration(sum(times.values()))}{on}" if times else
                 "never open to the network")
    begin = f"Since {stamp(found.since, zone)}" + (f", {counted(len(found.hosts), 'host')}" if found.hosts else "")
    return f"{begin}: {', '.join(parts)}."


def to_json(found: History) -> dict[str, Any]:
    """The output of `history` as JSON. Times are ISO 8601 in UTC; an ongoing episode has no end (null).

    Of many hosts, there are `hosts`, and the host of each episode; exposure times are added up.
    """
    times = found.exposed_s
    return {
        "schema": SCHEMA, "since": found.since.isoformat(), "now": found.now.isoformat(),
        "exposed_s": sum(times.values()),
        "corrections": [at.isoformat() for at in found.corrections],
        "blind": [_span(span) for span in found.blind],
        "policies": [at.isoformat() for at in found.policies],
        "episodes": [{
            "fact": episode.fact, "rule": episode.rule, "socket": episode.socket, "layer": episode.layer,
            "file": episode.file, "line": episode.line, "cause": episode.cause, "message": episode.message,
            **_span(episode.span), "begin_seen": episode.is_begin_seen, "end_seen": episode.is_end_seen,
            "outcome": episode.outcome, "why": episode.why or None,
            "exposed_s": episode.exposed_s(found.now), "exposed": [_span(span) for span in episode.exposed],
            "contained": [_span(span) for span in episode.contained],
            **(_host(found.hosts[episode.host]) if found.hosts else {}),
        } for episode in found.episodes],
        **({"hosts": [{
            **_host(host), "last": host.last.isoformat(), "exposed_s": times.get(number, 0),
            "corrections": [at.isoformat() for at in host.corrections], "blind": [_span(span) for span in host.blind],
            "policies": [at.isoformat() for at in host.policies],
        } for number, host in enumerate(found.hosts)]} if found.hosts else {}),
    }


def _host(host: Host) -> dict[str, str | None]:
    return {"host": host.name or None, "machine_id": host.machine_id or None}


def duration(seconds: float) -> str:
    """A duration in its two largest units.

    >>> duration(0.4), duration(75), duration(7260), duration(90000)
    ('0.4 s', '1 min 15 s', '2 h 1 min', '1 d 1 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    parts: list[str] = []
    for name, length in units:
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts))


def _end(episode: Episode, now: datetime) -> str:
    """The outcome, the duration, and the exposure time."""
    word = _WORDS.get(episode.outcome or "", "ongoing" if episode.lasts else "ended")
    if episode.lasts:
        word += f" for {duration(episode.span.seconds(now))}"
    elif episode.is_begin_seen:
        word += f" after {duration(episode.span.seconds(now))}"
    if not episode.is_end_seen:
        word += " at most"
    if episode.exposed:
        word += f", open to the network {duration(episode.exposed_s(now))}"
    if episode.contained:
        word += f", blocked {duration(sum(span.seconds(now) for span in episode.contained))}"
    return word


def _place(episode: Episode) -> str:
    if episode.file is None:
        return "-"
    return clean(f"{episode.file}:{episode.line}" if episode.line else episode.file)


def _span(span: Span) -> dict[str, str | None]:
    return {"begun": span.begun.isoformat(), "ended": span.ended.isoformat() if span.ended else None}


class Record(NamedTuple):
    """A journal entry of the agent. `run` identifies the agent process (_SYSTEMD_INVOCATION_ID=)."""

    at: datetime
    event: str
    message: str = ""
    run: str = ""
    cause: str | None = None
    rule: str | None = None
    layer: str | None = None
    socket: str | None = None
    file: str | None = None
    line: int | None = None
    outcome: str | None = None
    episodes: tuple[str, ...] = ()
    exposed: bool = False
    open_s: float = 0.0
    host: str = ""
    machine_id: str = ""
    boot: str = ""


class Span(NamedTuple):
    """A period of time; `ended` is None while it lasts."""

    begun: datetime
    ended: datetime | None = None

    def seconds(self, now: datetime) -> float:
        return max(((self.ended or now) - self.begun).total_seconds(), 0.0)


class Episode(NamedTuple):
    """One drift, from its begin to its end.

    `fact` identifies it (`Finding.fact`). `outcome`: `repaired` (by the agent or `fix`), `kept` (ended without a
    correction), `held`, `failed`, or None if it lasts and nothing was tried. `exposed`: when its socket was open to
    the network against the policy. `contained`: when it was blocked at the network instead. `is_end_seen` is False
    if it ended while no agent ran; then `span` ends with the next start of the agent. `is_begin_seen` is False if
    the journal does not go back far enough.
    """

    fact: str
    span: Span
    message: str
    cause: str | None = None
    rule: str | None = None
    layer: str | None = None
    socket: str | None = None
    file: str | None = None
    line: int | None = None
    outcome: str | None = None
    why: str = ""
    """The message of the entry with the outcome."""
    exposed: tuple[Span, ...] = ()
    contained: tuple[Span, ...] = ()
    is_begin_seen: bool = True
    is_end_seen: bool = True
    host: int = 0
    """Its index in History.hosts."""

    @property
    def lasts(self) -> bool:
        return self.span.ended is None

    def exposed_s(self, now: datetime) -> float:
        """Exposure time in seconds."""
        return sum(span.seconds(now) for span in self.exposed)


class Host(NamedTuple):
    """A host whose agent has entries in a journal of many hosts.

    `name`: its host name. `label`: that, with the machine ID where another host has that name. `last`: the time of its
    last entry.
    """

    name: str
    machine_id: str
    label: str
    last: datetime
    corrections: tuple[datetime, ...] = ()
    blind: tuple[Span, ...] = ()
    policies: tuple[datetime, ...] = ()


class History(NamedTuple):
    """The history from `since` (by default the first entry) to `now`: episodes in that time, oldest first, times of
    corrections, periods of degraded visibility, and times of policy changes. `hosts` is empty for that of one host.
    `left_out`: what is missing because of a limit."""

    since: datetime
    now: datetime
    episodes: tuple[Episode, ...]
    corrections: tuple[datetime, ...] = ()
    blind: tuple[Span, ...] = ()
    policies: tuple[datetime, ...] = ()
    hosts: tuple[Host, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def exposed(self) -> tuple[Span, ...]:
        """When any socket was open to the network against the policy, from `since` on."""
        return self._exposed(self.episodes)

    @property
    def exposed_s(self) -> dict[int, float]:
        """The exposure time in seconds of each host that has any, by its index."""
        groups: dict[int, list[Episode]] = {}
        for episode in self.episodes:
            if episode.exposed:
                groups.setdefault(episode.host, []).append(episode)
        times = {host: sum(span.seconds(self.now) for span in self._exposed(group)) for host, group in groups.items()}
        return {host: seconds for host, seconds in times.items() if seconds}

    def _exposed(self, episodes: Iterable[Episode]) -> tuple[Span, ...]:
        return merged((max(span.begun, self.since), span.ended or self.now)
                      for episode in episodes for span in episode.exposed if (span.ended or self.now) > self.since)


def merged(spans: Iterable[tuple[datetime, datetime]]) -> tuple[Span, ...]:
    """The union of the spans."""
    found: list[tuple[datetime, datetime]] = []
    for begun, ended in sorted(spans):
        if found and begun <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], ended))
        else:
            found.append((begun, ended))
    return tuple(Span(begun, ended) for begun, ended in found)
