"""Each rule's page: its examples are laid over a stock host and linted. The bad one gives the code, the
good one does not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd_guard.cli import observe_files, policy_for
from dockerd_guard.judge.judge import judge
from dockerd_guard.judge.rules import RULES, TITLES, page
from dockerd_guard.tree import Tree
from tests.support import pem
from tests.support.hosts import STOCK, put

LIVE = {"DG207", "DG307", "DG308", "DG309", "DG402"}
"""About layers that files do not show: test_judge.py has them."""

SECTIONS = ["Why", "Bad", "Good", "Fix", "References"]

_EXAMPLE = re.compile(r"^```file (?P<path>\S+)(?: mode=(?P<mode>[0-7]+))?\n(?P<text>.*?)^```$", re.M | re.S)


def section(code: str, name: str) -> str:
    return page(code).partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def host(root: Path, examples: str) -> Path:
    """A stock host with the files of an example laid over it."""
    for path, text in STOCK.items():
        put(root, path, text.encode(), 0o644)
    ca, server = pem.make_pair(), pem.make_pair()
    laid = set()
    for example in _EXAMPLE.finditer(examples):
        path, text = example["path"], example["text"]
        assert path not in laid, f"{path} is there twice: a further case goes into the table of test_judge.py"
        laid.add(path)
        made = {
            "(a certificate in date)\n": ca.certificate if path.endswith("ca.pem") else server.certificate,
            "(its key)\n": server.key,
        }
        content = b"" if not text.strip() else made.get(text, text.encode())
        put(root, path, content, int(example["mode"] or "644", 8))
    return root


def codes(root: Path) -> Iterator[str]:
    with Tree(str(root)) as tree:
        policy, _ = policy_for(tree, None)
        yield from (finding.code for finding in judge(observe_files(tree, None), policy))


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("code", TITLES)
def test_a_page_has_all_its_parts(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}: {TITLES[code]}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(section(code, name).strip() for name in SECTIONS)


@pytest.mark.parametrize("code", sorted(TITLES.keys() - LIVE))
def test_the_bad_example_gives_the_code(code: str, tmp_path: Path) -> None:
    assert _EXAMPLE.search(section(code, "Bad"))
    assert code in codes(host(tmp_path, section(code, "Bad")))


@pytest.mark.parametrize("code", sorted(TITLES.keys() - LIVE))
def test_the_good_example_does_not(code: str, tmp_path: Path) -> None:
    assert _EXAMPLE.search(section(code, "Good"))
    assert code not in codes(host(tmp_path, section(code, "Good")))


def test_a_stock_host_has_nothing_wrong(tmp_path: Path) -> None:
    assert list(codes(host(tmp_path, ""))) == []


def test_every_rule_is_called_after_its_file() -> None:
    directory = Path(str(RULES[0].__file__)).parent  # type: ignore[attr-defined]
    modules = {path.stem.upper() for path in directory.glob("dg*.py")}
    pages = {path.stem.upper() for path in directory.glob("dg*.md")}
    assert modules == pages == TITLES.keys()


def test_the_index_lists_every_page_by_its_title() -> None:
    index = (Path(__file__).parents[2] / "docs/rules.md").read_text()
    rows = [row for row in index.splitlines() if row.startswith("| [")]
    expected = [f"| [{code}](../dockerd_guard/judge/{code.lower()}.md) | {title} |" for code, title in TITLES.items()]
    assert rows == expected, "the rows of docs/rules.md are not those of judge/rules.py"
