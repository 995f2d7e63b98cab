"""The network, by a process of its own, so that the agent has none in its sandbox (docs/sandbox.md).

dockerd-guard-network.socket starts one process for one connection (Accept=yes), which ends with it. The
agent asks, a line a request, a JSON object a line; the process answers each with one line, and tells
in between when our table is changed, once it was asked to follow it. It is what `Here` can do, and no
more: it takes addresses, never nftables' language, and believes nothing that it was not told in this form.
"""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from dockerd_guard.bindings import Tls
from dockerd_guard.correct.network import Here, NoNetwork
from dockerd_guard.correct.table import Changes, Rejection, Unsupported, ip_of
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Engine, Ping

SOCKET = "/run/dockerd-guard/network"
"""ListenStream= of dockerd-guard-network.socket."""

ANSWER_TIMEOUT_S = 20.0
"""How long an answer may take: a process starts for the first one, and Docker is waited for (engine.TIMEOUT_S)."""

MAX_LINE_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024

PLACE = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]*):(\d{1,5})", re.ASCII)
IP_PLACE = re.compile(r"tcp://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d{1,5})", re.ASCII)
IP = re.compile(r"[0-9a-f:.]+", re.ASCII)

ROOT = 0


class Verb(StrEnum):
    """What may be asked for: what Network has, and `follow`."""

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
    """What a line asks for. Raises ValueError: nothing but what is expected here goes any further."""
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
        raise ValueError("no request of ours") from None
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
        """The lines that came since, which may be none yet. Raises EOFError at the end, ValueError without one."""
        came = self.connection.recv(READ_BYTES)
        if not came:
            raise EOFError("the connection was closed")
        *lines, self._began = (self._began + came).split(b"\n")
        if len(self._began) > MAX_LINE_BYTES:
            raise ValueError("a line without an end")
        return lines


# --- the process of its own -------------------------------------------------------------------


def serve(connection: socket.socket, trusted_uid: int = ROOT) -> int:
    """Answer whoever is at the other end until he hangs up, if he is trusted; the exit code."""
    _, uid, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != trusted_uid:
        return 1
    here, wire, changes = Here(), Wire(connection), None
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if changes is not None and changes.fileno() in ready and changes.take():
                wire.send(changed=True)
            for line in wire.receive() if connection.fileno() in ready else ():
                request = request_of(line)
                try:
                    if request.verb is Verb.FOLLOW and changes is None:
                        changes = _followed(poll)
                    wire.send(answer=_answer(here, *request))
                except Unsupported as error:
                    wire.send(unsupported=str(error))
    except EOFError:
        return 0
    except (OSError, ValueError):
        # Gone in the middle of a word; or nobody of ours.
        return 1


def _followed(poll: select.poll) -> Changes:
    try:
        changes = Changes()
    except OSError as error:
        raise Unsupported(str(error.strerror)) from None
    poll.register(changes, select.POLLIN)
    return changes


def _answer(here: Here, verb: Verb, address: str, tls: Tls, rejections: tuple[Rejection, ...]) -> object:
    answers: dict[Verb, Callable[[], object]] = {
        Verb.SHOWN: here.shown,
        Verb.REJECT: lambda: here.reject(rejections),
        Verb.RELEASE: here.release,
        Verb.ASK: lambda: here.ask(address),
        Verb.PING: lambda: here.ping(address, tls),
        Verb.UNBINDABLE: lambda: here.unbindable(address),
    }
    return answers.get(verb, here.check)()


def main() -> int:
    """The service: its standard input is the connection (StandardInput=socket)."""
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        return serve(connection)


# --- the agent's end --------------------------------------------------------------------------


class Apart:
    """Network, by that process; UNIX sockets are this one's own matter. Raises NoNetwork."""

    def __init__(self, path: str = SOCKET) -> None:
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
        raise NoNetwork("it answers something else")

    def ping(self, address: str, tls: Tls) -> Ping:
        if not address.startswith("tcp://"):
            return engine.ping(address, tls)
        match self._request(Request(Verb.PING, address, tls)):
            case [bool(answers), str(found), str(reason)] if found in tuple(Tls):
                return Ping(answers, Tls(found), reason)
        raise NoNetwork("it answers something else")

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
            raise NoNetwork("it does not answer")
        was_there = self._wire is not None
        try:
            return self._asked(request)
        except (EOFError, OSError, RecursionError, ValueError) as error:
            self.close()
            self._is_silent = isinstance(error, TimeoutError)
            if not was_there or isinstance(error, TimeoutError):
                raise NoNetwork(getattr(error, "strerror", None) or str(error)) from None
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
        raise NoNetwork("it answers something else")
    return answer
