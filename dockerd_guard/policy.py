"""The policy: where the Docker API is to listen, and what may be done about it when it does not.

`parse_policy` turns YAML text into a frozen Policy or raises PolicyError with every mistake in it,
each with line, column, what was expected and what was found. It reads YAML's events, not its values:
so each word has its place, nothing is made of it that was not written (`10:20` stays text), and a
document built to explode never does. The grammar is DESIGN.md's; anchors and tags are not part of it.

`load_policy` reads a host's file as sudo reads its own: it and each directory above must be root's.

Left out on purpose: judging the policy (that is `judge`), and any look at the host.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple, NoReturn, TypeVar

from dockerd_guard.bindings import Scope, Tls, canonical, scope_of
from dockerd_guard.source import Location
from dockerd_guard.tree import Tree, Unreadable

POLICY_FILE = "/etc/dockerd-guard/config.yaml"
"""Where the policy lies on a host."""

MAX_POLICY_BYTES = 256 * 1024
MAX_PROBLEMS = 50
"""Nobody reads more at once."""

MAX_DEPTH = 6
"""Deeper nesting than any policy has; what is deeper is not read on."""

MAX_SUN_PATH_BYTES = 107
"""sizeof(sockaddr_un.sun_path) less the final NUL (unix(7))."""

SETTLE_RANGE_S = (0.001, 60.0)
RESYNC_RANGE_S = (1.0, 86400.0)


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

    @property
    def is_tcp(self) -> bool:
        """Whether it is reached through TCP/IP."""
        return self.address.startswith("tcp://")


class Listen(NamedTuple):
    """One ListenStream= of docker.socket: as systemd takes it, and in dockerd's syntax."""

    value: str
    address: str
    location: Location | None = None


class SocketUnit(NamedTuple):
    """What `fd://` stands for."""

    listen: tuple[Listen, ...]


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
                         listen.location or socket.location)
                for listen in policy.socket_unit.listen
            )
        else:
            found.append(socket)
    return tuple(found)


# -- reading the file -----------------------------------------------------------------------------


def load_policy(path: str, *, require_root_owned: bool) -> Policy:
    """Read and parse a policy file of this host; raises PolicyError, also for a file not there.

    With `require_root_owned`, the file and every directory on the way to it (also through symbolic
    links) must belong to root and be writable by root only, as sudo asks of sudoers.
    """
    with Tree() as tree:
        return read_policy(tree, os.path.abspath(path), require_root_owned=require_root_owned)


def read_policy(tree: Tree, path: str = POLICY_FILE, *, require_root_owned: bool = False) -> Policy:
    """Read and parse the policy at a path inside a tree; as `load_policy`."""
    try:
        before = frozenset(tree.consulted)
        data = tree.read(path)
        problems = _not_roots(tree, tree.consulted - before) if require_root_owned else []
    except FileNotFoundError:
        problems = [PolicyProblem(Location(path), "there is no such file")]
    except Unreadable as error:
        problems = [PolicyProblem(Location(path), error.reason if error.path == path else str(error))]
    if problems:
        raise PolicyError(problems)
    return parse_policy(data, path)


def _not_roots(tree: Tree, way: Collection[str]) -> list[PolicyProblem]:
    """What of the way to a file others than root could change. Links are as safe as where they lie."""
    problems: list[PolicyProblem] = []
    for path in way:
        entry = tree.stat(path, follow=False)
        if entry is None or entry.is_link:
            continue
        if entry.uid != 0:
            problems.append(PolicyProblem(Location(path), (
                f"belongs to uid {entry.uid}; who can write the policy owns this host, so the file and all "
                f"directories above it must be root's: chown root {path}")))
        if entry.mode & 0o022:
            who = "everyone" if entry.mode & 0o002 else f"group {entry.gid}"
            problems.append(PolicyProblem(Location(path), (
                f"is writable by {who} (mode {entry.mode & 0o7777:04o}); who can write the policy owns this "
                f"host, so only root may: chmod go-w {path}")))
    return problems


