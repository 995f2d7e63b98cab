"""Listening sockets as read from the running kernel, with tables of any length."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockerd_guard.observe import processes
from dockerd_guard.observe.processes import Sockets, read_process


def held() -> set[str]:
    return {one.address for one in Sockets().of(os.getpid())}


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def listen(
    opened: contextlib.ExitStack, family: socket.AddressFamily, address: tuple[str, int] | str | bytes
) -> socket.socket:
    one = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
    one.bind(address)
    one.listen()
    return one


# A page of the kernel holds about 27 lines of tcp, 25 of tcp6, 18 to 70 of unix.
@pytest.mark.parametrize("count", [0, 1, 12, 13, 14, 24, 25, 26, 27, 28, 54, 300])
@pytest.mark.parametrize("connections", [0, 30])
def test_all_listening_sockets_are_found(
        opened: contextlib.ExitStack, tmp_path: Path, count: int, connections: int) -> None:
    expected = held()
    for number in range(count):
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            one = listen(opened, family, (host, 0))
            shown = f"[{host}]" if family == socket.AF_INET6 else host
            expected.add(f"tcp://{shown}:{one.getsockname()[1]}")
        name = f"{tmp_path}/{'x' * (number % 20)}{number}.sock"
        listen(opened, socket.AF_UNIX, name)
        expected.add(f"unix://{name}")
    if connections:
        server = listen(opened, socket.AF_INET, ("127.0.0.1", 0))
        expected.add(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        for _ in range(connections):
            opened.enter_context(socket.create_connection(server.getsockname()))
            opened.enter_context(server.accept()[0])
    assert held() == expected


def test_socket_name_is_verbatim(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    before = held()
    name = f"{tmp_path}/with blanks \r and \udcff.sock"
    listen(opened, socket.AF_UNIX, os.fsencode(name))
    assert held() - before == {f"unix://{name}"}


# unix_seq_show() does not escape a name: the text after a line break in it is a separate line.
LINE = "0: 00000002 00000000 00010000 0001 01 {inode} {name}"


@pytest.mark.parametrize("name", ["a b c zz e f g h", "0: 2 0 zz 0001 01 1 /x", "0: 2", "", " ", "\n\n"])
def test_socket_name_with_line_break_is_skipped(opened: contextlib.ExitStack, name: str) -> None:
    before = held()
    listen(opened, socket.AF_UNIX, f"\0x\n{name}".encode())
    assert held() - before == {"unix://@x"}


@pytest.mark.parametrize(("family", "kind", "listens"), [
    (socket.AF_UNIX, socket.SOCK_STREAM, True),
    (socket.AF_UNIX, socket.SOCK_STREAM, False),
    (socket.AF_INET, socket.SOCK_STREAM, True),
    (socket.AF_NETLINK, socket.SOCK_RAW, False),
], ids=["listening", "connected", "TCP", "netlink"])
def test_forged_line_is_ignored(
        opened: contextlib.ExitStack, tmp_path: Path, family: socket.AddressFamily, kind: socket.SocketKind,
        listens: bool) -> None:
    """The line claims that the process with a socket of this kind also listens elsewhere."""
    if listens:
        victim = listen(opened, family, f"{tmp_path}/real" if family == socket.AF_UNIX else ("127.0.0.1", 0))
    else:
        victim = opened.enter_context(socket.socket(family, kind, 0))
        if family == socket.AF_UNIX:
            victim.connect(listen(opened, family, b"\0other").getsockname())
    inode = os.fstat(victim.fileno()).st_ino
    listen(opened, socket.AF_UNIX, f"\0x\n{LINE.format(inode=inode, name='@forged')}".encode())
    sockets = Sockets()
    sockets.expect({f"unix://{tmp_path}/real"})
    found = {one.address for one in sockets.of(os.getpid())}
    assert "unix://@forged" not in found
    assert "unix://@x" in found
    assert (f"unix://{tmp_path}/real" in found) is (listens and family == socket.AF_UNIX)


@pytest.mark.parametrize(("replace", "is_expected", "is_reachable"), [
    ("", True, True),
    ("removed", True, False),
    ("left by a program that was killed", True, False),
    ("left by a program that was killed", False, True),
    ("listens", True, True),
    ("link", True, True),
])
def test_a_socket_can_be_reached_only_by_its_own_file(
        opened: contextlib.ExitStack, tmp_path: Path, replace: str, is_expected: bool, is_reachable: bool) -> None:
    """dockerd -H unix:// replaces the file of systemd's socket, and leaves its own when it is killed."""
    path = tmp_path / "api"
    listen(opened, socket.AF_UNIX, str(path))
    if replace == "link":
        path.rename(tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif replace:
        path.unlink()
    if replace == "listens":
        listen(opened, socket.AF_UNIX, str(path))
    elif replace.startswith("left"):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
            killed.listen()
    sockets = Sockets()
    if is_expected:
        sockets.expect([f"unix://{path}"])
    found = {one.address for one in sockets.reachable(os.getpid())}
    assert (f"unix://{path}" in found) is is_reachable
    assert f"unix://{path}" in {one.address for one in sockets.of(os.getpid())}


def test_a_socket_that_was_opened_since_the_table_was_read_has_its_file(
        opened: contextlib.ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "api"
    listen(opened, socket.AF_UNIX, str(path))
    sockets = Sockets()
    sockets.expect([f"unix://{path}"])
    assert sockets.of(os.getpid())
    path.unlink()
    listen(opened, socket.AF_UNIX, str(path))
    assert f"unix://{path}" in {one.address for one in sockets.reachable(os.getpid())}


@pytest.mark.parametrize("ask", [Sockets.of, Sockets.of_other, Sockets.inodes])
def test_what_is_opened_after_the_descriptors_were_read_is_free(
    opened: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Sockets, int], object]
) -> None:
    """Its owner is not known: it would be neither what listens nor what is going to be opened."""
    listener = opened.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    read = processes._sockets_held_by

    def read_and_listen(pid: int, limit: int | None = None) -> tuple[dict[int, str], int]:
        found = read(pid, limit)
        listener.listen()
        return found

    monkeypatch.setattr(processes, "_sockets_held_by", read_and_listen)
    sockets = Sockets()
    ask(sockets, os.getpid())
    address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    assert address not in {sock.address for sock in sockets._listening(os.getpid())}


