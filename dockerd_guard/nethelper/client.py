"""The client of the network helper: the sandboxed agent has no network access (docs/sandbox.md).

dockerd-guard-network.socket starts one helper process for each connection (Accept=yes), which ends with the
connection. Requests and answers are JSON objects, one a line. After a `follow` request the helper also sends a
line when our nftables table changes. The helper offers the operations of `LocalNetwork`; requests contain
addresses, never nftables commands, and are validated.
"""

from __future__ import annotations

import json
import socket
import time

from dockerd_guard.model.address import Tls
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.nethelper.protocol import SOCKET_PATH, Request, Verb, Wire
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Engine, Ping
from dockerd_guard.observe.network import HelperUnavailable, Unsupported

ANSWER_TIMEOUT_S = 20.0
"""Timeout of a request, including the start of the helper and engine.TIMEOUT_S."""


class NethelperClient:
    """Network through the helper; UNIX sockets are accessed directly. Raises HelperUnavailable."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._wire: Wire | None = None
        self._follows = False
        self._is_changed = False
        self._is_silent = False

    def check(self) -> None:
        self._request(Request(Verb.CHECK))

    def shown(self) -> str:
        return _text(self._request(Request(Verb.SHOWN)))

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        return _text(self._request(Request(Verb.REJECT, rejections=wanted)))

    def release(self) -> None:
        self._request(Request(Verb.RELEASE))

    def ask(self, address: str) -> Engine | None:
        if not address.startswith("tcp://"):
            return engine.ask(address)
        match self._request(Request(Verb.ASK, address)):
            case None:
                return None
            case [str(version), bool(live_restore), int(running), bool(in_swarm)]:
                return Engine(version, live_restore, running, in_swarm)
        raise HelperUnavailable("unexpected answer")

    def ping(self, address: str, tls: Tls) -> Ping:
        if not address.startswith("tcp://"):
            return engine.ping(address, tls)
        match self._request(Request(Verb.PING, address, tls)):
            case [bool(answers), str(found), str(reason)] if found in tuple(Tls):
                return Ping(answers, Tls(found), reason)
        raise HelperUnavailable("unexpected answer")

    def unbindable(self, address: str) -> str:
        return _text(self._request(Request(Verb.UNBINDABLE, address)))

    def follow(self, *, is_there: bool) -> bool:
        """Monitor the table while it exists, so that the helper runs only then.

        Returns whether monitoring has just begun, so that another look is due. Raises Unsupported.
        """
        if not is_there:
            self._follows = False
        if not is_there or self._follows:
            return False
        self._request(Request(Verb.FOLLOW))
        self._follows = True
        return True

    def fileno(self) -> int | None:
        """The descriptor of the connection; None while the table is not monitored."""
        return self._wire.connection.fileno() if self._wire is not None and self._follows else None

    def changes(self) -> bool:
        """Read pending messages. Returns whether the table may have changed, or its monitoring has ended."""
        if self._wire is not None and self._follows:
            self._wire.connection.setblocking(False)
            try:
                self._take(self._wire.receive())
            except BlockingIOError:
                pass
            except (EOFError, OSError, RecursionError, ValueError):
                self._is_changed = True
                self.close()
        if self._wire is not None:
            self._wire.connection.settimeout(ANSWER_TIMEOUT_S)
        is_changed, self._is_changed = self._is_changed, False
        return is_changed

    def rest(self) -> None:
        """Disconnect until the next pass unless the table is monitored; allow a timeout again."""
        self._is_silent = False
        if not self._follows:
            self.close()

    def close(self) -> None:
        """Close the connection, which ends the helper."""
        if self._wire is not None:
            self._wire.connection.close()
        self._wire, self._follows = None, False

    def _request(self, request: Request) -> object:
        """The answer to a request; reconnects if the helper has exited. Raises Unsupported."""
        if self._is_silent:
            # One timeout per pass; more would trigger the service watchdog.
            raise HelperUnavailable("it does not answer")
        was_there = self._wire is not None
        try:
            return self._asked(request)
        except (EOFError, OSError, RecursionError, ValueError) as error:
            self.close()
            self._is_silent = isinstance(error, TimeoutError)
            if not was_there or isinstance(error, TimeoutError):
                raise HelperUnavailable(getattr(error, "strerror", None) or str(error)) from None
        self._is_changed = True
        return self._request(request)

    def _asked(self, request: Request) -> object:
        if self._wire is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(ANSWER_TIMEOUT_S)
            self._wire = Wire(connection)
            connection.connect(self._path)
        self._wire.send(**request._asdict())
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while not (answers := self._take(self._wire.receive())):
            if time.monotonic() > end:
                raise TimeoutError("it sends messages but no answer")
        match answers:
            case [{"unsupported": str(reason)}]:
                raise Unsupported(reason)
            case [{"answer": answer}]:
                return answer
        raise ValueError("unexpected answer")

    def _take(self, lines: list[bytes]) -> list[object]:
        """The answers among these lines; records change notifications."""
        came = [json.loads(line) for line in lines]
        answers = [each for each in came if each != {"changed": True}]
        self._is_changed |= len(answers) < len(came)
        return answers


def _text(answer: object) -> str:
    if not isinstance(answer, str):
        raise HelperUnavailable("unexpected answer")
    return answer
