"""Lists of Compose files in commands."""

from __future__ import annotations

import pytest

from dockerd_guard.observe.compose_commands import file_lists
from tests.support.cpu_time import check_cpu_time

LISTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "docker compose -f a.yml -f b/c.yaml up": (("a.yml", "b/c.yaml"),),
    "docker-compose --file=a.yml \\\n  --file 'b.yml' up; docker compose -f c.yml ps": (("a.yml", "b.yml"), ("c.yml",)),
    "$(COMPOSE) -f $(DIR)/a.yml -f ./b.yml": (("a.yml", "b.yml"),),
    "docker compose -f ${A}/b.yml -f $HERE/x/c.yml up": (("b.yml", "x/c.yml"),),
    "docker stack deploy -c a.yml --compose-file b.yml x": (("a.yml", "b.yml"),),
    "COMPOSE_FILE=a.yml:b.yml docker compose up": (("a.yml", "b.yml"),),
    "COMPOSE_FILE ?= a.yml:b.yml": (("a.yml", "b.yml"),),
    "env: {COMPOSE_FILE: 'a.yml:b.yml'}": (("a.yml", "b.yml"),),
    "kubectl apply -f a.yaml && kubectl apply -f b.yaml": (("a.yaml",), ("b.yaml",)),
    "grep -f words.txt a.yml": (),
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_files(text: str) -> None:
    assert file_lists(text) == LISTS[text]


@pytest.mark.parametrize("text", ["-f a.yml ", "-f ", "a\\\n", "-f a.yml;", "COMPOSE_FILE=", "$(", "\\", "-f $A/"])
def test_long_texts_end_soon(text: str) -> None:
    def work() -> None:
        file_lists((text * 500_000)[:1 << 20])

    check_cpu_time(work, 1)
