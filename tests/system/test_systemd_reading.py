"""The tables of expected unit properties, checked against the real systemd."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from typing import Any

from tests.machines.machine import Machine
from tests.unit.systemd_cases import Case, Content, Directory, Facts, Link, at, cases
from tests.unit.test_systemd_reading import NOT_TEXT, named

VERSIONS = {"bookworm": 252, "trixie": 257, "sid": 262}
def test_systemd_matches_the_tables(bare_machine: Machine) -> None:
    version = VERSIONS[bare_machine.release]
    units = {f"case{number:03}": case for number, case in enumerate(cases())}
    subprocess.run(bare_machine.command("tar", "-x", "-C", "/"), input=_archive(units), check=True)
    bare_machine.run("systemctl daemon-reload")

    shown = _shown(bare_machine, [case.unit.replace("UNIT", stem) for stem, case in units.items()])
    wrong = []
    for (stem, case), found in zip(units.items(), shown, strict=True):
        expected = named({"state": "loaded"} | at(case.facts, version), stem)
        assert isinstance(expected, dict)
        if expected["state"] == NOT_TEXT:
            assert found["argv"] is None, case.name  # D-Bus cannot send invalid UTF-8
        elif differing := {key: (found[key], expected[key]) for key in expected if found[key] != expected[key]}:
            wrong.append(f"{case.name}: {differing}")
    assert not wrong, "\n".join(wrong)


def _archive(units: dict[str, Case]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for stem, case in units.items():
            for path, content in case.files.items():
                _add(archive, path.replace("UNIT", stem).lstrip("/"), content, stem)
    return packed.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: Content, stem: str) -> None:
    member = tarfile.TarInfo(path)
    member.mode = 0o644
    data = b""
    if isinstance(content, Link):
        member.type, member.linkname = tarfile.SYMTYPE, content.target.replace("UNIT", stem)
    elif isinstance(content, Directory):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    else:
        data = (content if isinstance(content, bytes) else content.encode()).replace(b"UNIT", stem.encode())
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _shown(machine: Machine, units: list[str]) -> list[Facts]:
    """Return the facts from the units' D-Bus properties; None for values that D-Bus cannot send."""
    script = []
    for unit in units:
        path = "/org/freedesktop/systemd1/unit/" + "".join(
            letter if letter.isalnum() else f"_{ord(letter):02x}" for letter in unit)
        script += [
            f"busctl --json=short call org.freedesktop.systemd1 {path} org.freedesktop.DBus.Properties GetAll s "
            f"org.freedesktop.systemd1.{interface} 2>/dev/null || echo null\n"
            for interface in ("Unit", "Socket" if unit.endswith(".socket") else "Service")
        ]
    answers = [json.loads(line) for line in machine.run(["sh"], input="".join(script)).out.splitlines()]
    values = [{} if answer is None else {name: value["data"] for name, value in answer["data"][0].items()}
              for answer in answers]
    return [_facts(general | own) for general, own in zip(values[::2], values[1::2], strict=True)]


def _facts(values: dict[str, Any]) -> Facts:
    commands = values.get("ExecStart")
    fragment = values["FragmentPath"]
    return {
        "state": values["LoadState"],
        "dropins": values["DropInPaths"],
        # Up to 254 the search path may contain /lib before /usr/lib.
        "fragment": "/usr" + fragment if fragment.startswith("/lib") else fragment,
        "names": sorted(values["Names"]),
        "argv": commands and [command[1] for command in commands],
        "environment": values.get("Environment"),
        "type": values.get("Type"),
        "listen": values.get("Listen"),
    }
