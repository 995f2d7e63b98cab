"""One `-H` value or `hosts` entry as dockerd reads it: moby's opts/hosts.go, by version."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from dockerd_guard.bindings import Via
from dockerd_guard.dockerd.version import Version
from dockerd_guard.source import Location

UNIX_DEFAULT = "unix:///var/run/docker.sock"
TLS_DEFAULT = "tcp://localhost:2376"
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What Go's strings.TrimSpace takes away (unicode.IsSpace)."""


class HostEntry(NamedTuple):
    """One address dockerd was told to listen on.

    `raw` is as written, `address` as this version normalises it (as written where it cannot).
    `argument` is the index in argv of the word the value stands in, `offset` where it begins there;
    `location` is the string in daemon.json. A default has neither.
    """

    raw: str
    address: str
    via: Via
    argument: int | None = None
    offset: int = 0
    location: Location | None = None


class InvalidHost(Exception):
    """dockerd refuses the value; the text is dockerd's own."""


def parse_host(value: str, version: Version) -> str:
    """Give the normalised address (moby: opts.parseDaemonHost); raises InvalidHost."""
    proto, separator, rest = value.partition("://")
    if not separator and proto:
        proto, rest = "tcp", proto
    match proto:
        case "tcp":
            return _tcp_20(rest, value) if version < Version(23) else _tcp_23(value)
        case "unix" | "npipe":
            return _simple(proto, rest, value, version)
        case "fd":
            return value
    if version < Version(23):
        raise InvalidHost(f"Invalid bind address format: {value}")
    raise InvalidHost(f"invalid bind address ({value}): unsupported proto '{proto}'")


def _simple(proto: str, address: str, value: str, version: Version) -> str:
    default = "/var/run/docker.sock" if proto == "unix" else "//./pipe/docker_engine"
    if version < Version(23):
        address = address.removeprefix(f"{proto}://")
        if "://" in address:
            raise InvalidHost(f"Invalid proto, expected {proto}: {address}")
    elif "://" in address:
        raise InvalidHost(f"invalid bind address ({value}): invalid {proto} address: {address}")
    return f"{proto}://{address or default}"


_URL = re.compile(r"(?:(?P<user>[^/?#]*)@)?(?P<host>[^/?#]*)(?P<path>/[^?#]*)?")


def _join(host: str, port: str) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _split(authority: str, value: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, bracket, port = authority[1:].rpartition("]")
        if not bracket or (port and not port.startswith(":")):
            raise InvalidHost(value)
        return host, port[1:]
    host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
    return host, port


def _tcp_23(value: str) -> str:
    def refuse(why: str) -> InvalidHost:
        return InvalidHost(f"invalid bind address ({value}): {why}")

    address = value if "://" in value else f"tcp://{value}"
    found = _URL.match(address.removeprefix("tcp://"))
    authority, path = (found["host"], found["path"]) if found else ("", None)
    if " " in authority:
        raise refuse(f'parse "{address}": invalid character " " in host name')
    host, port = _split(authority, value)
    if port and not (port.isascii() and port.isdigit()):
        raise refuse(f'parse "{address}": invalid port ":{port}" after host')
    if path:
        raise refuse("should not contain a path element")
    if port and int(port) == 0:
        raise refuse(f"invalid port: {port}")
    return _join(host or "localhost", port or "2375")


def _tcp_20(rest: str, value: str) -> str:
    rest = rest.removeprefix("tcp://")
    if "://" in rest:
        raise InvalidHost(f"Invalid proto, expected tcp: {rest}")
    found = _URL.match(rest)
    authority, path = (found["host"], found["path"] or "") if found else ("", "")
    if " " in authority:
        raise InvalidHost(f'parse "tcp://{rest}": invalid character " " in host name')
    host, port = _split(authority, value)
    if port and not (port.isascii() and port.isdigit()):
        raise InvalidHost(f'parse "tcp://{rest}": invalid port ":{port}" after host')
    return _join(host or "localhost", port or "2375") + path


def why_not_listenable(address: str, version: Version) -> str | None:  # noqa: PLR0911
    """What makes listening on a normalised address certainly fail, in dockerd's words, or None.

    Only what the text alone decides: a host name may resolve, a port may be free.
    """
    proto, _, rest = address.partition("://")
    if proto == "npipe":
        return 'failed to load listeners: invalid protocol format: "npipe"'
    if proto == "fd":
        if rest in ("", "*") or re.fullmatch(r"[+-]?[0-9]+", rest):
            return None
        return f"failed to load listeners: failed to parse systemd fd address: should be a number: {rest}"
    if proto != "tcp":
        return None
    host, _, port = rest.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        return f'failed to load listeners: listen tcp: lookup tcp/{port}: unknown port'
    if int(port) > 65535:
        return f"failed to load listeners: listen tcp: address {port}: invalid port"
    bare = host.strip("[]").partition("%")[0]
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        if ":" in host or "*" in host or " " in host:
            return f"failed to load listeners: failed to lookup {host.strip('[]')} address in host specification"
    return None
