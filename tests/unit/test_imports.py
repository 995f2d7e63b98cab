"""What tests share is in tests/support (or is a tool of its own): no test module imports another."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULE = re.compile(r"tests\.(unit|system)\.(test|slow)_\w+|tests\.unit(\.\w+)*")


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_module_is_imported(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module or ".", *(f"{node.module}.{name.name}" for name in node.names)}
    assert [name for name in sorted(imported) if MODULE.fullmatch(name)] == []
