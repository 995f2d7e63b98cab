"""Loading of unit files compared with the tables of tests/support/systemd_cases.py, for each release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.reading import reading
from tests.support.systemd_cases import NOT_TEXT, Case, at, cases
from tests.support.unit_files import named, put


@pytest.mark.parametrize("version", [252, 257, 262])
@pytest.mark.parametrize("case", tuple(cases()), ids=lambda case: case.name)
def test_unit_loads_as_in_systemd(case: Case, version: int, tmp_path: Path) -> None:
    put(tmp_path, {"/etc/passwd": "", **case.files}, "unit")
    expected = named({"state": "loaded"} | at(case.facts, version), "unit")

    found = reading(tmp_path, named(case.unit, "unit"), version)

    if expected["state"] == NOT_TEXT:
        assert isinstance(found["argv"], list)
        assert not any(text.isprintable() for text in found["argv"][0][1:])
    else:
        assert {key: found[key] for key in expected} == expected
