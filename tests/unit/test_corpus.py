"""What `sockets` reports of the corpus against what the real programs do (tests/data/corpus)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_guard.model.address import Tls
from tests.differential.compare import Facts, our_key, read
from tests.support import corpus
from tests.support.regression_cases import ALL
from tests.support.vectors import RELEASES, expected


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("root", corpus.roots(), ids=lambda root: root.parent.name)
def test_outcome(root: Path, release: str) -> None:
    answer = expected(corpus.expectation(root), release)
    systemd, dockerd = ALL[RELEASES.index(release)]
    seen, _ = read(corpus.layout(root), Facts(systemd, dockerd, {}))
    layer = seen.layer

    assert layer.starts == answer["starts"], layer.reason
    assert layer.refused_by == answer.get("refused_by")
    if "load_state" in answer:
        assert seen.service.unit.load_state == answer["load_state"]
    if "argv" in answer:
        assert [word.text for word in seen.daemon.program.words] == answer["argv"][1:]
    if layer.starts:
        assert list(layer.hosts) == answer["hosts"]
        found = {our_key(binding.address, binding.via): str(binding.tls if binding.is_tcp else Tls.NONE)
                 for binding in layer.bindings}
        assert found == answer["listening"]


def test_there_are_many() -> None:
    assert len(corpus.roots()) >= 25
