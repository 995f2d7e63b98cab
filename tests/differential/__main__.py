"""Judge trees: `run --seed 1 --count 1000`, `one SEED NUMBER RELEASE --minimise`, `show SEED NUMBER`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.differential.bench import Bench, Verdict
from tests.differential.generate import generate
from tests.differential.layout import Layout
from tests.differential.minimise import minimise
from tests.machines import host, image


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.differential", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="judge many trees")
    run.add_argument("--seed", type=int, default=None, help="default: the current time")
    run.add_argument("--count", type=int, default=1000, help="trees for each release")
    run.add_argument("--first", type=int, default=0)
    run.add_argument("--release", action="append", choices=image.RELEASES)
    run.add_argument("--brief", action="store_true", help="mismatches without their trees")
    show = verbs.add_parser("show", help="show a tree")
    one = verbs.add_parser("one", help="judge one tree")
    for each in (show, one):
        each.add_argument("seed", type=int)
        each.add_argument("number", type=int)
    one.add_argument("release", choices=image.RELEASES)
    one.add_argument("--minimise", action="store_true", help="reduce the tree to what the mismatch needs")
    arguments = parser.parse_args()
    if arguments.verb == "show":
        print(generate(arguments.seed, arguments.number))
        return 0
    if arguments.verb == "one":
        return judge_one(arguments)
    host.prepare_machines()
    return judge_many(arguments)


def judge_one(arguments: argparse.Namespace) -> int:
    layout = generate(arguments.seed, arguments.number)
    host.prepare_machines()
    with Bench.boot(arguments.release) as bench:
        (verdict,) = bench.judge([(0, layout)])
        if arguments.minimise and verdict.mismatches:
            verdict = minimise(bench, verdict)
        print(verdict.layout)
        print()
        for mismatch in verdict.mismatches:
            print(mismatch)
        if "daemon" in verdict.real:
            verdict.real["daemon"]["log"] = verdict.real["daemon"].get("log", "")[-1500:]
        print(json.dumps(verdict.real, indent=1))
    return 1 if verdict.mismatches else 0


def judge_many(arguments: argparse.Namespace) -> int:
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    releases = arguments.release or image.RELEASES
    with ThreadPoolExecutor(len(releases)) as pool:
        totals = list(pool.map(lambda release: judge_release(release, seed, arguments), releases))
    return 1 if any(totals) else 0


def judge_release(release: str, seed: int, arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    numbers = range(arguments.first, arguments.first + arguments.count)
    with Bench.boot(release) as bench:
        wrong, outcomes = judge_twice(bench, ((number, generate(seed, number)) for number in numbers))
    for verdict in wrong:
        print(describe(release, seed, verdict, arguments.brief), flush=True)
    seconds = time.monotonic() - started
    print(f"{release}: {arguments.count} trees of seed {seed}, {len(wrong)} mismatches "
          f"({1000 * len(wrong) / arguments.count:.1f} in 1000), {seconds:.0f} s; {dict(outcomes)}",
          file=sys.stderr, flush=True)
    return len(wrong)


def judge_twice(bench: Bench, trees: Iterable[tuple[int, Layout]]) -> tuple[list[Verdict], Counter[str]]:
    """Judge numbered trees. Return the mismatches that occur twice, and the number of trees by outcome.

    A mismatch that does not occur again (a timeout under load, for example) is printed and counted separately.
    """
    outcomes: Counter[str] = Counter()
    doubtful = []
    first: dict[int, Verdict] = {}
    for verdict in bench.judge(trees):
        outcomes[outcome(verdict)] += 1
        outcomes["TLS tried"] += bool(verdict.real.get("daemon", {}).get("tls"))
        if verdict.mismatches:
            first[verdict.number] = verdict
            # dockerd may also fail after it has its listeners: only a full start shows that.
            late = any(re.search("failed to start|panic:|shutting down", str(mismatch.ours))
                       for mismatch in verdict.mismatches)
            doubtful.append((verdict.number, verdict.layout._replace(full=verdict.layout.full or late)))
    wrong = [verdict for verdict in bench.judge(doubtful) if verdict.mismatches] if doubtful else []
    again = dict(doubtful)
    for number in first.keys() - {verdict.number for verdict in wrong}:
        if again[number].full and not first[number].layout.full:
            outcomes["right in a full start"] += 1
            continue
        outcomes[f"once only: {first[number].mismatches[0].what}"] += 1
        print(f"once only, tree {number}: {first[number].mismatches[0]}"[:600], file=sys.stderr, flush=True)
    return wrong, outcomes


def outcome(verdict: Verdict) -> str:
    """Return the outcome of a tree in a few words."""
    if not verdict.compared:
        return "left to chance by systemd"
    if "daemon" in verdict.real:
        return {"ended": "refused by dockerd"}.get(verdict.real["daemon"].get("outcome"), "listens")
    return "refused by systemd"


def describe(release: str, seed: int, verdict: Verdict, brief: bool = False) -> str:
    """Return the text of a mismatch: the command that reproduces it, and the tree unless `brief`."""
    lines = [f"##### {release}: python3 -m tests.differential one {seed} {verdict.number} {release} --minimise"]
    lines += [str(mismatch) for mismatch in verdict.mismatches]
    if not brief:
        lines += ["", str(verdict.layout)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
