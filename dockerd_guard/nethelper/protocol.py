"""The protocol between agent and network helper: one JSON object per line."""

from __future__ import annotations

import json
import re
import socket
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.model.address import Tls, ip_of
from dockerd_guard.model.rejection import Rejection

SOCKET_PATH = "/run/dockerd-guard/network"
"""ListenStream= of dockerd-guard-network.socket."""

MAX_LINE_BYTES = 1024 * 1024

READ_BYTES = 64 * 1024

PLACE = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]*):(\d{1,5})", re.ASCII)

IP_PLACE = re.compile(r"tcp://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d{1,5})", re.ASCII)

IP = re.compile(r"[0-9a-f:.]+", re.ASCII)


class Verb(StrEnum):
    """The requests: the methods of Network, and `follow`."""

    CHECK = "check"
    SHOWN = "shown"
    REJECT = "reject"
    RELEASE = "release"
    FOLLOW = "follow"
    ASK = "ask"
    PING = "ping"
    UNBINDABLE = "unbindable"


class Request(NamedTuple):
    """One request: `address` and `tls` for the last three verbs, `rejections` for `reject`."""

    verb: Verb
    address: str = ""
    tls: Tls = Tls.NONE
    rejections: tuple[Rejection, ...] = ()


def request_of(line: bytes) -> Request:
    """Parse and validate a request. Raises ValueError."""
    try:
        verb, address, tls, rejections = (json.loads(line)[name] for name in Request._fields)
        request = Request(Verb(verb), address, Tls(tls), tuple(Rejection(where, tuple(spared))
                                                               for where, spared in rejections))
        if request.verb in (Verb.ASK, Verb.PING, Verb.UNBINDABLE):
            _demand(_is_place(PLACE, address))
        for rejection in request.rejections:
            match = IP_PLACE.fullmatch(rejection.address)
            _demand(match is not None and ip_of(match[1] or match[2]) is not None)
            _demand(_is_place(IP_PLACE, rejection.address))
            _demand(all(IP.fullmatch(spared) and ip_of(spared) is not None for spared in rejection.spared))
    except (LookupError, RecursionError, TypeError, ValueError):
        raise ValueError("invalid request") from None
    return request


def _is_place(form: re.Pattern[str], address: str) -> bool:
    match = form.fullmatch(address)
    return match is not None and 0 < int(match[match.re.groups]) < 65536


def _demand(holds: bool) -> None:
    if not holds:
        raise ValueError


class Wire:
    """A connection on which each line is a JSON object. Raises OSError."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._began = b""

    def send(self, **fields: object) -> None:
        """Send one line."""
        self.connection.sendall(json.dumps(fields).encode() + b"\n")

    def receive(self) -> list[bytes]:
        """The complete lines received, possibly none. Raises EOFError, and ValueError for a line that is too long."""
        came = self.connection.recv(READ_BYTES)
        if not came:
            raise EOFError("the connection was closed")
        *lines, self._began = (self._began + came).split(b"\n")
        if len(self._began) > MAX_LINE_BYTES:
            raise ValueError("line too long")
        return lines
