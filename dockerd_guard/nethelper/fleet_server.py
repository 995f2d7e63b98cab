"""The fleet helper: one process for one connection of dockerd-guard-fleet.socket.

It alone reaches the lock service, and renews the lease of a slot as long as the connection lasts. `fix` and the verb
`fleet` run the same code in a thread.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable

from dockerd_guard.fleet.etcd import Etcd
from dockerd_guard.fleet.fleetlock import FleetLock
from dockerd_guard.fleet.http import Service
from dockerd_guard.fleet.lock import LockError, Slot
from dockerd_guard.model.json_values import JsonError, encoded
from dockerd_guard.nethelper.fleet_protocol import NO_SLOT, FleetRequest, FleetVerb, request_of
from dockerd_guard.nethelper.protocol import Wire
from dockerd_guard.nethelper.server import ROOT, peer_uid
from dockerd_guard.policy.model import Fleet, FleetTls, LockKind

DEADLINE_S = 10.0
"""For all requests of one verb."""

RENEWALS = 3
"""How often a lease is renewed in its time."""

RETRY_S = 3.0
"""When a renewal is tried again that the service did not answer."""

FRESH_S = 5.0
"""A lease that was granted or renewed in this time needs no renewal before the restart."""

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what LoadCredential= names (systemd.exec(5))."""


def policy_files(fleet: Fleet) -> FleetTls:
    """The files as the policy names them."""
    return fleet.tls


def credentials(fleet: Fleet) -> FleetTls:
    """The credentials of the service in place of the files that the policy names, which it cannot read."""
    directory = os.environ.get(CREDENTIALS, "/run/credentials")
    return FleetTls(*(f"{directory}/fleet-{name}" * bool(path) for name, path in fleet.tls._asdict().items()))


class FleetServer:
    """Answers requests, and keeps the slot that was acquired."""

    def __init__(self, files: Callable[[Fleet], FleetTls]) -> None:
        self._files = files
        self._kept: tuple[Fleet, Slot] | None = None
        self._renew_at = 0.0
        self._renewed_at = 0.0
        self._is_lost = False

    def wait_s(self) -> float | None:
        """How long to wait for a request at the longest before renew() is due; None: for ever."""
        return None if self._kept is None else max(self._renew_at - time.monotonic(), 0.0)

    def renew(self) -> None:
        """Keep the slot, if that is due."""
        if self._kept is None or time.monotonic() < self._renew_at:
            return
        fleet, slot = self._kept
        now = time.monotonic()
        try:
            self._is_lost |= not self._client(fleet, slot.id).still(slot)
            self._is_renewed(fleet, now)
        except LockError:
            self._renew_at = time.monotonic() + RETRY_S

    def answer(self, request: FleetRequest) -> object:
        """The answer to a request. Raises LockError."""
        verb, fleet, host, slot, reason = request
        client, now = self._client(fleet, slot.id or host.id), time.monotonic()
        if verb is FleetVerb.ACQUIRE:
            acquired = client.acquire(host)
            self._keep(fleet, acquired)
            self._is_renewed(fleet, now)
            return acquired
        if verb is FleetVerb.STILL:
            must_renew = self._kept != (fleet, slot) or self._is_lost or now - self._renewed_at > FRESH_S
            is_ours = client.still(slot, renew=must_renew)
            self._keep(fleet, slot if is_ours else None)
            if must_renew:
                self._is_renewed(fleet, now)
            return is_ours
        if verb is FleetVerb.RELEASE:
            self._kept = None
            return client.release(slot) and not self._is_lost
        if verb is FleetVerb.STOP:
            return client.stop(host, reason)
        if verb is FleetVerb.RESUME:
            return client.resume(slot if slot != NO_SLOT else None)
        return client.state()

    def _keep(self, fleet: Fleet, slot: Slot | None) -> None:
        self._kept = None if slot is None else (fleet, slot)
        self._is_lost = False

    def _is_renewed(self, fleet: Fleet, now: float) -> None:
        self._renewed_at, self._renew_at = now, now + fleet.lease_s / RENEWALS

    def _client(self, fleet: Fleet, host_id: str) -> Etcd | FleetLock:
        service = Service(fleet.endpoints, self._files(fleet), fleet.timeout_s, DEADLINE_S)
        if fleet.lock is LockKind.ETCD:
            return Etcd(service, fleet.group, fleet.slots, int(fleet.lease_s))
        return FleetLock(service, fleet.group, host_id)


def serve(connection: socket.socket, files: Callable[[Fleet], FleetTls], trusted_uid: int = ROOT) -> int:
    """Answer requests of a trusted peer (SO_PEERCRED) until it disconnects. Returns the exit code."""
    if peer_uid(connection) != trusted_uid:
        return 1
    server, wire = FleetServer(files), Wire(connection)
    try:
        while True:
            if not select.select([connection], [], [], server.wait_s())[0]:
                server.renew()
                continue
            for line in wire.receive():
                request = request_of(line)
                try:
                    wire.send(answer=encoded(server.answer(request)))
                except LockError as error:
                    wire.send(fault=error.fault, reason=error.reason, next_step=error.next_step,
                              expected_s=error.expected_s, ahead=error.ahead)
    except EOFError:
        return 0
    except (OSError, JsonError):
        # The connection was lost, or the peer is not our agent.
        return 1


def main() -> int:
    """Entry point of the service; standard input is the connection (StandardInput=socket)."""
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        return serve(connection, credentials)
