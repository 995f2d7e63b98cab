"""Where a line and column of a text are in the file of the command line that it was made from."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dockerd_guard.observe.carriers import Carried
    from dockerd_guard.observe.templates import Rendered

Where = Callable[[int, int], tuple[int, int]]
"""Converts line and column of a placed text into those of the file on the command line."""


class Source(NamedTuple):
    """A text of the command line: a file, or a file within one. `carried_as` is the path it has there, `lines` are
    the first and last line."""

    file: str
    text: str
    is_named: bool
    where: Where
    carried_as: str | None = None
    lines: tuple[int, int] = (0, 0)


def same(line: int, column: int) -> tuple[int, int]:
    return line, column


def inside(carried: Carried, where: Where) -> Where:
    """Convert a place in a carried file."""
    if carried.indent is None:
        return lambda line, column: where(carried.first_line, carried.column)
    indent = carried.indent
    return lambda line, column: where(carried.first_line + line - 1, column + indent)


def through_template(rendered: Rendered, source: str, where: Where) -> Where:
    """Convert a place in a rendered template."""
    lines = _starts(rendered.text)
    source_lines = _starts(source)

    def convert(line: int, column: int) -> tuple[int, int]:
        offset = rendered.origin(lines[min(line, len(lines)) - 1] + column - 1)
        found = bisect_right(source_lines, offset)
        return where(found, offset - source_lines[found - 1] + 1)

    return convert


def _starts(text: str) -> list[int]:
    return [0, *(found.end() for found in re.finditer("\n", text))]