# -- YAML with places -----------------------------------------------------------------------------


class _Scalar(NamedTuple):
    location: Location
    text: str
    quoted: bool


class _List(NamedTuple):
    location: Location
    items: list[_Node]


class _Mapping(NamedTuple):
    location: Location
    items: list[tuple[_Node, _Node]]


_Node = _Scalar | _List | _Mapping
T = TypeVar("T")

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "yes", "on"))
_FALSE = frozenset(("false", "no", "off"))

# Patterns are compiled where they are first used: a lint without a policy needs none of them.
_NUMBER = r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?\Z"
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)[ ]?([a-z]+)[ ]*"
_HOURS = r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})"


def _found(node: _Node) -> str:
    """What stands there, in words."""
    if isinstance(node, _Mapping):
        return "a mapping"
    if isinstance(node, _List):
        return "a list"
    if not node.quoted and node.text in _NULL:
        return "nothing"
    if not node.quoted and node.text.lower() in _TRUE | _FALSE:
        return f"the boolean {node.text}"
    if not node.quoted and re.match(_NUMBER, node.text):
        return f"the number {node.text}"
    return _quote(node.text)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _nearest(word: str, names: Collection[str]) -> str:
    """`; did you mean X?`, or what there is when nothing is near."""
    import difflib

    names = [str(name) for name in names]
    near = difflib.get_close_matches(word[:40].lower(), names, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(names)}"


class _Build:
    """Makes nodes of events."""

    def __init__(self) -> None:
        self.root: _Node | None = None
        self._open: list[tuple[_List | _Mapping, list[_Node]]] = []

    def add(self, node: _Node) -> None:
        if not self._open:
            self.root = node
            return
        parent, key = self._open[-1]
        if isinstance(parent, _List):
            parent.items.append(node)
        elif key:
            parent.items.append((key.pop(), node))
        else:
            key.append(node)

    def open(self, node: _List | _Mapping) -> int:
        """Begin a collection; gives how deep it lies."""
        self.add(node)
        self._open.append((node, []))
        return len(self._open)

    def close(self) -> None:
        self._open.pop()


