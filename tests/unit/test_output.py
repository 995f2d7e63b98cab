"""What `lint` and `sockets` print about trees of files: tests/data/lint/NAME/root, and the output beside it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden
from tests.support.command_line import Call
from tests.support.vectors import DATA

pytest_plugins = ["tests.support.fixtures"]

CASES = sorted(path.name for path in (DATA / "lint").iterdir())


@pytest.fixture
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The case's tree with the modes that files have on a host, whatever umask it was checked out with."""
    root = tmp_path / "root"
    shutil.copytree(DATA / "lint" / request.getfixturevalue("case") / "root", root, symlinks=True)
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def words(verb: str, tree: Path) -> list[object]:
    """The policy of a tree has to be named."""
    policy = tree / "etc/dockerd-guard/config.yaml"
    return [verb, "--root", tree, *(["--policy", policy] if verb == "lint" and policy.exists() else [])]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", ["lint", "sockets"])
def test_text(case: str, verb: str, tree: Path, call: Call) -> None:
    said = call(*words(verb, tree))
    errors = "".join(f"stderr: {line}\n" for line in said.err.splitlines())
    text = f"{said.out}{errors}exit status: {said.code}\n"
    golden.check(text.replace(str(tree), "ROOT"), f"lint/{case}/{_stem(verb)}.txt")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("verb", "form"), [("lint", "json"), ("sockets", "json"), ("lint", "sarif")])
def test_json(case: str, verb: str, form: str, tree: Path, call: Call) -> None:
    said = call(*words(verb, tree), "--format", form)
    name = f"lint/{case}/{_stem(verb)}.{form}"
    if said.out:
        golden.check_json(_stable(said.json, tree), name)
    else:
        golden.check("", name)


@pytest.mark.parametrize("case", CASES)
def test_github(case: str, tree: Path, call: Call) -> None:
    said = call(*words("lint", tree), "--format", "github")
    golden.check(said.out.replace(str(tree), "ROOT"), f"lint/{case}/expected.github")


def _stem(verb: str) -> str:
    return "expected" if verb == "lint" else verb


def _stable(value: Any, tree: Path) -> Any:
    """The value without what differs by place and release."""
    for run in value.get("runs", ()):
        driver = run["tool"]["driver"]
        assert re.fullmatch(r"\d+\.\d+\.\d+(-dev\.\d+)?", driver["semanticVersion"])
        driver["semanticVersion"] = "VERSION"
        driver["rules"] = [{**rule, "help": "(its page)"} if "help" in rule else rule for rule in driver["rules"]]
        run["originalUriBaseIds"]["%SRCROOT%"]["uri"] = "(the checkout)"
        for result in run["results"]:
            result["partialFingerprints"] = dict.fromkeys(result["partialFingerprints"], "(a digest)")
    return json.loads(json.dumps(value).replace(str(tree), "/ROOT"))


def test_there_are_many() -> None:
    assert len(CASES) >= 20
