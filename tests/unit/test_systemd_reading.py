"""Loading of unit files compared with the tables of systemd_cases, for each release."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.sockets import load_socket
from dockerd_guard.systemd.units import load_service
from tests.unit.systemd_cases import Case, Content, Directory, Facts, Link, at, cases

NOT_TEXT = "not text"


def put(root: Path, files: Mapping[str, Content], stem: str) -> None:
    """Write files, with UNIT replaced in names and content."""
    for name, content in files.items():
        path = root / name.lstrip("/").replace("UNIT", stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target.replace("UNIT", stem))
        elif isinstance(content, Directory):
            path.mkdir()
        else:
            data = content if isinstance(content, bytes) else content.encode()
            path.write_bytes(data.replace(b"UNIT", stem.encode()))


def named(facts: object, stem: str) -> object:
    """Return the facts with UNIT replaced in all strings."""
    if isinstance(facts, str):
        return facts.replace("UNIT", stem)
    if isinstance(facts, list):
        return [named(item, stem) for item in facts]
    return {key: named(value, stem) for key, value in facts.items()} if isinstance(facts, dict) else facts


def reading(rootfs: Rootfs, unit: str, version: int) -> Facts:
    """Return our result for a unit."""
    if unit.endswith(".socket"):
        socket = load_socket(rootfs, unit, version)
        found: Facts = {"listen": [[listen.kind, listen.address] for listen in socket.listen]}
        loaded = socket.unit
    else:
        service = load_service(rootfs, unit, version)
        loaded = service.unit
        found = {
            "argv": [[word.text for word in command.argv] for command in service.exec_start],
            "environment": [f"{each.name}={each.value}" for each in service.environment],
            "type": service.type,
        }
    return found | {"state": loaded.load_state, "dropins": list(loaded.dropins), "fragment": loaded.fragment,
                    "names": sorted(loaded.names)}


@pytest.mark.parametrize("version", [252, 257, 262])
@pytest.mark.parametrize("case", tuple(cases()), ids=lambda case: case.name)
def test_unit_loads_as_in_systemd(case: Case, version: int, tmp_path: Path) -> None:
    put(tmp_path, {"/etc/passwd": "", **case.files}, "unit")
    expected = named({"state": "loaded"} | at(case.facts, version), "unit")
    assert isinstance(expected, dict)

    with Rootfs(os.fspath(tmp_path)) as rootfs:
        found = reading(rootfs, case.unit.replace("UNIT", "unit"), version)

    if expected["state"] == NOT_TEXT:
        assert isinstance(found["argv"], list)
        assert not any(text.isprintable() for text in found["argv"][0][1:])
    else:
        assert {key: found[key] for key in expected} == expected