class _Reader:
    """Takes a document apart; keeps what is wrong and goes on."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[PolicyProblem] = []

    def wrong(self, location: Location, message: str) -> None:
        self.problems.append(PolicyProblem(location, message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise PolicyError(self.problems)

    def fatal(self, location: Location, message: str) -> NoReturn:
        self.wrong(location, message)
        raise PolicyError(self.problems)

    # text -> nodes

    def text(self, data: bytes) -> str:
        start = Location(self.file)
        if len(data) > MAX_POLICY_BYTES:
            self.fatal(start, f"is larger than {MAX_POLICY_BYTES >> 10} KiB")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[:error.start].decode("utf-8", "replace")
            self.fatal(self._at(before, len(before)), f"not UTF-8: byte 0x{data[error.start]:02x}")
        if unprintable := re.search(_UNPRINTABLE, text):
            self.fatal(self._at(text, unprintable.start()),
                       f"YAML allows no control character {unprintable[0]!r}")
        return text

    def _at(self, text: str, index: int) -> Location:
        line = text.count("\n", 0, index) + 1
        column = index - (text.rfind("\n", 0, index) + 1) + 1
        return Location(self.file, line, column, column + 1)

    def document(self, text: str) -> _Node:
        """The one document of the file; raises PolicyError for what is no YAML or not of our grammar."""
        import yaml

        build = _Build()
        started = False
        try:
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                location = self._span(event)
                if isinstance(event, yaml.DocumentStartEvent):
                    if started:
                        self.fatal(location, "a second document begins here; a policy is one document")
                    started = True
                elif getattr(event, "anchor", None) is not None:
                    self.fatal(location, "anchors and aliases (&name, *name) have no place in a policy; "
                                         "write the value itself")
                elif getattr(event, "tag", None) is not None:
                    self.fatal(location, "tags (!name) have no place in a policy; write the plain value")
                elif isinstance(event, yaml.ScalarEvent):
                    build.add(_Scalar(location, event.value, bool(event.style)))
                elif isinstance(event, yaml.CollectionStartEvent):
                    sequence = isinstance(event, yaml.SequenceStartEvent)
                    if build.open(_List(location, []) if sequence else _Mapping(location, [])) > MAX_DEPTH:
                        self.fatal(location, "nested deeper than any policy is")
                elif isinstance(event, yaml.CollectionEndEvent):
                    build.close()
        except yaml.YAMLError as error:
            # The libyaml of PyYAML 6.0.4 refuses more than 1000 open brackets while it looks ahead on a line for a key,
            # before it gives the events of the outer ones: that line is read again with commas for the rest of it.
            if "nesting depth" in (getattr(error, "problem", None) or ""):
                index: int = error.problem_mark.index  # type: ignore[attr-defined]
                self.document(text[:index] + "," * len(text[index:].partition("\n")[0]) + "\n")
            self._not_yaml(error, text)
        if build.root is None:
            self.fatal(Location(self.file), "is empty; expected a mapping that begins with 'version: 1'")
        return build.root

    def _span(self, event: object) -> Location:
        """Where an event stands, on its first line."""
        start, end = event.start_mark, event.end_mark  # type: ignore[attr-defined]
        column = start.column + 1
        end_column = end.column + 1 if end.line == start.line else column + 1
        return Location(self.file, start.line + 1, column, max(end_column, column + 1))

    def _not_yaml(self, error: Exception, text: str) -> NoReturn:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        location = Location(self.file)
        said = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
        if mark is not None:
            location = Location(self.file, mark.line + 1, mark.column + 1, mark.column + 2)
            line = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
            if "\t" in line[:mark.column + 1]:
                said += "; YAML indents by spaces, this line has a tab"
        self.fatal(location, f"not YAML: {said}")

    # nodes -> values; each gives `default` after saying what is wrong

    def mapping(self, node: _Node, what: str, required: Collection[str],
                optional: Collection[str]) -> dict[str, _Node]:
        """The values of a mapping by key; only known keys, each once."""
        names = [*required, *optional]
        if not isinstance(node, _Mapping):
            self.wrong(node.location, f"expected {what}, a mapping with {', '.join(names)}; "
                                      f"found {_found(node)}")
            return {}
        found: dict[str, _Node] = {}
        first: dict[str, Location] = {}
        for key, value in node.items:
            if not isinstance(key, _Scalar):
                self.wrong(key.location, f"expected the name of a key of {what}; found {_found(key)}")
            elif key.text not in names:
                self.wrong(key.location, f"unknown key {_quote(key.text)} in {what}"
                                         f"{_nearest(key.text, names)}")
            elif key.text in first:
                self.wrong(key.location, f"duplicate key {key.text!r}, already given in line "
                                         f"{first[key.text].line}")
            else:
                first[key.text] = key.location
                found[key.text] = value
        for name in required:
            if name not in first:
                self.wrong(node.location, f"the key {name!r} is missing in {what}")
        return found

    def list(self, node: _Node, what: str) -> list[_Node]:
        if isinstance(node, _List):
            return node.items
        self.wrong(node.location, f"expected a list of {what}; found {_found(node)}")
        return []

    def word(self, node: _Node, expected: str) -> str | None:
        """The text of a scalar that is neither empty nor a boolean; numbers are text here."""
        if isinstance(node, _Scalar) and node.text and (
            node.quoted or (node.text not in _NULL and node.text.lower() not in _TRUE | _FALSE)
        ):
            return node.text
        self.wrong(node.location, f"expected {expected}; found {_found(node)}")
        return None

    def parsed(self, node: _Node, expected: str, parse: Callable[[str], T], default: T) -> T:
        """A word through a parser that raises ValueError with what is wrong, if it knows more."""
        text = self.word(node, expected)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            more = f": {error}" if str(error) else ""
            self.wrong(node.location, f"expected {expected}; found {_found(node)}{more}")
            return default

    def one_of(self, node: _Node, names: Collection[str], default: str) -> str:
        expected = f"one of {', '.join(names)}"
        text = self.word(node, expected)
        if text is None or text in names:
            return text or default
        self.wrong(node.location, f"expected {expected}; found {_found(node)}{_nearest(text, names)}")
        return default

    def boolean(self, node: _Node, default: bool) -> bool:
        if isinstance(node, _Scalar) and not node.quoted and node.text.lower() in _TRUE | _FALSE:
            return node.text.lower() in _TRUE
        self.wrong(node.location, f"expected true or false; found {_found(node)}")
        return default

    def duration(self, node: _Node, within_s: tuple[float, float], default: float) -> float:
        def parse(text: str) -> float:
            seconds = parse_duration(text)
            if not within_s[0] <= seconds <= within_s[1]:
                raise ValueError(f"it must be from {within_s[0]:g}s to {within_s[1]:g}s")
            return seconds

        return self.parsed(node, "a duration such as 100ms, 5min or 1h", parse, default)


# -- the grammar ----------------------------------------------------------------------------------

KEYS = ("mode", "socket_unit", "tls", "correct", "watch", "waive")
DEFAULT_LISTEN = "/run/docker.sock"


def parse_policy(data: bytes, file: str = POLICY_FILE) -> Policy:
    """Parse a policy; `file` is the name used in places. Raises PolicyError."""
    reader = _Reader(file)
    root = reader.document(reader.text(data))
    keys = reader.mapping(root, "the policy", ("version", "sockets"), KEYS)
    if "version" in keys:
        _version(reader, keys["version"])
    listen = _socket_unit(reader, keys.get("socket_unit"))
    sockets = _sockets(reader, keys["sockets"], listen) if "sockets" in keys else ()
    policy = Policy(
        file,
        Mode(reader.one_of(keys["mode"], tuple(Mode), Mode.OBSERVE)) if "mode" in keys else Mode.OBSERVE,
        sockets,
        SocketUnit(listen),
        _tls_files(reader, keys["tls"]) if "tls" in keys else TlsFiles(),
        _correct(reader, keys["correct"]) if "correct" in keys else Correct(),
        _watch(reader, keys["watch"]) if "watch" in keys else Watch(),
        _waive(reader, keys["waive"]) if "waive" in keys else (),
    )
    _check_together(reader, declared_bindings(policy))
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


def _version(reader: _Reader, node: _Node) -> None:
    if not isinstance(node, _Scalar) or node.quoted or node.text != "1":
        reader.wrong(node.location, f"expected 1, the only version of this format; found {_found(node)}")


def _socket_unit(reader: _Reader, node: _Node | None) -> tuple[Listen, ...]:
    default = (Listen(DEFAULT_LISTEN, f"unix://{DEFAULT_LISTEN}"),)
    if node is None:
        return default
    keys = reader.mapping(node, "socket_unit", (), ("listen",))
    if "listen" not in keys:
        return default
    expected = "a ListenStream= address (an absolute path, @NAME, PORT, IPv4:PORT or [IPv6]:PORT)"
    found: list[Listen] = []
    for item in reader.list(keys["listen"], "ListenStream= addresses"):
        address = reader.parsed(item, expected, parse_listen_stream, "")
        if address and isinstance(item, _Scalar):
            found.append(Listen(item.text, address, item.location))
    return tuple(found)


def _sockets(reader: _Reader, node: _Node, listen: tuple[Listen, ...]) -> tuple[Declared, ...]:
    items = reader.list(node, "addresses")
    if isinstance(node, _List) and not items:
        reader.wrong(node.location, "expected at least one address: without any, dockerd takes its default")
    expected = "an address: fd://, unix:///PATH or tcp://IP:PORT"
    found: list[Declared] = []
    for item in items:
        tls_node: _Node | None = None
        address_node: _Node = item
        if isinstance(item, _Mapping):
            keys = reader.mapping(item, "a socket", ("address",), ("tls",))
            if "address" not in keys:
                continue
            address_node, tls_node = keys["address"], keys.get("tls")
        address = reader.parsed(address_node, expected, parse_address, "")
        brings_tcp = address.startswith("tcp://") or (
            address == "fd://" and any(one.address.startswith("tcp://") for one in listen))
        tls = Tls.MUTUAL if brings_tcp else Tls.NONE
        if tls_node is not None:
            tls = Tls(reader.one_of(tls_node, tuple(Tls), tls))
            if tls is not Tls.NONE and address and not brings_tcp:
                why = "no TCP address stands in socket_unit.listen" if address == "fd://" else \
                    "a UNIX socket is guarded by its file mode"
                reader.wrong(tls_node.location, f"dockerd speaks TLS on TCP only, and {why}; leave tls out")
                tls = Tls.NONE
        if address == "fd://" and not listen:
            reader.wrong(address_node.location, "fd:// stands for socket_unit.listen, which is empty")
        if address:
            found.append(Declared(address, tls, address_node.location))
    return tuple(found)


def _check_together(reader: _Reader, declared: tuple[Declared, ...]) -> None:
    """What dockerd could not do at once: bind a place twice, or serve TCP sockets with unlike TLS."""
    seen: dict[str, Declared] = {}
    wildcards: dict[str, Declared] = {}
    one_tls: Declared | None = None
    for socket in declared:
        place = canonical(socket.address)
        if place in seen:
            reader.wrong(socket.location, f"{socket.address} is already declared in line "
                                          f"{seen[place].location.line}")
        seen.setdefault(place, socket)
        if not socket.is_tcp:
            continue
        if scope_of(socket.address) is Scope.WILDCARD:
            wildcards[place.rpartition(":")[2]] = socket
        if one_tls is not None and one_tls.tls is not socket.tls:
            reader.wrong(socket.location, f"tls {socket.tls} here and {one_tls.tls} for {one_tls.address} in "
                                          f"line {one_tls.location.line}: dockerd has one TLS setting for "
                                          "all its TCP sockets")
        one_tls = one_tls or socket
    for place, socket in seen.items():
        wide = wildcards.get(place.rpartition(":")[2]) if socket.is_tcp else None
        if wide is not None and canonical(wide.address) != place:
            reader.wrong(socket.location, f"{wide.address} in line {wide.location.line} already takes this "
                                          "port on every address")


def _tls_files(reader: _Reader, node: _Node) -> TlsFiles:
    keys = reader.mapping(node, "tls", (), ("ca", "cert", "key"))
    default = TlsFiles()

    def path(name: str, fallback: str) -> str:
        if name not in keys:
            return fallback
        return reader.parsed(keys[name], "an absolute path", _absolute, fallback)

    return TlsFiles(path("ca", default.ca), path("cert", default.cert), path("key", default.key),
                    node.location)


def _correct(reader: _Reader, node: _Node) -> Correct:
    keys = reader.mapping(node, "correct", (), Correct._fields)
    value = Correct()
    if "restart" in keys:
        value = value._replace(restart=Restart(reader.one_of(keys["restart"], tuple(Restart), value.restart)))
    if "window" in keys:
        value = value._replace(window=reader.parsed(
            keys["window"], "a window such as Sat,Sun 02:00-05:00 Europe/Berlin", parse_window, None))
    if "budget" in keys:
        value = value._replace(budget=reader.parsed(
            keys["budget"], "a budget such as 3/1h, three restarts an hour", parse_budget, value.budget))
    if "foreign_files" in keys:
        value = value._replace(foreign_files=reader.boolean(keys["foreign_files"], value.foreign_files))
    if "contain" in keys:
        value = value._replace(contain=reader.boolean(keys["contain"], value.contain))
    return value


def _watch(reader: _Reader, node: _Node) -> Watch:
    keys = reader.mapping(node, "watch", (), ("settle", "resync"))
    value = Watch()
    if "settle" in keys:
        value = value._replace(settle_s=reader.duration(keys["settle"], SETTLE_RANGE_S, value.settle_s))
    if "resync" in keys:
        value = value._replace(resync_s=reader.duration(keys["resync"], RESYNC_RANGE_S, value.resync_s))
    return value


def _waive(reader: _Reader, node: _Node) -> tuple[Waiver, ...]:
    found: list[Waiver] = []
    for item in reader.list(node, "waivers"):
        keys = reader.mapping(item, "a waiver", ("rule", "reason"), ("address", "until"))
        rule = reader.parsed(keys["rule"], "a rule such as DG103", _rule, "") if "rule" in keys else ""
        reason = (reader.word(keys["reason"], "the reason, in words") or "") if "reason" in keys else ""
        address = reader.parsed(keys["address"], "an address such as tcp://127.0.0.1:2375", parse_address,
                                "") if "address" in keys else None
        until = reader.parsed(keys["until"], "a date such as 2027-03-31", parse_day,
                              None) if "until" in keys else None
        found.append(Waiver(rule, address, reason, until, keys.get("rule", item).location))
    return tuple(found)


# -- words ----------------------------------------------------------------------------------------

_UNITS_S = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def parse_duration(text: str) -> float:
    """Seconds of a duration in systemd.time(7)'s words: `100ms`, `5min`, `1h 30min`. Raises ValueError."""
    pattern = re.compile(_DURATION)
    seconds, end = 0.0, 0
    while end < len(text):
        part = pattern.match(text, end)
        if part is None:
            raise ValueError("a number without a unit" if text[end:].replace(".", "").isdecimal() else "")
        if part[2] not in _UNITS_S:
            raise ValueError(f"unknown unit {part[2]!r}; there is us, ms, s, min, h, d")
        seconds += float(part[1]) * _UNITS_S[part[2]]
        end = part.end()
    if not text:
        raise ValueError
    return seconds