def test_memory_of_other_users_is_not_read() -> None:
    ours, theirs = read_process(os.getpid()), read_process(os.getpid(), uid=1000)
    assert ours is not None and theirs is not None
    assert (bool(ours.argv), bool(ours.environ)) == (True, True)
    assert (theirs.argv, theirs.environ, theirs.executable) == ((), {}, ours.executable)


def test_descriptors_of_others_are_limited(
        opened: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    listen(opened, socket.AF_UNIX, b"\0x")
    assert "unix://@x" in {one.address for one in Sockets().of_other(os.getpid())}
    monkeypatch.setattr(processes, "MAX_DESCRIPTORS", 1)
    assert Sockets().of_other(os.getpid()) == ()
    assert "unix://@x" in held()


def test_processes_without_permission_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    assert Sockets().of_other(os.getpid()) == ()
    with pytest.raises(PermissionError):
        held()


@pytest.mark.parametrize("name", ["sh", "starter"])
def test_a_wrapper_and_others_like_it_are_no_dockerd(tmp_path: Path, name: str) -> None:
    """The main process of docker.service may be a shell, or a program with any name, that runs dockerd as its child."""
    wrapper, dockerd = tmp_path / name, tmp_path / "dockerd"
    for program, path in (("sh", wrapper), ("sleep", dockerd)):
        shutil.copy(os.path.realpath(str(shutil.which(program))), path)
    with contextlib.ExitStack() as stack:
        main, like = (stack.enter_context(subprocess.Popen(
            [wrapper, "-c", f"{command} 60; true"], start_new_session=True)) for command in (dockerd, "sleep"))
        for each in (main, like):
            stack.callback(os.killpg, each.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not any(process.executable == str(dockerd) for process in processes.daemons(main.pid).values()):
            assert time.monotonic() < deadline, "no dockerd in time"
        assert {main.pid, like.pid}.isdisjoint(processes.daemons(main.pid))


EXECUTE_EACH_OTHER = """case $1 in
first) exec "$2/second" "$0" second "$2" ;;
*) exec "$2/first" "$0" first "$2" ;;
esac
"""


def test_a_process_that_executes_another_program_is_read_as_one_of_them(tmp_path: Path) -> None:
    """Arguments of one and the executable of the other, or no arguments, are those of no program."""
    script = tmp_path / "script"
    script.write_text(EXECUTE_EACH_OTHER)
    for name in ("first", "second"):
        shutil.copy(os.path.realpath(str(shutil.which("sh"))), tmp_path / name)
    whole = {name: (str(tmp_path / name), str(script), name, str(tmp_path)) for name in ("first", "second")}
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(subprocess.Popen(whole["first"]))
        stack.callback(one.kill)
        read = [process for _ in range(200) if (process := read_process(one.pid)) is not None]
    assert {(process.executable, process.argv) for process in read} == {(argv[0], argv) for argv in whole.values()}
    assert all(process.environ for process in read)


@pytest.mark.parametrize(("name", "is_replaced"), [("kept", False), ("upgraded", True), ("removed", True)])
def test_an_executable_that_is_no_longer_there_is_noticed(tmp_path: Path, name: str, is_replaced: bool) -> None:
    program, other = tmp_path / "dockerd", tmp_path / "dockerd.dpkg-new"
    for path in (program, other):
        shutil.copy(os.path.realpath(str(shutil.which("sleep"))), path)
    with subprocess.Popen([str(program), "60"]) as started:
        try:
            deadline = time.monotonic() + 10.0
            while (before := read_process(started.pid)) is None or before.executable != str(program):
                assert time.monotonic() < deadline, "not executed in time"
            if name == "upgraded":
                other.rename(program)
            elif name == "removed":
                program.unlink()
            process = read_process(started.pid)
        finally:
            started.kill()
    assert process is not None
    assert (process.executable, process.is_replaced) == (str(program), is_replaced)
