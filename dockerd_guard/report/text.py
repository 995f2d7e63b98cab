"""Reports for people: bindings as a table, findings with the source line and a caret under the words.

What comes from a host's files is shown harmless: no control, formatting or lone combining character of
it reaches the terminal.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TextIO

from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import LAYERS
from dockerd_guard.rootfs import Unreadable

if TYPE_CHECKING:
    from dockerd_guard.model.address import Binding
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.observe.observation import Layer, Observation

Read = Callable[[str], bytes]
"""Gives the content of a file that a finding points to; raises FileNotFoundError or Unreadable."""

MAX_LINE_CELLS = 150
"""A longer source line is cut to the part around the words meant."""

TAB_CELLS = 4

_PLAIN = re.compile(r"[ -~]*\Z")
_UNIT_LINE = re.compile(r"([^\n\r\0]*)(?:(?:\r\n|\n\r|[\n\r])\0?|\0|\Z)")
"""systemd also ends a line at a lone CR and at NUL (read_line_full in src/basic/fileio.c)."""

_COLOURS = {"error": "1;31", "warning": "1;33", "info": "1;36"}


def wants_colour(stream: TextIO) -> bool:
    """Only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Text of a host on one line of a terminal, and nothing but text: the rest becomes U+FFFD."""
    return text if _PLAIN.match(text) else "".join(shown for shown, _ in _cells(text))


def sockets(seen: Observation) -> Iterator[str]:
    """Where Docker listens, layer by layer, each binding with the line that made it so."""
    configured = seen.configured
    dockerd = f"dockerd {configured.dockerd_version}"
    if not configured.is_dockerd_known:
        dockerd = f"dockerd of unknown version, read as {configured.dockerd_version}"
    versions = f"{configured.service.unit.name}, systemd {configured.systemd_version}, {dockerd}"
    known = {layer.name: layer for layer in seen.layers}
    for name in LAYERS:
        layer = known.get(name)
        if layer is None:
            continue
        note = f" ({versions})" if layer is configured.layer else ""
        yield f"{name}{note}: {clean(_state(layer))}".rstrip(" ")
        yield from _table([_row(binding) for binding in layer.bindings])
    for process, bindings in seen.others:
        by = f" of {process.unit}" if process.unit else ""
        yield clean(f"another dockerd{by} (pid {process.pid}):") + ("" if bindings else " nothing")
        yield from _table([_row(binding) for binding in bindings])


def _state(layer: Layer) -> str:
    if not layer.starts:
        return f"does not start, {layer.refused_by} refuses: {layer.reason}"
    if layer.reason:
        return layer.reason
    return "" if layer.bindings else "nothing"


def _row(binding: Binding) -> tuple[str, ...]:
    tls = f"tls {binding.tls}" if binding.is_tcp else "-"
    return binding.address, binding.scope, tls, binding.via, _place(binding.source)


def _place(location: Location | None) -> str:
    return f"{location.file}:{location.line}" if location is not None and location.line else ""


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    cleaned = [tuple(map(clean, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    for row in cleaned:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()


def findings(found: Iterable[Finding], read: Read, *, colour: bool) -> Iterator[str]:
    """Each finding as FILE:LINE:COLUMN: severity: message [CODE], with its line and a caret."""
    lines = _Lines(read)
    for finding in found:
        where = finding.location
        place = clean(f"{where}: ") if where is not None else ""
        severity = _painted(f"{finding.severity}:", _COLOURS[finding.severity], colour)
        yield f"{_painted(place, '1', colour)}{severity} {clean(finding.message)} [{finding.code}]"
        line = lines.at(where) if where is not None else None
        # Where a file as a whole is meant, no words of it are.
        if where is not None and line is not None and (where.line, where.column, where.end_column) != (1, 1, 1):
            number = str(where.line)
            source, caret = excerpt(line, where.column, where.end_column)
            yield f" {number} | {source}"
            yield f" {' ' * len(number)} | {_painted(caret, '1;32', colour)}"


def summary(found: tuple[Finding, ...]) -> str:
    """How much was found, and what of it `fix` would mend."""
    if not found:
        return "nothing wrong"
    counts = [(severity, sum(finding.severity == severity for finding in found))
              for severity in ("error", "warning", "info")]
    told = ", ".join(_count(number, severity) for severity, number in counts if number)
    mended = sum(finding.fix is not None for finding in found)
    if not mended:
        return told
    codes = ", ".join(sorted({finding.code for finding in found if finding.fix is not None}))
    told += f"; `dockerd-guard fix` would mend {mended} of them ({codes})"
    notes = {
        "disruptive": "by a restart that stops running containers, as live-restore is off",
        "unsafe": "by changing a file that is not its own",
    }
    for fix, how in notes.items():
        number = sum(finding.fix == fix for finding in found)
        if number:
            told += f", {number} {how}"
    return told


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour and text else text


class _Lines:
    """Lines of files, each file read and split once."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._files: dict[str, list[str]] = {}

    def at(self, where: Location) -> str | None:
        if where.file not in self._files:
            self._files[where.file] = self._split(where.file)
        lines = self._files[where.file]
        return lines[where.line - 1] if 0 < where.line <= len(lines) else None

    def _split(self, file: str) -> list[str]:
        try:
            text = self._read(file).decode("utf-8", "surrogateescape")
        except (OSError, Unreadable):
            return []
        if file.endswith((".service", ".socket", ".conf")) and ("\r" in text or "\0" in text):
            return [line[1] for line in _UNIT_LINE.finditer(text)]
        return text.split("\n")