def parse_budget(text: str) -> Budget:
    """`3/1h`: three restarts within any hour. Raises ValueError."""
    count, slash, period = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,6}", count):
        raise ValueError
    per_s = parse_duration(period)
    if int(count) == 0:
        raise ValueError("at least 1; to forbid restarts say 'restart: never'")
    if per_s < 1:
        raise ValueError("the period must be at least 1s")
    return Budget(int(count), per_s)


def parse_window(text: str) -> Window:
    """`Sat,Sun 02:00-05:00 Europe/Berlin`; without days, every day. Raises ValueError."""
    words = text.split()
    days = frozenset(range(7))
    if words and not words[0][:1].isdigit():
        days = _days(words.pop(0))
    hours = re.fullmatch(_HOURS, words[0]) if words else None
    if hours is None:
        raise ValueError("the hours are HH:MM-HH:MM")
    start, end = (int(hours[i]) * 60 + int(hours[i + 1]) for i in (1, 3))
    if max(int(hours[2]), int(hours[4])) > 59 or start >= 24 * 60 or end > 24 * 60:
        raise ValueError("no such time of day")
    if start == end:
        raise ValueError("a window that ends when it starts; the whole day is 00:00-24:00")
    if len(words) != 2:
        raise ValueError("after the hours comes a time zone, such as UTC or Europe/Berlin")
    return Window(days, start, end, _zone(words[1]), text)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.replace("..", "-").partition("-")
        ends = [first, last] if dash else [first]
        for day in ends:
            if day not in _DAYS:
                raise ValueError(f"unknown day {_quote(day)}; there is {', '.join(_DAYS)}")
        begin, stop = _DAYS.index(ends[0]), _DAYS.index(ends[-1])
        found.update((begin + step) % 7 for step in range((stop - begin) % 7 + 1))
    return frozenset(found)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"this host knows no time zone {_quote(name)} (packages tzdata, tzdata-legacy)") from None


