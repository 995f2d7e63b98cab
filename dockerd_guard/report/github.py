"""Findings as GitHub Actions workflow commands, which annotate the files of a checkout."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding

_COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def commands(found: Iterable[Finding], root: str, outside: frozenset[str] = frozenset()) -> Iterator[str]:
    """One command for each finding. Paths below the working directory (the checkout) are relative to it.

    `outside`: files that are not below the root. Escapes like actions/toolkit (packages/core/src/command.ts).
    """
    for finding in found:
        properties = {"title": f"dockerd-guard {finding.code}"}
        where = finding.location
        if where is not None and where.line:
            path = where.file if where.file in outside else f"{root.rstrip('/')}{where.file}"
            properties |= {
                "file": _from_here(path), "line": str(where.line), "col": str(where.column),
                "endColumn": str(max(where.end_column, where.column)),
            }
        listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        yield f"::{_COMMANDS[finding.severity]} {listed}::{_data(finding.message)}"


def _from_here(path: str) -> str:
    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith("../") else relative


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
