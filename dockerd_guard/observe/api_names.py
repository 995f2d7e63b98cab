"""What names a socket of the Docker API in arguments, environment and configuration of another program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dockerd_guard.model.address import Scope, canonical, scope_of, split_host_port

MAX_DIRECTORY_BYTES = 200

MAX_ADDRESSES, MAX_ADDRESS_BYTES = 1024, 255
"""A longer address is no host name (RFC 1035) and no path of a socket (unix(7))."""

_DIRECTORY = re.compile(rb"(?<![\w./-])[\w./-]+\Z")

_LOOPBACK = r"(?:127(?:\.[0-9]+){1,3}|localhost|\[?::1\]?|\[::ffff:127\.[0-9.]+\])"
"""Ways to write a loopback address, at which a dockerd that listens on every address answers too."""


class Names(NamedTuple):
    """What names the API in a text: the paths of a dockerd's sockets, any path that ends in docker.sock, and its TCP
    addresses, as `HOST:PORT` or as two words.

    `addresses` are the UNIX sockets in dockerd's syntax, `ports` those of TCP. `ignored` are paths that do not count.
    """

    pattern: re.Pattern[bytes]
    addresses: frozenset[str]
    ports: frozenset[int]
    ignored: frozenset[str] = frozenset()

    def find(self, text: bytes) -> str:
        """The path or address in the text, "" if there is none."""
        return next((name for found in self.pattern.finditer(text)
                     if (name := self._name(found, text)) not in self.ignored), "")

    @staticmethod
    def _name(found: re.Match[bytes], text: bytes) -> str:
        if found["host"] is not None:
            return f"{os.fsdecode(found['host'])}:{os.fsdecode(found['port'])}"
        directory = _DIRECTORY.search(text[max(0, found.start() - MAX_DIRECTORY_BYTES):found.start()])
        path = os.fsdecode((directory[0] if directory is not None else b"") + found[0])
        return f"/{path.lstrip('/')}" if path.startswith("/") else path


def names_of(addresses: Iterable[str]) -> Names:
    """The names of the API's sockets, given their addresses in dockerd's syntax; of UNIX sockets in both spellings of
    /run."""
    known = sorted({address for address in addresses if len(address) <= MAX_ADDRESS_BYTES})[:MAX_ADDRESSES]
    both = paths_of(known)
    exact = "|".join(map(re.escape, ("docker.sock", *sorted(both, key=len, reverse=True))))
    tcp = sorted({each for address in known for each in _tcp(address)})
    places = "|".join(f"{host}(?=[\\s\0:]{port}(?![\\w.]))" for host, port in tcp) or "(?!)"
    pattern = rf"(?:{exact})(?![\w./-])|(?<![\w.])(?P<host>{places})[\s\0:](?P<port>[0-9]+)"
    return Names(re.compile(os.fsencode(pattern)), frozenset(f"unix://{path}" for path in both),
                 frozenset(int(port) for _, port in tcp))


def paths_of(addresses: Iterable[str]) -> frozenset[str]:
    """The paths of UNIX sockets in both spellings of /run."""
    return frozenset(spelling for address in addresses if address.startswith("unix://")
                     for spelling in _spellings(address.removeprefix("unix://")))


def _spellings(path: str) -> tuple[str, ...]:
    if path.startswith("/var/run/"):
        return path, path.removeprefix("/var")
    return (path, f"/var{path}") if path.startswith("/run/") else (path,)


def _tcp(address: str) -> Iterator[tuple[str, str]]:
    """Yield patterns of the host names under which a TCP socket can be reached on this host, each with its port."""
    if not address.startswith("tcp://"):
        return
    host, port = split_host_port(canonical(address))
    if not port.isdecimal():
        return
    scope = scope_of(address)
    if scope in (Scope.LOOPBACK, Scope.WILDCARD):
        yield _LOOPBACK, port
    if scope is Scope.WILDCARD:
        yield r"(?:0\.0\.0\.0|\[?::\]?)", port
    elif scope is Scope.ADDRESS:
        yield re.escape(host), port
