"""No input takes more than about linear work: calls counted, not time, so that no busy machine can fail this.

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
"""Of the full size: enough for what grows with the square to be seen beside all else."""

GROWS_WITH_THE_SQUARE = "words in a variable, as often"
"""And so do the arguments that it stands for, until there are more than execve(2) takes."""

CASES = tuple(case for case in growth.CASES if case.name != GROWS_WITH_THE_SQUARE)

FACTOR = 2.5
"""For twice the size, twice running: linear work is 2, quadratic 4, and a step (a limit that is passed) no growth."""

SLACK_CALLS = 300


def calls(root: Path) -> int:
    """How many functions are called to observe, judge, tell and plan a host."""
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
def test_work_grows_with_the_size(case: growth.Case, tmp_path: Path) -> None:
    found: list[int] = []
    for times in (1, 2, 4, 8):
        root = tmp_path / str(times)
        Layout(case.files(case.size // SHARE * times), {}).write(root)
        if not found:
            growth.whole(root)  # imports what only such a host needs, which would count as its work
        found.append(calls(root))
    first, second, third = (larger - smaller for smaller, larger in pairwise(found))
    assert second <= FACTOR * first + SLACK_CALLS or third <= FACTOR * second + SLACK_CALLS, found
