"""The Engine API: an answer of any content is a state or None, never an error."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockerd_guard.model.address import Tls
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Engine, Probe, ask, container_names

Serve = Callable[[bytes], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start an engine that answers the next request with this body; returns its address."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    threads: list[threading.Thread] = []

    def start(body: bytes) -> str:
        def answer() -> None:
            # A client that does not accept this process as dockerd closes the connection before it sends a request.
            with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return f"unix://{tmp_path}/s"

    yield start
    for thread in threads:
        thread.join()
    listener.close()


INFO = {"ServerVersion": "29.5.0", "LiveRestoreEnabled": True, "ContainersRunning": 3,
        "Swarm": {"LocalNodeState": "active"}}


@pytest.mark.parametrize(("info", "expected"), [
    (INFO, Engine("29.5.0", live_restore=True, containers_running=3, in_swarm=True)),
    ({**INFO, "Swarm": None}, Engine("29.5.0", live_restore=True, containers_running=3, in_swarm=False)),
    ({}, Engine("", live_restore=False, containers_running=0, in_swarm=False)),
])
def test_an_engine(serve: Serve, info: object, expected: Engine) -> None:
    assert ask(serve(json.dumps(info).encode()), (os.getpid(),)) == expected


@pytest.mark.parametrize("body", [
    b"", b"\xff", b"null", b"[]", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"ContainersRunning": 1e999}', b'{"ContainersRunning": 1.5}', b'{"ContainersRunning": NaN}',
    b'{"ContainersRunning": ' + b"9" * 5000 + b"}", b'{"LiveRestoreEnabled": "true"}', b'{"Swarm": []}',
    b'{"Swarm": {"LocalNodeState": 1}}', b'{"ServerVersion": 1}',
], ids=lambda body: str(body[:40]))
def test_a_malformed_answer_is_none(serve: Serve, body: bytes) -> None:
    assert ask(serve(body), (os.getpid(),)) is None


def test_another_process_that_listens_there_is_not_believed(serve: Serve) -> None:
    assert ask(serve(json.dumps(INFO).encode()), (1,)) is None


def test_an_answer_of_a_byte_at_a_time_ends_with_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TIMEOUT_S", 0.2)
    stop = threading.Event()

    def trickle(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            while not stop.wait(0.02):
                with contextlib.suppress(OSError):
                    connection.sendall(b"H")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/slow")
        listener.listen()
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        began = time.monotonic()
        try:
            assert ask(f"unix://{tmp_path}/slow", (os.getpid(),)) is None
            assert time.monotonic() - began < 2
        finally:
            stop.set()
            thread.join()


def test_names_of_containers(serve: Serve) -> None:
    rows = [{"Names": ["/web", "/other/web"]}, {"Names": []}, {"Names": ["/db"]}]
    assert container_names(serve(json.dumps(rows).encode())) == ("db", "web")


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'[{"Names": "x"}]', b'[{"Names": [1]}]', b"[" * 100_000])
def test_malformed_names_are_none(serve: Serve, body: bytes) -> None:
    assert container_names(serve(body)) == ()


# --- probes ---------------------------------------------------------------------------------------

API = b"HTTP/1.0 200 OK\r\nApi-Version: 1.45\r\nServer: Docker/26.1.5 (linux)\r\n\r\nOK"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request"


@pytest.mark.parametrize(("answer", "expected"), [
    (API, Probe(Tls.NONE)),
    # An authorization plugin refused it.
    (b"HTTP/1.0 403 Forbidden\r\nServer: Docker/26.1.5 (linux)\r\n\r\n", Probe(Tls.NONE)),
    (b"HTTP/1.0 403 Forbidden\r\n\r\n", Probe(Tls.NONE)),
    (b"HTTP/1.0 404 Not Found\r\nServer: Docker/26.1.5 (linux)\r\n\r\n", Probe(Tls.NONE)),
    # The metrics of dockerd.
    (b"HTTP/1.0 404 Not Found\r\nContent-Type: text/plain\r\n\r\n404 page not found\n", Probe(Tls.NONE, is_api=False)),
    (b"HTTP/1.1 404 Not Found\nserver:docker/1\nAPI-VERSION:1.45\n\n", Probe(Tls.NONE)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK, and more", Probe(Tls.NONE)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nOK", None),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n", None),
    (b"HTTP/1.0 2000 OK\r\n\r\nOK", None),
    (b"SSH-2.0-OpenSSH\r\n", None),
    (b"", None),
])
def test_a_probe_of_a_port_without_tls(answer: bytes, expected: Probe | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve_both() -> None:
            # The handshake, which is no request, then the request.
            for text in (REFUSED, answer):
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.settimeout(5)
                    connection.recv(4096)
                    connection.sendall(text)

        thread = threading.Thread(target=serve_both)
        thread.start()
        assert engine.probe(f"tcp://127.0.0.1:{listener.getsockname()[1]}") == expected
        thread.join()


def test_a_probe_without_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert engine.probe(f"tcp://127.0.0.1:{port}") is None
