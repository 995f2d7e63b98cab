"""Programs that have just begun to listen, and programs that get a socket that another one has opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dockerd_guard.observe import access_paths, listeners
from dockerd_guard.observe.access_paths import RETRY_S, YOUNG_S, AccessObserver
from dockerd_guard.observe.listeners import ListenerTable, Owned
from dockerd_guard.observe.observation import AccessKind, AccessPath, Process
from dockerd_guard.observe.processes import START_PAUSE_S, SocketOwner, Sockets
from tests.support.hosts import Host

OPENED = "unix:///run/four/libnetwork/47188ca60cd0.sock"
PORT = "tcp://[::]:4245"


def copy_of_dockerd(pid: int = 2**22 + 1, uid: int = 0) -> Owned:
    return Owned(Process(pid, ("engine",), {}, 0, "four.scope", "/usr/local/sbin/engine", 1, uid=uid), {pid: PORT})


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(access_paths, "members", lambda process: (process.pid,))
    return now


@pytest.mark.parametrize(("opens_s", "looks_s"), [
    (0.0, (0.0,)), (0.1, (0.0, YOUNG_S)), (30.0, (0.0, YOUNG_S, 45.0)), (50.0, (0.0, YOUNG_S, START_PAUSE_S)),
    (50.0, (0.0, 400.0))])
def test_copy_of_dockerd_is_found_whenever_it_opens_its_own_sockets(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[float], opens_s: float,
        looks_s: tuple[float, ...]) -> None:
    """It listens on TCP first. A look between the two hid it for good."""
    begun, observer, seen = now[0], AccessObserver(), Host(tmp_path / "host").see()
    monkeypatch.setattr(ListenerTable, "look", lambda _: (copy_of_dockerd(),))
    monkeypatch.setattr(Sockets, "of", lambda *_: (SocketOwner(OPENED, 2),) if now[0] - begun >= opens_s else ())
    for look_s in looks_s:
        now[0] = begun + look_s
        found = observer.look(seen, lambda _: None, {})
        assert [path.address for path in found] == ([PORT] if look_s >= opens_s else [])


def test_program_that_begins_to_listen_is_looked_at_for_a_time(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    begun, observer, seen = now[0], AccessObserver(), Host(tmp_path / "host").see()
    # Any account can begin to listen all the time; its memory and sockets are not read.
    for uid, young_s, due_s in (0, YOUNG_S, START_PAUSE_S), (1000, 0.0, 1e9):
        monkeypatch.setattr(ListenerTable, "look", lambda _, uid=uid: (copy_of_dockerd(uid + 5, uid),))
        begun = now[0]
        observer.look(seen, lambda _: None, {})
        for age_s in (0.0, 1.0, 2.0, 59.0, 60.0, 500.0):
            now[0] = begun + age_s
            assert (observer.has_young(), observer.is_due()) == (age_s < young_s, age_s >= due_s)
        observer.look(seen, lambda _: None, {})
        assert not observer.is_due()


@pytest.mark.parametrize(("looks", "due"), [
    # A dockerd accepts connections while it starts, and answers later.
    (((0.0, None),), {0.0: False, RETRY_S - 1: False, RETRY_S: True, 59.0: True, 60.0: False}),
    (((0.0, None), (30.0, None)), {30.0: False, 30.0 + RETRY_S: True, 59.0: True, 60.0: False}),
    (((0.0, None), (30.0, True)), {45.0: False, 59.0: False}),
    (((0.0, True),), {RETRY_S: False, 59.0: False}),
    (((0.0, False),), {RETRY_S: False, 59.0: False}),
    # It stops.
    (((0.0, True), (100.0, None)), {100.0 + RETRY_S: False}),
])
def test_a_port_that_has_not_answered_yet_is_asked_again(
        now: list[float], looks: tuple[tuple[float, bool | None], ...], due: dict[float, bool]) -> None:
    path = AccessPath(AccessKind.FORWARDER, PORT, "it listens on /run/four/libnetwork/a.sock, as dockerd does")
    begun, answers = now[0], access_paths._Answers()
    for after_s, answer in looks:
        now[0] = begun + after_s
        answers.to(lambda _, answer=answer: answer, lambda: True, (path,), {PORT: 7}, 1e9, ())  # type: ignore[misc]
    for after_s, is_due in due.items():
        now[0] = begun + after_s
        assert answers.is_due() is is_due, after_s


@pytest.mark.parametrize(("is_apart", "asked"), [(True, [PORT]), (False, [])])
def test_a_dockerd_of_its_own_is_asked_while_docker_service_is_stopped(is_apart: bool, asked: list[str]) -> None:
    path = AccessPath(AccessKind.FORWARDER, PORT, is_apart=is_apart)
    requests: list[str] = []
    access_paths._Answers().to(requests.append, lambda: False, (path,), {PORT: 7}, 1e9, ())
    assert requests == asked


def test_the_answer_of_a_published_port_outlives_docker_proxy(now: list[float]) -> None:
    """Without it the same drift would be logged as another one at each stop and start of Docker."""
    path = AccessPath(AccessKind.CONTAINER, PORT, container="relay", is_published=True)
    answers, asked = access_paths._Answers(), 0

    def ask(inodes: dict[str, int], answer: bool | None) -> bool:

        def counted(_: str) -> bool | None:
            nonlocal asked
            asked += 1
            return answer

        return answers.to(counted, lambda: answer is not None, (path,), inodes, now[0] + 1, ())[0].serves_api

    for inodes, answer, serves_api, count in (
            ({PORT: 7}, True, True, 1), ({}, None, True, 1), ({PORT: 8}, True, True, 2), ({PORT: 9}, False, False, 3)):
        assert (ask(inodes, answer), asked) == (serves_api, count)


FORK_OR_EXECUTE = """
import os, socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
server.set_inheritable(True)
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
if sys.argv[1] == "execute" or not os.fork():
    os.execv("/bin/sh", ["sh", "-c", "echo; read line"])
time.sleep(60)
"""


@pytest.mark.parametrize("act", ["fork", "execute"])
def test_program_that_gets_a_known_socket_is_found(monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """systemd holds a socket for long before it passes it to a service; a program may execute another one."""
    monkeypatch.setattr(listeners, "uid_and_namespace", lambda _: (0, False))
    table = ListenerTable(os.getpid())
    with subprocess.Popen([sys.executable, "-c", FORK_OR_EXECUTE, act], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            address = f"tcp://127.0.0.1:{process.stdout.readline().strip()}"

            def owners() -> list[str]:
                return [owned.process.argv[0] for owned in table.look() if address in owned.addresses.values()]

            assert owners() == [sys.executable]
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            assert sorted(owners()) == sorted({"fork": [sys.executable, "sh"], "execute": ["sh"]}[act])
        finally:
            os.killpg(process.pid, signal.SIGKILL)
