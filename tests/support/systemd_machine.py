"""Ask a machine's systemd: the properties of units by D-Bus, and what it starts by the recorder."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from tests.differential.bench import recorder
from tests.machines.machine import Machine
from tests.support.unit_files import Content, archive
from tests.support.vectors import RECORDER, STARTED, Document, Facts, answer_of, files_of, unit_of

RECORDS = "/run/differential/records"

SHOW_RECORDS = r"""
import json, os
found = []
for name in sorted(os.listdir("/run/differential/records")):
    read = lambda what: open(f"/run/differential/records/{name}/{what}", "rb").read().decode("utf-8", "surrogateescape")
    found.append([read("cgroup").strip(), read("argv").split("\0")[:-1], read("environ").split("\0")[:-1]])
print(json.dumps(found))
"""


def answers(machine: Machine, documents: Iterable[Document]) -> dict[str, list[Any]]:
    """Return the answers of this machine's systemd to all vectors, by topic."""
    machine.copy_in(recorder(), RECORDER)
    machine.run(f"chmod 755 {RECORDER} && mkdir -p {RECORDS}")
    asked = {}
    for document in documents:
        topic = document.topic
        for number, vector in enumerate(document.vectors):
            asked[f"{topic.replace('_', '')}{number:03}"] = (topic, vector)
    files = {stem: files_of(topic, vector) for stem, (topic, vector) in asked.items()}
    units = {stem: unit_of(topic, vector).replace("UNIT", stem) for stem, (topic, vector) in asked.items()}
    # A drop-in for all services changes the other units as well.
    alone = [stem for stem in files if any(re.search("/(service|socket)\\.d/", path) for path in files[stem])]
    together = [stem for stem in files if stem not in alone]
    put(machine, ((stem, files[stem]) for stem in together))
    facts = dict(zip(together, shown(machine, [units[stem] for stem in together]), strict=True))
    _start(machine, {stem: units[stem] for stem in together if asked[stem][0] in STARTED}, facts)
    for stem in alone:
        put(machine, [(stem, files[stem])])
        facts[stem], = shown(machine, [units[stem]])
        machine.remove(*(path.replace("UNIT", stem) for path in files[stem]))
    found: dict[str, list[Any]] = {}
    for stem, (topic, _) in asked.items():
        found.setdefault(topic, []).append(_unnamed(answer_of(topic, facts[stem]), stem))
    return found


def put(machine: Machine, units: Iterable[tuple[str, Mapping[str, Content]]]) -> None:
    """Write the files of units and have systemd read them."""
    subprocess.run(machine.command("tar", "-x", "-C", "/"), input=archive(units), check=True)
    machine.run("systemctl daemon-reload")


def shown(machine: Machine, units: list[str]) -> list[Facts]:
    """Return the units' facts by their D-Bus properties; None for those that D-Bus cannot send."""
    script = []
    for unit in units:
        path = "/org/freedesktop/systemd1/unit/" + "".join(
            letter if letter.isascii() and letter.isalnum() else f"_{ord(letter):02x}" for letter in unit)
        script += [
            f"busctl --json=short call org.freedesktop.systemd1 {path} org.freedesktop.DBus.Properties GetAll s "
            f"org.freedesktop.systemd1.{interface} 2>/dev/null || echo null\n"
            for interface in ("Unit", "Socket" if unit.endswith(".socket") else "Service")
        ]
    answers_ = [json.loads(line) for line in machine.run(["sh"], input="".join(script)).out.splitlines()]
    values = [{} if answer is None else {name: value["data"] for name, value in answer["data"][0].items()}
              for answer in answers_]
    return [_facts(general | own) for general, own in zip(values[::2], values[1::2], strict=True)]


def _facts(values: dict[str, Any]) -> Facts:
    commands = values.get("ExecStart")
    fragment = values["FragmentPath"]
    return {
        "state": values["LoadState"],
        "dropins": values["DropInPaths"],
        # Up to 254 the search path can have the other name of /usr/lib, too, and has it first.
        "fragment": "/usr" + fragment if fragment.startswith("/lib") else fragment,
        "names": sorted(values["Names"]),
        "argv": commands and [command[1] for command in commands],
        "commands": [{"path": path, "argv": argv, "flags": [
            flag for flag in ("ignore-failure", "no-env-expand") if flag in flags]}
            for path, argv, flags, *_ in values.get("ExecStartEx", ())],
        "environment": values.get("Environment"),
        "type": values.get("Type"),
        "listen": values.get("Listen"),
    }


def _start(machine: Machine, units: Mapping[str, str], facts: Mapping[str, Facts]) -> None:
    """Start the units and add to their facts what the recorder saw, or "failed"."""
    put(machine, [("plain", {"/run/systemd/system/UNIT.service": f"[Service]\nType=oneshot\nExecStart={RECORDER}\n"})])
    machine.run(["systemctl", "start", "plain.service", *units.values()], check=False)
    records = {cgroup.rpartition("/")[2]: (argv, dict(each.partition("=")[::2] for each in environ))
               for cgroup, argv, environ in json.loads(machine.run(["python3", "-c", SHOW_RECORDS]).out)}
    plain = records["plain.service"][1].keys()
    for stem, unit in units.items():
        argv, environ = records.get(unit, (None, {}))
        facts[stem]["recorded_argv"] = "failed" if argv is None else argv[1:]
        facts[stem]["recorded_environment"] = "failed" if argv is None else {
            name: value for name, value in environ.items() if name not in plain}


def _unnamed(answer: object, stem: str) -> object:
    """Return the answer with UNIT for the unit's name."""
    text = json.dumps(answer)
    return json.loads(text.replace(stem, "UNIT"))
