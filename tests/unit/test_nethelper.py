"""The network by a process of its own: what it takes from the agent's end, and what it does not."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.containment.nftables import NftablesTable
from dockerd_guard.model.address import Tls
from dockerd_guard.model.json_values import JsonError
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.nethelper import client, server
from dockerd_guard.nethelper.client import NethelperClient
from dockerd_guard.nethelper.protocol import MAX_LINE_BYTES, READ_BYTES, HelperVerb, Request, request_of
from dockerd_guard.nethelper.server import serve
from dockerd_guard.observe.network import HelperUnavailable, Unsupported

OPEN = Rejection("tcp://[::]:2375", ("10.0.0.5", "fd77::2"))
REQUESTS = (
    Request(HelperVerb.SHOWN),
    Request(HelperVerb.REJECT, rejections=(OPEN, Rejection("tcp://0.0.0.0:1"))),
    Request(HelperVerb.PING, "tcp://localhost:2376", Tls.MUTUAL),
    Request(HelperVerb.PING, "tcp://[fe80::1%eth0]:2375"),
    Request(HelperVerb.UNBINDABLE, "tcp://10.0.0.5:65535"),
)


def line(**fields: object) -> bytes:
    """A line as the agent would send it, but for these fields."""
    return json.dumps({**Request(HelperVerb.SHOWN)._asdict(), **fields}).encode()


def reject(address: object, *spared: object) -> bytes:
    return line(verb="reject", rejections=[[address, spared, False]])


HOSTILE = {
    "nothing": b"",
    "binary": bytes(range(256)),
    "no JSON": b"GET / HTTP/1.1\r",
    "nested without end": b"[" * 100_000,
    "a list": b"[]",
    "a field too few": b'{"verb": "shown"}',
    "no verb of ours": line(verb="run"),
    "a verb that is no text": line(verb=["shown"]),
    "a UNIX socket": line(verb="ping", address="unix:///run/docker.sock"),
    "no port": line(verb="ping", address="tcp://10.0.0.5"),
    "a port too high": line(verb="ping", address="tcp://10.0.0.5:65536"),
    "port 0": line(verb="unbindable", address="tcp://10.0.0.5:0"),
    "an address that is no text": line(verb="ping", address=7),
    "no TLS of ours": line(verb="ping", address="tcp://10.0.0.5:1", tls="tls1.0"),
    "a header in the host": line(verb="ping", address="tcp://a\r\nb:1"),
    "to reject a name": reject("tcp://localhost:2375"),
    "to reject a zone": reject("tcp://[fe80::1%eth0]:2375"),
    "nftables' language": reject('tcp://0.0.0.0:1" accept; flush ruleset; #'),
    "nftables' language behind an address": reject("tcp://0.0.0.0:1\n"),
    "nftables' language as what is spared": reject("tcp://0.0.0.0:1", "10.0.0.5 drop"),
    "nftables' language as a zone that is spared": reject("tcp://0.0.0.0:1", "fe80::1%; flush ruleset"),
    "a number that is spared": reject("tcp://0.0.0.0:1", 1),
    "no address at all": reject("tcp://999.0.0.1:1"),
    "digits of another script": reject("tcp://0.0.0.0:\u0663"),
}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.verb)
def test_what_the_agent_asks_is_understood(request_: Request) -> None:
    assert request_of(json.dumps(request_._asdict()).encode()) == request_


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_nothing_else_is(hostile: bytes) -> None:
    with pytest.raises(JsonError):
        request_of(hostile)


def test_the_error_has_the_place_of_the_value() -> None:
    with pytest.raises(JsonError, match=r"^rejections\[0\]: must be a TCP address$"):
        request_of(reject("tcp://localhost:2375"))


class Service(NamedTuple):
    """What dockerd-guard-network.socket does, in this process: a thread for each connection."""

    path: str
    exit_codes: list[int]
    connections: list[socket.socket]

    def kill(self) -> None:
        self.connections[-1].shutdown(socket.SHUT_RDWR)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(NftablesTable, "shown", lambda _: "as it is")
    monkeypatch.setattr(NftablesTable, "put", lambda _, wanted: f"{len(wanted)} rejected")
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 10.0)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    made = Service(str(tmp_path / "s"), [], [])

    def answer(connection: socket.socket) -> None:
        with connection:
            made.exit_codes.append(serve(connection, os.getuid()))

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            made.connections.append(connection)
            threading.Thread(target=answer, args=(connection,)).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield made
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join()


def test_it_is_asked_as_if_it_were_here(service: Service) -> None:
    network = NethelperClient(service.path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        network.check()
        assert network.shown() == "as it is"
        assert network.reject((OPEN,)) == "1 rejected"
        assert network.unbindable(f"tcp://127.0.0.1:{port}") == f"127.0.0.1:{port} is in use by another program"
    assert network.unbindable(f"tcp://127.0.0.1:{port}") == ""
    assert not network.ping(f"tcp://127.0.0.1:{port}", Tls.NONE).answers
    assert len(service.connections) == 1
    network.follow(is_there=False)
    network.rest()
    assert network.fileno() is None


def test_one_that_is_killed_is_followed_by_another_and_the_loss_is_reported(service: Service) -> None:
    network = NethelperClient(service.path)
    network.check()
    assert not network.changes()
    service.kill()
    assert network.shown() == "as it is"
    assert len(service.connections) == 2
    assert network.changes()
    assert not network.changes()
    network.close()


class Monitor:
    """What tells of changes of nftables: by a pipe."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def fileno(self) -> int:
        return self.read

    def take(self) -> bool:
        return bool(os.read(self.read, 1))


