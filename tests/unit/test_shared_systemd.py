"""systemd's own test vectors, and results recorded from systemd 252 for directories of unit files.

The vectors are in ../shared/vectors/systemd.json.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.assignments import Variable
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.sockets import load_socket, parse_address
from dockerd_guard.systemd.syntax import BadFileError, settings
from dockerd_guard.systemd.units import load_service
from dockerd_guard.systemd.words import Rules, WordError, extract_first_word
from tests.support import shared

TOPICS = shared.vectors("systemd")["topics"]
DIRECTORIES = {"hi": "etc/systemd/system", "mid": "run/systemd/system", "lo": "usr/lib/systemd/system", "ext": "srv"}
SERVICE = "/usr/lib/systemd/system/docker.service"

Vector = dict[str, Any]


def topic(name: str) -> list[Any]:
    vectors = TOPICS[name]
    if name == "replace_env_argv":
        return list(vectors["per_word"])
    named = enumerate(vectors["vectors"])
    return [pytest.param(vector, id=str(vector.get("name", number))) for number, vector in named]


def write(root: Path, files: dict[str, Any], symlinks: dict[str, str]) -> None:
    def place(name: str) -> Path:
        directory, _, rest = name.partition("/")
        path = root / DIRECTORIES[directory] / rest
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    for name, content in files.items():
        data = bytes.fromhex(content["hex"]) if isinstance(content, dict) else content.encode()
        place(name).write_bytes(data)
    for name, target in symlinks.items():
        inside = target.removeprefix("/ROOT/t/")
        directory, _, rest = inside.partition("/")
        place(name).symlink_to(target if inside == target else f"/{DIRECTORIES[directory]}/{rest}")


def service(root: Path, text: str) -> Any:
    write(root, {"lo/docker.service": "[Service]\nType=oneshot\n" + text}, {})
    return load_service(Rootfs(str(root)), version=257)


@pytest.mark.parametrize("name", ["extract_first_word", "extract_first_word_and_warn"])
def test_words(name: str) -> None:
    used = ("EXTRACT_UNQUOTE", "EXTRACT_CUNESCAPE", "EXTRACT_RELAX", "EXTRACT_UNESCAPE_RELAX")
    tried = 0
    for vector in TOPICS[name]["vectors"]:
        if any(step["separators"] or set(step["flags"]).difference(used) for step in vector["steps"]):
            continue  # flags that no supported setting uses
        text, position = vector["input"], 0
        for step in vector["steps"]:
            rules = Rules(*(flag in step["flags"] for flag in used))
            tried += 1
            try:
                try:
                    found = extract_first_word(text, position, rules)
                except WordError:
                    if name == "extract_first_word":
                        raise
                    found = extract_first_word(text, position, rules._replace(keep_unknown_escapes=True))
            except WordError as error:
                assert step["ret"] == "==-EINVAL", vector
                assert len(text[:error.position].encode()) == step["rest_offset_bytes"], vector
                break
            assert (None if found is None else found.text) == step["word"], vector
            position = found.next if found else len(text)
            if "rest_offset_bytes" in step:
                assert len(text[:position].encode()) == step["rest_offset_bytes"], vector
    assert tried > 20


@pytest.mark.parametrize("vector", topic("config_parse_exec"))
def test_exec(vector: Vector, tmp_path: Path) -> None:
    loaded = service(tmp_path, f"ExecStart={vector['rvalue']} \nExecStart=/last\n")
    commands = loaded.exec_start[:-1] if loaded.exec_start and loaded.exec_start[-1].path == "/last" else None
    if "error" in vector:
        assert loaded.unit.load_state == "bad-setting"
        return
    assert loaded.unit.load_state == "loaded"
    assert commands is not None
    assert [
        {"path": c.path, "argv": [word.text for word in c.argv], "ignore_failure": "-" in c.prefixes} for c in commands
    ] == vector.get("commands", [])


@pytest.mark.parametrize("vector", topic("conf_parser"))
def test_syntax(vector: Vector) -> None:
    sections = ("Section", "NoWarnSection")
    if "content" not in vector:
        line = "x" * (1 << 20)
        for text in (f"setting1={line}\n", f"setting1={line[:600_000]}\\\n{line[:600_000]}\n"):
            with pytest.raises(BadFileError):
                list(settings(("[Section]\n" + text).encode(), "/f", sections, [], 257))
        return
    found = [s for s in settings(vector["content"].encode(), "/f", sections, [], 257) if s.section == "Section"]
    assert found[-1].value == vector["value"]


@pytest.mark.parametrize("vector", topic("env_file"))
def test_environment_file(vector: Vector) -> None:
    found = read_environment_file(vector["content"].encode(), "/f", 257)
    assert bool(found.error) == ("error" in vector)
    assert [f"{name}={value}" for name, value in {a.name: a.value for a in found.assignments}.items()] == (
        vector.get("env", []))
    assert all(a.variable.location is not None for a in found.assignments)


@pytest.mark.parametrize("vector", topic("replace_env_argv"))
def test_expansion(vector: Vector, tmp_path: Path) -> None:
    environment = {"FOO": Variable("BAR BAR"), "BAR": Variable("waldo")}
    command = service(tmp_path, f"ExecStart=/x '{vector['word']}'\n").exec_start[0]
    assert [argument.text for argument in expand(command, environment)[1:]] == vector["expands_to"]


# -ENODEV depends on the network interfaces of the host.
@pytest.mark.parametrize("vector", [vector for vector in topic("socket_address_parse")
                                    if vector.values[0]["ret"] != "-ENODEV"])
def test_socket_address(vector: Vector) -> None:
    assert parse_address(vector["in"]) == vector["prints"]


@pytest.mark.parametrize("vector", topic("specifiers"))
def test_specifiers(vector: Vector, tmp_path: Path) -> None:
    loaded = service(tmp_path, f"ExecStart=/x '{vector['in']}'\n")
    if vector["out"].startswith("error"):
        assert loaded.unit.load_state == "bad-setting"
    else:
        assert loaded.exec_start[0].argv[1].text == vector["out"].partition(" (")[0]


ORACLES = ("oracle_dropins_aliases_masks", "oracle_syntax_exec_env", "oracle_more", "oracle_listenstream")


@pytest.mark.parametrize("vector", [vector for name in ORACLES for vector in topic(name)])
def test_recorded_directories(vector: Vector, tmp_path: Path) -> None:
    write(tmp_path, vector["files"], vector["symlinks"])
    rootfs = Rootfs(str(tmp_path))
    is_socket = vector["unit"].endswith(".socket")
    loaded: Any = load_socket(rootfs, vector["unit"], 252) if is_socket else load_service(rootfs, vector["unit"], 252)
    expected = vector["expect"]

    assert (loaded.unit.load_state == "loaded") == expected["loads"], loaded.unit.reason
    if not expected["loads"]:
        return
    assert [loaded.unit.fragment] == inside(expected["fragment"])
    assert sorted(loaded.unit.dropins) == sorted(inside(expected.get("dropins", [])))
    assert set(loaded.unit.names) - {vector["unit"]} == set(expected.get("names", []))
    if is_socket:
        assert [f"Listen{listen.kind}: {listen.address}" for listen in loaded.listen] == [
            # Recorded from a user manager, whose %t differs.
            line.replace("/ROOT/run", "/run") for line in expected["listen"]
        ]
        return
    assert [[word.text for word in command.argv] for command in loaded.exec_start] == [
        shlex.split(line.replace("\\$", "$")) for line in expected["cmd"]
    ]
    assert sorted(f"{a.name}={a.value}" for a in loaded.environment) == sorted(expected.get("env", []))
    assert [file.path for file in loaded.environment_files] == expected.get("envfile", [])


def inside(paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        directory, _, rest = path.partition("/")
        found.append(f"/{DIRECTORIES[directory]}/{rest}")
    return found
