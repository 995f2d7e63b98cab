"""Renew the expected values of tests/data: `python3 -m tests.data.renew systemd dockerd corpus --release trixie`.

`systemd`, `dockerd` and `corpus` boot a machine of each release and ask the programs in it. `lint` runs this
checkout's own command and needs no machine. Review the changes with `git diff tests/data` before you commit them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.differential.bench import Bench
from tests.machines import host
from tests.machines.machine import Machine
from tests.support import corpus, dockerd_machine
from tests.support.systemd_machine import answers
from tests.support.vectors import RELEASES, Document, documents, dump, expected, with_answer

TOP = Path(__file__).resolve().parents[2]

Answers = dict[Path, list[Any]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.data.renew", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*KINDS, []], metavar="what",
                        help=f"of {', '.join(KINDS)}; all by default")
    parser.add_argument("--release", action="append", choices=RELEASES, help="default: all three")
    arguments = parser.parse_args()
    for kind in arguments.what or KINDS:
        KINDS[kind](arguments.release or RELEASES)
    return 0


def systemd(releases: Iterable[str]) -> None:
    """Ask systemd for tests/data/systemd."""
    host.prepare_machines()
    for release in releases:
        with Machine.boot(release) as machine:
            version = machine.run(["systemctl", "--version"]).out.splitlines()[0]
            write(list(documents("systemd")), systemd_answers(machine), release, version)


def systemd_answers(machine: Machine) -> Answers:
    """Return what the machine's systemd answers, by file."""
    found = list(documents("systemd"))
    by_topic = answers(machine, found)
    return {document.path: by_topic[document.topic] for document in found}


def dockerd(releases: Iterable[str]) -> None:
    """Ask dockerd for tests/data/dockerd."""
    host.prepare_machines()
    for release in releases:
        with Bench.boot(release) as bench:
            write(list(documents("dockerd")), dockerd_answers(bench), release, bench.facts.dockerd)


def dockerd_answers(bench: Bench) -> Answers:
    """Return what the machine's dockerd answers, by file."""
    found = list(documents("dockerd"))
    by_topic = dockerd_machine.answers(bench, found)
    return {document.path: by_topic[document.topic] for document in found}


def corpus_(releases: Iterable[str]) -> None:
    """Ask systemd and dockerd for tests/data/corpus."""
    host.prepare_machines()
    for release in releases:
        with Bench.boot(release) as bench:
            outcomes = dockerd_machine.corpus_answers(bench)
        for root, outcome in zip(corpus.roots(), outcomes, strict=True):
            value = with_answer(corpus.expectation(root), release, outcome)
            (root.parent / "expected.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def lint(_: Iterable[str]) -> None:
    """Have the tests write the output that they expect into its files (tests/support/golden.py)."""
    tests = [path for path in sorted((TOP / "tests/unit").glob("test_*.py")) if "golden" in path.read_text()]
    subprocess.run([sys.executable, "-m", "pytest", "--quiet", *tests], cwd=TOP, check=True,
                   env={**os.environ, "DOCKERD_GUARD_RENEW": "1"})


def write(found: Iterable[Document], answers_: Answers, release: str, version: str) -> None:
    """Write the answers of a release into their files."""
    for document in found:
        value = document.value
        value["programs"] = {name: {**value["programs"], release: version}[name]
                             for name in RELEASES if name == release or name in value["programs"]}
        value["vectors"] = [with_answer(vector, release, answer)
                            for vector, answer in zip(document.vectors, answers_[document.path], strict=True)]
        document.path.write_text(dump(value))


def differing(answers_: Answers, found: Iterable[Document], release: str) -> list[str]:
    """Return a line for each vector whose expected value is not what the release's program answers."""
    return [f"{document.topic}: {vector['name']}: {answer}, expected {expected(vector, release)}"
            for document in found
            for vector, answer in zip(document.vectors, answers_[document.path], strict=True)
            if answer != expected(vector, release)]


KINDS: dict[str, Callable[[Iterable[str]], None]] = {
    "systemd": systemd, "dockerd": dockerd, "corpus": corpus_,
    "lint": lint,
}

if __name__ == "__main__":
    sys.exit(main())