def parse_day(text: str) -> date:
    """A date as YYYY-MM-DD. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("it is written YYYY-MM-DD")
    return date.fromisoformat(text)


def _rule(text: str) -> str:
    if not re.fullmatch(r"DG[0-9]{3}", text):
        raise ValueError
    return text


def _absolute(text: str) -> str:
    """A path that is safe to write into a unit file and a command line."""
    if not text.startswith("/"):
        raise ValueError("it does not begin with /")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError("it has a control character")
    path = posixpath.normpath(text)
    # Two slashes in front are a place of their own to POSIX, but not to Linux.
    return path[1:] if path.startswith("//") else path


def _socket_path(text: str) -> str:
    """A path or @NAME for a UNIX socket."""
    path = text if text.startswith("@") else _absolute(text)
    if path in ("@", "/"):
        raise ValueError("it has no name")
    if len(os.fsencode(path)) > MAX_SUN_PATH_BYTES:
        raise ValueError(f"a socket's path has at most {MAX_SUN_PATH_BYTES} bytes")
    if "%" in path or any(ord(char) <= 0x20 or ord(char) == 0x7F for char in path):
        raise ValueError("a socket's path here has no blank, no control character and no %")
    return path


def parse_address(text: str) -> str:
    """An address of dockerd's `-H`, normalised as dockerd does, or ValueError with what is wrong.

    Stricter than dockerd (moby's opts/hosts.go) where that one guesses: the scheme is written out,
    and a TCP host is an IP address or `localhost`, since what a name resolves to is not in the text.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"the scheme is missing; dockerd would read tcp://{text[:60]}")
    if scheme == "fd":
        if rest not in ("", "*"):
            raise ValueError("fd://NUMBER closes the other sockets passed in; a policy knows fd:// alone")
        return "fd://"
    if scheme == "unix":
        return f"unix://{_socket_path(rest or '/var/run/docker.sock')}"
    if scheme != "tcp":
        raise ValueError(f"dockerd knows no {_quote(scheme)} here")
    if extra := re.search(r"[@/?#]", rest):
        raise ValueError(f"only HOST:PORT comes after tcp://, no {extra[0]!r}")
    host, port = _host_port(rest)
    return f"tcp://{host or 'localhost'}:{port or 2375}"


