"""The agent's end of the connection to the fleet helper (docs/sandbox.md), which alone reaches the lock service."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from dockerd_guard.fleet.lock import Fault, GroupState, Host, LockError, Slot
from dockerd_guard.model.json_values import JsonError, as_bool, as_object, encoded, get, loads
from dockerd_guard.nethelper.fleet_protocol import (
    NO_HOST,
    NO_SLOT,
    SOCKET_PATH,
    SOCKET_UNIT,
    FleetRequest,
    FleetVerb,
    as_slot,
    as_state,
    fault_of,
)
from dockerd_guard.nethelper.protocol import MAX_LINE_BYTES, Wire
from dockerd_guard.policy.model import Fleet

T = TypeVar("T")

ANSWER_TIMEOUT_S = 20.0
"""Includes the start of the process, and the deadline of the helper."""


class FleetClient:
    """The lock service of a policy, by the helper process, which runs while a slot is asked for or held.

    Every method raises LockError.
    """

    def __init__(self, connect: Callable[[], socket.socket] | None = None) -> None:
        self._connect = connect or _connected
        self._wire: Wire | None = None

    def acquire(self, fleet: Fleet, host: Host) -> Slot:
        return self._request(FleetRequest(FleetVerb.ACQUIRE, fleet, host), as_slot)

    def still(self, fleet: Fleet, slot: Slot) -> bool:
        return self._request(FleetRequest(FleetVerb.STILL, fleet, NO_HOST, slot), as_bool)

    def release(self, fleet: Fleet, slot: Slot) -> bool:
        return self._request(FleetRequest(FleetVerb.RELEASE, fleet, NO_HOST, slot), as_bool)

    def stop(self, fleet: Fleet, host: Host, reason: str) -> None:
        self._request(FleetRequest(FleetVerb.STOP, fleet, host, NO_SLOT, reason), _as_nothing)

    def resume(self, fleet: Fleet, slot: Slot | None) -> None:
        self._request(FleetRequest(FleetVerb.RESUME, fleet, NO_HOST, slot or NO_SLOT), _as_nothing)

    def state(self, fleet: Fleet) -> GroupState:
        return self._request(FleetRequest(FleetVerb.STATE, fleet), as_state)

    def close(self) -> None:
        """Close the connection, which ends the helper process; a slot is not renewed any more then."""
        if self._wire is not None:
            self._wire.connection.close()
        self._wire = None

    def _request(self, request: FleetRequest, convert: Callable[[object], T]) -> T:
        """The answer of a helper. The one that keeps a slot is asked about it; any other ends, so that the next one is
        started with the settings of its unit then."""
        keeps = False
        try:
            if self._wire is None:
                self._wire = Wire(self._connect())
                self._wire.connection.settimeout(ANSWER_TIMEOUT_S)
            self._wire.send(**encoded(request))
            lines: list[bytes] = []
            while not lines:
                lines = self._wire.receive()
            answer = dict(as_object(loads(lines[0], MAX_LINE_BYTES)))
            if (fault := fault_of(answer)) is not None:
                raise fault
            converted = get(answer, "answer", convert)
            keeps = request.verb in (FleetVerb.ACQUIRE, FleetVerb.STILL) and bool(converted)
            return converted
        except (EOFError, OSError, JsonError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise LockError(
                Fault.UNREACHABLE, f"{SOCKET_UNIT} does not answer", f"Run `systemctl restart {SOCKET_UNIT}` (if it is "
                f"masked, `systemctl unmask` it first): {why}") from None
        finally:
            if not keeps:
                self.close()


def local_client() -> FleetClient:
    """The same in this process, for root on the command line."""
    return FleetClient(_in_a_thread)


def _in_a_thread() -> socket.socket:
    # The agent does not load these: OpenSSL would take 7 MB for as long as it runs.
    from dockerd_guard.nethelper.fleet_server import policy_files, serve

    here, there = socket.socketpair()

    def run() -> None:
        with there:
            serve(there, policy_files, os.geteuid())

    threading.Thread(target=run, daemon=True).start()
    return here


def _connected() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT_S)
    connection.connect(SOCKET_PATH)
    return connection


def _as_nothing(_: object) -> None:
    """The answer to a request without a result."""
