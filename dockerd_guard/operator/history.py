"""`history`: what became of this host, as the agent's entries in the journal tell it.

Only what the agent itself wrote counts, by the fields that journald sets (_SYSTEMD_UNIT=, _UID=): anybody may
log a DOCKERD_GUARD_EVENT= of his own. The journal is read by journalctl, which every host with systemd has: it looks
entries up by these fields' indexes, so that what others log costs nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from dockerd_guard.bindings import canonical

FIELDS = ("EVENT", "CAUSE", "RULE", "LAYER", "SOCKET", "FILE", "LINE", "OUTCOME", "EPISODE", "EXPOSED")
"""DOCKERD_GUARD_*: what is read of an entry, beside its MESSAGE."""

EVENTS = ("drift", "corrected", "held", "contained", "released", "failed", "rolled-back", "blind", "contested",
          "policy")

AGENT = "dockerd-guard.service"

MATCHES = (f"_SYSTEMD_UNIT={AGENT}", "_UID=0",
           *(f"DOCKERD_GUARD_EVENT={event}" for event in EVENTS))
"""Values of one field are alternatives, different fields must all match (journalctl(1))."""

START_S = 60.0
"""What lasted when the agent was started is told again within this."""


class Unread(Exception):
    """The journal cannot be read: why."""


class Record(NamedTuple):
    """One entry of the agent. `run` tells one run of the agent from the next (_SYSTEMD_INVOCATION_ID=)."""

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


class Span(NamedTuple):
    """From when until when (None: still so)."""

    begun: datetime
    ended: datetime | None = None

    def seconds(self, now: datetime) -> float:
        """How long."""
        return max(((self.ended or now) - self.begun).total_seconds(), 0.0)


class Episode(NamedTuple):
    """One drift, from its beginning to its end.

    `fact` tells it from others (`Finding.fact`). `outcome`: `repaired` (by the agent or `fix`), `kept` (it ended
    otherwise), `held`, `failed`, or None where it lasts and nothing was tried. `exposed` is when its socket was open to
    the network against the policy; `contained`, when it would have been and was cut off.
    `is_end_seen` is False where it ended while no agent looked, so that `span` ends with the next start of one;
    `is_begin_seen` where the journal does not go back that far.
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
    """The entry that tells of the outcome."""
    exposed: tuple[Span, ...] = ()
    contained: tuple[Span, ...] = ()
    is_begin_seen: bool = True
    is_end_seen: bool = True

    @property
    def lasts(self) -> bool:
        """Whether it is not over."""
        return self.span.ended is None

    def exposed_s(self, now: datetime) -> float:
        """How long the host was exposed by it, in seconds."""
        return sum(span.seconds(now) for span in self.exposed)


class History(NamedTuple):
    """What happened from `since` (or else the first entry) to `now`: the episodes that reach into that time, oldest
    first, the corrections made, when the agent was blind, and when a policy was taken."""

    since: datetime
    now: datetime
    episodes: tuple[Episode, ...]
    corrections: tuple[datetime, ...] = ()
    blind: tuple[Span, ...] = ()
    policies: tuple[datetime, ...] = ()

    @property
    def exposed(self) -> tuple[Span, ...]:
        """When anything at all was open to the network against the policy, from `since` on."""
        return merged((max(span.begun, self.since), span.ended or self.now)
                      for episode in self.episodes for span in episode.exposed if (span.ended or self.now) > self.since)


def history(records: Iterable[Record], now: datetime, since: datetime | None = None) -> History:
    """Put the entries, oldest first, together to episodes. Pure."""
    book = _Book()
    for record in records:
        book.take(record)
    episodes = book.close(now)
    begun = since or book.first or now
    return History(
        begun, now, tuple(episode for episode in episodes if (episode.span.ended or now) >= begun),
        tuple(at for at in book.corrections if at >= begun),
        tuple(span for span in book.blind if (span.ended or now) >= begun),
        tuple(at for at in book.policies if at >= begun))


def merged(spans: Iterable[tuple[datetime, datetime]]) -> tuple[Span, ...]:
    """The same time, no moment of it twice."""
    found: list[tuple[datetime, datetime]] = []
    for begun, ended in sorted(spans):
        if found and begun <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], ended))
        else:
            found.append((begun, ended))
    return tuple(Span(begun, ended) for begun, ended in found)


