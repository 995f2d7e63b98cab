"""Findings as SARIF 2.1.0 (OASIS), for code scanning services: one run for each root."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dockerd_guard import __version__
from dockerd_guard.model.location import Location
from dockerd_guard.report.lint_result import checkout, in_checkout
from dockerd_guard.report.text import Lines
from dockerd_guard.rules.registry import TITLES, page

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.report.lint_result import LintResult

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

CHECKOUT = "%SRCROOT%"
"""The uriBaseId of paths in a checkout, which code scanning resolves."""

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}

_MANUALS = {
    "DG1": "https://docs.docker.com/engine/security/protect-access/",
    "DG2": "https://docs.docker.com/reference/cli/dockerd/",
    "DG3": "https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html",
    "DG4": "https://docs.docker.com/engine/security/",
    "DG5": "https://docs.docker.com/engine/security/protect-access/",
}
"""helpUri by group of rules. The page of the rule itself is in `help`: the project has no public address yet."""


def log(results: Iterable[LintResult]) -> dict[str, Any]:
    """The SARIF log. Paths are relative to the checkout, or else to the root."""
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(result) for result in results]}


def _run(result: LintResult) -> dict[str, Any]:
    found = [*((finding, None) for finding in result.findings), *result.ignored]
    used = sorted({finding.code for finding, _ in found})
    bases = {CHECKOUT: {"uri": _directory(checkout())}}
    if result.root:
        bases["ROOT"] = {"uri": _directory(os.path.abspath(result.root))}
    is_complete = bool(result.findings) or not result.unanswered
    notifications = [
        *({"level": "note", "message": {"text": _utf8(text)}} for text in result.notes),
        *({"level": "warning" if result.findings else "error", "message": {"text": _utf8(text)}}
          for text in result.unanswered),
    ]
    lines, seen = Lines(result.read), dict[str, int]()
    return {
        "tool": {"driver": {
            "name": "dockerd-guard",
            "semanticVersion": __version__.replace(".dev", "-dev."),
            "rules": [_rule(code) for code in used],
        }},
        "invocations": [{"executionSuccessful": is_complete, "toolExecutionNotifications": notifications}],
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": bases,
        "results": [_result(finding, reason, used.index(finding.code), result, lines, seen)
                    for finding, reason in found],
    }


def _directory(path: str) -> str:
    return "file://" + quote(os.fsencode(path).rstrip(b"/") + b"/")


def _rule(code: str) -> dict[str, Any]:
    text = page(code)
    return {
        "id": code,
        "shortDescription": {"text": TITLES[code]},
        "helpUri": _MANUALS[code[:3]],
        "help": {"text": text, "markdown": text},
    }


def _result(  # noqa: PLR0913, PLR0917 -- the parts of a result
    finding: Finding, reason: str | None, rule: int, run: LintResult, lines: Lines, seen: dict[str, int],
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": _utf8(finding.message)},
        "properties": {"layer": finding.layer, "fix": finding.fix},
    }
    # Code scanning refuses a log with a result that has no location.
    where = finding.location
    if where is None or not where.line:
        where = Location(run.main_file or "/", 1)
    place = _place(where, run)
    result["locations"] = [{"physicalLocation": place}]
    path, line = place["artifactLocation"]["uri"], lines.at(where) or ""
    result["partialFingerprints"] = {"primaryLocationLineHash": _fingerprint(finding, path, line, seen)}
    if reason is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": _utf8(reason)}]
    return result


def _fingerprint(finding: Finding, path: str, line: str, seen: dict[str, int]) -> str:
    """Identifies a finding when lines move: the rule, the file, the text of the line, and a number for equal ones."""
    from hashlib import sha256

    text = "\0".join((finding.code, path, "".join(line.split()), finding.socket or ""))
    digest = sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    seen[digest] = seen.get(digest, 0) + 1
    return f"{digest}:{seen[digest]}"


def _place(location: Location, run: LintResult) -> dict[str, Any]:
    path = run.path(location.file)
    relative = in_checkout(path)
    if relative is not None:
        artifact = {"uri": quote(os.fsencode(relative)), "uriBaseId": CHECKOUT}
    elif location.file in run.outside:
        artifact = {"uri": "file://" + quote(os.fsencode(os.path.abspath(path)))}
    else:
        artifact = {"uri": quote(os.fsencode(location.file.lstrip("/") or ".")), "uriBaseId": "ROOT"}
    region = {"startLine": location.line}
    if location.end_column > location.column:
        # Otherwise the whole line: a region that ends where it begins is empty (3.30.2 of the specification).
        region |= {"startColumn": location.column, "endColumn": location.end_column}
    return {
        "artifactLocation": artifact,
        "region": region,
    }


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
