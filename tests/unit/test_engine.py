"""The Engine API: an answer of any content is a state or None, never an error."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockerd_guard.observe.engine import Engine, ask, container_names

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
            with listener.accept()[0] as connection:
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


@pytest.mark.parametrize(("info", "engine"), [
    (INFO, Engine("29.5.0", live_restore=True, containers_running=3, in_swarm=True)),
    ({**INFO, "Swarm": None}, Engine("29.5.0", live_restore=True, containers_running=3, in_swarm=False)),
    ({}, Engine("", live_restore=False, containers_running=0, in_swarm=False)),
])
def test_an_engine(serve: Serve, info: object, engine: Engine) -> None:
    assert ask(serve(json.dumps(info).encode())) == engine


@pytest.mark.parametrize("body", [
    b"", b"\xff", b"null", b"[]", b"[" * 100_000, b'{"a":' * 100_000,
    b'{"ContainersRunning": 1e999}', b'{"ContainersRunning": 1.5}', b'{"ContainersRunning": NaN}',
    b'{"ContainersRunning": ' + b"9" * 5000 + b"}", b'{"LiveRestoreEnabled": "true"}', b'{"Swarm": []}',
    b'{"Swarm": {"LocalNodeState": 1}}', b'{"ServerVersion": 1}',
], ids=lambda body: str(body[:40]))
def test_a_malformed_answer_is_none(serve: Serve, body: bytes) -> None:
    assert ask(serve(body)) is None


def test_names_of_containers(serve: Serve) -> None:
    rows = [{"Names": ["/web", "/other/web"]}, {"Names": []}, {"Names": ["/db"]}]
    assert container_names(serve(json.dumps(rows).encode())) == ("db", "web")


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'[{"Names": "x"}]', b'[{"Names": [1]}]', b"[" * 100_000])
def test_malformed_names_are_none(serve: Serve, body: bytes) -> None:
    assert container_names(serve(body)) == ()
