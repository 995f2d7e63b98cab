"""`python3 -m tests.simulation`: play histories until so many decisions were taken, or replay one.

The report lists the decisions by verdict, the faults by kind, the branches of the decisions that were taken, and the
invariants that were broken.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping
from typing import NamedTuple

from tests.simulation.branches import Arcs, Branches, summary
from tests.simulation.run import Outcome, history, invariant, play, shrink


class Played(NamedTuple):
    """A history that was played, and the branches that its process has taken so far."""

    seed: int
    outcome: Outcome
    branches: Arcs


_branches: Branches | None = None
"""Of this process."""


def _one(seed: int) -> Played:
    global _branches  # noqa: PLW0603 -- a process of the pool has no other place
    if _branches is None:
        _branches = Branches()
    return Played(seed, _branches.of(seed, lambda: play(history(seed))), _branches.taken())


def played(first: int, jobs: int) -> Generator[Played]:
    """Play the histories of the seeds from `first` on, until the caller stops."""
    if jobs == 1:
        yield from map(_one, range(first, 2**62))
    # The pool is terminated while its processes play: each removes its directory first.
    with multiprocessing.Pool(jobs, signal.signal, (signal.SIGTERM, _exit)) as pool:
        yield from pool.imap(_one, iter(range(first, 2**62)), chunksize=4)


def _exit(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    """Returns the exit code: 1 if an invariant was broken."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set must not depend on the process.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
                  {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(prog="python3 -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=10_000, help="stop after so many decisions (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="the first seed; the following ones count up")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one history, and shrink it if it fails")
    options = parser.parse_args()
    if options.replay is not None:
        return _replay(options.replay)
    decisions: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    broken: dict[str, list[int]] = {}
    taken: dict[str, frozenset[tuple[int, int]]] = {}
    began, shown = time.monotonic(), 0.0
    for seed, outcome, branches in played(options.seed, options.jobs):
        decisions += outcome.decisions
        faults += outcome.faults
        taken.update((file, taken.get(file, frozenset()) | arcs) for file, arcs in branches.items())
        if outcome.violations:
            broken.setdefault(invariant(outcome.violations[0]), []).append(seed)
            print(f"seed {seed}, after {decisions.total()} decisions: {outcome.violations[0]}", flush=True)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            print(f"{decisions.total()} decisions, {_count(broken)} broken, {shown - began:.0f} s", flush=True)
        if decisions.total() >= options.decisions or _count(broken) >= 10:
            break
    print(f"{decisions.total()} decisions in {time.monotonic() - began:.0f} s: {_counts(decisions)}")
    print(f"{faults.total()} faults: {_counts(faults)}")
    print(*summary(taken), sep="\n")
    for name, seeds in sorted(broken.items()):
        print(f"{name} was broken {len(seeds)} times: --replay {seeds[0]}")
    print(f"{_count(broken)} histories broke an invariant")
    return bool(broken)


def _count(broken: Mapping[str, list[int]]) -> int:
    return sum(map(len, broken.values()))


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common())


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