def excerpt(line: str, column: int, end_column: int) -> tuple[str, str]:
    """A source line as a terminal can show it, and the caret line below it.

    >>> excerpt("ExecStart=/usr/bin/dockerd -H fd://", 31, 36)
    ('ExecStart=/usr/bin/dockerd -H fd://', '                              ^~~~~')
    """
    # Far from the words nothing needs to be measured: a line may have a megabyte.
    begin = max(0, column - 1 - MAX_LINE_CELLS)
    cells = _cells(line[begin:column - 1 + 2 * MAX_LINE_CELLS])
    first = min(column - 1 - begin, len(cells))
    last = min(max(end_column - 1 - begin, first + 1), len(cells))
    before, words, after = cells[:first], cells[first:last], cells[last:]
    words_width = max(_width(words), 1)
    room = max(MAX_LINE_CELLS - words_width, 0)
    kept = _fitting(before[::-1], max(room // 2, room - _width(after)))[::-1]
    shown_words = _fitting(words, MAX_LINE_CELLS)
    rest = _fitting(after, max(0, MAX_LINE_CELLS - _width(kept) - words_width))
    left = "..." if begin or len(kept) < len(before) else ""
    cut = len(shown_words) < len(words) or len(rest) < len(after) or len(line) > begin + len(cells)
    text = "".join(shown for shown, _ in (*kept, *shown_words, *rest)).rstrip()
    caret = " " * (len(left) + _width(kept)) + "^" + "~" * (max(_width(shown_words), 1) - 1)
    return left + text + ("..." if cut else ""), caret


_Cell = tuple[str, int]
"""What is shown for a character, and how many columns of a terminal it takes."""


def _fitting(cells: list[_Cell], room: int) -> list[_Cell]:
    taken = 0
    for index, (_, width) in enumerate(cells):
        taken += width
        if taken > room:
            return cells[:index]
    return cells


def _width(cells: Iterable[_Cell]) -> int:
    return sum(width for _, width in cells)


def _cells(line: str) -> list[_Cell]:
    if line.isascii() and line.isprintable():
        return [(char, 1) for char in line]
    cells: list[_Cell] = []
    bare = False  # whether the last cell is a letter that an accent may go on
    for char in line:
        before, bare = bare, not unicodedata.combining(char) and char.isprintable() and char != " "
        if " " <= char <= "~":
            cells.append((char, 1))
        elif char == "\t":
            cells.append((" " * TAB_CELLS, TAB_CELLS))
        elif unicodedata.combining(char):
            # One accent belongs to its letter; piles of them reach into the lines around.
            cells.append((char, 0) if before else ("\N{REPLACEMENT CHARACTER}", 1))
        elif not char.isprintable() and not char.isspace():
            cells.append(("\N{REPLACEMENT CHARACTER}", 1))
        elif char.isspace():
            cells.append((" ", 1))
        else:
            cells.append((char, 2 if unicodedata.east_asian_width(char) in "WF" else 1))
    return cells
