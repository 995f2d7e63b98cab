"""Work is linear in the size of the input. Counts function calls instead of time, so that load has no influence.

The hosts are those of tests/fuzz/growth.py (`make slow-test`), which measures time at full size; here they are small.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest

from tests.differential.layout import Layout
from tests.fuzz import growth

SHARE = 200
"""Divisor of the full size. The result is large enough for quadratic growth to be visible."""

GROWS_WITH_THE_SQUARE = "words in a variable, as often"
"""This case is quadratic: so is the number of arguments that it expands to, up to the limit of execve(2)."""

CASES = tuple(case for case in growth.CASES if case.name != GROWS_WITH_THE_SQUARE)

FACTOR = 2.5
"""Allowed growth for twice the size, in two consecutive steps: linear work has 2, quadratic 4."""

SLACK_CALLS = 300


def calls(root: Path) -> int:
    """Return the number of function calls to observe, judge, report and plan a host."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        growth.whole(root)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_work_is_linear(case: growth.Case, tmp_path: Path) -> None:
    found: list[int] = []
    for times in (1, 2, 4, 8):
        root = tmp_path / str(times)
        Layout(case.files(case.size // SHARE * times), {}).write(root)
        if not found:
            growth.whole(root)  # imports modules that only this host needs, which would be counted otherwise
        found.append(calls(root))
    first, second, third = (larger - smaller for smaller, larger in pairwise(found))
    assert second <= FACTOR * first + SLACK_CALLS or third <= FACTOR * second + SLACK_CALLS, found