class _Book:
    """The episodes so far, those that last by their fact, and which run of the agent told of each last."""

    def __init__(self) -> None:
        self.first: datetime | None = None
        self.corrections: list[datetime] = []
        self.policies: list[datetime] = []
        self.blind: list[Span] = []
        self._over: list[Episode] = []
        self._open: dict[str, Episode] = {}
        self._run_of: dict[str, str] = {}
        self._runs: list[tuple[str, datetime]] = []
        self._last: datetime | None = None

    def take(self, record: Record) -> None:
        self.first = self.first or record.at
        self._last = record.at
        if record.event == "policy" and record.outcome == "failed":
            # A start without a policy looks at nothing.
            return
        if not self._runs or self._runs[-1][0] != record.run:
            self._forget_untold()
            self._runs.append((record.run, record.at))
        if record.event == "drift":
            self._drift(record)
        elif record.event == "corrected":
            if record.outcome == "repaired":
                self.corrections.append(record.at)
            self._end(record)
        elif record.event in ("held", "failed", "rolled-back", "contested"):
            self._tried(record)
        elif record.event in ("contained", "released"):
            self._cut_off(record)
        elif record.event == "blind":
            self._blind(record)
        elif record.event == "policy" and record.outcome is None:
            self.policies.append(record.at)

    def close(self, now: datetime) -> list[Episode]:
        if self._runs and (now - self._runs[-1][1]).total_seconds() > START_S:
            self._forget_untold()
        return sorted((*self._over, *self._open.values()), key=lambda episode: episode.span.begun)

    def _drift(self, record: Record) -> None:
        for fact in record.episodes:
            known = self._open.get(fact)
            episode = _episode(fact, record, record.at) if known is None else known._replace(
                message=record.message, file=record.file, line=record.line, layer=record.layer, socket=record.socket)
            if record.exposed and not _is_open(episode.contained):
                episode = episode._replace(exposed=_begun(episode.exposed, record.at))
            elif not record.exposed:
                episode = episode._replace(exposed=_ended(episode.exposed, record.at))
            self._open[fact] = episode
            self._run_of[fact] = record.run

    def _end(self, record: Record) -> None:
        for fact in record.episodes:
            known = self._open.pop(fact, None)
            if known is None:
                # It began before the journal does.
                known = _episode(fact, record, self.first or record.at)._replace(is_begin_seen=False)
            self._over.append(_over(known, record.at)._replace(outcome=record.outcome, why=record.message))

    def _tried(self, record: Record) -> None:
        for fact in record.episodes:
            if (known := self._open.get(fact)) is not None:
                self._open[fact] = known._replace(outcome=record.outcome, why=record.message)
                self._run_of[fact] = record.run

    def _cut_off(self, record: Record) -> None:
        if record.socket is None:
            return
        place = canonical(record.socket)
        for fact, known in self._open.items():
            if known.socket is None or canonical(known.socket) != place:
                continue
            if record.event == "contained":
                self._open[fact] = known._replace(exposed=_ended(known.exposed, record.at),
                                                  contained=_begun(known.contained, record.at))
            elif _is_open(known.contained):
                # Released while the drift lasts: open again.
                self._open[fact] = known._replace(exposed=_begun(known.exposed, record.at),
                                                  contained=_ended(known.contained, record.at))

    def _blind(self, record: Record) -> None:
        if record.outcome == "failed" and not _is_open(tuple(self.blind)):
            self.blind.append(Span(record.at))
        elif record.outcome == "repaired":
            self.blind[-1:] = _ended(tuple(self.blind[-1:]), record.at)

    def _forget_untold(self) -> None:
        """End what the latest run of the agent has not told of: it was over before that."""
        if not self._runs:
            return
        run, begun = self._runs[-1]
        for fact, known in tuple(self._open.items()):
            if self._run_of[fact] != run:
                self._over.append(_over(known, begun)._replace(outcome="kept", is_end_seen=False))
                del self._open[fact]


