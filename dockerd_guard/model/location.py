"""Source locations of values, bindings and findings."""

from __future__ import annotations

from typing import NamedTuple


class Location(NamedTuple):
    """A span of one line of one file.

    `file` is the path inside the root directory. Lines and columns count from 1, columns in
    characters; `end_column` is the first column after the span, on the same line.
    """

    file: str
    line: int = 1
    column: int = 1
    end_column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
