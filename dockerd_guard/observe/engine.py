"""What the running engine says of itself through its API: `/_ping` and `/info`.

Only GET, only what the corrections need, and never longer than a few seconds: an engine that
hangs is an answer too (None).
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import NamedTuple

from dockerd_guard.bindings import Tls, split_host_port

TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class Engine(NamedTuple):
    """`/info` of the Engine API (docs: GET /info), the part that decides about a restart."""

    version: str
    live_restore: bool
    containers_running: int
    in_swarm: bool


class Ping(NamedTuple):
    """How a place answered: the API itself, or TLS that wants a client certificate; and if not, why."""

    answers: bool
    tls: Tls
    reason: str


def ask(address: str) -> Engine | None:
    """Ask the engine behind a socket without TLS for its state; None when it does not answer."""
    connection = _Connection(address)
    try:
        connection.request("GET", "/info")
        answer = connection.getresponse()
        if answer.status != 200:
            return None
        info = json.loads(answer.read(MAX_ANSWER_BYTES))
        swarm = info.get("Swarm") or {}
        return Engine(
            version=str(info.get("ServerVersion", "")),
            live_restore=info.get("LiveRestoreEnabled") is True,
            containers_running=int(info.get("ContainersRunning") or 0),
            in_swarm=swarm.get("LocalNodeState", "inactive") not in ("inactive", ""),
        )
    except (OSError, http.client.HTTPException, ValueError, AttributeError, TypeError):
        return None
    finally:
        connection.close()


def container_names(address: str) -> tuple[str, ...]:
    """Names of the running containers, sorted; empty when the engine does not answer."""
    connection = _Connection(address)
    try:
        connection.request("GET", "/containers/json")
        rows = json.loads(connection.getresponse().read(MAX_ANSWER_BYTES))
        return tuple(sorted(str(row["Names"][0]).lstrip("/") for row in rows))
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return ()
    finally:
        connection.close()


def ping(address: str, tls: Tls) -> Ping:
    """Try a declared place: does the API answer, and with the TLS that is declared?

    Without a client certificate of our own, TLS that refuses us for want of one is the proof of
    `mutual`.
    """
    try:
        if address.startswith("tcp://") and tls is not Tls.NONE:
            return _ping_tls(address)
        connection = _Connection(address)
        try:
            connection.request("GET", "/_ping")
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        return Ping(False, Tls.NONE, str(error) or type(error).__name__)
    if status == 400 and address.startswith("tcp://"):
        return Ping(False, Tls.SERVER, "it speaks TLS")
    return Ping(status == 200, Tls.NONE, "" if status == 200 else f"HTTP status {status}")


def _ping_tls(address: str) -> Ping:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Who the server is does not matter here: it is asked whether it demands a certificate of us.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connect(address) as plain, context.wrap_socket(plain) as secure:
            secure.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = secure.recv(1024)
    except ssl.SSLError as error:
        if "CERTIFICATE_REQUIRED" in str(error) or "BAD_CERTIFICATE" in str(error):
            return Ping(True, Tls.MUTUAL, "")
        return Ping(False, Tls.NONE, f"TLS: {error.reason or error}")
    if answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
        return Ping(True, Tls.SERVER, "")
    return Ping(False, Tls.SERVER, "no answer to GET /_ping")


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket of an address in dockerd's syntax."""

    def __init__(self, address: str) -> None:
        super().__init__("docker", timeout=TIMEOUT_S)
        self.address = address

    def connect(self) -> None:
        self.sock = _connect(self.address)


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
    # A wildcard is reached through loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
