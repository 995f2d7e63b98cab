"""Fixtures: a stock host, and the command line. Loaded by `pytest_plugins`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd_guard import cli
from tests.support.command_line import IS_INSTALLED, Call, Said, run
from tests.support.hosts import Host


@pytest.fixture
def stock_host(tmp_path: Path) -> Iterator[Host]:
    before = os.umask(0o022)
    (tmp_path / "host").mkdir()
    yield Host(tmp_path / "host")
    os.umask(before)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: object) -> Said:
        if IS_INSTALLED:
            done = run(*words)
            return Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        code = cli.main([str(word) for word in words])
        return Said(code, *capsys.readouterr())

    return call