def test_the_time_of_a_change_is_that_of_the_helper(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = Monitor()
    monkeypatch.setattr(server, "NftablesMonitor", lambda: monitor)
    with contextlib.closing(NethelperClient(service.path)) as network:
        network.reject((OPEN,))
        assert network.follow(is_there=True) is False, "changes were received from before the table was there"
        assert network.changed_at() is None
        for _ in range(2):
            before = time.monotonic()
            os.write(monitor.write, b"x")
            # The helper tells of it before it answers.
            network.check()
        # The last of two.
        at = network.changed_at()
        assert at is not None
        assert before < at < time.monotonic()
        assert network.changed_at() is None
        assert network.changes() is True, "a pass follows, whoever asked for the time"
    os.close(monitor.write)


def test_one_that_talks_and_never_answers_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def talk() -> None:
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                while True:
                    connection.sendall(b'{"changed": 1.5}\n')

        talking = threading.Thread(target=talk)
        talking.start()
        network = NethelperClient(str(tmp_path / "s"))
        with pytest.raises(HelperUnavailable, match="does not answer"):
            network.check()
        talking.join()
        # Nobody accepts any more. That is not waited for a second time in one pass, but in the next.
        monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 60)
        with pytest.raises(HelperUnavailable, match="does not answer"):
            network.shown()
        network.rest()
        monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.2)
        with pytest.raises(HelperUnavailable, match="timed out"):
            network.check()


def test_what_nftables_cannot_do_is_reported_in_its_words(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: NftablesTable) -> str:
        raise Unsupported("python3-nftables is not installed")

    monkeypatch.setattr(NftablesTable, "shown", refuse)
    network = NethelperClient(service.path)
    with pytest.raises(Unsupported, match="python3-nftables is not installed"):
        network.shown()
    network.check()
    network.close()


def test_where_nobody_listens_the_unit_is_named(tmp_path: Path) -> None:
    network = NethelperClient(str(tmp_path / "nowhere"))
    message = r"dockerd-guard-network.socket does not answer \(No such file or directory\)"
    with pytest.raises(HelperUnavailable, match=message):
        network.check()


@pytest.mark.parametrize("answer", [b"{}\n", b"7\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"answer": 7}\n', b""],
                         ids=["empty", "a number", "binary", "nested", "of another type", "hangs up"])
def test_an_answer_that_is_none_is_as_good_as_no_service(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve_once() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve_once)
        thread.start()
        network = NethelperClient(str(tmp_path / "s"))
        with pytest.raises(HelperUnavailable):
            network.shown()
        thread.join()
        network.close()


@pytest.mark.parametrize(("trusted", "sent", "code"), [
    (os.getuid(), b"", 0),
    (os.getuid(), b"garbage\n", 1),
    (os.getuid(), b"x" * (MAX_LINE_BYTES + READ_BYTES), 1),
    (os.getuid() + 1, line() + b"\n", 1),
], ids=["hangs up", "garbage", "a line without an end", "another user"])
def test_whoever_is_not_the_agent_gets_no_answer(trusted: int, sent: bytes, code: int) -> None:
    ours, theirs = socket.socketpair()

    def send() -> None:
        with contextlib.suppress(ConnectionError):
            theirs.sendall(sent)
            theirs.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=send)
    writer.start()
    with ours:
        assert serve(ours, trusted) == code
    writer.join()
    with theirs, contextlib.suppress(ConnectionResetError):
        assert theirs.recv(1) == b""
