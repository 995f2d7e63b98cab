"""The pages of the rules. Each example is added to a stock host and linted: Bad must report the code, Good must not."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd_guard.commands._common import observe_files, policy_for
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from dockerd_guard.rules.registry import RULES, TITLES, Rule, page, page_file
from tests.support import pem
from tests.support.access_paths import ROWS
from tests.support.hosts import STOCK, put

TOP = Path(__file__).resolve().parents[2]

LIVE = {"DG108", "DG207", "DG307", "DG308", "DG309", "DG402"}
"""Rules about live layers. Their tests are in test_rules.py."""

SECTIONS = ["Why", "Bad", "Good", "How to fix", "References"]
"""The sections of a page, in order. The text before the first one describes what the rule reports."""

_EXAMPLE = re.compile(r"^```file (?P<path>\S+)(?: mode=(?P<mode>[0-7]+))?\n(?P<text>.*?)^```$", re.M | re.S)


def section(code: str, name: str) -> str:
    return page(code).partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def host(root: Path, examples: str) -> Path:
    """Write a stock host and the files of an example to `root`, and return `root`."""
    for path, text in STOCK.items():
        put(root, path, text.encode(), 0o644)
    ca, server = pem.make_pair(), pem.make_pair()
    written = set()
    for example in _EXAMPLE.finditer(examples):
        path, text = example["path"], example["text"]
        assert path not in written, f"{path} occurs twice: put further cases into test_rules.py"
        written.add(path)
        generated = {
            "(a valid certificate)\n": ca.certificate if path.endswith("ca.pem") else server.certificate,
            "(the key of this certificate)\n": server.key,
            "(20,000 words)\n": b"A " * 20_000,
        }
        content = b"" if not text.strip() else generated.get(text, text.encode())
        put(root, path, content, int(example["mode"] or "644", 8))
    return root


def codes(root: Path) -> Iterator[str]:
    with Rootfs(str(root)) as rootfs:
        policy, _ = policy_for(rootfs, None)
        yield from (finding.code for finding in judge(observe_files(rootfs, None), policy))


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("code", TITLES)
def test_page_has_title_and_sections(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}: {TITLES[code]}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(section(code, name).strip() for name in SECTIONS)
    assert text.partition("\n## ")[0].partition("\n")[2].strip()


@pytest.mark.parametrize("code", sorted(TITLES.keys() - LIVE))
def test_bad_example_reports_the_code(code: str, tmp_path: Path) -> None:
    assert _EXAMPLE.search(section(code, "Bad"))
    assert code in codes(host(tmp_path, section(code, "Bad")))


@pytest.mark.parametrize("code", sorted(TITLES.keys() - LIVE))
def test_good_example_does_not_report_the_code(code: str, tmp_path: Path) -> None:
    assert _EXAMPLE.search(section(code, "Good"))
    assert code not in codes(host(tmp_path, section(code, "Good")))


def test_stock_host_has_no_findings(tmp_path: Path) -> None:
    assert list(codes(host(tmp_path, ""))) == []


def test_every_rule_module_has_a_page_and_is_registered() -> None:
    directory = Path(page_file("DG101")).parent
    pages = set(directory.glob("*.md"))
    modules = {path.with_suffix(".md") for path in directory.glob("*.py")} - {
        directory / f"{name}.md"
        for name in ("__init__", "_access_paths", "_common", "ignore_comments", "judge", "registry")}
    assert modules == pages == {Path(page_file(code)) for code in TITLES}


def test_codes_are_unique_and_sorted() -> None:
    codes = [rule.CODE for rule in RULES]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"DG[1-9][0-9]{2}", code) for code in codes)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.CODE)
def test_check_has_the_signature_of_a_rule(rule: Rule) -> None:
    """The registry imports rules by name, so mypy does not compare their modules with the protocol."""
    _, *parameters = inspect.signature(Rule.check).parameters
    assert list(inspect.signature(rule.check).parameters) == parameters


def test_docs_list_every_rule_with_its_title() -> None:
    index = (Path(__file__).parents[2] / "docs/rules.md").read_text()
    rows = [row for row in index.splitlines() if row.startswith("| [")]
    expected = [f"| [{code}](../dockerd_guard/rules/{Path(page_file(code)).name}) | {title} |"
                for code, title in TITLES.items()]
    assert rows == expected, "the rows of docs/rules.md differ from those of rules/registry.py"


def test_every_row_of_the_table_of_access_paths_has_a_system_test() -> None:
    page = (TOP / "docs/access-paths.md").read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.partition("\n## ")[0].splitlines()
            if line.startswith("| ")]
    # The heading, and what test_correction.py and test_contain.py cover.
    assert sorted(rows[2:]) == sorted(row.name for row in ROWS)
