"""The policy as values: where the Docker API listens, and what may be done about drift. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.model.address import Tls
from dockerd_guard.model.location import Location

POLICY_FILE = "/etc/dockerd-guard/config.yaml"
"""The policy of a host."""


class Mode(StrEnum):
    """What is done about drift."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


class Restart(StrEnum):
    """When dockerd may be restarted: only if containers keep running meanwhile, always, never."""

    LIVE_RESTORE = "live-restore"
    ALWAYS = "always"
    NEVER = "never"


class Declared(NamedTuple):
    """A place where the policy wants the API: an address in dockerd's syntax, normalised.

    In `Policy.sockets` it may be `fd://`; `declared_bindings` gives what that stands for.
    `tls` is Tls.NONE for UNIX sockets and, in `Policy.sockets`, for an `fd://` that brings no TCP.
    """

    address: str
    tls: Tls
    location: Location
    is_passed: bool = False
    """Whether docker.socket passes it to dockerd (`fd://`)."""

    @property
    def is_tcp(self) -> bool:
        """Whether it is reached through TCP/IP."""
        return self.address.startswith("tcp://")


class DeclaredListen(NamedTuple):
    """One ListenStream= of docker.socket: as systemd takes it, and in dockerd's syntax."""

    value: str
    address: str
    location: Location | None = None


class SocketUnit(NamedTuple):
    """What `fd://` stands for."""

    listen: tuple[DeclaredListen, ...]


class TlsFiles(NamedTuple):
    """Paths given to dockerd when a declared socket asks for TLS; `location` of the section, if any."""

    ca: str = "/etc/docker/ca.pem"
    cert: str = "/etc/docker/server-cert.pem"
    key: str = "/etc/docker/server-key.pem"
    location: Location | None = None


class Budget(NamedTuple):
    """At most `restarts` within any `per_s` seconds."""

    restarts: int
    per_s: float


class Window(NamedTuple):
    """Wall-clock hours of some weekdays in a time zone, in which dockerd may be restarted.

    `days` count from Monday = 0; `start_min` and `end_min` are minutes of the day, the end excluded.
    A window whose end is not after its start runs into the next day and belongs to the day it starts.
    An hour that the clocks skip is never in a window, one that they repeat is in it twice.
    """

    days: frozenset[int]
    start_min: int
    end_min: int
    zone: tzinfo
    text: str

    def contains(self, moment: datetime) -> bool:
        """Whether the window is open at this (aware) moment."""
        local = moment.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days
        if self.start_min < self.end_min:
            return today and self.start_min <= minute < self.end_min
        yesterday = (local.weekday() - 1) % 7 in self.days
        return (today and minute >= self.start_min) or (yesterday and minute < self.end_min)

    def next_opening(self, moment: datetime) -> datetime:
        """The first moment from this (aware) one on at which the window is open, in its own zone."""
        if self.contains(moment):
            return moment.astimezone(self.zone)
        today = moment.astimezone(self.zone).date()
        # Two weeks: the only start within the first may fall into an hour that the clocks skip.
        for days in range(-1, 16):
            for opening in self._starts(today + timedelta(days=days)):
                if opening >= moment and self.contains(opening):
                    return opening.astimezone(self.zone)
        raise AssertionError("a window opens at least once in two weeks")

    def _starts(self, day: date) -> Iterator[datetime]:
        """The moments (UTC, ascending) at which a window of this day can open.

        A start in a repeated hour comes twice. One in a skipped hour opens as soon as the clocks
        have passed it, which is at a whole minute between the two readings of it.
        """
        wall = datetime.combine(day, time(self.start_min // 60, self.start_min % 60), self.zone)
        first = wall.astimezone(UTC)
        second = wall.replace(fold=1).astimezone(UTC)
        if first <= second:
            yield from (first, second)
            return
        while second <= first:
            yield second
            second += timedelta(minutes=1)


class Correct(NamedTuple):
    """What a correction may do."""

    restart: Restart = Restart.LIVE_RESTORE
    window: Window | None = None
    budget: Budget = Budget(3, 3600.0)
    foreign_files: bool = True
    contain: bool = True


class Watch(NamedTuple):
    """How the host is watched, in seconds."""

    settle_s: float = 0.1
    resync_s: float = 300.0


class Waiver(NamedTuple):
    """A finding that is known and accepted: of one rule, at one address or (None) any, until the end
    of a day or (None) for good."""

    rule: str
    address: str | None
    reason: str
    until: date | None
    location: Location


class Policy(NamedTuple):
    """A whole policy; `file` is where it was read."""

    file: str
    mode: Mode
    sockets: tuple[Declared, ...]
    socket_unit: SocketUnit
    tls: TlsFiles
    correct: Correct
    watch: Watch
    waive: tuple[Waiver, ...]

    @property
    def tcp_tls(self) -> Tls | None:
        """dockerd's one TLS setting for all TCP sockets; None where the policy declares no TCP."""
        return next((declared.tls for declared in declared_bindings(self) if declared.is_tcp), None)


class PolicyProblem(NamedTuple):
    """One mistake in a policy."""

    location: Location
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"


class PolicyError(Exception):
    """The policy cannot be taken; `problems` holds all that is wrong with it, in the file's order."""

    def __init__(self, problems: Collection[PolicyProblem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


def declared_bindings(policy: Policy) -> tuple[Declared, ...]:
    """What the API must listen on, and nothing else: the sockets with `fd://` expanded."""
    found: list[Declared] = []
    for socket in policy.sockets:
        if socket.address == "fd://":
            found += (
                Declared(listen.address, socket.tls if listen.address.startswith("tcp://") else Tls.NONE,
                         listen.location or socket.location, is_passed=True)
                for listen in policy.socket_unit.listen
            )
        else:
            found.append(socket)
    return tuple(found)
