"""Parsers of the scalars in a policy. Each raises ValueError, whose message is the reason if there is more than one."""

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
MAX_DURATION_NUMBER = 999_999_999
_URL_HOST = r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]"
_HOURS = r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})"

_UNITS_S = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0,
    "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def quoted(text: str) -> str:
    """Text in quotes for a message, cut to 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def parse_duration(text: str) -> float:
    """A duration as in systemd.time(7), in seconds: `100ms`, `5min`, `1h 30min`."""
    pattern = re.compile(_DURATION)
    seconds, end = 0.0, 0
    while end < len(text):
        part = pattern.match(text, end)
        if part is None:
            raise ValueError("missing unit, such as ms, s, min or h" if text[end:].replace(".", "").isdecimal() else "")
        if part[2] not in _UNITS_S:
            raise ValueError(f"unknown unit {part[2]!r}; units are us, ms, s, min, h, d")
        seconds += float(part[1]) * _UNITS_S[part[2]]
        end = part.end()
    if not text:
        raise ValueError
    return seconds


def parse_budget(text: str) -> Budget:
    """A budget: `3/1h` is three restarts in any period of one hour."""
    count, slash, period = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,6}", count):
        raise ValueError
    per_s = parse_duration(period)
    if int(count) == 0:
        raise ValueError("the count must be at least 1; use 'restart: never' to forbid restarts")
    if per_s < 1:
        raise ValueError("the period must be at least 1s")
    return Budget(int(count), per_s)


def parse_window(text: str) -> Window:
    """A window: `Sat,Sun 02:00-05:00 Europe/Berlin`. Without days it is open every day."""
    words = text.split()
    days = frozenset(range(7))
    if words and not words[0][:1].isdigit():
        days = _days(words.pop(0))
    hours = re.fullmatch(_HOURS, words[0]) if words else None
    if hours is None:
        raise ValueError("hours are written HH:MM-HH:MM")
    start, end = (int(hours[i]) * 60 + int(hours[i + 1]) for i in (1, 3))
    if max(int(hours[2]), int(hours[4])) > 59 or start >= 24 * 60 or end > 24 * 60:
        raise ValueError("invalid time of day")
    if start == end:
        raise ValueError("the window ends when it starts; write 00:00-24:00 for the whole day")
    if len(words) != 2:
        raise ValueError("missing time zone after the hours, such as UTC or Europe/Berlin")
    return Window(days, start, end, _zone(words[1]), text)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.replace("..", "-").partition("-")
        ends = [first, last] if dash else [first]
        for day in ends:
            if day not in _DAYS:
                raise ValueError(f"unknown day {quoted(day)}; days are {', '.join(_DAYS)}")
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
        raise ValueError(f"no time zone {quoted(name)} on this host (packages tzdata, tzdata-legacy)") from None


def parse_date(text: str) -> date:
    """A date, YYYY-MM-DD."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("dates are written YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("no such day in the calendar") from None


def parse_rule(text: str) -> str:
    """The code of a rule, whether or not it exists."""
    if not re.fullmatch(r"DG[0-9]{3}", text):
        raise ValueError
    return text


def parse_path(text: str) -> str:
    """An absolute path that is safe in a unit file and in a command line, normalised."""
    if not text.startswith("/"):
        raise ValueError("must begin with /")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError("must not contain control characters")
    path = posixpath.normpath(text)
    # POSIX gives two leading slashes a meaning of their own, Linux does not.
    return path[1:] if path.startswith("//") else path


def _socket_path(text: str) -> str:
    """The path or @NAME of a UNIX socket."""
    path = text if text.startswith("@") else parse_path(text)
    if path in ("@", "/"):
        raise ValueError("the name of the socket is missing")
    if len(os.fsencode(path)) > MAX_SUN_PATH_BYTES:
        raise ValueError(f"the path of a socket has at most {MAX_SUN_PATH_BYTES} bytes (unix(7))")
    if "%" in path or any(ord(char) <= 0x20 or ord(char) == 0x7F for char in path):
        raise ValueError("the path of a socket must not contain blanks, control characters or %")
    return path


