"""Findings as GitHub Actions workflow commands, which annotate the files of a checkout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dockerd_guard.report.lint_result import in_checkout
from dockerd_guard.report.text import clean

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.report.lint_result import LintResult

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def commands(result: LintResult) -> Iterator[str]:
    """One command for each finding, for each that a comment ignores, and for each note. Paths are relative to the
    checkout.

    Escapes like actions/toolkit (packages/core/src/command.ts).
    """
    for finding in result.findings:
        yield _command(_COMMANDS[finding.severity], finding, result, finding.message)
    # What a pull request ignores is shown to who reviews it.
    for finding, reason in result.ignored:
        yield _command("notice", finding, result, f"ignored by a comment ({reason}): {finding.message}")
    for command, texts in (("notice", result.notes), ("warning" if result.findings else "error", result.unanswered)):
        for text in texts:
            yield f"::{command} title=dockerd-guard::{_data(text)}"


def _command(command: str, finding: Finding, result: LintResult, message: str) -> str:
    properties = {"title": f"dockerd-guard {finding.code}"}
    where = finding.location
    if where is not None and where.line:
        path = result.path(where.file)
        properties |= {
            "file": in_checkout(path) or os.path.abspath(path), "line": str(where.line), "col": str(where.column)}
        if where.end_column > where.column:
            properties["endColumn"] = str(where.end_column)
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{command} {listed}::{_data(message)}"


def _data(text: str) -> str:
    lines = re.split(r"([\r\n])", text)
    # The runner's log shows the text on a terminal or in a browser.
    shown = "".join(line if line in "\r\n" else clean(line) for line in lines)
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
