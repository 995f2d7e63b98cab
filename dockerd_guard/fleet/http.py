"""Requests to a lock service: one POST at a time, bounded in size and time, without redirects and proxies.

The certificate of the service is always verified. No body of an answer and no header is part of a message.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from email.message import Message
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from dockerd_guard.fleet.lock import Fault, LockError
from dockerd_guard.model.json_values import JsonError, JsonObject, as_object, loads
from dockerd_guard.policy.model import FleetTls

MAX_ANSWER_BYTES = 1024 * 1024
"""A group with a thousand waiting hosts has a third of this."""

READ_BYTES = 64 * 1024

REDIRECTS = range(300, 400)

ENDPOINTS_KEY = "correct.fleet.endpoints"

UNIT = "dockerd-guard-fleet@.service"


class Reply(NamedTuple):
    """An answer with its status. `data` is None where the body is no JSON object, of which `content` is no part of any
    message."""

    status: int
    data: JsonObject | None
    content: bytes = b""


class Service:
    """The endpoints of one lock service, as URLs; the first that answers is asked."""

    def __init__(self, endpoints: Iterable[str], tls: FleetTls, timeout_s: float, deadline_s: float) -> None:
        """`timeout_s` is for each request, `deadline_s` for all of them, from now on."""
        self._endpoints = [urlsplit(each) for each in endpoints]
        self._tls = tls
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + deadline_s
        self._context: ssl.SSLContext | None = None

    @property
    def left_s(self) -> float:
        """What is left of the deadline."""
        return self._ends - time.monotonic()

    def post(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str] = {},
        check: Callable[[Reply], object] = lambda reply: reply
    ) -> Reply:
        """The first answer of an endpoint for which `check` raises no LockError. An endpoint without such an answer is
        asked last from then on. Raises LockError."""
        problems: list[LockError] = []
        for endpoint in tuple(self._endpoints):
            try:
                reply = self._post(endpoint, path, body, headers)
                check(reply)
                return reply
            except LockError as error:
                problems.append(error)
                self._endpoints.remove(endpoint)
                self._endpoints.append(endpoint)
        worst = next((each for each in problems if each.fault is not Fault.UNREACHABLE), problems[0])
        raise LockError(worst.fault, worst.reason, "; ".join(dict.fromkeys(each.next_step for each in problems)))

    def _post(self, endpoint: SplitResult, path: str, body: Mapping[str, object], headers: Mapping[str, str]) -> Reply:
        timeout_s = min(self._timeout_s, self.left_s)
        if timeout_s <= 0:
            raise timed_out(endpoint)
        is_late = threading.Event()
        try:
            with self._connected(endpoint, timeout_s) as plain, plain.dup() as same:
                # The timeout of a socket is one of each read: an answer that comes byte by byte would never time out.
                timer = threading.Timer(timeout_s, _shut_down, (same, is_late))
                timer.daemon = True
                timer.start()
                try:
                    response, content = self._answer(plain, endpoint, path, body, headers)
                finally:
                    timer.cancel()
        except (OSError, http.client.HTTPException) as error:
            raise timed_out(endpoint) if is_late.is_set() else _problem(endpoint, error) from None
        if is_late.is_set():
            raise timed_out(endpoint)
        if response.status in REDIRECTS:
            raise not_the_service(endpoint, f"redirects elsewhere (HTTP status {response.status})")
        if len(content) > MAX_ANSWER_BYTES:
            raise not_the_service(endpoint, f"sends more than {MAX_ANSWER_BYTES} bytes")
        try:
            return Reply(response.status, as_object(loads(content, MAX_ANSWER_BYTES)), content)
        except JsonError:
            return Reply(response.status, None, content)

    def _connected(self, endpoint: SplitResult, timeout_s: float) -> socket.socket:
        if endpoint.scheme == "https" and self._context is None:
            self._context = _tls_context(self._tls)
        return socket.create_connection((endpoint.hostname, _port(endpoint)), timeout_s)

    def _answer(
        self, plain: socket.socket, endpoint: SplitResult, path: str, body: Mapping[str, object],
        headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(endpoint.hostname or "", _port(endpoint))
        connection.sock = plain
        if endpoint.scheme == "https" and self._context is not None:
            connection.sock = self._context.wrap_socket(plain, server_hostname=endpoint.hostname)
        with contextlib.closing(connection):
            connection.request("POST", f"{endpoint.path.rstrip('/')}/{path}", json.dumps(body),
                               {"Content-Type": "application/json", "Connection": "close", **headers})
            # Not closed, it would keep the connection open for as long as an exception refers to it.
            with contextlib.closing(connection.getresponse()) as response:
                if (problem := _unreadable(response.headers)) is not None:
                    raise not_the_service(endpoint, problem)
                content = b""
                # Read at once, chunks of one byte each would take sixty times their size.
                while len(content) <= MAX_ANSWER_BYTES and (more := response.read(READ_BYTES)):
                    content += more
                if response.length and len(content) <= MAX_ANSWER_BYTES:
                    raise http.client.IncompleteRead(b"")
                return response, content


def _unreadable(headers: Message) -> str | None:
    """Why the body of an answer cannot be understood (RFC 9110, 8.4 and RFC 9112, 6.3), None if it can."""
    lengths = {each.strip() for each in headers.get_all("Content-Length", [])}
    if len(lengths) > 1 or not all(each.isascii() and each.isdecimal() for each in lengths):
        return "does not answer in HTTP"
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        return "compresses its answer, which it was not asked to do"
    return None


def _port(endpoint: SplitResult) -> int:
    return endpoint.port or (80 if endpoint.scheme == "http" else 443)


def place(endpoint: SplitResult) -> str:
    """HOST:PORT of an endpoint, for messages."""
    host = endpoint.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{_port(endpoint)}"


def timed_out(endpoint: SplitResult) -> LockError:
    """What the IP filter of the helper's unit drops is lost without an error."""
    is_here = (endpoint.hostname or "").startswith(("127.", "::1", "localhost"))
    return unreachable(endpoint, "timed out" + (
        "" if is_here else f"; {UNIT} needs its address as IPAddressAllow= in a drop-in"))


