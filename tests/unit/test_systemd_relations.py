"""Socket units of a service, ignored files, and commands of refused units."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest

from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.sockets import sockets_for
from dockerd_guard.systemd.units import detect_version, load_service
from dockerd_guard.systemd.words import quote_word
from tests.support.systemd_cases import HIGH, LOW, MIDDLE
from tests.support.unit_files import Content, Link, put

SERVICE = {LOW + "d.service": "[Service]\nExecStart=/bin/x\n"}
SOCKET = "[Socket]\nListenStream=/run/s\n"


def look(root: Path, files: Mapping[str, Content]) -> Rootfs:
    put(root, files, "unit")
    return Rootfs(os.fspath(root))


@pytest.mark.parametrize(("files", "found"), [
    pytest.param({LOW + "d.socket": SOCKET}, {"d.socket"}, id="of the same name"),
    pytest.param({LOW + "e.socket": SOCKET + "Service=d.service\n"}, {"e.socket"}, id="by Service="),
    pytest.param({LOW + "e.socket": SOCKET, HIGH + "e.socket.d/a.conf": "[Socket]\nService=%j.service\n",
                  LOW + "e-d.socket": SOCKET + "Service=%j.service\n"}, {"e-d.socket"}, id="by a specifier"),
    pytest.param({LOW + "d.socket": SOCKET + "Service=e.service\n"}, set(), id="of the same name for another"),
    pytest.param({LOW + "d.socket": SOCKET + "Service=e.service\n", HIGH + "e.service": Link("d.service")},
                 {"d.socket"}, id="for an alias of the service"),
    pytest.param({LOW + "e.socket": SOCKET, LOW + "e.service": "[Service]\nExecStart=/bin/y\n",
                  HIGH + "d.service.d/a.conf": "[Service]\nSockets=e.socket\n"}, {"e.socket"}, id="by Sockets="),
    pytest.param({LOW + "d.socket": SOCKET, HIGH + "d.socket": Link("/dev/null")}, set(), id="masked"),
    pytest.param({LOW + "d.socket": SOCKET + "Accept=yes\n"}, set(), id="accepting itself"),
    pytest.param({LOW + "d.socket": SOCKET, LOW + "sockets.target.wants/d.socket": Link("../d.socket")},
                 {"d.socket"}, id="wanted by a target"),
    pytest.param({LOW + "d.socket": SOCKET, HIGH + "d.service.d/a.conf": "[Unit]\nRequires=d.socket\n"},
                 {"d.socket"}, id="required by the service"),
    pytest.param({LOW + "d.socket": SOCKET, LOW + "e.socket": SOCKET + "Service=d.service\n",
                  MIDDLE + "f.socket": Link(LOW + "e.socket")}, {"d.socket", "e.socket"},
                 id="several, an alias once"),
])
def test_sockets_for_finds_units(files: dict[str, Content], found: set[str], tmp_path: Path) -> None:
    rootfs = look(tmp_path, {**SERVICE, **files})
    sockets = sockets_for(rootfs, load_service(rootfs, "d.service"))
    assert {socket.unit.name for socket in sockets if not socket.accept} == found


@pytest.mark.parametrize(("files", "path", "text"), [
    pytest.param({LOW + "d.service.d/a.conf": "#", HIGH + "d.service.d/a.conf": "#"}, LOW + "d.service.d/a.conf",
                 "has the same name and takes precedence", id="shadowed"),
    pytest.param({LOW + "d.service.d/a.conf": "#", HIGH + "d.service.d/a.conf": Link("/dev/null")},
                 LOW + "d.service.d/a.conf", "masks it", id="masked"),
    pytest.param({HIGH + "d.service.d/a.conf": Link("/nowhere")}, HIGH + "d.service.d/a.conf",
                 "a dangling symbolic link", id="dangling"),
    pytest.param({HIGH + "d.service.d/a.conf/b.conf": "#"}, HIGH + "d.service.d/a.conf", "directory", id="a directory"),
    pytest.param({HIGH + "d.service.d/a.CONF": "#"}, HIGH + "d.service.d/a.CONF", "does not end in '.conf'", id="case"),
    pytest.param({HIGH + "d.service.d/override": "#"}, HIGH + "d.service.d/override", "does not end in '.conf'",
                 id="no ending"),
    pytest.param({HIGH + "e/a.conf": "#", HIGH + "d.service.d": Link("e")}, HIGH + "d.service.d",
                 "relative symbolic link", id="a relative link"),
])
def test_ignored_files_are_reported(files: dict[str, Content], path: str, text: str, tmp_path: Path) -> None:
    service = load_service(look(tmp_path, {**SERVICE, **files}), "d.service")
    [problem] = service.unit.problems
    assert (problem.location.file, problem.effect) == (path, "file-ignored")
    assert text in problem.text


@pytest.mark.parametrize("name", ["a.conf.bak", ".a.conf.swp", "a.conf~", "README", "a.conf.dockerd-guard-saved"])
def test_backup_files_are_not_reported(name: str, tmp_path: Path) -> None:
    rootfs = look(tmp_path, {**SERVICE, HIGH + "d.service.d/" + name: "#", HIGH + "d.service.d/a.conf": "#"})
    assert load_service(rootfs, "d.service").unit.problems == ()


@pytest.mark.parametrize(("text", "written"), [
    ("ExecStart=/bin/x a\nExecStart=/bin/y b\n", ["a", "b"]),
    ("Type=notify\nExecStart=/bin/x a\n[Install]\n", ["a"]),
    ("[Service]\nExecStart=/bin/x a 'b\n", ["a b"]),
    ("[Service] # c\nExecStart=/bin/x a\n", ["a"]),
    ("[Service]\nExecStart=/bin/x a %Z b\n", ["a %Z b"]),
    ("[Service]\nExecStart=bin/x a\nExecStart=/bin/y b\n", ["a", "b"]),
    ("[Service]\nExecStart=/bin/x a\nExecStart=\nExecStart=bin/y b\n", ["b"]),
    ("[X-Mine]\nExecStart=/bin/x a\n", []),
])
def test_refused_unit_has_written_commands(text: str, written: list[str], tmp_path: Path) -> None:
    service = load_service(look(tmp_path, {LOW + "d.service": text}), "d.service")
    assert service.unit.load_state in ("bad-setting", "error")
    assert [" ".join(word.text for word in command.argv[1:]) for command in service.written] == written


@pytest.mark.parametrize(("version", "argv"), [(257, []), (262, ["1"])])
def test_unset_variables_are_expanded_since_262(version: int, argv: list[str], tmp_path: Path) -> None:
    unit = "[Service]\nEnvironment=A=1\nUnsetEnvironment=A\nExecStart=/bin/x $A\n"
    rootfs = look(tmp_path, {LOW + "d.service": unit})
    service = load_service(rootfs, "d.service", version)
    environment = resolve_environment(service, rootfs, version)
    assert [argument.text for argument in expand(service.exec_start[0], environment)[1:]] == argv
    assert "A" not in environment.variables


@pytest.mark.parametrize(("words", "argv"), [
    ("@/bin/x $NONE", [""]), ("@/bin/x $NONE $NONE", [""]), ("@/bin/x $NONE a", ["a"]), ("@/bin/x ${NONE}", [""]),
    ("@/bin/x '' a", ["", "a"]), ("/bin/x $NONE", ["/bin/x"]),
])
def test_there_is_always_an_argument_zero(words: str, argv: list[str], tmp_path: Path) -> None:
    rootfs = look(tmp_path, {LOW + "d.service": f"[Service]\nExecStart={words}\n"})
    [command] = load_service(rootfs, "d.service").exec_start
    assert [argument.text for argument in expand(command, {})] == argv


@pytest.mark.parametrize(("version", "user"), [(252, None), (257, "root")])
def test_user_is_always_set_since_255(version: int, user: str | None, tmp_path: Path) -> None:
    rootfs = look(tmp_path, SERVICE)
    variables = resolve_environment(load_service(rootfs, "d.service", version), rootfs, version).variables
    assert (variables["USER"].value if "USER" in variables else None) == user


@pytest.mark.parametrize(("lines", "failure"), [
    ("EnvironmentFile=/nowhere", "No such file or directory"),
    ("EnvironmentFile=-/nowhere", None),
    ("EnvironmentFile=/etc/*.none", "No such file or directory"),
    ("EnvironmentFile=/etc", "/etc: is a directory"),
    ("EnvironmentFile=-/etc", None),
    ("EnvironmentFile=/dev/null", None),
    ("EnvironmentFile=/etc/bytes", "invalid UTF-8"),
    ("EnvironmentFile=-/etc/bytes", None),
    ("EnvironmentFile=/etc/nul", "Bad message"),
])
def test_environment_file_errors(lines: str, failure: str | None, tmp_path: Path) -> None:
    rootfs = look(tmp_path, {LOW + "d.service": f"[Service]\nExecStart=/bin/x\n{lines}\n",
                           "/etc/bytes": b"A=\xff\n", "/etc/nul": b"A=1\0\n"})
    found = resolve_environment(load_service(rootfs, "d.service"), rootfs, 262).failure
    assert found is None if failure is None else failure in str(found)


def test_backslash_continues_a_comment_before_254(tmp_path: Path) -> None:
    rootfs = look(tmp_path, {LOW + "d.service": "[Service]\nExecStart=/bin/x $A\nEnvironmentFile=/f\n",
                           "/f": "# c \\\nA=1\n"})
    service = load_service(rootfs, "d.service")
    assert ["A" in resolve_environment(service, rootfs, version).variables for version in (252, 254)] == [False, True]


def test_default_environment(tmp_path: Path) -> None:
    rootfs = look(tmp_path, {**SERVICE, "/etc/systemd/system.conf": "[Manager]\nDefaultEnvironment=A=1 B=1\n",
                           "/etc/systemd/system.conf.d/b.conf": "[Manager]\nDefaultEnvironment=B=2 C=%T D=%n\n"})
    environment = resolve_environment(load_service(rootfs, "d.service", 252), rootfs, 252)
    assert {name: each.value for name, each in environment.variables.items()} == {"A": "1", "B": "2", "C": "/tmp"}


@pytest.mark.parametrize(("prefix", "arguments"), [
    ("", ["-H", "a b", "", "%n", "$A", "${A}", "$", "'", '"', "\\", "\n", "\x01", "ä", "\udcff", ";", "#", "\ufffe"]),
    (":", ["$A", "$$"]),
])
def test_quoted_arguments_round_trip(prefix: str, arguments: list[str], tmp_path: Path) -> None:
    words = " ".join(quote_word(each, env_expand=not prefix) for each in arguments)
    rootfs = look(tmp_path, {LOW + "d.service": f"[Service]\nExecStart={prefix}/bin/x {words}\n"})
    [command] = load_service(rootfs, "d.service").exec_start
    assert [argument.text for argument in expand(command, {})[1:]] == arguments


def test_version_is_detected_from_libsystemd_shared(tmp_path: Path) -> None:
    rootfs = look(tmp_path, {"/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so": ""})
    assert detect_version(rootfs) == 257


@pytest.mark.parametrize(("version", "link", "listed"), [
    (252, True, True), (257, True, False), (257, False, True)])
def test_lib_is_searched_unless_usr_is_merged(version: int, link: bool, listed: bool, tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    if link:
        (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "lib/systemd/system").mkdir(parents=True)
    put(tmp_path, {"/lib/systemd/system/d.service": "[Service]\nExecStart=/bin/x\n"}, "unit")
    with Rootfs(os.fspath(tmp_path)) as rootfs:
        fragment = unit_files(rootfs, version).fragment("d.service").path
    assert fragment == ("/lib" if listed else "/usr/lib") + "/systemd/system/d.service"


def test_cache_does_not_keep_rootfs_alive(tmp_path: Path) -> None:
    """Every observation of the agent leaked half a megabyte."""
    put(tmp_path, {"/etc/systemd/system/d.service": "[Service]\nExecStart=/bin/x\n"}, "unit")
    rootfs = Rootfs(os.fspath(tmp_path))
    unit_files(rootfs, 257).fragment("d.service")
    kept = weakref.ref(rootfs)
    del rootfs
    assert kept() is None
