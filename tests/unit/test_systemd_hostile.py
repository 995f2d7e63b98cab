"""Any files load without an exception and in time linear in their length."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dockerd_guard.model.limits import NO_LIMITS
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.lookup import UnitFiles
from dockerd_guard.systemd.sockets import load_socket, parse_address, sockets_for
from dockerd_guard.systemd.units import Service, load_service
from dockerd_guard.systemd.words import quote_word
from tests.support.cpu_time import check_cpu_time

LOW = "usr/lib/systemd/system"

PIECES = st.sampled_from([
    "[Service]\n", "[Socket]\n", "[Unit]\n", "[", "]", "ExecStart=", "Environment=", "EnvironmentFile=",
    "ListenStream=", "ListenStream=[", "Sockets=", "UnsetEnvironment=", "PassEnvironment=", "User=", "PIDFile=",
    "WorkingDirectory=", "RootImagePolicy=", "/bin/x ", "$A", "${A}", "${", "$$", "%n", "%", "%Z", "%y", "\\",
    "\\\n", "\\x", "\\x00", "\\u12", "\\ud800", "\\777", '"', "'", ";", " ; ", "\\;", "#", "\n", "\r", "\0", "\t",
    " ", "=", "-", "@", ":", "|", "!", "é", "\ufeff", "\ufffe", "*", "/etc/*", "../", "0x", "vsock:", "::1]:80",
    "@-:+!!|", "A=1", "\x7f", "[" * 50,
])
FILES = st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=40).map(lambda pieces: "".join(pieces).encode()))
HURRIED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def read_all(root: Path, version: int) -> Service:
    """Load everything from a root directory."""
    with Rootfs(os.fspath(root), limits=NO_LIMITS) as rootfs:
        service = load_service(rootfs, "x.service", version)
        environment = resolve_environment(service, rootfs, version)
        for command in (*service.exec_start, *service.written):
            expand(command, environment)
            assert command.head
        for socket in sockets_for(rootfs, service, version):
            assert all(listen.address for listen in socket.listen)
        for problem in (*service.unit.problems, *load_socket(rootfs, "x.socket", version).unit.problems):
            problem.text.encode()
        return service


@given(FILES, FILES, FILES, FILES, st.sampled_from([252, 257, 262]))
@HURRIED
@example(b"[Service]\nExecStart=/bin/x ${A\nEnvironment=A=$A", b"", b"A='", b"[Socket]\nListenStream=[::%lo]:1", 262)
def test_unit_files_with_any_content_load(
    unit: bytes, drop_in: bytes, variables: bytes, socket: bytes, version: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / LOW / "x.service.d").mkdir(parents=True)
        (root / LOW / "x.service").write_bytes(unit)
        (root / LOW / "x.service.d/a.conf").write_bytes(drop_in + b"\n[Service]\nEnvironmentFile=-/a\n")
        (root / LOW / "x.socket").write_bytes(socket)
        (root / "a").write_bytes(variables)
        read_all(root, version)


@given(FILES)
@HURRIED
def test_any_environment_file_parses(data: bytes) -> None:
    for version in (252, 262):
        for each in read_environment_file(data, "/f", version).assignments:
            assert each.variable.location is not None


@given(st.text())
@HURRIED
def test_any_address_parses(text: str) -> None:
    address = parse_address(text)
    assert address is None or address.isascii()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@HURRIED
def test_quote_word_round_trips(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / LOW / "x.service"
        path.parent.mkdir(parents=True)
        path.write_text(f"[Service]\nExecStart=/bin/x {quote_word(text)}\n", newline="")
        [command] = load_service(Rootfs(directory), "x.service").exec_start
        assert [argument.text for argument in expand(command, {})[1:]] == [text]


SIZE = 1 << 17
LONG = {
    "a word": b"ExecStart=/bin/x " + b"a" * (SIZE - 100),
    "words": b"ExecStart=/bin/x " + b"a " * (SIZE // 2 - 100),
    "quotes": b"ExecStart=/bin/x " + b"'a'\"b\" " * (SIZE // 8),
    "open quotes": b"ExecStart=-/bin/x " + b"\"'" * (SIZE // 2 - 100),
    "backslashes": b"ExecStart=/bin/x " + b"\\" * (SIZE - 100),
    "unknown escapes": b"ExecStart=/bin/x " + b"\\q" * (SIZE // 2 - 100),
    "words with unknown escapes": b"ExecStart=/bin/x " + b"\\q " * (SIZE // 3 - 100),
    "variables": b"ExecStart=/bin/x " + b"${A}" * (SIZE // 4 - 100),
    "open variables": b"ExecStart=/bin/x " + b"${A" * (SIZE // 3 - 100),
    "dollars": b"ExecStart=/bin/x " + b"$" * (SIZE - 100),
    "specifiers": b"ExecStart=/bin/x " + b"%n" * (SIZE // 2 - 100),
    "semicolons": b"ExecStart=/bin/x " + b"; " * (SIZE // 2 - 100),
    "commands": b"Type=oneshot\nExecStart=" + b"a ; " * (SIZE // 4 - 100),
    "assignments": b"Environment=" + b"A=1 " * (SIZE // 4 - 100),
    "continued lines": b"ExecStart=/bin/x " + b"a\\\n" * (SIZE // 3 - 100),
    "lines": b"X\n" * (SIZE // 2),
    "line ends": b"\r\n\0" * (SIZE // 3),
    "sections": b"[a]\n" * (SIZE // 4),
    "blanks": b" " * (SIZE - 100),
    "names of units": b"Sockets=" + b"a.socket " * (SIZE // 9 - 100),
}


@pytest.mark.parametrize("content", LONG.values(), ids=LONG)
def test_long_lines_take_linear_time(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / LOW / "x.service"
    path.parent.mkdir(parents=True)
    spent = []
    for part in (content[: len(content) // 8].rstrip(b"\\"), content):
        path.write_bytes(b"[Service]\n" + part + b"\n")
        # The better of two: another process may evict what this one has in the caches.
        tries = []
        for _ in range(2):
            start = time.process_time()
            read_all(tmp_path, 262)
            tries.append(time.process_time() - start)
        spent.append(min(tries))
    # Eight times the length: quadratic growth would take 64 times as long.
    assert spent[1] < max(25 * spent[0], 1), spent


def test_a_line_of_one_mebibyte_loads(tmp_path: Path) -> None:
    path = tmp_path / LOW / "x.service"
    path.parent.mkdir(parents=True)
    spent = []
    for words in (1 << 16, (1 << 19) - 100):
        path.write_bytes(b"[Service]\nExecStart=/bin/x " + b"a " * words + b"\n")
        start = time.process_time()
        assert len(read_all(tmp_path, 262).exec_start[0].argv) == words + 1
        spent.append(time.process_time() - start)
    # Eight times the words: a square would be 64 times the time. Coverage makes each word three times as slow.
    assert spent[1] < 25 * spent[0], spent


def test_ten_thousand_drop_ins_load(tmp_path: Path) -> None:
    directory = tmp_path / LOW / "x.service.d"
    directory.mkdir(parents=True)
    (tmp_path / LOW / "x.service").write_text("[Service]\nExecStart=/bin/x\n")
    for number in range(10_000):
        (directory / f"{number}.conf").write_text(f"[Service]\nEnvironment=A{number}=1\n")
    def work() -> None:
        service = read_all(tmp_path, 262)
        assert len(service.unit.dropins) == len(service.environment) == 10_000

    check_cpu_time(work, 10)


@pytest.mark.parametrize("place", ["x.service", "x.service.d", "x.service.d/a.conf", "x.socket"])
@pytest.mark.parametrize("kind", [
    "FIFO", "socket", "directory", "a loop of links", "a link to a FIFO", "unreadable"])
def test_other_file_types_are_handled(place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / LOW / place
    path.parent.mkdir(parents=True)
    if place != "x.service":
        (tmp_path / LOW / "x.service").write_text("[Service]\nExecStart=/bin/x\nSockets=x.socket\n")
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            monkeypatch.chdir(path.parent)  # sun_path is too short for the whole path
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        case "directory":
            path.mkdir()
        case "a loop of links":
            path.symlink_to(path.name)
        case "a link to a FIFO":
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to("/fifo")
        case _:
            path.write_text("[Service]\n")
            path.chmod(0)
    service = read_all(tmp_path, 262)
    if place == "x.service.d/a.conf" and "FIFO" in kind:
        # PID 1 blocks until there is a writer, and starts nothing.
        assert (service.unit.load_state, "FIFO" in str(service.unit.reason)) == ("error", True)
    elif place != "x.service":
        assert service.unit.load_state == "loaded"
    assert all(isinstance(problem.text, str) for problem in service.unit.problems)


def test_fifo_as_environment_file_fails(tmp_path: Path) -> None:
    (tmp_path / LOW).mkdir(parents=True)
    (tmp_path / LOW / "x.service").write_text("[Service]\nExecStart=/bin/x\nEnvironmentFile=/fifo\n")
    os.mkfifo(tmp_path / "fifo")
    with Rootfs(os.fspath(tmp_path)) as rootfs:
        assert "FIFO" in str(resolve_environment(load_service(rootfs, "x.service"), rootfs, 262).failure)


def test_glob_with_many_stars_is_fast(tmp_path: Path) -> None:
    (tmp_path / LOW).mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / ("a" * 250)).write_text("A=1\n")
    (tmp_path / LOW / "x.service").write_text(f"[Service]\nExecStart=/bin/x\nEnvironmentFile=/etc/{'a*' * 60}b\n")
    def work() -> None:
        read_all(tmp_path, 262)

    check_cpu_time(work, 2)


def test_traps_lists_files_that_block_a_reload(tmp_path: Path) -> None:
    units, manager = tmp_path / "etc/systemd/system", tmp_path / "etc/systemd/system.conf.d"
    for directory in (units / "a.service.d", units / "b.service.d", manager):
        directory.mkdir(parents=True)
    os.mkfifo(tmp_path / "fifo")
    for fifo in ("a.service.d/fifo.conf", "a.service.d/fifo.txt", "c.service"):
        os.mkfifo(units / fifo)
    for link, target in {"linked.service": "/fifo", "masked.service": "/dev/null", "b.service.d/null.conf": "/dev/null",
                         "b.service.d/link.conf": "/fifo", "b.service.d/dangling.conf": "/nothing"}.items():
        (units / link).symlink_to(target)
    (units / "b.service.d/good.conf").write_text("[Service]\n")
    (units / "b.service.d/directory.conf").mkdir()
    (manager / "x.conf").symlink_to("/fifo")
    with Rootfs(os.fspath(tmp_path)) as rootfs:
        found = [path.removeprefix("/etc/systemd/") for path in UnitFiles(rootfs, 257).traps()]
    assert found == ["system.conf.d/x.conf", "system/a.service.d/fifo.conf", "system/b.service.d/link.conf",
                     "system/linked.service"]
