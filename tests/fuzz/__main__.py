"""Coverage-guided fuzzing (atheris, libFuzzer): `make fuzz`.

    python3 -m tests.fuzz run --seconds 600 [TARGET ...]     all targets; exit code 1 if one finds a fault
    python3 -m tests.fuzz replay TARGET FILE                 one input again, with the traceback

The corpus is kept in the cache (--state), and the next run continues with it. An input that finds a fault is kept there
as crash-..., slow-unit-... or timeout-...
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

MAX_INPUT_BYTES = 4096
"""tests/fuzz/growth.py tests long inputs."""

TIMEOUT_S = 10
"""For one input. The slowest take some milliseconds."""


def main() -> int:
    targets = _targets(guided=sys.argv[1:2] == ["one"])
    parser = argparse.ArgumentParser(prog="python3 -m tests.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    run = verbs.add_parser("run")
    run.add_argument("--seconds", type=int, default=600, help="for each target (default: 600)")
    run.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    run.add_argument("--state", type=Path, default=Path.home() / ".cache/dockerd-guard/fuzz")
    run.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets)} (default: all)")
    replay = verbs.add_parser("replay")
    replay.add_argument("target", choices=targets)
    replay.add_argument("file", type=Path)
    one = verbs.add_parser("one", help="what `run` starts for each target; the arguments are libFuzzer's")
    one.add_argument("target", choices=targets)
    one.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.verb == "replay":
        targets[options.target].check(options.file.read_bytes())
    elif options.verb == "one":
        _fuzz(targets[options.target], options.arguments)
    else:
        chosen = [targets[name] for name in options.targets or targets]
        return _run(chosen, options.seconds, options.jobs, options.state)
    return 0


def _targets(*, guided: bool) -> Mapping[str, Target]:
    """Return all targets. With `guided`, the code that they call is instrumented."""
    if not guided:
        from tests.fuzz.targets import TARGETS
    else:
        import atheris

        with atheris.instrument_imports(include=["dockerd_guard"]):
            from tests.fuzz.targets import TARGETS
    return TARGETS


def _fuzz(target: Target, arguments: list[str]) -> None:
    """Run libFuzzer. Does not return."""
    import atheris

    atheris.Setup([sys.argv[0], *arguments], target.check)
    atheris.Fuzz()


def _run(targets: list[Target], seconds: int, jobs: int, state: Path) -> int:
    waiting = list(targets)
    running: dict[str, subprocess.Popen[bytes]] = {}
    faults = 0
    total = 0
    while waiting or running:
        while waiting and len(running) < jobs:
            target = waiting.pop(0)
            running[target.name] = _start(target, seconds, state / target.name)
        name, process = next(iter(running.items()))
        code = process.wait()
        del running[name]
        log = (state / name / "log").read_text(errors="replace")
        counts = re.findall(r"number_of_executed_units:\s*(\d+)|^#(\d+)\t", log, re.MULTILINE)
        runs = max((int(done or seen) for done, seen in counts), default=0)
        total += runs
        faults += code != 0
        result = "no fault" if code == 0 else f"a FAULT, see {state / name}/log"
        print(f"{name}: {runs} executions, {result}", flush=True)
    print(f"{total} executions of {len(targets)} targets, {faults} with a fault")
    return 1 if faults else 0


def _start(target: Target, seconds: int, state: Path) -> subprocess.Popen[bytes]:
    corpus, given = state / "corpus", state / "seeds"
    corpus.mkdir(parents=True, exist_ok=True)
    given.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (given / f"{number:04}").write_bytes(seed)
    (state / "tokens").write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    command = [
        sys.executable, "-m", "tests.fuzz", "one", target.name, str(corpus), str(given), f"-dict={state / 'tokens'}",
        f"-artifact_prefix={state}/", f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={TIMEOUT_S}", "-print_final_stats=1", "-rss_limit_mb=1024",
    ]
    with (state / "log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    sys.exit(main())
