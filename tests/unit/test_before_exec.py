"""Processes that systemd has started and that have not executed the program of their unit yet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.observe import access_paths, kernel, listeners, processes
from dockerd_guard.observe.access_paths import evidence_in
from dockerd_guard.observe.api_names import names_of
from dockerd_guard.observe.kernel import EXEC_S, HostKernel
from dockerd_guard.observe.listeners import ListenerTable, Owned
from dockerd_guard.observe.observation import RUNNING, Layer, Process, Running
from dockerd_guard.observe.processes import SocketOwner
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rules.judge import judge
from tests.support.hosts import Host

PORT = "tcp://[::]:4245"
SERVICE = "/system.slice/ship.service"
ROOTS_MANAGER = "/user.slice/user-0.slice/user@0.service"


def of_systemd(program: str, cgroup: str, unit: str, **others: Any) -> Process:
    return Process(2**22 + 1, ("/sbin/init",), {}, 0, unit, f"/usr/lib/systemd/{program}", 1, cgroup=cgroup)._replace(
        **others)


@pytest.mark.parametrize(("one", "expected"), [
    (of_systemd("systemd", SERVICE, "ship.service"), True),
    (of_systemd("systemd-executor", SERVICE, "ship.service"), True),
    # Before systemd has moved it.
    (of_systemd("systemd", "/init.scope", "init.scope"), True),
    (of_systemd("systemd", f"{ROOTS_MANAGER}/app.slice/ship.service", "user@0.service"), True),
    (of_systemd("systemd-executor", f"{ROOTS_MANAGER}/init.scope", "user@0.service"), True),
    # Managers.
    (of_systemd("systemd", f"{ROOTS_MANAGER}/init.scope", "user@0.service"), False),
    (of_systemd("systemd", "/system.slice/docker-01.scope", "docker-01.scope", in_container=True), False),
    (of_systemd("systemd", "/init.scope", "init.scope", pid=1), False),
    # What another account may have started.
    (of_systemd("systemd", "/user.slice/x.scope", "x.scope", uid=1000), False),
    (of_systemd("systemd-socket-proxyd", SERVICE, "ship.service"), False),
])
def test_child_of_systemd_before_it_executes_a_program(one: Process, expected: bool) -> None:
    assert one.is_before_exec is expected


def test_child_of_systemd_owns_a_socket_once_it_has_executed_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    child = of_systemd("systemd", SERVICE, "ship.service")
    now = [child]
    monkeypatch.setattr(listeners, "tcp_listeners", lambda _: (SocketOwner(PORT, 7),))
    monkeypatch.setattr(listeners, "pids", lambda: (child.pid,))
    monkeypatch.setattr(listeners, "described", lambda _: now[0])
    monkeypatch.setattr(listeners, "_identity", lambda _: (now[0].executable, b"1"))
    monkeypatch.setattr(listeners, "_ranked", lambda among: ((False, pid) for pid in among))
    monkeypatch.setattr(listeners, "socket_inodes", lambda *_: (frozenset({7}), 1))
    table = ListenerTable()
    assert table.look() == ()
    assert not table.has_new()
    now[0] = child._replace(executable="/usr/bin/socat")
    assert table.has_new()
    assert table.look() == (Owned(now[0], {7: PORT}),)
    assert not table.has_new()


@pytest.mark.parametrize(("program", "evidence"), [
    ("systemd", ""), ("relay", "file /etc/relay.conf names /run/docker.sock")])
def test_units_in_the_directory_of_systemd_are_not_its_own(
        monkeypatch: pytest.MonkeyPatch, program: str, evidence: str) -> None:
    monkeypatch.setattr(access_paths, "_content", lambda _: b"/run/docker.sock")
    one = Process(2**22 + 1, (program,), {}, 0, "user@0.service", f"/usr/bin/{program}", 1)
    assert evidence_in(one, names_of(())) == evidence


@pytest.mark.parametrize(("executed_s", "asked"), [(0.0, 9), (0.2, 9), (EXEC_S + 1, 0)])
def test_main_process_is_no_pattern_for_others_before_it_executes_dockerd(
        monkeypatch: pytest.MonkeyPatch, executed_s: float, asked: int) -> None:
    """It has the executable of PID 1, which is no dockerd. It is waited for, and not for ever."""
    now, mains = [0.0], list[int]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def read(_: int) -> Process:
        name = "systemd" if now[0] < executed_s else "dockerd"
        return of_systemd(name, "/system.slice/docker.service", "docker.service", pid=9)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(processes, "read_process", read)
    monkeypatch.setattr(processes, "daemons", mains.append)
    HostKernel().daemons(9)
    assert mains == [asked]
    assert now[0] <= EXEC_S + kernel.EXEC_POLL_S


@pytest.mark.parametrize(("program", "codes"), [("systemd", set()), ("dockerd", {"DG308", "DG402"})])
def test_what_a_dockerd_was_started_with_is_unknown_before_it_is_executed(
        tmp_path: Path, program: str, codes: set[str]) -> None:
    seen = Host(tmp_path).see()
    argv = ("/sbin/init",)
    process = of_systemd(program, "/system.slice/docker.service", "docker.service", argv=argv)
    running = Running(Layer(RUNNING, True, None, "unknown", argv, (), ()), process, resolve_daemon(argv, {}, read))
    policy = parse_policy(b"version: 1\nmode: enforce\nsockets: [fd://]\n", "/policy.yaml")
    found = {finding.code for finding in judge(seen._replace(running=running), policy)}
    assert found & {"DG308", "DG402"} == codes


def read(path: str) -> bytes:
    raise FileNotFoundError(path)
