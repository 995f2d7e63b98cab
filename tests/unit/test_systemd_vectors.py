"""Our reading of unit files against the answers of the real systemd of each release (tests/data/systemd)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.reading import reading
from tests.support.unit_files import named, put
from tests.support.vectors import RELEASES, SYSTEMD, Vector, answer_of, documents, expected, files_of, unit_of

FOUND = [(document.topic, vector) for document in documents("systemd") for vector in document.vectors]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(("topic", "vector"), FOUND, ids=[f"{topic}: {vector['name']}" for topic, vector in FOUND])
def test_vector(topic: str, vector: Vector, release: str, tmp_path: Path) -> None:
    put(tmp_path, {"/bin/bash": "", **files_of(topic, vector)}, "unit")
    facts: dict[str, Any] = reading(tmp_path, named(unit_of(topic, vector), "unit"), SYSTEMD[release])
    assert answer_of(topic, facts) == named(expected(vector, release), "unit")


def test_there_are_many_of_each() -> None:
    """An empty or missing file would pass unnoticed."""
    assert {document.topic: len(document.vectors) >= 20 for document in documents("systemd")} == dict.fromkeys((
        "address", "environment", "environment_file", "exec", "expansion", "files", "listen", "specifiers", "syntax",
        "words"), True)
