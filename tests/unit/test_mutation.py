"""The mutation test itself: a fixed sample of mutants is noticed (`make mutation` runs all of them)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.mutation import EQUIVALENT, TESTS, mutants, variants

TOP = Path(__file__).parents[2]


def test_a_sample_of_mutants_is_noticed() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.mutation", "gate", "--sample", "8", "--seed", "7"], cwd=TOP,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_listed_as_equivalent_exists() -> None:
    keys = [mutant.key for module in TESTS for mutant in mutants(module)]
    assert [known for known in EQUIVALENT if not any(key.startswith(known) for key in keys)] == []


def test_the_mutations_of_a_line() -> None:
    def of(text: str) -> list[str]:
        return [ast.unparse(changed) for node in ast.walk(ast.parse(text)) for _, changed in variants(node)
                if isinstance(changed, ast.expr)]

    assert of("a < b") == ["a <= b", "a >= b"]
    assert of("a and b") == ["a or b", "b", "a"]
    assert of("not a") == ["a"]
    assert of("x if a else y") == ["x if True else y", "x if False else y"]
    assert of("5.0") == ["6.0"]
    assert of("'x'") == ["'x~'"]
    assert of("a - b") == ["a + b"]
    assert of("max(a)") == ["min(a)"]
    assert of("m._replace(a=x, b=y)") == ["m._replace(b=y)", "m._replace(a=x)"]
