"""The network helper: one process for one connection of dockerd-guard-network.socket."""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Callable

from dockerd_guard.containment.nftables import NftablesMonitor
from dockerd_guard.model.address import Tls
from dockerd_guard.model.json_values import JsonError
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.nethelper.protocol import HelperVerb, Wire, request_of
from dockerd_guard.observe.network import Unsupported

ROOT = 0


def serve(connection: socket.socket, trusted_uid: int = ROOT) -> int:
    """Answer requests of a trusted peer (SO_PEERCRED) until it disconnects. Returns the exit code."""
    if peer_uid(connection) != trusted_uid:
        return 1
    here, wire, changes = LocalNetwork(), Wire(connection), None
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if changes is not None and changes.fileno() in ready and changes.take():
                wire.send(changed=time.monotonic())
            for line in wire.receive() if connection.fileno() in ready else ():
                request = request_of(line)
                try:
                    if request.verb is HelperVerb.FOLLOW and changes is None:
                        changes = _followed(poll)
                    wire.send(answer=_answer(here, *request))
                except Unsupported as error:
                    wire.send(unsupported=str(error))
    except EOFError:
        return 0
    except (OSError, JsonError):
        # The connection was lost, or the peer is not our agent.
        return 1


def peer_uid(connection: socket.socket) -> int:
    """The user of the process that has connected (SO_PEERCRED)."""
    _, uid, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _followed(poll: select.poll) -> NftablesMonitor:
    try:
        changes = NftablesMonitor()
    except OSError as error:
        raise Unsupported(str(error.strerror)) from None
    poll.register(changes, select.POLLIN)
    return changes


def _answer(here: LocalNetwork, verb: HelperVerb, address: str, tls: Tls, rejections: tuple[Rejection, ...]) -> object:
    answers: dict[HelperVerb, Callable[[], object]] = {
        HelperVerb.SHOWN: here.shown,
        HelperVerb.REJECT: lambda: here.reject(rejections),
        HelperVerb.RELEASE: here.release,
        HelperVerb.PING: lambda: here.ping(address, tls),
        HelperVerb.PROBE: lambda: here.probe(address),
        HelperVerb.UNBINDABLE: lambda: here.unbindable(address),
    }
    return answers.get(verb, here.check)()


def main() -> int:
    """Entry point of the service; standard input is the connection (StandardInput=socket)."""
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        return serve(connection)
