"""README.md and docs/: the pages parse, and their hidden steps (tests/docs_steps.yaml) belong to existing blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import docs


def test_hidden_steps_are_of_existing_pages() -> None:
    assert set(docs.HIDDEN) <= {str(path.relative_to(docs.TOP)) for path in docs.PAGES}


@pytest.mark.parametrize("path", docs.PAGES, ids=lambda path: path.name)
def test_each_hidden_step_belongs_to_one_block(path: Path) -> None:
    blocks = [step.what for step in docs.steps(path) if step.kind in ("show", "file")]
    hidden = docs.HIDDEN.get(str(path.relative_to(docs.TOP)), {})
    assert [blocks.count(block) for block in hidden] == [1] * len(hidden), list(hidden)
    assert {kind for steps in hidden.values() for step in steps for kind in step} <= {"do", "await"}


@pytest.mark.parametrize("path", docs.PAGES, ids=lambda path: path.name)
def test_each_console_block_is_run(path: Path) -> None:
    text = path.read_text()
    assert text.count("```console\n") == sum(step.kind == "show" for step in docs.steps(path))
    assert not [line for line in text.splitlines() if line.startswith(("<!-- do:", "<!-- await:"))]
