"""Checks for all tests: only a test with a written reason may be run again after a failure."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse `pytest.mark.flaky` (pytest-rerunfailures) without a reason."""
    for item in items:
        for mark in item.iter_markers("flaky"):
            if not str(mark.kwargs.get("reason", "")).strip():
                raise pytest.UsageError(
                    f"{item.nodeid}: give the reason: @pytest.mark.flaky(reruns=1, reason=\"...\")")
