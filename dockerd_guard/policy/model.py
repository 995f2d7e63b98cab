"""The policy as immutable values. No I/O. Defaults are in `policy/keys.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.model.address import Tls
from dockerd_guard.model.location import Location

POLICY_FILE = "/etc/dockerd-guard/config.yaml"
"""Path of the policy on a host."""


class Mode(StrEnum):
    """What is done about drift: only report it, or correct it as well."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


class Restart(StrEnum):
    """When dockerd may be restarted: only if containers keep running, always, never."""

    LIVE_RESTORE = "live-restore"
    ALWAYS = "always"
    NEVER = "never"


class DeclaredSocket(NamedTuple):
    """An address where the API must listen, in dockerd's syntax, normalised.

    In `Policy.sockets` it may be `fd://`, which `declared_bindings` expands. `tls` is Tls.NONE for UNIX sockets and for
    an `fd://` without TCP addresses.
    """

    address: str
    tls: Tls
    location: Location

    is_passed: bool = False
    """Whether docker.socket passes it to dockerd (`fd://`)."""

    @property
    def is_tcp(self) -> bool:
        return self.address.startswith("tcp://")


class ListenStream(NamedTuple):
    """One ListenStream= of docker.socket: `value` in systemd's syntax, `address` in dockerd's."""

    value: str
    address: str
    location: Location | None = None


class SocketUnit(NamedTuple):
    """The addresses that `fd://` stands for."""

    listen: tuple[ListenStream, ...]


class TlsFiles(NamedTuple):
    """Paths passed to dockerd when a declared socket uses TLS. `location` is that of the section, if there is one."""

    ca: str
    cert: str
    key: str
    location: Location | None = None


class Budget(NamedTuple):
    """At most `restarts` in any period of `per_s` seconds."""

    restarts: int
    per_s: float


class Window(NamedTuple):
    """Hours of weekdays in a time zone during which dockerd may be restarted.

    `days` count from Monday = 0. `start_min` and `end_min` are minutes of the day; the end is excluded. A window whose
    end is not after its start continues into the next day and belongs to the day on which it starts. An hour that is
    skipped by a change of the clocks is never in a window; an hour that is repeated is in it twice. `text` is the value
    in the file.
    """

    days: frozenset[int]
    start_min: int
    end_min: int
    zone: tzinfo
    text: str

    def contains(self, moment: datetime) -> bool:
        """Whether the window is open at this moment (an aware datetime)."""
        local = moment.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        today = local.weekday() in self.days
        if self.start_min < self.end_min:
            return today and self.start_min <= minute < self.end_min
        yesterday = (local.weekday() - 1) % 7 in self.days
        return (today and minute >= self.start_min) or (yesterday and minute < self.end_min)

    def next_opening(self, moment: datetime) -> datetime:
        """The first moment, not before this one (an aware datetime), at which the window is open; in its own zone."""
        if self.contains(moment):
            return moment.astimezone(self.zone)
        today = moment.astimezone(self.zone).date()
        # Two weeks: the only start in the first week may be in an hour that the clocks skip.
        for days in range(-1, 16):
            for opening in self._starts(today + timedelta(days=days)):
                if opening >= moment and self.contains(opening):
                    return opening.astimezone(self.zone)
        raise AssertionError("a window opens at least once in two weeks")

    @property
    def length_s(self) -> float:
        """How long one opening lasts, where the clocks do not change, in seconds."""
        return ((self.end_min - self.start_min) % (24 * 60) or 24 * 60) * 60.0

    def opened(self, moment: datetime) -> datetime | None:
        """Since when the window is open at this moment (an aware datetime). None: it is closed, or open all week."""
        today = moment.astimezone(self.zone).date()
        for days in range(8) if self.contains(moment) else ():
            for opening in sorted(self._starts(today - timedelta(days=days)), reverse=True):
                is_first = opening <= moment and not self.contains(opening - timedelta(minutes=1))
                if is_first and self.contains(opening):
                    return opening.astimezone(self.zone)
        return None

    def _starts(self, day: date) -> Iterator[datetime]:
        """The moments (UTC, ascending) at which a window of this day can open.

        A start in a repeated hour is yielded twice. For a start in a skipped hour, the window opens at the whole minute
        after the change of the clocks.
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


class LockKind(StrEnum):
    """The protocol of a lock service."""

    ETCD = "etcd"
    FLEETLOCK = "fleetlock"


class Unreachable(StrEnum):
    """What happens to a restart while the lock service cannot be reached."""

    HOLD = "hold"
    PROCEED = "proceed"


class FleetTls(NamedTuple):
    """Files of the client of the lock service; empty for none. Without `ca`, the CAs of the system are trusted."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class Fleet(NamedTuple):
    """The lock that hosts of a group share, so that at most `slots` of them restart dockerd at once.

    `slots` and `lease_s` are for etcd only: with FleetLock the service decides. `timeout_s` is that of one request.
    """

    lock: LockKind
    endpoints: tuple[str, ...]
    group: str
    slots: int = 1
    tls: FleetTls = FleetTls()
    lease_s: float = 120.0
    timeout_s: float = 2.0
    unreachable: Unreachable = Unreachable.HOLD


class Correct(NamedTuple):
    """The limits of corrections."""

    restart: Restart
    window: Window | None
    budget: Budget
    foreign_files: bool
    contain: bool
    splay_s: float = 0.0
    """Restarts of a fleet are spread over this time."""
    fleet: Fleet | None = None


class Watch(NamedTuple):
    """How the host is watched, in seconds."""

    settle_s: float
    resync_s: float


class Waiver(NamedTuple):
    """An accepted finding of one rule. `address` None: at any address; likewise `unit`, `container` and `image`.
    `until` is the last day; None: no expiry."""

    rule: str
    address: str | None
    reason: str
    until: date | None
    location: Location
    unit: str | None = None
    container: str | None = None
    image: str | None = None

    @property
    def scope(self) -> str:
        """What it is limited to, in words: ` at ADDRESS of unit UNIT`; empty for every finding of the rule."""
        return "".join(f" {word} {value}" for word, value in (
            ("at", self.address), ("of unit", self.unit), ("of container", self.container), ("of image", self.image),
        ) if value is not None)


class Policy(NamedTuple):
    """A policy; `file` is the path it was read from."""

    file: str
    mode: Mode
    sockets: tuple[DeclaredSocket, ...]
    socket_unit: SocketUnit
    tls: TlsFiles
    correct: Correct
    watch: Watch
    waive: tuple[Waiver, ...]

    @property
    def tcp_tls(self) -> Tls | None:
        """dockerd's TLS setting for all TCP sockets; None if the policy declares no TCP socket."""
        return next((declared.tls for declared in declared_bindings(self) if declared.is_tcp), None)


class PolicyProblem(NamedTuple):
    """One error in a policy."""

    location: Location
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"


class PolicyError(Exception):
    """The policy is invalid. `problems` are all its errors in the order of the file."""

    def __init__(self, problems: Collection[PolicyProblem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


def declared_bindings(policy: Policy) -> tuple[DeclaredSocket, ...]:
    """All addresses on which the API must listen: the sockets, with `fd://` expanded."""
    found: list[DeclaredSocket] = []
    for socket in policy.sockets:
        if socket.address == "fd://":
            found += (
                DeclaredSocket(listen.address, socket.tls if listen.address.startswith("tcp://") else Tls.NONE,
                               listen.location or socket.location, is_passed=True)
                for listen in policy.socket_unit.listen
            )
        else:
            found.append(socket)
    return tuple(found)
