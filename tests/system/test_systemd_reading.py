"""The tables of expected unit properties, checked against the real systemd."""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.support.systemd_cases import NOT_TEXT, at, cases
from tests.support.systemd_machine import put, shown
from tests.support.unit_files import named
from tests.support.vectors import SYSTEMD


def test_systemd_matches_the_tables(bare_machine: Machine) -> None:
    version = SYSTEMD[bare_machine.release]
    units = {f"case{number:03}": case for number, case in enumerate(cases())}
    put(bare_machine, ((stem, case.files) for stem, case in units.items()))

    found = shown(bare_machine, [named(case.unit, stem) for stem, case in units.items()])
    wrong = []
    for (stem, case), facts in zip(units.items(), found, strict=True):
        expected = named({"state": "loaded"} | at(case.facts, version), stem)
        if expected["state"] == NOT_TEXT:
            assert facts["argv"] is None, case.name  # D-Bus cannot send invalid UTF-8
        elif differing := {key: (facts[key], expected[key]) for key in expected if facts[key] != expected[key]}:
            wrong.append(f"{case.name}: {differing}")
    assert not wrong, "\n".join(wrong)
