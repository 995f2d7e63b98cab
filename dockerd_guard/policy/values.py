"""Parsers of the values in a policy: durations, budgets, windows, dates, paths, addresses. Each raises ValueError."""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from datetime import UTC, date, tzinfo

from dockerd_guard.policy.model import Budget, Window

MAX_SUN_PATH_BYTES = 107
"""sizeof(sockaddr_un.sun_path) less the final NUL (unix(7))."""

_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)[ ]?([a-z]+)[ ]*"
_HOURS = r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})"

_UNITS_S = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


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
                raise ValueError(f"unknown day {quoted(day)}; there is {', '.join(_DAYS)}")
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
        raise ValueError(f"this host knows no time zone {quoted(name)} (packages tzdata, tzdata-legacy)") from None


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
        raise ValueError(f"dockerd knows no {quoted(scheme)} here")
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
            raise ValueError(f"{quoted(inside)} is no IPv6 address") from None
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
            raise ValueError(f"{quoted(host)} is no IP address; what a name resolves to is not for a policy "
                             "to guess") from None
    return host, _port(port) if colon else ""


def _port(text: str) -> str:
    if text and (not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > 65535):
        raise ValueError(f"no port {quoted(text)}; ports go from 1 to 65535")
    return text
