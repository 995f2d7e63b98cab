"""The network, by a process of its own, so that the agent has none in its sandbox (docs/sandbox.md).

dockerd-guard-network.socket starts one process for one connection (Accept=yes), which ends with it. The
agent asks, a line a request, a JSON object a line; the process answers each with one line, and tells
in between when our table is changed, once it was asked to follow it. It is what `LocalNetwork` can do, and no
more: it takes addresses, never nftables' language, and believes nothing that it was not told in this form.
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
"""How long an answer may take: a process starts for the first one, and Docker is waited for (engine.TIMEOUT_S)."""


# --- the process of its own -------------------------------------------------------------------


# --- the agent's end --------------------------------------------------------------------------


class NethelperClient:
    """Network, by that process; UNIX sockets are this one's own matter. Raises NoNetwork."""

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
        raise HelperUnavailable("it answers something else")

    def ping(self, address: str, tls: Tls) -> Ping:
        if not address.startswith("tcp://"):
            return engine.ping(address, tls)
        match self._request(Request(Verb.PING, address, tls)):
            case [bool(answers), str(found), str(reason)] if found in tuple(Tls):
                return Ping(answers, Tls(found), reason)
        raise HelperUnavailable("it answers something else")

    def unbindable(self, address: str) -> str:
        return _text(self._request(Request(Verb.UNBINDABLE, address)))

    def follow(self, *, is_there: bool) -> bool:
        """Be told of changes of the table while it is there, so that nothing is kept running on any other host.

        Returns whether it was not followed until now, so that another look is due. Raises Unsupported.
        """
        if not is_there:
            self._follows = False
        if not is_there or self._follows:
            return False
        self._request(Request(Verb.FOLLOW))
        self._follows = True
        return True

    def fileno(self) -> int | None:
        """What to wait on; None while the table is not followed."""
        return self._wire.connection.fileno() if self._wire is not None and self._follows else None

    def changes(self) -> bool:
        """Take in what came: whether the table may have been changed, also since nobody follows it any more."""
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
        """Keep nothing running that is not needed until the next pass, which may wait for it again."""
        self._is_silent = False
        if not self._follows:
            self.close()

    def close(self) -> None:
        """Hang up, which ends the process."""
        if self._wire is not None:
            self._wire.connection.close()
        self._wire, self._follows = None, False

    def _request(self, request: Request) -> object:
        """The answer to a request, from a new process where the one before is gone. Raises Unsupported."""
        if self._is_silent:
            # One wait for it in a pass, or the service watchdog ends the agent before it has done what it can.
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
                raise TimeoutError("it talks, and does not answer")
        match answers:
            case [{"unsupported": str(reason)}]:
                raise Unsupported(reason)
            case [{"answer": answer}]:
                return answer
        raise ValueError("it answers something else")

    def _take(self, lines: list[bytes]) -> list[object]:
        """The answers among what came; a change is kept in mind."""
        came = [json.loads(line) for line in lines]
        answers = [each for each in came if each != {"changed": True}]
        self._is_changed |= len(answers) < len(came)
        return answers


def _text(answer: object) -> str:
    if not isinstance(answer, str):
        raise HelperUnavailable("it answers something else")
    return answer