def parse_address(text: str) -> str:
    """An address of dockerd's `-H`, normalised as dockerd does.

    Stricter than dockerd (moby's opts/hosts.go), which guesses: the scheme is required, and a TCP host is an IP address
    or `localhost`, since what another name resolves to can change.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        if text.startswith(("/", "@")):
            raise ValueError(f"missing scheme; did you mean {quoted(f'unix://{text}')}?")
        if text.startswith("unix:") or text.endswith(".sock"):
            path = text.removeprefix("unix:").lstrip("/")
            raise ValueError(f"missing scheme; did you mean {quoted(f'unix:///{path}')}?")
        if text.rstrip(":/") == "fd":
            raise ValueError("missing scheme; did you mean 'fd://'?")
        raise ValueError(f"missing scheme; dockerd would use tcp://{text[:60]}")
    if scheme == "fd":
        if rest not in ("", "*"):
            raise ValueError("with fd://NUMBER dockerd closes the other sockets it was passed; only fd:// is supported")
        return "fd://"
    if scheme == "unix":
        if rest and not rest.startswith(("/", "@")):
            raise ValueError(f"the path must begin with /; did you mean {quoted(f'unix:///{rest}')}?")
        return f"unix://{_socket_path(rest or '/var/run/docker.sock')}"
    if scheme != "tcp":
        raise ValueError(f"unsupported scheme {quoted(scheme)}")
    if extra := re.search(r"[@/?#]", rest):
        raise ValueError(f"only HOST:PORT is allowed after tcp://, without {extra[0]!r}")
    host, port = _host_port(rest)
    return f"tcp://{host or 'localhost'}:{port or 2375}"


def parse_listen_stream(text: str) -> str:
    """A ListenStream= address (systemd.socket(5)) as an address in dockerd's syntax."""
    scheme, separator, rest = text.partition("://")
    if separator:
        hint = f"; did you mean {quoted(rest)}?" if scheme in ("unix", "tcp") and rest else ""
        raise ValueError(f"ListenStream= addresses have no scheme{hint}")
    if text.startswith(("/", "@")):
        path = _socket_path(text)
        # systemd rewrites the legacy directory itself (config_parse_socket_listen).
        return f"unix:///run/{path[9:]}" if path.startswith("/var/run/") else f"unix://{path}"
    if re.fullmatch(r"[0-9]+", text):
        return f"tcp://[::]:{_port(text)}"
    host, port = _host_port(text)
    if not host or not port or host == "localhost":
        raise ValueError("an IP address and a port are required")
    return f"tcp://{host}:{port}"


def parse_endpoint(text: str) -> str:
    """The URL of a lock service, without a slash at its end: https, or http to this host's loopback address."""
    url = re.fullmatch(rf"(https?)://({_URL_HOST})(?::([0-9]+))?(?:/[!-~]*)?", text)
    if url is None or re.search("[?#]", text):
        raise ValueError("only https://HOST:PORT/PATH is allowed, without a user, a query or a fragment")
    _port(url[3] or "")
    host = url[2]
    if host.startswith("["):
        _host_port(host)
    if url[1] == "http" and not _is_loopback(host.strip("[]")):
        raise ValueError("http:// is allowed to a loopback address only: anyone on the way could grant or take slots; "
                         f"use {quoted('https' + text[4:])}")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_group(text: str) -> str:
    """A group of FleetLock."""
    if not re.fullmatch(r"[a-zA-Z0-9.-]{1,64}", text):
        raise ValueError
    return text


def parse_count(text: str) -> int:
    """A number of slots."""
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
        raise ValueError
    return int(text)


def _host_port(text: str) -> tuple[str, str]:
    """HOST:PORT or [IPv6]:PORT as host and port, either may be empty. An IPv6 address keeps its brackets."""
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        if not bracket or after[:1] not in ("", ":"):
            raise ValueError("IPv6 addresses are written [ADDRESS]:PORT")
        try:
            ip = ipaddress.IPv6Address(inside)
        except ValueError:
            raise ValueError(f"{quoted(inside)} is not an IPv6 address") from None
        if ip.scope_id is not None:
            raise ValueError("dockerd ignores the zone of an IPv6 address")
        if ip.ipv4_mapped is not None:
            raise ValueError(f"use the IPv4 address {ip.ipv4_mapped}")
        return f"[{ip}]", _port(after[1:])
    host, colon, port = text.partition(":")
    if ":" in port:
        raise ValueError("IPv6 addresses are written [ADDRESS]:PORT")
    if host not in ("", "localhost"):
        try:
            host = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(f"{quoted(host)} is not an IP address; host names are not allowed, since what they "
                             "resolve to can change") from None
    return host, _port(port) if colon else ""


def _port(text: str) -> str:
    if text and (not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > 65535):
        raise ValueError(f"invalid port {quoted(text)}; ports are 1 to 65535")
    return text
