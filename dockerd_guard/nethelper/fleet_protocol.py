"""The protocol between the agent and the fleet helper: one JSON object per line, as in nethelper/protocol.py.

The helper answers each request with `{"answer": ...}`, or `{"fault": ..., "reason": ..., "next_step": ...,
"expected_s": ..., "ahead": ...}`. Decoding raises JsonError alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.fleet.lock import Fault, GroupState, Host, LockError, Slot
from dockerd_guard.model.json_values import (
    JsonError,
    as_float,
    as_int,
    as_object,
    as_one_of,
    as_record,
    as_str,
    get,
    loads,
)
from dockerd_guard.nethelper.protocol import MAX_LINE_BYTES
from dockerd_guard.policy.model import Fleet, FleetTls, LockKind, Unreachable
from dockerd_guard.policy.values import parse_endpoint, parse_group

SOCKET_PATH = "/run/dockerd-guard/fleet"
"""ListenStream= of dockerd-guard-fleet.socket."""

SOCKET_UNIT = "dockerd-guard-fleet.socket"

MAX_ENDPOINTS, MAX_SLOTS = 10, 1000
LEASE_S, TIMEOUT_S = (30.0, 3600.0), (0.1, 5.0)


class FleetVerb(StrEnum):
    """The requests: the methods of Lock."""

    ACQUIRE = "acquire"
    STILL = "still"
    RELEASE = "release"
    STOP = "stop"
    RESUME = "resume"
    STATE = "state"


NO_HOST, NO_SLOT = Host("", "", ""), Slot("", "")


class FleetRequest(NamedTuple):
    """One request: `host` to acquire and stop, `slot` for what has been acquired, `reason` to stop."""

    verb: FleetVerb
    fleet: Fleet
    host: Host = NO_HOST
    slot: Slot = NO_SLOT
    reason: str = ""


def request_of(line: bytes) -> FleetRequest:
    """The request in a line."""
    data = as_object(loads(line, MAX_LINE_BYTES))
    return FleetRequest(get(data, "verb", as_one_of(FleetVerb)), get(data, "fleet", _as_fleet),
                        get(data, "host", _as_host), get(data, "slot", as_slot), get(data, "reason", as_str))


def _as_fleet(value: object) -> Fleet:
    fleet = _as_any_fleet(value)
    try:
        endpoints = tuple(map(parse_endpoint, fleet.endpoints))
        parse_group(fleet.group)
    except ValueError as error:
        raise JsonError(str(error) or "must be a group") from None
    is_valid = (1 <= len(endpoints) <= MAX_ENDPOINTS and 1 <= fleet.slots <= MAX_SLOTS
                and LEASE_S[0] <= fleet.lease_s <= LEASE_S[1] and TIMEOUT_S[0] <= fleet.timeout_s <= TIMEOUT_S[1])
    if not is_valid:
        raise JsonError("must be a fleet of the policy")
    return fleet


def _as_host(value: object) -> Host:
    host = as_record(Host)(value)
    if any("/" in text or len(text) > 256 for text in host):
        raise JsonError("must be a host")
    return host


_as_any_fleet = as_record(Fleet, {
    LockKind: as_one_of(LockKind), Unreachable: as_one_of(Unreachable), FleetTls: as_record(FleetTls)})

as_slot = as_record(Slot)
"""Converts the answer to FleetVerb.ACQUIRE."""

as_state = as_record(GroupState)
"""Converts the answer to FleetVerb.STATE."""


def fault_of(answer: dict[str, object]) -> LockError | None:
    """The error that an answer reports, None if it reports none."""
    fault = get(answer, "fault", as_one_of(Fault), None)
    return None if fault is None else LockError(fault, get(answer, "reason", as_str), get(answer, "next_step", as_str),
                                                get(answer, "expected_s", as_float), get(answer, "ahead", as_int))
