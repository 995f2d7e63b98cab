"""Which branches of the decisions were taken, by coverage.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import coverage

PLAN = Path(__file__).parents[2] / "dockerd_guard/plan"
MODULES = tuple(str(PLAN / f"{name}.py") for name in ("decide", "gate", "backoff", "splay", "slots"))

MEASURED = 4
"""One of so many histories is measured."""

T = TypeVar("T")

Arcs = Mapping[str, frozenset[tuple[int, int]]]
"""By file, the pairs of lines between which control went."""


def _measure() -> coverage.Coverage:
    return coverage.Coverage(data_file=None, branch=True, include=MODULES, config_file=False)


class Branches:
    """What histories of this process take. Measured are some of them: it takes as long as playing them."""

    def __init__(self) -> None:
        self._coverage = _measure()

    def of(self, history: int, play: Callable[[], T]) -> T:
        """Play a history, and measure every MEASURED-th."""
        if history % MEASURED:
            return play()
        self._coverage.start()
        try:
            return play()
        finally:
            self._coverage.stop()

    def taken(self) -> Arcs:
        """What was taken so far."""
        data = self._coverage.get_data()
        return {file: frozenset(data.arcs(file) or ()) for file in data.measured_files()}


def summary(taken: Arcs) -> Iterator[str]:
    """One line for each module: how many of its branches were taken, and from which line to which the others go."""
    measured = _measure()
    measured.get_data().add_arcs(taken)
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        measured.json_report(morfs=MODULES, outfile=file.name)
        found = json.load(file)["files"]
    for name, module in sorted(found.items()):
        numbers = module["summary"]
        missing = ", ".join(f"{start}->{'exit' if end < 0 else end}" for start, end in module["missing_branches"])
        yield (f"plan/{Path(name).name}: {numbers['covered_branches']} of {numbers['num_branches']} branches taken"
               f" by every {MEASURED}th history"
               + (f"; not taken: {missing}" if missing else ""))
