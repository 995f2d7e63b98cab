"""Journal entries of agents, combined to episodes: one for each drift, from its begin to its end.

What is kept is limited in number and length (I12), so that no host can fill the memory of the one that reads.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dockerd_guard.model.address import canonical
from dockerd_guard.report.history import Episode, History, Host, Record, Span

START_S = 60.0
"""Within this time after its start the agent reports ongoing drifts again."""

MAX_HOSTS = 10_000

MAX_EPISODES = 100_000
"""Of all hosts. Of more that have ended, the latest are kept."""

MAX_OPEN = 100
"""Ongoing episodes of one host."""

MAX_TIMES = 1_000
"""Corrections, policies and blind periods of one host, and periods of one episode. Of more, the latest are kept."""

MAX_CHARACTERS = 1_024
"""Of a value that another host sent."""

MAX_NAME_CHARACTERS = 64
"""HOST_NAME_MAX of Linux."""

MAX_NAMES = 8
"""Of one host, by which it is found again after a reboot."""


def history(records: Iterable[Record], now: datetime, since: datetime | None = None, *, by_host: bool = False
            ) -> History:
    """Combine entries, oldest first, to episodes; those of each host for itself if `by_host`. Pure."""
    hosts = _Hosts()
    for record in records:
        # The clock of another host may be ahead.
        hosts.add(_bounded(record._replace(at=min(record.at, now))) if by_host else
                  record._replace(host="", machine_id="", boot=""))
    return hosts.finish(now, since, by_host=by_host)


def _bounded(record: Record) -> Record:
    """The entry with at most MAX_CHARACTERS of each value."""
    return Record._make(
        value[:MAX_CHARACTERS] if isinstance(value, str) else
        tuple(text[:MAX_CHARACTERS] for text in value[:MAX_OPEN]) if isinstance(value, tuple) else value
        for value in record)._replace(host=record.host[:MAX_NAME_CHARACTERS], machine_id=record.machine_id[:32])


class _Hosts:
    """The hosts of a journal.

    An entry belongs to the host of its boot, or else to that of its machine ID and host name: a host may get its name
    after it has booted, and copies of a disk image may have one machine ID.
    """

    def __init__(self) -> None:
        self._kept = _Kept()
        self._hosts: list[_EpisodeBuilder] = []
        self._by_boot: dict[str, _EpisodeBuilder] = {}
        self._by_name: dict[tuple[str, str], _EpisodeBuilder] = {}

    def add(self, record: Record) -> None:
        name = record.machine_id, record.host
        host = self._by_boot.get(record.boot) or self._by_name.get(name)
        if host is None:
            if len(self._hosts) == MAX_HOSTS:
                self._kept.left_out["entries of more hosts"] += 1
                return
            host = _EpisodeBuilder(len(self._hosts), self._kept)
            self._hosts.append(host)
        if name not in self._by_name and host.names < MAX_NAMES:
            self._by_name[name] = host
            host.names += 1
        if record.boot and record.boot != host.last.boot:
            self._by_boot.pop(host.last.boot, None)
            self._by_boot[record.boot] = host
        host.add(record)

    def finish(self, now: datetime, since: datetime | None, *, by_host: bool) -> History:
        for host in self._hosts:
            host.finish(now)
        begun = since or min((host.first for host in self._hosts if host.first), default=now)
        found = tuple(host.summary(label, begun, now) for host, label in
                      zip(self._hosts, _labels([host.last for host in self._hosts]), strict=True))
        episodes = sorted((*self._kept.ended, *(each for host in self._hosts for each in host.ongoing)),
                          key=lambda episode: episode.span.begun)
        return History(
            begun, now, tuple(episode for episode in episodes if (episode.span.ended or now) >= begun),
            tuple(sorted(at for host in found for at in host.corrections)),
            tuple(sorted((span for host in found for span in host.blind), key=lambda span: span.begun)),
            tuple(sorted(at for host in found for at in host.policies)),
            found if by_host else (),
            tuple(f"{number} {what}" for what, number in self._kept.left_out.items()))


def _labels(lasts: list[Record]) -> Iterator[str]:
    """The name of each host, with its machine ID where another one has that name."""
    hosts = [(each.host or "unknown", each.machine_id) for each in lasts]
    names, ids = Counter(name for name, _ in hosts), Counter((name, machine[:8]) for name, machine in hosts)
    for name, machine in hosts:
        shown = machine[:8] if ids[name, machine[:8]] == 1 else machine
        yield f"{name} ({shown})" if names[name] > 1 else name


class _Kept:
    """The ended episodes of all hosts, and how much was left out, by what it was."""

    def __init__(self) -> None:
        self.ended: deque[Episode] = deque(maxlen=MAX_EPISODES)
        self.ongoing = 0
        self.left_out: Counter[str] = Counter()

    def end(self, episode: Episode) -> None:
        if len(self.ended) == MAX_EPISODES:
            self.left_out["earlier episodes"] += 1
        self.ended.append(episode)


def _spans() -> deque[Span]:
    return deque(maxlen=MAX_TIMES)


@dataclass
class _Ongoing:
    """An ongoing episode, the agent process that reported it last, its socket as it is compared, and its periods."""

    episode: Episode
    run: str
    place: str | None = None
    exposed: deque[Span] = field(default_factory=_spans)
    contained: deque[Span] = field(default_factory=_spans)

    def shown(self) -> Episode:
        return self.episode._replace(exposed=tuple(self.exposed), contained=tuple(self.contained))

    def ended(self, at: datetime, outcome: str | None) -> Episode:
        _end(self.exposed, at)
        _end(self.contained, at)
        return self.shown()._replace(span=Span(self.episode.span.begun, at), outcome=outcome)


class _EpisodeBuilder:
    """The episodes of one host. The ended ones are in `kept`."""

    def __init__(self, number: int, kept: _Kept) -> None:
        self.first: datetime | None = None
        self.last = Record(datetime.min, "")
        self.corrections: deque[datetime] = deque(maxlen=MAX_TIMES)
        self.policies: deque[datetime] = deque(maxlen=MAX_TIMES)
        self.blind = _spans()
        self.names = 0
        self._number = number
        self._kept = kept
        self._ongoing: dict[str, _Ongoing] = {}
        self._run: tuple[str, datetime] | None = None

    @property
    def ongoing(self) -> Iterator[Episode]:
        return (known.shown() for known in self._ongoing.values())

    def summary(self, label: str, begun: datetime, now: datetime) -> Host:
        return Host(
            self.last.host, self.last.machine_id, label, self.last.at,
            tuple(at for at in self.corrections if at >= begun),
            tuple(span for span in self.blind if (span.ended or now) >= begun),
            tuple(at for at in self.policies if at >= begun))

    def add(self, record: Record) -> None:
        self.first = self.first or record.at
        self.last = record
        if record.event == "policy" and record.outcome == "failed":
            # An agent without a valid policy observes nothing.
            return
        if self._run is None or self._run[0] != record.run:
            self._end_unconfirmed()
            self._run = record.run, record.at
        if record.event == "drift":
            self._drift(record)
        elif record.event == "corrected":
            if record.outcome == "repaired":
                self.corrections.append(record.at)
            self._end(record)
        elif record.event in ("held", "failed", "rolled-back", "contested"):
            self._attempt(record)
        elif record.event in ("contained", "released"):
            self._containment(record)
        elif record.event == "blind":
            self._blind(record)
        elif record.event == "policy" and record.outcome is None:
            self.policies.append(record.at)

    def finish(self, now: datetime) -> None:
        if self._run is not None and (now - self._run[1]).total_seconds() > START_S:
            self._end_unconfirmed()

    def _drift(self, record: Record) -> None:
        for fact in record.episodes:
            known = self._ongoing.get(fact)
            if known is None and (len(self._ongoing) == MAX_OPEN or self._kept.ongoing == MAX_EPISODES):
                self._kept.left_out["ongoing episodes"] += 1
                continue
            if known is None:
                known = self._ongoing[fact] = _Ongoing(self._new(fact, record, record.at), record.run)
                self._kept.ongoing += 1
            known.episode = known.episode._replace(
                message=record.message, file=record.file, line=record.line, layer=record.layer, socket=record.socket)
            known.run, known.place = record.run, _place(record.socket, fact)
            if not record.exposed:
                _end(known.exposed, record.at)
            elif not _is_open(known.contained):
                _begin(known.exposed, record.at)

    def _end(self, record: Record) -> None:
        for fact in record.episodes:
            known = self._pop(fact)
            # The begin may be older than the journal.
            known = known or _Ongoing(
                self._new(fact, record, self.first or record.at)._replace(is_begin_seen=False), record.run)
            self._kept.end(known.ended(record.at, record.outcome)._replace(why=record.message))

    def _attempt(self, record: Record) -> None:
        for fact in record.episodes:
            if (known := self._ongoing.get(fact)) is not None:
                known.episode = known.episode._replace(outcome=record.outcome, why=record.message)
                known.run = record.run

    def _containment(self, record: Record) -> None:
        if record.socket is None:
            return
        place = canonical(record.socket)
        for known in self._ongoing.values():
            if known.place != place:
                continue
            if record.event == "contained":
                if record.open_s > 0 and _is_open(known.contained):
                    # Another program had removed the block.
                    removed_at = max(record.at - timedelta(seconds=record.open_s), known.contained[-1].begun)
                    _end(known.contained, removed_at)
                    _begin(known.exposed, removed_at)
                _end(known.exposed, record.at)
                _begin(known.contained, record.at)
            elif _is_open(known.contained):
                # Released while the drift continues: open again.
                _end(known.contained, record.at)
                _begin(known.exposed, record.at)

    def _blind(self, record: Record) -> None:
        if record.outcome == "failed":
            _begin(self.blind, record.at)
        elif record.outcome == "repaired":
            _end(self.blind, record.at)

    def _end_unconfirmed(self) -> None:
        """End episodes that the latest agent process has not reported: they ended before its start."""
        if self._run is None:
            return
        run, begun = self._run
        for fact, known in tuple(self._ongoing.items()):
            if known.run != run:
                self._pop(fact)
                self._kept.end(known.ended(begun, "kept")._replace(is_end_seen=False))

    def _pop(self, fact: str) -> _Ongoing | None:
        known = self._ongoing.pop(fact, None)
        self._kept.ongoing -= known is not None
        return known

    def _new(self, fact: str, record: Record, begun: datetime) -> Episode:
        return Episode(fact, Span(begun), record.message, record.cause, record.rule, record.layer, record.socket,
                       record.file, record.line, host=self._number)


def _place(socket: str | None, fact: str) -> str | None:
    """The socket as it is compared; None where there is none, or none that can be blocked: of another network namespace
    (Finding.fact)."""
    return None if socket is None or " in " in fact.partition("tcp://")[2] else canonical(socket)


def _is_open(spans: deque[Span]) -> bool:
    return bool(spans) and spans[-1].ended is None


def _begin(spans: deque[Span], at: datetime) -> None:
    if not _is_open(spans):
        spans.append(Span(at))


def _end(spans: deque[Span], at: datetime) -> None:
    if _is_open(spans):
        spans.append(Span(spans.pop().begun, at))
