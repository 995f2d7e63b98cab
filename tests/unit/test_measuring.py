"""What is made of measurements: the table of `make bench`, the verdict of `make soak`."""

from __future__ import annotations

import pytest

from tests.bench.table import Line, Row, lines, text
from tests.support.cpu_time import check_cpu_time
from tests.system.soak import Sample, growing

ROW = Row("reload", "How long it takes.", "ms", {"bare": [100.0, 110.0, 120.0], "ours": [220.0] * 99 + [440.0]})

TABLE = """\

reload: How long it takes.
                                                         ms             10%..90%       p99      n   ratio    was
  bare                                                  110             102..118                3    1.00   0.50
  ours                                                  220             220..220       222    100    2.00
"""


def test_each_is_divided_by_the_first_and_by_what_it_was() -> None:
    bare, ours = lines(ROW, Row("reload", "", "ms", {"bare": [220.0], "theirs": [1.0]}))
    assert bare == Line("bare", 3, 110.0, 102.0, 118.0, None, 1.0, 0.5)
    assert ours._replace(p99=None) == Line("ours", 100, 220.0, 220.0, 220.0, None, 2.0, None)
    assert ours.p99 == pytest.approx(222.2)


def test_the_table() -> None:
    assert text([ROW], {"reload": Row("reload", "", "ms", {"bare": [220.0]})}) == TABLE


@pytest.mark.parametrize("earlier", [None, ROW._replace(unit="MB"), ROW._replace(samples={"bare": [0.0]})])
def test_what_cannot_be_compared_is_left_out(earlier: Row | None) -> None:
    assert [line.before for line in lines(ROW, earlier)] == [None, None]


def test_nothing_at_all_has_no_ratio() -> None:
    assert [line.ratio for line in lines(Row("idle", "", "ms", {"ours": [0.0], "theirs": [2.0]}), None)] == [None, None]


def life(pid: int, rss_mb: list[float], descriptors: int = 9, threads: int = 1) -> list[Sample]:
    return [Sample(number, "", 1.0, pid, value, descriptors, threads) for number, value in enumerate(rss_mb)]


@pytest.mark.parametrize(("samples", "grows"), [
    (life(1, [28.0, 30.0, 31.0, 31.0, 31.0] + [31.0, 31.1] * 20), []),
    (life(1, [20.0 + step / 10 for step in range(100)]), ["rss_mb from 22.8 to 27.6"]),
    # Each life by itself, and none that is too short to count.
    (life(1, [30.0] * 20) + life(2, [40.0] * 20) + life(3, [10.0, 99.0]), []),
    (life(1, [30.0] * 10, 9) + life(1, [30.0] * 10, 11), ["descriptors from 9.0 to 11.0"]),
    (life(1, [30.0] * 10, 9) + life(1, [30.0] * 10, 10), []),
    (life(1, [30.0] * 10) + life(1, [30.0] * 10, threads=2), ["threads from 1.0 to 2.0"]),
])
def test_what_grows_is_found(samples: list[Sample], grows: list[str]) -> None:
    found = growing(samples)
    assert len(found) == len(grows)
    assert all(each in whole for each, whole in zip(grows, found, strict=True)), found


def test_a_slow_call_is_too_slow_on_any_machine() -> None:
    check_cpu_time(lambda: sum(range(100_000)), 0.5)
    with pytest.raises(AssertionError, match=r"s of CPU time, at most 0.05 s are allowed"):
        check_cpu_time(lambda: sum(range(20_000_000)), 0.05)
