"""The protocol between the agent and the network helper: one JSON object per line.

A request has all fields of Request. The helper answers each with `{"answer": ...}` or `{"unsupported": "reason"}`, and
sends `{"changed": SECONDS}` (CLOCK_MONOTONIC) when nftables changed after a request to follow. Decoding raises
JsonError alone.
"""

from __future__ import annotations

import json
import re
import socket
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.model.address import Tls, ip_of, split_host_port
from dockerd_guard.model.json_values import (
    JsonError,
    as_bool,
    as_list,
    as_object,
    as_one_of,
    as_record,
    as_row,
    as_str,
    get,
    loads,
)
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.engine import Ping, Probe

SOCKET_PATH = "/run/dockerd-guard/network"
"""ListenStream= of dockerd-guard-network.socket."""

MAX_LINE_BYTES = 1024 * 1024

READ_BYTES = 64 * 1024

PLACE = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]*):(\d{1,5})", re.ASCII)

IP_PLACE = re.compile(r"tcp://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d{1,5})", re.ASCII)

IP = re.compile(r"[0-9a-f:.]+", re.ASCII)


class HelperVerb(StrEnum):
    """The requests: the methods of Network, and `follow`."""

    CHECK = "check"
    SHOWN = "shown"
    REJECT = "reject"
    RELEASE = "release"
    FOLLOW = "follow"
    PING = "ping"
    UNBINDABLE = "unbindable"
    PROBE = "probe"


class Request(NamedTuple):
    """One request: `address` and `tls` for the last three verbs, `rejections` for `reject`."""

    verb: HelperVerb
    address: str = ""
    tls: Tls = Tls.NONE
    rejections: tuple[Rejection, ...] = ()


def request_of(line: bytes) -> Request:
    """The request in a line. Addresses are checked strictly, since they become part of nftables' language."""
    data = as_object(loads(line, MAX_LINE_BYTES))
    verb = get(data, "verb", as_one_of(HelperVerb))
    as_address = _as_place if verb in (HelperVerb.PING, HelperVerb.UNBINDABLE, HelperVerb.PROBE) else as_str
    return Request(verb, get(data, "address", as_address), get(data, "tls", as_one_of(Tls)),
                   get(data, "rejections", as_list(_as_rejection)))


ping_of = as_record(Ping, {Tls: as_one_of(Tls)})
"""Converts the answer to Verb.PING."""

_as_probe = as_record(Probe, {Tls: as_one_of(Tls)})


def probe_of(answer: object) -> Probe | None:
    """The answer to Verb.PROBE."""
    return None if answer is None else _as_probe(answer)


def _as_rejection(value: object) -> Rejection:
    address, spared, is_published = as_row(len(Rejection._fields))(value)
    return Rejection(_as_ip_place(address), as_list(_as_ip)(spared), as_bool(is_published))


def _as_place(value: object) -> str:
    """A TCP address whose host may be a name."""
    return _matched(PLACE, value)


def _as_ip_place(value: object) -> str:
    """A TCP address whose host is an IP address without a zone."""
    address = _matched(IP_PLACE, value)
    _as_ip(split_host_port(address)[0])
    return address


def _as_ip(value: object) -> str:
    """An IP address without a zone."""
    text = as_str(value)
    if not IP.fullmatch(text) or ip_of(text) is None:
        raise JsonError("must be an IP address")
    return text


def _matched(form: re.Pattern[str], value: object) -> str:
    text = as_str(value)
    match = form.fullmatch(text)
    if match is None or not 0 < int(match[form.groups]) < 65536:
        raise JsonError("must be a TCP address")
    return text


class Wire:
    """A connection that carries a JSON object per line. Raises OSError."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""

    def send(self, **fields: object) -> None:
        self.connection.sendall(json.dumps(fields).encode() + b"\n")

    def receive(self) -> list[bytes]:
        """The lines received since the last call, possibly none. Raises EOFError at the end of the connection, and
        JsonError if a line is longer than MAX_LINE_BYTES."""
        received = self.connection.recv(READ_BYTES)
        if not received:
            raise EOFError("the connection was closed")
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise JsonError(f"must have at most {MAX_LINE_BYTES} bytes")
        return lines
