"""The agent's end of the connection to the network helper (docs/sandbox.md).

The agent's sandbox has no network. dockerd-guard-network.socket starts one helper process per connection (Accept=yes),
which exits when the connection is closed. The protocol is in `nethelper/protocol.py`.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from dockerd_guard.model.address import Tls
from dockerd_guard.model.json_values import JsonError, JsonObject, as_float, as_object, as_str, get, loads
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.nethelper.protocol import MAX_LINE_BYTES, SOCKET_PATH, HelperVerb, Request, Wire, ping_of, probe_of
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Ping, Probe
from dockerd_guard.observe.network import HelperUnavailable, Unsupported

T = TypeVar("T")

ANSWER_TIMEOUT_S = 20.0
"""Includes the start of the process, and engine.TIMEOUT_S."""


class NethelperClient:
    """Network by the helper process. UNIX sockets are used by this process. Every method raises HelperUnavailable."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self._path = path
        self._wire: Wire | None = None
        self._follows = False
        self._is_changed = False
        self._changed_at: float | None = None
        self._is_silent = False

    def check(self) -> None:
        self._request(Request(HelperVerb.CHECK), _as_nothing)

    def shown(self) -> str:
        return self._request(Request(HelperVerb.SHOWN), as_str)

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        # From before the table is there: another program may remove it in this moment.
        with contextlib.suppress(Unsupported):
            self.follow(is_there=True)
        return self._request(Request(HelperVerb.REJECT, rejections=wanted), as_str)

    def release(self) -> None:
        self._request(Request(HelperVerb.RELEASE), _as_nothing)

    def ping(self, address: str, tls: Tls) -> Ping:
        if not address.startswith("tcp://"):
            return engine.ping(address, tls)
        return self._request(Request(HelperVerb.PING, address, tls), ping_of)

    def probe(self, address: str) -> Probe | None:
        return self._request(Request(HelperVerb.PROBE, address), probe_of)

    def unbindable(self, address: str) -> str:
        return self._request(Request(HelperVerb.UNBINDABLE, address), as_str)

    def follow(self, *, is_there: bool) -> bool:
        """Receive changes of the nftables table if it exists (`is_there`); otherwise the helper need not keep running.

        Returns True if changes were not received until now: the table must be read again. Raises Unsupported.
        """
        if not is_there:
            self._follows = False
        if not is_there or self._follows:
            return False
        self._request(Request(HelperVerb.FOLLOW), _as_nothing)
        self._follows = True
        return True

    def fileno(self) -> int | None:
        """The file descriptor to poll; None if changes are not received."""
        return self._wire.connection.fileno() if self._wire is not None and self._follows else None

    def changes(self) -> bool:
        """Whether the table may have changed since the last call. True also if the connection was lost."""
        if self._wire is not None and self._follows:
            self._wire.connection.setblocking(False)
            try:
                self._take(self._wire.receive())
            except BlockingIOError:
                pass
            except (EOFError, OSError, JsonError):
                self._is_changed = True
                self.close()
        if self._wire is not None:
            self._wire.connection.settimeout(ANSWER_TIMEOUT_S)
        is_changed, self._is_changed = self._is_changed, False
        return is_changed

    def changed_at(self) -> float | None:
        """When the table changed last, if that was after the last call (time.monotonic()); None where it is not known.

        Once a table is removed, nothing more is told of it: the last change is the removal, and those before may be
        our own.
        """
        is_changed = self.changes()
        self._is_changed, changed_at, self._changed_at = is_changed, self._changed_at, None
        return changed_at

    def rest(self) -> None:
        """End a pass: close the connection unless changes are received, and allow a timeout in the next pass."""
        self._is_silent = False
        if not self._follows:
            self.close()

    def close(self) -> None:
        """Close the connection, which ends the helper process."""
        if self._wire is not None:
            self._wire.connection.close()
        self._wire, self._follows = None, False

    def _request(self, request: Request, convert: Callable[[object], T]) -> T:
        """The answer to a request, from a new process if the previous one is gone. Raises Unsupported."""
        if self._is_silent:
            # One timeout per pass: with more, the service watchdog would end the agent before the pass is over.
            raise HelperUnavailable("it does not answer")
        was_connected = self._wire is not None
        try:
            return self._answer(request, convert)
        except (EOFError, OSError, JsonError) as error:
            self.close()
            self._is_silent = isinstance(error, TimeoutError)
            if not was_connected or isinstance(error, TimeoutError):
                raise HelperUnavailable(getattr(error, "strerror", None) or str(error)) from None
        self._is_changed = True
        return self._request(request, convert)

    def _answer(self, request: Request, convert: Callable[[object], T]) -> T:
        if self._wire is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(ANSWER_TIMEOUT_S)
            self._wire = Wire(connection)
            connection.connect(self._path)
        self._wire.send(**request._asdict())
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while not (answers := self._take(self._wire.receive())):
            if time.monotonic() > end:
                raise TimeoutError("no answer to the request")
        if len(answers) > 1:
            raise JsonError("must be one answer")
        reason = get(answers[0], "unsupported", as_str, None)
        if reason is not None:
            raise Unsupported(reason)
        return get(answers[0], "answer", convert)

    def _take(self, lines: list[bytes]) -> list[JsonObject]:
        """The answers in these lines. Notes whether there was a message of a change."""
        received = [as_object(loads(line, MAX_LINE_BYTES)) for line in lines]
        answers = [each for each in received if "changed" not in each]
        for change in (each for each in received if "changed" in each):
            self._is_changed = True
            self._changed_at = get(change, "changed", as_float)
        return answers


def _as_nothing(_: object) -> None:
    """The answer to a request without a result."""
