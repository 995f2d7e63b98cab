"""What the kernel tells of listening sockets, asked of the kernel: however long its tables are."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd_guard.observe.processes import Sockets


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


# A page of the kernel's holds some 27 lines of tcp, 25 of tcp6, 18 to 70 of unix.
@pytest.mark.parametrize("count", [0, 1, 12, 13, 14, 24, 25, 26, 27, 28, 54, 300])
@pytest.mark.parametrize("connections", [0, 30])
def test_all_that_listen_are_found(opened: contextlib.ExitStack, tmp_path: Path, count: int, connections: int) -> None:
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


def test_a_name_is_taken_as_it_is(opened: contextlib.ExitStack, tmp_path: Path) -> None:
    before = held()
    name = f"{tmp_path}/with blanks \r and \udcff.sock"
    listen(opened, socket.AF_UNIX, os.fsencode(name))
    assert held() - before == {f"unix://{name}"}
