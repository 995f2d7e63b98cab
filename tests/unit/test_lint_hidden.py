"""`lint FILE`: what hides an exposure from the linter and not from systemd or Compose, and what only looks like one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dockerd_guard.observe import carriers
from dockerd_guard.observe.yaml_nodes import UnreadableYaml
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

EXEC = "ExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"
SOCKET = "volumes: ['/run/docker.sock:/s']\n"
A = "services:\n  a:\n    image: x\n    "
DROPIN, ENVIRONMENT, COMPOSE, QUADLET = "docker.service.d/o.conf", "etc/default/docker", "compose.yaml", "web.container"


def between(begin: str, end: str) -> tuple[str, str]:
    """A drop-in with its settings between two comments."""
    return DROPIN, f"[Service]\n# {begin}\n{EXEC}# {end}\n"


FOUND: dict[str, tuple[str, str, str]] = {
    **{f"a tag in a comment: {begin}": (*between(begin, end), f"{DROPIN}:4:31") for begin, end in (
        ("<%", "%>"), ("<%#", "%>"), ("<%=", "%>"), ("{%", "%}"), ("{{", "}}"), ("{#", "#}"), ("{{/*", "*/}}"),
        ("{% if x %}", "{% endif %}"))},
    "a tag in a value": (DROPIN, f"[Service]\nSyslogIdentifier={{{{\n{EXEC}SyslogIdentifier=}}}}\n", f"{DROPIN}:4:31"),
    # `%%` is a percent sign to systemd.
    **{f"an option between {begin} and {end} in values": (
        DROPIN, "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd "
        f"--label=x={begin}x -H tcp://0.0.0.0:2375 --label=y={end}\n", f"{DROPIN}:3:{43 + len(begin)}")
        for begin, end in (("{{", "}}"), ("{%%", "%%}"), ("{#", "#}"), ("${", "}"))},
    "an option between braces in values of an environment file": (
        ENVIRONMENT, 'DOCKER_OPTS="--label=x={{x -H tcp://0.0.0.0:2375 --label=y=}}"\n', f"{ENVIRONMENT}:1:31"),
    "an option between braces in variables of a unit": (
        DROPIN, '[Service]\nEnvironment="X={{x" DOCKER_OPTS="-H tcp://0.0.0.0:2375" "Y=}}"\nExecStart=\n'
        "ExecStart=/usr/bin/dockerd $DOCKER_OPTS\n", f"{DROPIN}:2:37"),
    "a tag in a comment of an environment file": (
        ENVIRONMENT, '# <%#\nDOCKER_OPTS="-H tcp://0.0.0.0:2375"\n# %>\n', f"{ENVIRONMENT}:2:17"),
    "a container of Podman with a [Service]": (
        QUADLET, "[Container]\nImage=docker.io/x\nVolume=/run/docker.sock:/s\nPublishPort=80:80\n"
        "[Service]\nRestart=no\n", f"{QUADLET}:4:13"),
    "an alias of a list": (COMPOSE, f"x: &v\n- /run/docker.sock:/s\n{A}volumes: *v\n    ports: ['80:80']\n",
                           f"{COMPOSE}:7:14"),
    "an alias of ports": (COMPOSE, f"x: &p ['80:80']\n{A}{SOCKET}    ports: *p\n", f"{COMPOSE}:1:9"),
    "an alias of a service": (
        COMPOSE, "x: &s {image: y, volumes: ['/run/docker.sock:/s'], ports: ['80:80']}\nservices:\n  a: *s\n",
        f"{COMPOSE}:1:61"),
    "merged keys of two mappings": (
        COMPOSE, "x: &v {volumes: ['/run/docker.sock:/s']}\ny: &p {ports: ['80:80']}\n"
        "services:\n  a:\n    <<: [*v, *p]\n    image: x\n", f"{COMPOSE}:2:17"),
    "the host's network by default": (COMPOSE, f"{A}{SOCKET}    network_mode: ${{NM:-host}}\n", f"{COMPOSE}:5:19"),
    "the host's network by its name": (
        COMPOSE, f"{A}{SOCKET}    networks: [h]\nnetworks:\n  h: {{external: true, name: host}}\n", f"{COMPOSE}:5:16"),
    "an external network that is called host": (
        COMPOSE, f"{A}{SOCKET}    networks: {{host: {{}}}}\nnetworks:\n  host: {{external: true}}\n",
        f"{COMPOSE}:5:16"),
    "volumes_from": (COMPOSE, f"{A}volumes_from: ['b:ro']\n    ports: ['80:80']\n  b:\n    image: y\n    {SOCKET}",
                     f"{COMPOSE}:5:14"),
    "use_api_socket": (COMPOSE, f"{A}use_api_socket: true\n    ports: ['80:80']\n", f"{COMPOSE}:5:14"),
}
"""Name and text of a file, and where DG103 or DG108 is."""


def write(directory: Path, path: str, text: str) -> None:
    (directory / path).parent.mkdir(parents=True, exist_ok=True)
    (directory / path).write_text(text)


@pytest.mark.parametrize("name", FOUND)
def test_what_is_hidden_is_found(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text, place = FOUND[name]
    write(tmp_path, path, text)
    monkeypatch.chdir(tmp_path)
    for argument in (path, "."):
        said = call("lint", argument, "--format", "json")
        assert said.code == 1, said.out + said.err
        found = [f"{each['file']}:{each['line']}:{each['column']}" for each in said.json["findings"]
                 if each["code"] in ("DG103", "DG108")]
        assert found == [place], said.out


UNKNOWN: dict[str, tuple[str, str, str]] = {
    "network_mode": (COMPOSE, f"{A}{SOCKET}    network_mode: ${{NM}}\n", "the value of its network_mode is not known"),
    "ports": ("compose.yaml.j2", f"{A}{SOCKET}    ports: {{{{ ports | to_json }}}}\n",
              "the value of its ports is not known"),
    "a setting of Environment=": (
        "o.conf.j2", '[Service]\nEnvironment="{{ docker_env }}"\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// $X\n',
        "the value of {{ docker_env }} is not known, and it decides where dockerd listens"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_no_all_clear(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text, message = UNKNOWN[name]
    write(tmp_path, path, text)
    monkeypatch.chdir(tmp_path)
    said = call("lint", path)
    assert (said.code, said.out) == (2, "nothing wrong in what could be observed\n"), said.err
    assert message in said.err
    assert "neither publishes" not in said.err


OPEN_ALL = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"
NAMED: dict[str, tuple[str, str, int]] = {
    "a drop-in of the snap": (
        "systemd/snap.docker.dockerd.service.d/o.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/snap run docker.dockerd -H tcp://0.0.0.0:2375\n", 3),
    "a drop-in of a unit that is not there": ("docker@a.service.d/o.conf", OPEN_ALL, 3),
    "a command before dockerd writes its environment": (
        DROPIN, '[Service]\nExecStartPre=/bin/sh -c "echo X=tcp://0.0.0.0:2375 > /run/d.env"\n'
        "EnvironmentFile=-/run/d.env\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// $X\n", 2),
    "a condition writes daemon.json": (
        DROPIN, """[Service]\nExecCondition=/bin/sh -c "echo '{\\"hosts\\":[\\"tcp://0.0.0.0:2375\\"]}' > """
        """/etc/docker/daemon.json"\nExecStart=\nExecStart=/usr/bin/dockerd\n""", 2),
}
"""Name and text of a file, and the line that names an address in a form that is not evaluated."""


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_evaluated_is_named(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text, line = NAMED[name]
    write(tmp_path, path, text)
    monkeypatch.chdir(tmp_path)
    for argument in (path, "."):
        said = call("lint", argument)
        assert said.code == 2, said.out + said.err
        assert f"{path}:{line}: names a TCP address for dockerd, in a form that is not evaluated" in said.err


HARMLESS: dict[str, tuple[str, str, int]] = {
    "a container of Podman from Docker's registry": (
        QUADLET, "[Container]\nImage=docker.io/nginx\nPublishPort=80:80\n[Service]\nRestart=always\n", 2),
    "a file named after the socket": (COMPOSE, f"{A}volumes: ['./docker.sock.conf:/x']\n    ports: ['80:80']\n", 2),
    "a directory named after the socket": (
        COMPOSE, f"{A}volumes: ['data:/var/run/docker.sock.d']\n    ports: ['80:80']\n", 2),
    "a command before dockerd that writes nothing": (
        DROPIN, "[Service]\nExecStartPre=/usr/bin/mkdir -p /etc/docker\nExecStart=\n"
        "ExecStart=/usr/bin/dockerd -H fd://\n", 0),
    "merged keys that are known": (
        COMPOSE, f"x: &d {{restart: always}}\n{A}<<: *d\n    {SOCKET}  b:\n    <<: *d\n    ports: ['80:80']\n", 0),
}
"""Name and text of a file, and the exit code: 2 where nothing has the API socket."""


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_like_it_is_no_finding(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text, code = HARMLESS[name]
    write(tmp_path, path, text)
    monkeypatch.chdir(tmp_path)
    said = call("lint", path, "--format", "json")
    assert (said.code, said.json["findings"]) == (code, []), said.out + said.err


BASE = f"services:\n  b:\n    {SOCKET}"
EXTENDS = f"{A}extends: {{file: ../base/b.yaml, service: b}}\n    ports: ['80:80']\n"


@pytest.mark.parametrize(("arguments", "code"), [(["."], 1), (["app/compose.yaml", "base/b.yaml"], 1), (["app"], 2)])
def test_a_service_of_another_directory_is_extended(
    arguments: list[str], code: int, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "app/compose.yaml", EXTENDS)
    write(tmp_path, "base/b.yaml", BASE)
    monkeypatch.chdir(tmp_path)
    said = call("lint", *arguments)
    assert said.code == code, said.out + said.err
    assert ("app/compose.yaml:5:14: error: the container a mounts the API socket" in said.out) == (code == 1)
    assert ("app/compose.yaml: a extends one of base/b.yaml, which is not read" in said.err) == (code == 2)


@pytest.mark.parametrize("text", [
    "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: v}}\n" for n in range(1, 60)),
    "v: &v [" + "x," * 20_000 + "]\nservices:\n" + "".join(f"  s{n}: {{volumes: *v}}\n" for n in range(20_000)),
    "s: &s {self: *s}\nservices: {a: *s}\n",
], ids=["lists of lists", "merges of merges", "a long list for many", "itself"])
def test_aliases_take_bounded_time(text: str) -> None:
    def work() -> None:
        try:
            carriers.read("compose.yaml", text)
        except UnreadableYaml as error:
            assert "values with those of its aliases" in str(error)

    check_cpu_time(work, 4)


def test_tags_without_an_end_take_linear_time() -> None:
    from dockerd_guard.observe import templates

    for text in ("{{" * 500_000, "{{\n" * 300_000, "# {{ x\n" * 100_000 + "}}"):
        began = time.process_time()
        templates.render("o.conf", text, "unit")
        assert time.process_time() - began < 4
