"""moby's own test vectors, and results of real releases for argv, environment and daemon.json.

They are in ../shared/vectors/dockerd.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.dockerd.gotext import trim
from dockerd_guard.dockerd.hosts import InvalidHost, parse_host, validate
from dockerd_guard.dockerd.options import options_of
from dockerd_guard.dockerd.version import Version
from tests.support import shared

VECTORS = shared.vectors("dockerd")
MODES = {"none": "none", "server-only": "server", "mutual": "mutual"}

Vector = dict[str, Any]


def parameters(name: str, rows: Callable[[Any], list[Any]]) -> list[Any]:
    return rows(VECTORS[name])


def nothing(path: str) -> bytes:
    raise FileNotFoundError(path)


def without_detail(message: str) -> str:
    """Remove Go's reason for a failed ParseAddr(...)."""
    return re.sub(r"(ParseAddr\(.*?\)): .*", r"\1", message)


@pytest.mark.parametrize("vector", parameters("host_parsing", lambda rows: [
    pytest.param({**row, "version": version, "result": result}, id=f"{version}-{row['input']!r}-{row['rootless']}")
    for row in rows for version, result in row["results"].items()
]))
def test_host_parsing(vector: Vector) -> None:
    version = Version.parse(vector["version"])
    environ = {"ROOTLESSKIT_STATE_DIR": "/x", "XDG_RUNTIME_DIR": "/run/user/1000"} if vector["rootless"] else {}
    value = vector["input"]
    if not trim(value):
        hosts = resolve_daemon(("dockerd", "-H", value), environ, nothing, version).hosts
        assert {"out": hosts[0].address} == vector["result"]
        return
    try:
        validate(value, version)
        found = {"out": parse_host(trim(value), version)}
        if version >= Version(29):
            # Only these rows were recorded from dockerd itself, which validates the normalised address again.
            validate(found["out"], version)
    except InvalidHost as error:
        found = {"err": without_detail(str(error))}
    wanted = dict(vector["result"])
    if "err" in wanted:
        message = wanted["err"].removeprefix("flag: ").rpartition('"-H, --host" flag: ')[2]
        wanted["err"] = without_detail(message)
    assert found == wanted


@pytest.mark.parametrize("vector", parameters("cli_and_config", lambda rows: [
    pytest.param(row, id=row["label"]) for row in rows
]) + parameters("tls_matrix", lambda rows: [pytest.param(row, id=f"tls: {row['label']}") for row in rows]))
def test_cli_and_config(vector: Vector) -> None:
    """`server_tls` ERR means that the certificates did not exist, which is not an error here."""
    content = vector["daemon_json"]
    text = b"" if content is None else content.encode() if isinstance(content, str) else json.dumps(content).encode()
    daemon = resolve_daemon(("dockerd", "--config-file=/cfg", *vector["argv"]), {"HOME": "$HOME", **vector["env"]},
                            lambda _: text, Version.parse(vector["version"]))
    result = vector["result"]
    if "hosts" not in result:
        # An error, or a flag that prints and exits.
        assert not daemon.starts
        return
    # The vectors do not include listening.
    if not daemon.starts:
        assert daemon.reason is not None
        assert daemon.reason.startswith(("failed to load listeners: ", "failed to start ", "configuration OK"))
    else:
        assert [entry.address for entry in daemon.hosts] == result["hosts"]
    mode = MODES.get(result["server_tls"]) or ("mutual" if result["tlsverify"] else "server")
    assert daemon.tls.mode == mode
    if mode != "none":
        found = {"tlscacert": daemon.tls.ca, "tlscert": daemon.tls.cert, "tlskey": daemon.tls.key}
        assert {name: found[name] for name in found if name in result} == {
            name: result[name] or None for name in found if name in result}


@pytest.mark.parametrize("vector", parameters("moby_tests", lambda tests: [
    pytest.param((version.removeprefix("docker-"), value, wanted), id=f"{version}-{name}-{value!r}")
    for version, tables in tests.items() for name, rows in tables.items() if name.startswith("TestParseDocker")
    for value, wanted in rows.items()
]))
def test_moby_parse_docker_daemon_host(vector: tuple[str, str, str]) -> None:
    version, value, wanted = vector
    try:
        found = parse_host(value, Version.parse(version))
    except InvalidHost as error:
        found = str(error)
    assert found == wanted


@pytest.mark.parametrize("vector", parameters("moby_tests", lambda tests: [
    pytest.param((version.removeprefix("docker-"), value, wanted), id=f"{version}-{name}-{value!r}")
    for version, tables in tests.items() for name, rows in tables.items() if name.startswith("TestParseHost.")
    for value, wanted in rows.items()
]))
def test_moby_parse_host(vector: tuple[str, str, str]) -> None:
    version, value, wanted = vector
    daemon = resolve_daemon(("dockerd", f"-H={value}" if value else "--host="), {}, nothing, Version.parse(version))
    found = daemon.hosts[0].address if daemon.starts else daemon.reason or ""
    if "://" in wanted and not wanted.startswith("invalid ") and not daemon.starts:
        found = parse_host(trim(value), Version.parse(version))
    assert found.endswith(wanted)


@pytest.mark.parametrize("kind", ["bool", "value"])
def test_short_flags(kind: str) -> None:
    for letter, name in VECTORS["short_flags"][kind].items():
        options = options_of(Version(23) if letter == "g" else Version(29, 7, 2))
        option = options.by_letter[letter]
        assert (option.name, option.kind == "bool") == (name.partition(" ")[0], kind == "bool")
