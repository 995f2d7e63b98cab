"""Rows of `lint DIR`: one file beside a harmless daemon.json, and whether it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call

SAFE = {"safe/files/daemon.json": '{"log-level": "warn"}'}
"""What there is to judge."""


def write(here: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)


def assert_named(  # noqa: PLR0913, PLR0917 -- the row, and the fixtures of the test
    here: Path, call: Call, monkeypatch: pytest.MonkeyPatch, path: str, text: str | bytes, line: int
) -> None:
    """A file that opens the API is named with its line, and the exit code says that it was not judged."""
    write(here, {**SAFE, path: ""})
    (here / path).write_bytes(text.encode() if isinstance(text, str) else text)
    monkeypatch.chdir(here)
    said = call("lint", ".")
    assert said.code == 2 and f"{path}:{line}: " in said.err, said.out + said.err


def assert_not_named(here: Path, call: Call, path: str, text: str) -> None:
    write(here, {**SAFE, path: text})
    said = call("lint", here)
    assert said.code == 0, said.out + said.err
