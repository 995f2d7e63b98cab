"""Findings as SARIF 2.1.0 (OASIS), for code scanning services: one run for each root."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from dockerd_guard import __version__
from dockerd_guard.rules.registry import TITLES, page

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.model.location import Location

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_LEVELS = {"error": "error", "warning": "warning", "info": "note"}


class Run(NamedTuple):
    """The findings of one root. `outside`: files that are not below it, such as a policy given by --policy."""

    root: str
    findings: tuple[Finding, ...]
    outside: frozenset[str] = frozenset()


def log(runs: Iterable[Run]) -> dict[str, Any]:
    """The SARIF log. Locations are URIs relative to the root, the uriBaseId ROOT."""
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(run) for run in runs]}


def _run(run: Run) -> dict[str, Any]:
    used = sorted({finding.code for finding in run.findings})
    base = "file://" + quote(os.fsencode(os.path.abspath(run.root)).rstrip(b"/") + b"/")
    return {
        "tool": {"driver": {
            "name": "dockerd-guard",
            "semanticVersion": __version__,
            "rules": [_rule(code) for code in used],
        }},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"ROOT": {"uri": base}},
        "results": [_result(finding, used.index(finding.code), run) for finding in run.findings],
    }


def _rule(code: str) -> dict[str, Any]:
    text = page(code)
    return {
        "id": code,
        "shortDescription": {"text": TITLES[code]},
        "help": {"text": text, "markdown": text},
    }


def _result(finding: Finding, rule: int, run: Run) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": _LEVELS[finding.severity],
        "message": {"text": _utf8(finding.message)},
        "properties": {"layer": finding.layer, "fix": finding.fix},
    }
    if finding.location is not None and finding.location.line:
        result["locations"] = [{"physicalLocation": _place(finding.location, run)}]
    return result


def _place(location: Location, run: Run) -> dict[str, Any]:
    if location.file in run.outside:
        artifact = {"uri": "file://" + quote(os.fsencode(os.path.abspath(location.file)))}
    else:
        artifact = {"uri": quote(os.fsencode(location.file.lstrip("/"))), "uriBaseId": "ROOT"}
    return {
        "artifactLocation": artifact,
        "region": {
            "startLine": location.line, "startColumn": location.column,
            "endColumn": max(location.end_column, location.column),
        },
    }


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