def _episode(fact: str, record: Record, begun: datetime) -> Episode:
    return Episode(fact, Span(begun), record.message, record.cause, record.rule, record.layer, record.socket,
                   record.file, record.line)


def _over(episode: Episode, at: datetime) -> Episode:
    return episode._replace(span=Span(episode.span.begun, at), exposed=_ended(episode.exposed, at),
                            contained=_ended(episode.contained, at))


def _is_open(spans: tuple[Span, ...]) -> bool:
    return bool(spans) and spans[-1].ended is None


def _begun(spans: tuple[Span, ...], at: datetime) -> tuple[Span, ...]:
    return spans if _is_open(spans) else (*spans, Span(at))


def _ended(spans: tuple[Span, ...], at: datetime) -> tuple[Span, ...]:
    return (*spans[:-1], Span(spans[-1].begun, at)) if _is_open(spans) else spans


# -- the journal ----------------------------------------------------------------------------------


def read_journal(*options: str) -> Iterator[Record]:
    """The agent's entries, oldest first; `options` are journalctl's. Raises Unread."""
    names = ",".join(("MESSAGE", "_SYSTEMD_INVOCATION_ID", *(f"DOCKERD_GUARD_{name}" for name in FIELDS)))
    command = ("journalctl", "--system", "--no-pager", "--all", "--output=json", f"--output-fields={names}", *options,
               *MATCHES)
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stderr is not None  # noqa: S101 -- PIPE was asked for
            any_came = False
            for row in child.stdout:
                if (record := record_of(row)) is not None:
                    any_came = True
                    yield record
            said = child.stderr.read().decode("utf-8", "replace").strip()
    except OSError as error:
        raise Unread(f"journalctl cannot be run: {error.strerror}") from None
    # It succeeds also where there is no journal, or none that this user may read.
    if not any_came and (said or child.returncode or not _is_there_any()):
        raise Unread(" ".join(said.split()) or "there is no journal on this host, or none that this user may read; "
                     "journald.conf(5), Storage=, says where it would be")


def _is_there_any() -> bool:
    try:
        done = subprocess.run(("journalctl", "--system", "--no-pager", "--quiet", "--output=json", "--lines=1"),
                              capture_output=True, check=False)
    except OSError:
        return False
    return bool(done.stdout)


def record_of(row: bytes) -> Record | None:
    """An entry as `journalctl -o json` writes it; None for what is none of the agent's."""
    try:
        data = json.loads(row)
        at = datetime.fromtimestamp(int(data["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
    event, cause, rule, layer, socket, file, line, outcome, episodes, exposed = (
        _values(data.get(f"DOCKERD_GUARD_{name}")) for name in FIELDS)
    if not event:
        return None
    return Record(
        at, event[0], _first(_values(data.get("MESSAGE"))) or "",
        _first(_values(data.get("_SYSTEMD_INVOCATION_ID"))) or "", _first(cause), _first(rule), _first(layer),
        _first(socket), _first(file), int(line[0]) if line and line[0].isdecimal() else None, _first(outcome),
        # Entries of before there were episodes.
        episodes or ((f"{rule[0]} {_first(socket) or _first(file) or ''}".rstrip(),) if rule else ()),
        exposed == ("yes",))


def _first(values: tuple[str, ...]) -> str | None:
    return values[0] if values else None


def _values(value: Any) -> tuple[str, ...]:
    """A field: a text, the bytes of what is not printable, or a list of these; null for what is too long."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        if value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
            return (bytes(value).decode("utf-8", "replace"),)
        return tuple(text for item in value for text in _values(item))
    return ()


def moment(text: str) -> datetime:
    """A point in time as systemd.time(7) has it: `yesterday`, `2 weeks ago`, `2026-11-23 12:00`. Raises ValueError."""
    try:
        done = subprocess.run(("systemd-analyze", "timestamp", "--", text), capture_output=True, check=False,
                              env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    except OSError as error:
        raise ValueError(f"systemd-analyze cannot be run: {error.strerror}") from None
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(": @")
        if name.strip() == "UNIX seconds":
            return datetime.fromtimestamp(float(value), UTC)
    raise ValueError(f"no point in time: {text!r}; expected one such as yesterday, 2 weeks ago or 2026-11-23 "
                     "(systemd.time(7))")
