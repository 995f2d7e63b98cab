"""Source locations of parsed unit files match the text in the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.sockets import load_socket
from dockerd_guard.systemd.units import Service, load_service

UNIT = "/usr/lib/systemd/system/x.service"


def loaded(root: Path, text: str, name: str = UNIT) -> tuple[Service, Rootfs]:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    rootfs = Rootfs(os.fspath(root))
    return load_service(rootfs, "x.service"), rootfs


def text_at(root: Path, location: Location | None) -> str:
    """Return the text at a location, with lines split as by systemd."""
    assert location is not None
    text = (root / location.file.lstrip("/")).read_bytes().decode().removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\n").split("\n")
    line = lines[location.line - 1]
    assert 1 <= location.column <= location.end_column <= len(line) + 1
    return line[location.column - 1:location.end_column - 1]


@pytest.mark.parametrize(("lines", "words"), [
    ("ExecStart=/bin/x -H fd://", ["/bin/x", "-H", "fd://"]),
    ("  ExecStart = /bin/x   -H\tfd:// ", ["/bin/x", "-H", "fd://"]),
    ("ExecStart=@/bin/x 'a b' c", ["'a b'", "c"]),
    ("""ExecStart="-/bin/x" "a b" c"d"e \\x41 %n""", ['"-/bin/x"', '"a b"', 'c"d"e', "\\x41", "%n"]),
    ("ExecStart=/bin/x \\\n  -H \\\n# a comment\n\tfd:// \\\n;another\nz", ["/bin/x", "-H", "fd://", "z"]),
    ("ExecStart=\\\n  /bin/x a", ["/bin/x", "a"]),
    ("ExecStart \\\n = /bin/x a", ["/bin/x", "a"]),
    ("ExecStart=/bin/x ä 😀 z", ["/bin/x", "ä", "😀", "z"]),
    ("ExecStart=/bin/x 'a \\\n b' c", ["/bin/x", "'a ", "c"]),
    ("# one\r\nExecStart=/bin/x a\r\n", ["/bin/x", "a"]),
    ("# one\rExecStart=/bin/x a\r", ["/bin/x", "a"]),
    ("# one\0ExecStart=/bin/x a\0", ["/bin/x", "a"]),
])
def test_locations_of_words(lines: str, words: list[str], tmp_path: Path) -> None:
    service, _ = loaded(tmp_path, f"[Service]\n{lines}\n")
    [command] = service.exec_start
    assert [text_at(tmp_path, word.location) for word in command.argv] == words


def test_byte_order_mark_has_no_column(tmp_path: Path) -> None:
    service, _ = loaded(tmp_path, "\ufeff[Service]\nExecStart=/bin/x a\n")
    assert text_at(tmp_path, service.unit.settings[0].location) == "ExecStart=/bin/x a"
    assert service.unit.settings[0].location.line == 2


def test_locations_of_commands_in_one_line(tmp_path: Path) -> None:
    service, _ = loaded(tmp_path, "[Service]\nType=oneshot\nExecStart=/bin/x a ; -/bin/y b \\; ; /bin/z\n")
    assert [text_at(tmp_path, command.location) for command in service.exec_start] == [
        "/bin/x a", "-/bin/y b \\;", "/bin/z"]


@pytest.mark.parametrize(("lines", "argument", "text"), [
    ("Environment=A=value", "$A", "value"),
    ("Environment=A=one two", "${A}", "one"),
    ('Environment="A=one two" B=3', "$A", "one|two"),
    ("Environment='A=one two'", "${A}", "one two"),
    ('Environment=A="one two"', "$A", "one|two"),
    ("Environment=X=0 \\\n  A=value", "$A", "value"),
    ("Environment=A=\\x41b", "$A", "A=\\x41b"),
    ("Environment=A=value", "x${A}y", "x${A}y"),
    ("Environment=A=", "x${A}", "x${A}"),
    ("Environment=A=A", "$A", "A"),
])
def test_locations_of_expanded_variables(lines: str, argument: str, text: str, tmp_path: Path) -> None:
    service, rootfs = loaded(tmp_path, f"[Service]\n{lines}\nExecStart=/bin/x {argument}\n")
    arguments = expand(service.exec_start[0], resolve_environment(service, rootfs, 262))[1:]
    assert "|".join(text_at(tmp_path, each.location) for each in arguments) == text
    assert {(each.word, each.variable) for each in arguments} == {(1, "A")}


@pytest.mark.parametrize(("content", "texts"), [
    ("A=value\n", ["value"]),
    ("A = value  \n", ["value"]),
    ("# c\n\nA='one two'\nB=\"three\"\n", ["one two", "three"]),
    ("A=one \\\ntwo\nB=3\n", ["one ", "3"]),
    ("A='one\ntwo'\nB=3\n", ["one", "3"]),
    ("A=\nB=3\n", ["", "3"]),
    ("A=x\r\nB=3\r\n", ["x", "3"]),
    ("A=\"a\\\"b\"\nB=c\\d\n", ["a", "c"]),
    ("A=ä B\nB=3", ["ä B", "3"]),
])
def test_locations_in_environment_files(content: str, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content.encode())
    found = read_environment_file(content.encode(), "/f", 262)
    assert [text_at(tmp_path, each.variable.location) for each in found.assignments] == texts


def test_location_of_docker_opts(tmp_path: Path) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/docker").write_text('# options\nDOCKER_OPTS="-D -H tcp://0.0.0.0:2375"\n')
    unit = "[Service]\nEnvironmentFile=-/etc/default/*er\nExecStart=/bin/x -H fd:// $DOCKER_OPTS\n"
    service, rootfs = loaded(tmp_path, unit)
    arguments = expand(service.exec_start[0], resolve_environment(service, rootfs, 262))
    assert arguments[-1].text == text_at(tmp_path, arguments[-1].location) == "tcp://0.0.0.0:2375"
    assert arguments[-1].location == Location("/etc/default/docker", 2, 20, 38)


@pytest.mark.parametrize(("lines", "texts"), [
    ("ListenStream=2375\n ListenStream = /run/x ", ["ListenStream=2375", "ListenStream = /run/x"]),
    ("ListenStream=\\\n2375", ["ListenStream="]),
])
def test_locations_of_listen_streams(lines: str, texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "usr/lib/systemd/system/x.socket"
    path.parent.mkdir(parents=True)
    path.write_text(f"[Socket]\n{lines}\n")
    socket = load_socket(Rootfs(os.fspath(tmp_path)), "x.socket")
    assert [text_at(tmp_path, listen.location) for listen in socket.listen] == texts


@pytest.mark.parametrize(("lines", "text", "message"), [
    ("Foo=1", "Foo=1", "Unknown key 'Foo' in section [Service], ignoring."),
    ("Foo", "Foo", "Missing '=', ignoring line."),
    ("[Foo]", "[Foo]", "Unknown section 'Foo'. Ignoring."),
    ("Environment=A=1 2B=3", "2B=3", "Invalid environment assignment, ignoring"),
    ("Environment=A=%Z B=2", "A=%Z", "Failed to resolve unit specifiers, ignoring: Invalid slot"),
    ("EnvironmentFile=x", "EnvironmentFile=x", "EnvironmentFile= path is not absolute, ignoring"),
    ("ExecStop=-/bin/y %Z", "%Z", "Failed to resolve unit specifiers: Invalid slot, ignoring"),
    ("ExecStop=/bin/y a\\qb", "a\\qb", "Ignoring unknown escape sequences"),
    ("Type=x", "Type=x", "Failed to parse Type=, ignoring: Invalid argument"),
    ("Sockets=a.socket b", "b", "Failed to add dependency of Sockets=, ignoring"),
])
def test_locations_of_ignored_settings(lines: str, text: str, message: str, tmp_path: Path) -> None:
    service, _ = loaded(tmp_path, f"[Service]\nExecStart=/bin/x\n{lines}\n")
    [problem] = service.unit.problems
    assert (text_at(tmp_path, problem.location), problem.text) == (text, message)
    # Only the escape sequence is kept as it is written.
    assert problem.effect == ("noted" if "escape" in message else "ignored")


@pytest.mark.parametrize(("lines", "text", "effect"), [
    ("ExecStart=/bin/y\nType=simple", "/bin/y", "refused"),
    ("ExecStart='/bin/y\nExecStart=/bin/y z", "'/bin/y", "ignored"),
    ("ExecStop=/bin/y 'a", "'a", "refused"),
    ("ExecStop=bin/y a", "bin/y", "refused"),
    ("User=a:b", "User=a:b", "refused"),
    ("[Service", "[Service", "refused"),
])
def test_locations_of_fatal_errors(lines: str, text: str, effect: str, tmp_path: Path) -> None:
    service, _ = loaded(tmp_path, f"[Service]\nExecStart=/bin/x\n{lines}\n")
    problem = service.unit.problems[0]
    assert (text_at(tmp_path, problem.location), problem.effect) == (text, effect)
