"""Our reading of dockerd's arguments and daemon.json against the real dockerd of each release (tests/data/dockerd)."""

from __future__ import annotations

import pytest

from tests.differential.compare import Facts, read
from tests.support.dockerd_machine import layout_of
from tests.support.vectors import RELEASES, SYSTEMD, Vector, documents, expected

FOUND = [(document.topic, document.value["programs"], vector)
         for document in documents("dockerd") for vector in document.vectors]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(("topic", "programs", "vector"), FOUND,
                         ids=[f"{topic}: {vector['name']}" for topic, _, vector in FOUND])
def test_vector(topic: str, programs: dict[str, str], vector: Vector, release: str) -> None:
    layer = read(layout_of(vector, full=False), Facts(SYSTEMD[release], programs[release], {}))[0].layer
    answer = expected(vector, release)
    assert layer.starts == ("hosts" in answer), (layer.reason, answer)
    if layer.starts:
        assert list(layer.hosts) == answer["hosts"]
    if layer.starts and topic == "tls":
        assert {str(binding.tls) for binding in layer.bindings} == {answer["tls"]}


def test_there_are_many_of_each() -> None:
    """An empty or missing file would pass unnoticed."""
    assert {document.topic: len(document.vectors) >= 20 for document in documents("dockerd")} == {
        "config": True, "hosts": True, "tls": True}
