"""Where a line and column of a text are in the file of the command line that it was made from."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.observe import file_kinds
from dockerd_guard.observe.file_kinds import Kind

if TYPE_CHECKING:
    from dockerd_guard.observe.carriers import Carried
    from dockerd_guard.observe.templates import Expression, Rendered

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


class Placed(NamedTuple):
    """A text at its place on a host, rendered if it is a template."""

    kind: Kind
    content: bytes
    file: str
    where: Where
    expressions: tuple[Expression, ...] = ()
    is_template: bool = False

    @property
    def is_of_dockerd(self) -> bool:
        """Whether it configures dockerd, and not only a service that has to do with Docker."""
        unit = re.search(r"/(docker\.(?:service|socket))(?:\.d/|\Z)", self.kind.place)
        if self.kind.syntax != "unit":
            return not self.kind.place.startswith(file_kinds.CONTAINERD)
        # A drop-in of another unit is judged only together with that.
        return unit is not None or (".d/" not in self.kind.place and re.search(
            rb"dockerd|Service[ \t]{0,8}=[ \t]{0,8}docker\.service", self.content) is not None)


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
