"""No input takes more than about linear work: calls counted, not time, so that no busy machine can fail this.

The hosts are those of tests/fuzz/growth.py (`make slow-test`), which measures time at full size; here they are small.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

from tests.differential.layout import Layout
from tests.fuzz import growth

SHARE = 12
"""Of the full size: below it what grows with the square is not yet seen beside all else."""

NAMES = ("socket units of docker.service", "a script of exports, and commands after each", "drop-ins that are shadowed",
         "a script of as many commands as there are variables", "ListenStream= and as many fd://", "drop-ins",
         "Sockets=", "labels")
CASES = tuple(case for case in growth.CASES if case.name in NAMES)

FACTOR = 3
"""For twice the size: linear work is 2, quadratic 4."""

SLACK_CALLS = 3000


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
    found = []
    for times in (1, 2, 4):
        root = tmp_path / str(times)
        Layout(case.files(case.size // SHARE * times), {}).write(root)
        found.append(calls(root))
    small, middle, large = found
    assert large - middle <= FACTOR * (middle - small) + SLACK_CALLS, found
