"""A simulation that ends leaves nothing behind."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest

from tests.machines.machine import wait_for
from tests.simulation import run
from tests.simulation.__main__ import played


def test_histories_that_are_being_played_leave_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes play when the caller has seen enough."""
    monkeypatch.setattr(run, "scratch", lambda: Path(tempfile.mkdtemp(dir=tmp_path)))
    with contextlib.closing(played(1, 2)) as histories:
        assert next(histories).seed == 1
        wait_for(lambda: any(tmp_path.iterdir()), "history that is being played")
    assert list(tmp_path.iterdir()) == []
