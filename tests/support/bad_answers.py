"""Answers that come from no lock service, by whatever protocol it is asked, and what each is taken for."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from dockerd_guard.fleet.http import MAX_ANSWER_BYTES
from dockerd_guard.fleet.lock import Fault
from tests.support.lock_services import http_answer

SECRET = "hunter2"
"""No message may contain this part of the answers."""

UNREACHABLE, INVALID, TLS = Fault.UNREACHABLE, Fault.INVALID, Fault.TLS


def json_answer(data: object, status: str = "200 OK") -> bytes:
    return http_answer(json.dumps(data).encode(), status, "Content-Type: application/json")


def drip(connection: socket.socket) -> None:
    """A byte each tenth of a second: no read ever times out."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"x" * 200:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def continued(connection: socket.socket) -> None:
    connection.settimeout(0.5)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def unclosed(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n{}")
    hang(connection)


def hang(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def flood(connection: socket.socket) -> None:
    """64 MB, in chunks."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1024):
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    connection.sendall(b"0\r\n\r\n")


def endless_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)


def without_end(head: bytes, part: bytes) -> Callable[[socket.socket], None]:
    """An answer that begins with this and goes on for ever."""
    def answer(connection: socket.socket) -> None:
        connection.settimeout(0.5)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        while True:
            connection.sendall(part * 1000)
    return answer


def chunk_by_chunk(connection: socket.socket) -> None:
    """A byte each twentieth of a second, each with its size."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\n \r\n")
        time.sleep(0.05)


class Bad(NamedTuple):
    """An answer to the first request, of whatever protocol, and what it is taken for."""

    name: str
    answer: bytes | Callable[[socket.socket], None]
    fault: Fault
    words: str


HTML = f"<html><body>Login {SECRET}</body></html>".encode()

BOTH = (
    Bad("nothing", b"", UNREACHABLE, "closed the connection"),
    Bad("it hangs", hang, UNREACHABLE, "timed out"),
    Bad("byte by byte", drip, UNREACHABLE, "timed out"),
    Bad("it closes within its answer", http_answer(b"{}")[:-1], UNREACHABLE, "closed the connection within"),
    Bad("it is no HTTP", f"SSH-2.0-{SECRET}\r\n".encode(), INVALID, "does not answer in HTTP"),
    Bad("binary", bytes(range(256)) * 10, INVALID, "does not answer in HTTP"),
    Bad("a page", http_answer(HTML, "200 OK", "Content-Type: text/html"), INVALID, "does not answer as "),
    Bad("a page that is not found", http_answer(HTML, "404 Not Found"), INVALID, "HTTP status 404"),
    Bad("a redirect", http_answer(b"", "301 Moved", f"Location: https://{SECRET}.example.org/"), INVALID, "redirects"),
    Bad("a redirect to itself", http_answer(b"", "307 Temporary Redirect", "Location: /"), INVALID, "redirects"),
    Bad("64 MB, announced", http_answer(b"x" * 2 * MAX_ANSWER_BYTES), INVALID, "more than 1048576 bytes"),
    Bad("64 MB in chunks", flood, INVALID, "more than 1048576 bytes"),
    Bad("an endless head", endless_head, INVALID, "does not answer in HTTP"),
    Bad("nested without end", http_answer(b"[" * 500_000), INVALID, "does not answer as "),
    Bad("chunk by chunk", chunk_by_chunk, UNREACHABLE, "timed out"),
    Bad("one chunk size without end", without_end(b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 60), INVALID,
        "does not answer in HTTP"),
    Bad("trailers without end", without_end(b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n"),
        UNREACHABLE, "timed out"),
    Bad("it goes on for ever", without_end(b"Connection: keep-alive\r\n\r\n", b" " * 60), INVALID, "more than 1048576"),
    Bad("100 Continue, again and again", continued, UNREACHABLE, "timed out"),
    Bad("a header of 70 KB", http_answer(b"{}", "200 OK", "X: " + "y" * 70_000), INVALID, "does not answer in HTTP"),
    Bad("HTTP/0.9", b"OK\r\n", INVALID, "does not answer in HTTP"),
    Bad("HTTP/1.0 that does not close", unclosed, UNREACHABLE, "timed out"),
    Bad("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", INVALID,
        "does not answer in HTTP"),
    Bad("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", INVALID, "does not answer in HTTP"),
    Bad("a length of text", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}", INVALID, "does not answer in HTTP"),
    Bad("gzip", http_answer(gzip.compress(b"{}"), "200 OK", "Content-Encoding: gzip"), INVALID, "compresses"),
    Bad("gzip that is none", http_answer(b"{}", "200 OK", "Content-Encoding: gzip"), INVALID, "compresses"),
    Bad("a page after an empty line", http_answer(b"\r\n" + HTML), INVALID, "HTTP status 200"),
    Bad("a page with a byte order mark", http_answer(b"\xef\xbb\xbf" + HTML), INVALID, "HTTP status 200"),
    Bad("half of an object", http_answer(b'{"header": {"revis'), INVALID, "HTTP status 200"),
    Bad("a list", http_answer(b"[]"), INVALID, "HTTP status 200"),
    Bad("a key twice", http_answer(b'{"header": {}, "header": {}}'), INVALID, "HTTP status 200"),
    Bad("NaN", http_answer(b'{"header": NaN}'), INVALID, "HTTP status 200"),
    Bad("a number without end", http_answer(b'{"header": ' + b"9" * 5000 + b"}"), INVALID, "HTTP status 200"),
    Bad("UTF-16", http_answer('{"header": {}}'.encode("utf-16")), INVALID, "HTTP status 200"),
    Bad("no content", http_answer(b"", "204 No Content"), INVALID, "HTTP status 204"),
    Bad("another protocol", http_answer(b"", "101 Switching Protocols", "Upgrade: h2c"), INVALID, "HTTP status 101"),
    Bad("a login", http_answer(HTML, "401 Unauthorized", f'WWW-Authenticate: Basic realm="{SECRET}"'), TLS,
        "refuses this host: HTTP status 401"),
    Bad("too many requests", http_answer(b"", "429 Too Many Requests", "Retry-After: 99999999"), INVALID,
        "HTTP status 429"),
    Bad("a proxy without its service", http_answer(HTML, "502 Bad Gateway"), UNREACHABLE, "HTTP status 502"),
    Bad("overloaded", http_answer(b"", "503 Service Unavailable"), UNREACHABLE, "HTTP status 503"),
)
