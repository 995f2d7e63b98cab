"""The expected values in tests/data/dockerd and tests/data/corpus match the real dockerd."""

from __future__ import annotations

from tests.data.renew import differing, dockerd_answers
from tests.differential.bench import Bench
from tests.machines.machine import Machine
from tests.support import corpus, dockerd_machine
from tests.support.vectors import documents, expected


def test_vectors_match_dockerd(bare_machine: Machine) -> None:
    wrong = differing(dockerd_answers(Bench(bare_machine)), documents("dockerd"), bare_machine.release)
    assert not wrong, "\n".join(wrong)


def test_corpus_matches_the_real_programs(bare_machine: Machine) -> None:
    outcomes = dockerd_machine.corpus_answers(Bench(bare_machine))
    wrong = [f"{root.parent.name}: {outcome}" for root, outcome in zip(corpus.roots(), outcomes, strict=True)
             if outcome != expected(corpus.expectation(root), bare_machine.release)]
    assert not wrong, "\n".join(wrong)
