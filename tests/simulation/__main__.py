"""`python3 -m tests.simulation`: play histories until so many decisions were taken, or replay one."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.simulation.run import Outcome, history, play, shrink


def _one(seed: int) -> tuple[int, Outcome]:
    return seed, play(history(seed))


def _outcomes(first: int, jobs: int) -> Iterator[tuple[int, Outcome]]:
    if jobs == 1:
        yield from map(_one, range(first, 2**62))
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(_one, iter(range(first, 2**62)), chunksize=4)


def main() -> int:
    """Returns the exit code: 1 if an invariant was broken."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set must not depend on the process.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
                  {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(prog="python3 -m tests.simulation", description=__doc__)
    parser.add_argument("--decisions", type=int, default=10_000, help="stop after so many decisions (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; the following ones count up")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one history, and shrink it if it fails")
    options = parser.parse_args()
    if options.replay is not None:
        return _replay(options.replay)
    decisions: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    broken: list[int] = []
    began, shown = time.monotonic(), 0.0
    for seed, outcome in _outcomes(options.seed, options.jobs):
        decisions += outcome.decisions
        faults += outcome.faults
        if outcome.violations:
            broken.append(seed)
            print(f"seed {seed}, after {decisions.total()} decisions: {outcome.violations[0]}", flush=True)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{decisions.total()} decisions, {len(broken)} broken, {shown - began:.0f} s", flush=True)
        if decisions.total() >= options.decisions or len(broken) >= 10:
            break
    print(f"{decisions.total()} decisions in {time.monotonic() - began:.0f} s: {dict(decisions.most_common())}")
    print(f"{faults.total()} faults: {dict(faults.most_common())}")
    print(f"{len(broken)} histories broke an invariant" + (f": --replay {broken[0]}" if broken else ""))
    return bool(broken)


def _replay(seed: int) -> int:
    actions = history(seed)
    outcome = play(actions)
    if not outcome.violations:
        print(f"seed {seed}: no invariant was broken")
        return 0
    print("\n".join(outcome.violations))
    for action in shrink(actions):
        print(f"  {action.name} {action.variant}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
