"""Every reader on some hundred hostile inputs, the same in each run; `make fuzz` tries millions, by coverage.

What an input must do is said by the targets themselves (tests/fuzz/targets.py). Here their seeds are mutated
by hypothesis: pieces cut out, doubled, swapped for tokens of the format or for any bytes.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockerd_guard.policy.model import Policy
from tests.fuzz import seeds
from tests.fuzz.targets import POLICIES, TARGETS, Target, under

EXAMPLES = {"host": 60, "value": 150, "word": 200, "command-line": 200}
"""Of the slow ones fewer; all others get OTHERS."""

OTHERS = 400


def test_the_seeds_are_there() -> None:
    assert len(seeds.units()) > 80
    assert all(len(target.seeds()) > 20 for target in TARGETS.values() if target.name not in ("pem", "policy"))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_seeds(target: Target) -> None:
    for seed in target.seeds():
        target.check(seed)


@pytest.mark.parametrize("policy", POLICIES, ids=range(len(POLICIES)))
def test_hosts_under_every_policy(policy: Policy) -> None:
    for seed in TARGETS["host"].seeds():
        under(seed, policy)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_mutated(target: Target) -> None:
    @settings(max_examples=EXAMPLES.get(target.name, OTHERS), derandomize=True, database=None, deadline=None,
              suppress_health_check=list(HealthCheck))
    @given(mutations(target))
    def check(data: bytes) -> None:
        target.check(data)

    check()


@st.composite
def mutations(draw: st.DrawFn, target: Target) -> bytes:
    """A seed with some pieces replaced, or tokens of the format alone."""
    pieces = st.one_of(st.sampled_from(target.tokens), st.binary(max_size=4), st.text(max_size=4).map(_encoded))
    if draw(st.booleans()):
        return b"".join(draw(st.lists(pieces, max_size=20)))
    data = draw(st.sampled_from(target.seeds()))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 8, 64))))
        data = data[:start] + draw(pieces | st.just(data[start:end] * 2)) + data[end:]
    return data


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
