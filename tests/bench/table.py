"""Measurements as a table: medians, spread, ratios, and the change since an earlier run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

MANY = 100
"""The 99th percentile is shown from this number of samples on."""


class Row(NamedTuple):
    """One row: the samples of each program, in one unit. The first program is the base of the ratios."""

    name: str
    says: str
    unit: str
    samples: Mapping[str, Sequence[float]]


class Line(NamedTuple):
    """One program of a row, summarized. `ratio` is relative to the first program, `before` to the earlier run."""

    who: str
    samples: int
    median: float
    low: float
    high: float
    p99: float | None
    ratio: float | None
    before: float | None


def lines(row: Row, earlier: Row | None) -> Iterator[Line]:
    """Yield the summary of each program. The spread is from the 10th to the 90th percentile."""
    first = statistics.median(next(iter(row.samples.values())))
    for who, samples in row.samples.items():
        median = statistics.median(samples)
        then = earlier.samples.get(who) if earlier is not None and earlier.unit == row.unit else None
        yield Line(who, len(samples), median, _percentile(samples, 10), _percentile(samples, 90),
                   _percentile(samples, 99) if len(samples) >= MANY else None,
                   median / first if first else None,
                   median / statistics.median(then) if then and statistics.median(then) else None)


def text(rows: Sequence[Row], earlier: Mapping[str, Row]) -> str:
    """Return all rows as text, each below its description."""
    out: list[str] = []
    previous = ""
    for row in rows:
        out.append(f"\n{row.name}" + f": {row.says}" * (row.says != previous))
        previous = row.says
        out.append(f"  {'':46} {row.unit:>10} {'10%..90%':>20} {'p99':>9} {'n':>6} {'ratio':>7} {'was':>6}")
        for line in lines(row, earlier.get(row.name)):
            spread = f"{_number(line.low)}..{_number(line.high)}" if line.samples > 1 else ""
            out.append(f"  {line.who:46} {_number(line.median):>10} {spread:>20} {_optional(line.p99):>9} "
                       f"{line.samples:>6} {_optional(line.ratio):>7} {_optional(line.before):>6}".rstrip())
    return "\n".join(out) + "\n"


def _percentile(samples: Sequence[float], percent: int) -> float:
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _optional(value: float | None) -> str:
    return "" if value is None else _number(value)