def parse_listen_stream(text: str) -> str:
    """A ListenStream= address (systemd.socket(5)) as an address in dockerd's syntax. Raises ValueError."""
    if "://" in text:
        raise ValueError("this is dockerd's syntax; ListenStream= has no scheme")
    if text.startswith(("/", "@")):
        path = _socket_path(text)
        # systemd rewrites the legacy directory itself (config_parse_socket_listen).
        return f"unix:///run/{path[9:]}" if path.startswith("/var/run/") else f"unix://{path}"
    if re.fullmatch(r"[0-9]+", text):
        return f"tcp://[::]:{_port(text)}"
    host, port = _host_port(text)
    if not host or not port or host == "localhost":
        raise ValueError("an IP address and a port")
    return f"tcp://{host}:{port}"


def _host_port(text: str) -> tuple[str, str]:
    """HOST:PORT, [IPv6]:PORT, either part empty; the IPv6 address stays in brackets."""
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        if not bracket or after[:1] not in ("", ":"):
            raise ValueError("an IPv6 address is written [ADDRESS]:PORT")
        try:
            ip = ipaddress.IPv6Address(inside)
        except ValueError:
            raise ValueError(f"{_quote(inside)} is no IPv6 address") from None
        if ip.scope_id is not None:
            raise ValueError("dockerd drops the zone of an IPv6 address")
        if ip.ipv4_mapped is not None:
            raise ValueError(f"write the IPv4 address itself, {ip.ipv4_mapped}")
        return f"[{ip}]", _port(after[1:])
    host, colon, port = text.partition(":")
    if ":" in port:
        raise ValueError("an IPv6 address is written [ADDRESS]:PORT")
    if host not in ("", "localhost"):
        try:
            host = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(f"{_quote(host)} is no IP address; what a name resolves to is not for a policy "
                             "to guess") from None
    return host, _port(port) if colon else ""


def _port(text: str) -> str:
    if text and (not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > 65535):
        raise ValueError(f"no port {_quote(text)}; ports go from 1 to 65535")
    return text
