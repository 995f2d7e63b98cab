"""`lint FILE...`: files that units refer to, and what decides what dockerd reads of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

DROPIN = "docker.service.d/o.conf"
OPEN = 'OPTS="-H 0.0.0.0:4243"\n'
API = "[Socket]\nListenStream=0.0.0.0:4243\n"
TRUE = "[Service]\nExecStart=/bin/true\n"


class Case(NamedTuple):
    """Files, where DG103 is, what is not known, and the arguments (the directory if empty)."""

    files: dict[str, str]
    found: str = ""
    unknown: str = ""
    arguments: tuple[str, ...] = (".",)

    @property
    def code(self) -> int:
        return 1 if self.found else 2 if self.unknown else 0


def reads(pattern: str) -> dict[str, str]:
    return {DROPIN: f"[Service]\nEnvironmentFile={pattern}\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// $OPTS\n"}


def passes(*names: str) -> dict[str, str]:
    return {DROPIN: f"[Service]\nSockets={' '.join(names)}\n"}


def configured(line: str) -> dict[str, str]:
    return {DROPIN: f"[Service]\n{line}\nExecStart=\nExecStart=/usr/bin/dockerd --config-file main.json\n"}


def mounts(*lines: str) -> dict[str, str]:
    return {DROPIN: "[Service]\n" + "".join(f"{line}\n" for line in lines)}


def carried(path: str) -> dict[str, str]:
    return {"user-data": f"#cloud-config\nwrite_files:\n- path: {path}\n  content: |\n    [Service]\n"
                         "    ExecStart=\n    ExecStart=/usr/bin/dockerd -H 0.0.0.0:4243\n"}


CASES = {
    # EnvironmentFile= with a wildcard
    "a wildcard": Case({**reads("-/etc/docker/env.d/*.env"), "env.d/a.env": OPEN}, "env.d/a.env:1:10"),
    "a wildcard: two files": Case(
        {**reads("/etc/docker/env.d/*.env"), "env.d/a.env": OPEN, "env.d/b.env": "OPTS=--debug\n"}),
    "a wildcard: a template": Case({**reads("/etc/docker/e.d/[a-c].env"), "e.d/b.env.j2": OPEN}, "e.d/b.env.j2:1:10"),
    "a wildcard below a root directory": Case(
        {f"root/etc/systemd/system/{DROPIN}": reads("/opt/d/?.env")[DROPIN], "root/opt/d/a.env": OPEN},
        "root/opt/d/a.env:1:10"),
    "a wildcard: arguments": Case({**reads("-/etc/docker/env.d/*"), "env.d/a": OPEN}, "env.d/a:1:10",
                                  arguments=(DROPIN, "env.d/a")),
    "a wildcard: files within the same file": Case({"user-data": (
        "#cloud-config\nwrite_files:\n- path: /etc/systemd/system/docker.service.d/a.conf\n  content: |\n"
        "    [Service]\n    EnvironmentFile=/etc/d/*\n    ExecStart=\n    ExecStart=/usr/bin/dockerd $OPTS\n"
        "- path: /etc/d/o\n  content: |\n    OPTS=-H tcp://0.0.0.0:4243\n")}, "user-data:11:13"),
    "a wildcard: no file": Case(reads("-/etc/docker/env.d/*.env"), unknown="/etc/docker/env.d/*.env: not among the"),
    "a wildcard: a hidden file": Case({**reads("/etc/e.d/*"), "e.d/.a": OPEN}, unknown="/etc/e.d/*: not among the"),
    "a wildcard: of directories": Case({**reads("-/etc/*/a.env"), "x/a.env": "OPTS=\n"},
                                       unknown="/etc/*/a.env: not among the"),
    "a wildcard: not a file": Case({**reads("/etc/e.d/*"), "e.d/a/b": ""}, unknown="e.d/a: not read, and"),
    "a wildcard: more files than are read": Case(
        {**reads("/etc/e.d/*"), **{f"e.d/{number}": "OPTS=\n" for number in range(51)}}, unknown="not read, and"),
    "a wildcard: a mandatory file": Case(reads("/etc/docker/[a-z].env"), unknown="/etc/docker/[a-z].env: not among"),
    "a wildcard: a variable that is set": Case(
        {DROPIN: f"{reads('-/etc/e.d/*')[DROPIN]}Environment=OPTS=--debug\n"}),
    "a wildcard: no variable": Case({DROPIN: reads("-/etc/e.d/*")[DROPIN].replace("$OPTS", "--debug")}),
    # A relative --config-file
    **{f"a working directory: {line}": Case(
        {**configured(line), file: '{"hosts": ["0.0.0.0:4243"]}'}, f"{file}:1:13") for line, file in (
        ("WorkingDirectory=/opt", "opt/main.json"), ("WorkingDirectory=-/opt/", "opt/main.json"),
        ("WorkingDirectory=~", "root/main.json"), ("User=root", "main.json"),
        ("WorkingDirectory=/x\nWorkingDirectory=", "main.json"))},
    "a working directory: not there": Case(configured("WorkingDirectory=/opt"), "", "/opt/main.json: not among the"),
    # Sockets=
    "a socket unit": Case({**passes("docker.socket", "api.socket"), "api.socket": API, "api.service": TRUE},
                          "api.socket:2:1"),
    "a socket unit: arguments": Case({**passes("api.socket"), "api.socket": API, "api.service": TRUE},
                                     "api.socket:2:1", arguments=(DROPIN, "api.socket", "api.service")),
    "a socket unit: its service is not there": Case({**passes("api.socket"), "api.socket": API}, "api.socket:2:1",
                                                    "/etc/systemd/system/api.service: not among the files"),
    "a socket unit: not there": Case(passes("api.socket"), unknown="/etc/systemd/system/api.socket: not among the"),
    "a socket unit: a drop-in": Case(
        {**passes("api.socket"), "api.socket": "[Socket]\nListenStream=/run/a\n", "api.service": TRUE,
         "api.socket.d/a.conf": API}, "api.socket.d/a.conf:2:1"),
    "a socket unit: safe": Case({**passes("api.socket"), "api.socket": "[Socket]\nListenStream=/run/a\n",
                                 "api.service": TRUE}),
    "a socket unit: a template": Case({**passes("api@x.socket"), "api@.socket": API, "api@.service": TRUE},
                                      "api@.socket:2:1"),
    "the socket unit of Docker": Case(passes("docker.socket")),
    # Paths in write_files
    **{f"write_files: {path}": Case(carried(path), "user-data:7:35") for path in (
        "/etc/systemd/system/docker.service.d/../docker.service.d/x.conf",
        "/etc/systemd/system/x/../docker.service.d/x.conf",
        "/../etc/systemd/system/docker.service.d/x.conf",
        "../etc/systemd/system/docker.service.d/x.conf",
        "//etc/./systemd//system/docker.service.d/x.conf",
        "etc/systemd/system/docker.service.d/x.conf")},
    # What dockerd sees in the place of daemon.json
    **{f"a mount: {line}": Case(mounts(line), "", f"{DROPIN}:2:1: {line.partition('=')[0]}= replaces /") for line in (
        "BindReadOnlyPaths=/opt/app/cfg.json:/etc/docker/daemon.json", "BindPaths=-/opt/app:/etc/docker:norbind",
        'BindPaths=/a "/opt:/etc/"', "BindPaths=/x:%E/docker", "BindReadOnlyPaths=/opt/dockerd:/usr/bin/dockerd",
        "TemporaryFileSystem=/etc:ro", "InaccessiblePaths=-/etc/docker", "MountImages=/x.raw:/etc/docker",
        "ExtensionDirectories=/x", "RootDirectory=/srv/root", "RootImage=/x.raw",
        "BindPaths=/x/../y:/etc/x/../docker")},
    **{f"writes it: {line}": Case(
        mounts(line), "", f"{DROPIN}:2:1: writes daemon.json before dockerd starts") for line in (
        "ExecStartPre=/bin/cp /opt/c.json /etc/docker/daemon.json",
        "ExecStartPre=-/bin/sh -c 'printf x > /etc/docker/daemon.json'",
        "ExecStartPre=/bin/sh -c 'curl x | tee /etc/docker/daemon.json; true'",
        "ExecCondition=/bin/ln -sf /x.json '/etc/docker/daemon.json'")},
    **{f"reads it: {line}": Case(mounts(line)) for line in (
        "ExecStartPre=/bin/test -f /etc/docker/daemon.json",
        "ExecStartPre=/bin/sh -c 'jq . /etc/docker/daemon.json'",
        "ExecStartPre=/bin/sh -c 'cp a b; cat /etc/docker/daemon.json'",
        "ExecStartPost=/bin/cp /etc/docker/daemon.json.new /x")},
    **{f"no mount: {'; '.join(lines)}": Case(mounts(*lines)) for lines in (
        ("BindPaths=/etc/docker",), ("BindPaths=/etc/docker:/etc/docker/",), ("BindPaths=/data:/var/lib/docker",),
        ("BindReadOnlyPaths=/x:/etc/docker/daemon.json", "BindPaths="), ("TemporaryFileSystem=/etc/dock",),
        ("RootDirectory=/",), ("RootDirectory=/x", "RootDirectory="))},
}


def write(here: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)


@pytest.mark.parametrize("name", CASES)
def test_what_units_refer_to(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    write(tmp_path, case.files)
    monkeypatch.chdir(tmp_path)
    said = call("lint", *case.arguments, "--select", "DG103,DG205,DG302")
    assert said.code == case.code, said.out + said.err
    assert said.out.startswith(f"{case.found}: error: tcp://0.0.0.0:4243 ") or not case.found, said.out
    assert case.unknown in said.err
    if not case.unknown:
        assert "not known" not in said.err and "not read" not in said.err, said.err


@pytest.mark.parametrize(("host", "found"), [
    ("tcp://%i:2375", "error: tcp://%i:2375 (-H) exposes"),
    ("tcp://%I:2375", "error: tcp://%I:2375 (-H) exposes"),
    ("tcp://0.0.0.0:%i", "error: tcp://0.0.0.0:%i (-H) exposes"),
    ("tcp://%i:%i", "error: tcp://%i:%i (-H) exposes"),
    ("%i", "cannot be known"),
    ("unix:///run/docker-%i.sock", ""),
])
def test_the_instance_of_a_template(
    host: str, found: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unit = f"[Unit]\nDescription=%i\n[Service]\nExecStart=/usr/bin/dockerd -D -H {host}\n"
    write(tmp_path, {"docker@.service": unit})
    said = call("lint", ".")
    if "error" in found:
        assert f"docker@.service:4:34: {found}" in said.out and said.code == 1, said.out
    else:
        assert said.code == (2 if found else 0), said.out + said.err
    assert "DG203" not in said.out
    assert "192.0.2" not in said.out + said.err and "{{" not in said.out + said.err
