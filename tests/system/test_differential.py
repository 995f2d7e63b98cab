"""dockerd-guard's reading compared with the real systemd and dockerd: the same generated trees on every run.

`make differential` tries new ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dockerd_guard.report import json_output as report
from tests.differential.__main__ import describe, judge_twice
from tests.differential.bench import Bench
from tests.differential.compare import read, skeleton
from tests.differential.generate import generate
from tests.machines.machine import Machine
from tests.support.regression_cases import CASES, UNKNOWN, layout

SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))
COUNT = int(os.environ.get("DIFFERENTIAL_COUNT", "300"))
COUNT_BY_COMMAND = 25


def test_reading_matches_systemd_and_dockerd(bare_machine: Machine) -> None:
    wrong, outcomes = judge_twice(Bench(bare_machine), ((number, generate(SEED, number)) for number in range(COUNT)))
    assert outcomes["listens"] > COUNT / 5 and outcomes["refused by systemd"] > COUNT / 20, outcomes
    if wrong:
        pytest.fail("\n\n".join(describe(bare_machine.release, SEED, verdict) for verdict in wrong),
                    pytrace=False)


def test_regressions_match_systemd_and_dockerd(bare_machine: Machine) -> None:
    """Each regression row (tests/support/regression_cases.py) is what the real programs do."""
    rows = [(case.name, case.files) for case in CASES] + \
        [(name, files) for name, files, _ in UNKNOWN]
    wrong, _ = judge_twice(Bench(bare_machine), ((number, layout(files)) for number, (_, files) in enumerate(rows)))
    assert not wrong, "\n\n".join(f"{rows[verdict.number][0]}: {verdict.mismatches[0]}" for verdict in wrong)


def test_command_output_matches_the_functions(bare_machine: Machine, tmp_path: Path) -> None:
    facts = Bench(bare_machine).facts
    command = [sys.executable, "-m", "dockerd_guard", "sockets", "--format", "json"]
    expected = []
    for number in range(COUNT_BY_COMMAND):
        root = Path(tempfile.mkdtemp(dir=tmp_path))
        skeleton(root, facts)
        generate(SEED, number).write(root)
        command += ["--root", str(root)]
        layer = read(generate(SEED, number), facts)[0].layer
        expected.append(json.loads(report._text(report._layer(layer), None)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [json.loads(line)["layers"]["configured"] for line in done.stdout.splitlines()] == expected
