"""Client for the Engine API: `/_ping`, `/info` and `/containers/json`.

Uses only GET requests, with a timeout of TIMEOUT_S.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import time
from collections.abc import Collection
from typing import NamedTuple

from dockerd_guard.model.address import Tls, split_host_port
from dockerd_guard.model.json_values import JsonError, as_bool, as_int, as_list, as_object, as_str, get, loads

TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
READ_BYTES = 64 * 1024

NOT_FOUND = 404
"""The status of a path that does not exist."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/[0-9.]{1,8} +([1-9][0-9]{2})(?![0-9])")
_LENGTH = re.compile(rb"[0-9]{1,18}")

ANOTHER_PROGRAM = "another program answers there"
_REQUIRES_CERTIFICATE = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE")
"""Alerts to a client without a certificate, in TLS 1.3 and 1.2. Go 1.24 sends handshake_failure in TLS 1.2, but such a
server always offers 1.3."""


class Engine(NamedTuple):
    """The fields of GET /info that decide about a restart."""

    version: str
    live_restore: bool
    containers_running: int
    in_swarm: bool


class Ping(NamedTuple):
    """Result of a probe. `answers`: the API or TLS with the declared authentication was found; otherwise `reason`
    is why not."""

    answers: bool
    tls: Tls
    reason: str


class Probe(NamedTuple):
    """What an address answered: with which TLS, and the SHA-256 of its certificate ("": none was seen).

    `is_api` is False only for HTTP that is not the Engine API, such as the metrics of dockerd.
    """

    tls: Tls
    is_api: bool = True
    certificate: str = ""


def ask(address: str, pids: Collection[int]) -> Engine | None:
    """Return the state of the engine behind a UNIX socket; None without a valid answer.

    Valid only if one of the processes `pids` listens there (SO_PEERCRED: the process that called listen(2)), so that
    no other engine on the same path answers for this one.
    """
    try:
        answer = _get(address, "/info", pids)
        if answer.status != 200:
            return None
        info = as_object(loads(answer.body, MAX_ANSWER_BYTES))
        return Engine(
            version=get(info, "ServerVersion", as_str, ""),
            live_restore=get(info, "LiveRestoreEnabled", as_bool, default=False),
            containers_running=get(info, "ContainersRunning", as_int, 0),
            in_swarm=get(get(info, "Swarm", as_object, {}), "LocalNodeState", as_str, "inactive") not in (
                "inactive", ""),
        )
    except (OSError, JsonError):
        return None


def answer(address: str, path: str, pids: Collection[int]) -> object:
    """Return the decoded answer to a GET request over a UNIX socket on which one of the processes `pids` listens.

    Raises OSError, also for another HTTP status than 200, and JsonError.
    """
    got = _get(address, path, pids)
    if got.status != 200:
        raise OSError(errno.EPROTO, f"HTTP status {got.status}")
    return loads(got.body, MAX_ANSWER_BYTES)


def container_names(address: str) -> tuple[str, ...]:
    """Return the names of the running containers, sorted; empty without a valid answer."""
    try:
        rows = as_list(as_object)(loads(_get(address, "/containers/json").body, MAX_ANSWER_BYTES))
        return tuple(sorted(name.lstrip("/") for row in rows for name in get(row, "Names", as_list(as_str))[:1]))
    except (OSError, JsonError):
        return ()


def ping(address: str, tls: Tls) -> Ping:
    """Probe a declared address: whether the API answers, and with which TLS.

    We have no client certificate. A TLS alert that requires one shows `mutual`.
    """
    try:
        if address.startswith("tcp://") and tls is not Tls.NONE:
            return _ping_tls(address)
        got = _get(address, "/_ping")
    except OSError as error:
        return Ping(False, Tls.NONE, str(error) or type(error).__name__)
    if got.status == 400 and address.startswith("tcp://"):
        return Ping(False, Tls.SERVER, "the server expects TLS")
    if got.status == 200 and got.body.strip() != b"OK":
        return Ping(False, Tls.NONE, ANOTHER_PROGRAM)
    return Ping(got.status == 200, Tls.NONE, "" if got.status == 200 else f"HTTP status {got.status}")


