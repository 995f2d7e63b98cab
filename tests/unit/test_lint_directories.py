"""`lint DIR`: which files of a directory belong together, and what is not looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

START = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd"
OPEN = f"{START} -H tcp://0.0.0.0:2375\n"
HOSTS = '{"hosts": ["fd://", "unix:///run/x.sock"]}\n'
SERVICE = "[Service]\nExecStart=/usr/bin/dockerd -H fd:// $OPTS\n"
VARIABLE = "[Service]\nEnvironment=OPTS=--host=0.0.0.0:4243\n"
COMPOSE = "services:\n  a:\n    image: x\n    volumes: ['/run/docker.sock:/s']\n    ports: ['80:80']\n"

TOGETHER: dict[str, tuple[dict[str, str], str]] = {
    "a unit and its drop-in": ({"docker.service": SERVICE, "docker.service.d/a.conf": VARIABLE}, "DG103"),
    "a unit, and a directory of drop-ins": (
        {"systemd/docker.service": SERVICE, "docker.service.d/a.conf": VARIABLE}, "DG103"),
    "a unit and its environment file": (
        {"systemd/docker.service": "[Service]\nEnvironmentFile=/etc/default/docker\n"
         "ExecStart=/usr/bin/dockerd $DOCKER_OPTS\n",
         "default/docker": "DOCKER_OPTS=-H tcp://0.0.0.0:2375\n"}, "DG103"),
    "hosts and the drop-in of docs.docker.com": (
        {"daemon.json": HOSTS, "docker.service.d/override.conf": f"{START}\n"}, ""),
    "hosts in a directory, and the drop-in": (
        {"docker/daemon.json": HOSTS, "systemd/docker.service.d/override.conf": f"{START}\n"}, ""),
}
"""Files of one directory, and the code that is reported of them together ("": none)."""


def written(directory: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


@pytest.mark.parametrize("case", TOGETHER)
@pytest.mark.parametrize("where", ["", "sub", "."])
def test_files_of_a_directory_belong_together_wherever_it_is_named_from(
        tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, case: str, where: str) -> None:
    files, code = TOGETHER[case]
    written(tmp_path / "sub", files)
    monkeypatch.chdir(tmp_path / "sub" if where == "." else tmp_path)
    said = call("lint", where or str(tmp_path / "sub"))
    assert said.code == (1 if code else 0), said.out + said.err
    assert code in said.out
    assert "not among the files" not in said.out


LOOKED_INTO: dict[str, tuple[str, int]] = {
    "beside the programs of a virtual environment": ("docker/daemon.json", 1),
    "a directory of this name": ("venv/daemon.json", 1),
    "its programs": ("lib/python3.11/site-packages/docker/daemon.json", 0),
}


@pytest.mark.parametrize("case", LOOKED_INTO)
def test_a_virtual_environment_hides_its_programs_alone(
        tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    path, code = LOOKED_INTO[case]
    written(tmp_path, {"pyvenv.cfg": "", path: '{"hosts": ["tcp://0.0.0.0:2375"]}\n'})
    monkeypatch.chdir(tmp_path)
    assert call("lint", "--no-host", "--allow-empty", ".").code == code


STOCK = {"usr/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n",
         "usr/lib/systemd/system/docker.socket": "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\n"}


@pytest.mark.parametrize(("marker", "code"), [
    # The tree is the top of a repository, as an overlay of an image is.
    (".git/HEAD", 1), (".hg/store", 1),
    ("opt/pyvenv.cfg", 1), ("opt/stack/pyvenv.cfg", 1),
    # A checkout on a host: its sources are not looked into, which a note says.
    ("opt/.git/HEAD", 0), ("opt/.svn/entries", 0),
])
def test_what_hides_a_part_of_a_root_directory_is_named(tmp_path: Path, call: Call, marker: str, code: int) -> None:
    written(tmp_path, {**STOCK, marker: "", "opt/stack/compose.yaml": COMPOSE})
    said = call("lint", "--root", str(tmp_path))
    assert said.code == code, said.out + said.err
    assert ("/opt: a checkout" in said.err) == (code == 0)


@pytest.mark.parametrize(("lines", "place"), [
    ("[Service]\nExecStart=\n", "docker.service.d/a.conf:2:1"),
    ("[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\nExecStart=\n", "docker.service.d/a.conf:4:1"),
])
def test_a_unit_without_a_command_is_refused_where_the_last_one_is_removed(
        tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, lines: str, place: str) -> None:
    written(tmp_path, {"docker.service.d/a.conf": lines})
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert (said.code, said.out.split(": ", 1)[0]) == (1, place)


@pytest.mark.parametrize("path", [
    "docker.d/o.conf", "roles/x/files/dockerd.d/o.conf.j2", "etc/systemd/docker.service.d/o.conf",
    "etc/systemd/dockerd.service.d/o.conf", "etc/systemd/system/docker.service.d/sub/o.conf",
    "etc/daemon.json", "etc/default/daemon.json", "etc/sysconfig/daemon.json", "x/etc/dockerd/daemon.json",
])
def test_what_is_never_read_is_named(
    path: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {path: "[Service]\nTimeoutSec=1\n" if ".conf" in path else '{"debug": true}'})
    said = call("lint", ".")
    assert said.code == 1 and f"{path}:1:1: warning: this file has no effect: " in said.out, said.out + said.err


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:2375", "localhost:2376", "*:2375", "0.0.0.0", "2375 2376"])
def test_a_socket_unit_without_an_address_is_refused_where_the_last_one_is(
    address: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {"docker.socket.d/a.conf": f"[Socket]\nListenStream=\nListenStream={address}\n"})
    found = call("lint", ".", "--format", "json").json["findings"]
    assert {(each["code"], each["file"], each["line"]) for each in found} == {
        ("DG202", "docker.socket.d/a.conf", 3), ("DG302", "docker.socket.d/a.conf", 3)}