def unreachable(endpoint: SplitResult, why: str) -> LockError:
    """The service may be all right, and cannot be reached."""
    return LockError(Fault.UNREACHABLE, f"the lock service in {ENDPOINTS_KEY} is not available",
                     f"Check {place(endpoint)}: {why}")


def not_the_service(endpoint: SplitResult, what: str) -> LockError:
    """Something else answers at an endpoint."""
    return LockError(Fault.INVALID, f"{ENDPOINTS_KEY}: {place(endpoint)} {what}",
                     f"Correct {ENDPOINTS_KEY} or correct.fleet.lock in the policy")


def _tls_context(tls: FleetTls) -> ssl.SSLContext:
    for name, path in tls._asdict().items():
        # To read a pipe would take for ever, whatever the time limits of requests.
        if path and os.path.exists(path) and not os.path.isfile(path):
            raise _bad_file(name, OSError(errno.EINVAL, "it is not a regular file"))
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
    except OSError as error:
        raise _bad_file("ca", error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert:
        try:
            # With a password prompt the helper would hang on a key that is encrypted.
            context.load_cert_chain(tls.cert, tls.key or None, password=lambda: "")
        except OSError as error:
            raise _bad_file("cert and correct.fleet.tls.key", error) from None
    return context


def _bad_file(name: str, error: OSError) -> LockError:
    why = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "it is not valid PEM, or encrypted"
    return LockError(Fault.TLS, f"correct.fleet.tls.{name} cannot be used", f"Correct the file: {why}; in {UNIT} it "
                     "comes from LoadCredential=")


def _problem(endpoint: SplitResult, error: Exception) -> LockError:  # noqa: PLR0911 -- one for each kind
    """What an exception of a request means. Its text is not shown where it may contain what was received."""
    where = place(endpoint)
    if isinstance(error, ssl.SSLCertVerificationError):
        return LockError(Fault.TLS, f"the certificate of {where} is not trusted: {error.verify_message}",
                         "Correct correct.fleet.tls.ca, or the name in correct.fleet.endpoints")
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
            return not_the_service(endpoint, "does not use TLS")
        return LockError(Fault.TLS, f"{where} refuses this host's certificate ({error.reason or 'TLS failed'})",
                         "Correct correct.fleet.tls.cert and correct.fleet.tls.key")
    if isinstance(error, TimeoutError):
        return timed_out(endpoint)
    if isinstance(error, socket.gaierror):
        return unreachable(endpoint, f"its name cannot be resolved ({error.strerror}); {UNIT} needs the address of the "
                           "name server as IPAddressAllow= in a drop-in")
    if isinstance(error, ConnectionError | http.client.RemoteDisconnected):
        return unreachable(endpoint, getattr(error, "strerror", None) or "it closed the connection")
    if isinstance(error, OSError):
        return unreachable(endpoint, error.strerror or type(error).__name__)
    if isinstance(error, http.client.IncompleteRead):
        return unreachable(endpoint, "it closed the connection within its answer")
    return not_the_service(endpoint, "does not answer in HTTP")


def _shut_down(connection: socket.socket, is_late: threading.Event) -> None:
    """End what blocks in another thread on the same connection; close(2) would not."""
    is_late.set()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