def probe(address: str) -> Probe | None:
    """Return what a TCP address answers to a client without a certificate; None if nothing can be determined.

    dockerd logs the handshake as an error if it requires a certificate (20.10 to 28: `http: TLS handshake error`), and
    nothing otherwise. A request without TLS would be logged by 26 and later wherever TLS is on.
    """
    import ssl

    try:
        with _connect(address) as plain:
            return _probe_tls(plain)
    except ssl.SSLError as error:
        # It does not speak TLS at all.
        if error.reason not in ("WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return None
    except OSError:
        return None
    try:
        got = _get(address, "/_ping")
    except OSError:
        return None
    return Probe(Tls.NONE, got.is_api)


def _probe_tls(plain: socket.socket) -> Probe:
    import ssl
    from hashlib import sha256

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secure = context.wrap_socket(plain, do_handshake_on_connect=False)
    certificate = ""
    deadline = time.monotonic() + TIMEOUT_S
    with secure:
        try:
            secure.do_handshake()
            certificate = sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
            secure.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return Probe(Tls.SERVER, _parsed(_received(secure, deadline)).is_api, certificate)
        except ssl.SSLError as error:
            if any(alert in str(error) for alert in _REQUIRES_CERTIFICATE):
                return Probe(Tls.MUTUAL, certificate=certificate)
            raise


def _ping_tls(address: str) -> Ping:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The server's identity is irrelevant: this checks whether it requires a client certificate.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connect(address) as plain, context.wrap_socket(plain) as secure:
            secure.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = secure.recv(1024)
    except ssl.SSLError as error:
        if any(alert in str(error) for alert in _REQUIRES_CERTIFICATE):
            return Ping(True, Tls.MUTUAL, "")
        return Ping(False, Tls.NONE, f"TLS: {error.reason or error}")
    if answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
        return Ping(True, Tls.SERVER, "")
    return Ping(False, Tls.SERVER, "no answer to GET /_ping")


class _Answer(NamedTuple):
    """An HTTP response: the status code and the first MAX_ANSWER_BYTES of the body."""

    status: int
    body: bytes
    is_api: bool = True
    """False for a path that does not exist, without the headers of the Engine API."""


def _get(address: str, path: str, pids: Collection[int] = ()) -> _Answer:
    """Send a request over the socket of an address in dockerd's syntax.

    Raises OSError, also for what is not HTTP, for a listener other than `pids`, and TimeoutError where the whole
    answer takes longer than TIMEOUT_S.
    """
    deadline = time.monotonic() + TIMEOUT_S
    with _connect(address) as connection:
        peer, _, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pids and peer not in pids:
            raise OSError(errno.EPERM, "another process listens there")
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        return _parsed(_received(connection, deadline))


def _received(connection: socket.socket, deadline: float) -> bytes:
    chunks: list[bytes] = []
    length = 0
    while length < MAX_ANSWER_BYTES:
        if (left_s := deadline - time.monotonic()) <= 0:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        connection.settimeout(left_s)
        chunk = connection.recv(READ_BYTES)
        if not chunk:
            break
        chunks.append(chunk)
        length += len(chunk)
    return b"".join(chunks)


def _parsed(data: bytes) -> _Answer:
    """Parse the answer to a request of HTTP/1.0, which has no chunks. Raises OSError for what is not a whole one.

    http.client would take a megabyte for as long as the agent runs: it parses headers with the package `email`.
    """
    head, *rest = _END_OF_HEAD.split(data, maxsplit=1)
    first, *lines = head.split(b"\n")
    status = _STATUS_LINE.match(first)
    if status is None or not rest:
        raise OSError(errno.EPROTO, "the answer is not HTTP")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    body = rest[0]
    length = headers.get(b"content-length", b"")
    if _LENGTH.fullmatch(length) is not None:
        if len(body) < int(length):
            raise OSError(errno.EPROTO, "the answer is incomplete")
        body = body[:int(length)]
    code = int(status[1])
    is_engine = bool(headers.get(b"api-version")) or headers.get(b"server", b"").startswith(b"Docker/")
    return _Answer(code, body, is_engine or code != NOT_FOUND)


def _connect(address: str) -> socket.socket:
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        path = "\0" + path[1:] if path.startswith("@") else path
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return connection
    host, port = split_host_port(address)
    # Connect to a wildcard address through loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
