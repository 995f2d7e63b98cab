"""The CPU time that a call takes, whatever else runs on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable

RUNS = 4

FIXED_WORK = range(1_500_000)
FIXED_S = 0.03
"""What the sum of these takes on a quiet machine. Where another program shares the core it takes twice as long, and so
does everything else, for seconds at a time."""


def check_cpu_time(work: Callable[[], object], limit_s: float) -> None:
    """Check that a call takes at most `limit_s` of CPU time on a quiet machine: the least of at most RUNS, each
    compared with what a fixed work takes right before and after."""
    spent = []
    for _ in range(RUNS):
        before, took, after = _cpu_s(lambda: sum(FIXED_WORK)), _cpu_s(work), _cpu_s(lambda: sum(FIXED_WORK))
        spent.append(took * FIXED_S / max(before, after, FIXED_S))
        if spent[-1] < limit_s:
            return
    raise AssertionError(f"{', '.join(f'{each:.2f}' for each in spent)} s of CPU time, at most {limit_s} s are allowed")


def _cpu_s(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
