"""Syntax of unit files: lines, continuations, sections, assignments, with source locations.

Implements src/shared/conf-parser.c (config_parse, parse_line) and src/basic/fileio.c (read_line_full), which
behave the same from 252 to 262 except for NO_GLOB_VERSION.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter
from typing import Literal, NamedTuple

from dockerd_guard.model.location import Location

Effect = Literal["noted", "ignored", "rest-dropped", "refused", "file-ignored"]
"""What a problem affects: nothing, one line or word, the rest of the file, the whole unit, or a drop-in (or socket
unit) that is shadowed, masked or unreadable."""

MAX_LINE_BYTES = 1024 * 1024
"""LONG_LINE_MAX: maximum length of a line, and of a line joined from continuations."""

NO_GLOB_VERSION = 258
"""Since this version string_is_safe() also refuses `*`, `?` and `[`, in section headers and in paths of
executables, and `[]` as a header (tested on 257 and 262)."""

WHITESPACE = " \t\n\r"

_LINE = re.compile(r"([^\n\r\0]*)(?:(?:\r\n|\n\r|[\n\r])\0?|\0|\Z)")
_UNIT_FILE = re.compile(r"\.(?:service|socket|conf)\Z")
_UNSAFE = re.compile(r"[\x01-\x1f\x7f\"'\\]")
_UNSAFE_OR_GLOB = re.compile(r"[\x01-\x1f\x7f\"'\\*?\[]")
NOT_UTF8 = (
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)) + "]"
)
"""Pattern for characters that systemd refuses as UTF-8, in text decoded with surrogateescape."""

_NOT_UTF8 = re.compile(NOT_UTF8)


class Problem(NamedTuple):
    """A problem in a file, with systemd's message if it has one, and its effect."""

    location: Location
    text: str
    effect: Effect


class BadFileError(Exception):
    """An error that stops reading a file. In a drop-in the rest is dropped, in the fragment the unit is refused,
    with LoadState=bad-setting if `fatal_setting`, else LoadState=error."""

    def __init__(self, location: Location, text: str, *, fatal_setting: bool = False) -> None:
        super().__init__(text)
        self.location = location
        self.text = text
        self.fatal_setting = fatal_setting


class Setting(NamedTuple):
    """One assignment, blanks stripped, continuations joined.

    `location` starts at the key and ends with that line. `pieces` map the value to the file:
    (offset in value, line, column), sorted by offset.
    """

    section: str
    key: str
    value: str
    location: Location
    pieces: tuple[tuple[int, int, int], ...]

    def at(self, start: int, end: int) -> Location:
        """Return the location of value[start:end], truncated at the end of the line."""
        pieces = self.pieces
        index = bisect_right(pieces, start, key=itemgetter(0)) - 1 if len(pieces) > 1 else 0
        offset, line, column = pieces[index]
        if index + 1 < len(pieces):
            # The blank before the next piece is the backslash at the end of this line.
            end = max(start, min(end, pieces[index + 1][0] - 1))
        return Location(self.location.file, line, column + start - offset, column + end - offset)


MAX_TEXT = 300
"""Maximum length of a message in characters."""


def printable(text: str) -> str:
    """Return a message for display: truncated to MAX_TEXT, bytes that are not UTF-8 replaced."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def byte_length(text: str) -> int:
    """Return the length in bytes of a text decoded with surrogateescape."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def is_utf8(text: str) -> bool:
    """Whether systemd accepts the bytes of a text decoded with surrogateescape as UTF-8. It also refuses
    noncharacters (unichar_is_valid() in src/basic/utf8.c)."""
    return text.isascii() or _NOT_UTF8.search(text) is None


def is_safe(text: str, version: int) -> bool:
    """string_is_safe(): no control characters, quotes or backslashes; no globs since NO_GLOB_VERSION."""
    if version < NO_GLOB_VERSION:
        return _UNSAFE.search(text) is None
    return _UNSAFE_OR_GLOB.search(text) is None and is_utf8(text)


def settings(
    data: bytes, file: str, sections: tuple[str, ...], problems: list[Problem], version: int
) -> Iterator[Setting]:
    """Parse a unit file and yield the assignments in `sections` in order.

    Warnings are added to `problems`. Raises BadFileError where systemd stops reading.
    """
    text = data.decode("utf-8", "surrogateescape")
    suspect = not is_utf8(text)
    section: str | None = None
    ignored_section = False
    for line in _logical_lines(text, file, long=len(data) >= MAX_LINE_BYTES):
        if suspect and not is_utf8(line.text):
            raise BadFileError(line.location(), "String is not UTF-8 clean, ignoring assignment")
        if line.text[0] == "[":
            section = _section(line, version)
            if section not in sections:
                if not section.startswith("X-"):
                    problems.append(Problem(line.location(), f"Unknown section '{section}'. Ignoring.", "ignored"))
                section = None
                ignored_section = True
            continue
        equals = line.text.find("=")
        if section is not None and equals > 0:
            yield line.setting(section, equals)
        elif section is not None:
            message = "Missing '=', ignoring line." if equals else "Missing key name before '=', ignoring line."
            problems.append(Problem(line.location(), message, "ignored"))
        elif not ignored_section:
            problems.append(Problem(line.location(), "Assignment outside of section. Ignoring.", "ignored"))


def written_settings(data: bytes, file: str, key: str) -> Iterator[Setting]:
    """Yield all lines that look like an assignment of this key, in any section but `[X-...]` and even if the
    file is invalid."""
    section = ""
    for line in _logical_lines(data.decode("utf-8", "surrogateescape"), file, long=False):
        if line.text[0] == "[":
            section = line.text[1:].partition("]")[0]
        elif not section.startswith("X-") and (equals := line.text.find("=")) > 0:
            setting = line.setting(section, equals)
            if setting.key == key:
                yield setting


Piece = tuple[int, int, str]
"""A part of a logical line: its offset in the stripped line (negative if leading blanks were stripped), the
number of its physical line, and its text."""


class _Line(NamedTuple):
    """One logical line, not empty, surrounding blanks stripped, and the parts it was joined from."""

    text: str
    pieces: list[Piece]
    file: str

    def location(self) -> Location:
        """Return the location from the first character to the end of that physical line."""
        offset, number, text = self.pieces[bisect_right(self.pieces, 0, key=itemgetter(0)) - 1]
        end = min(len(text.rstrip(WHITESPACE)), len(self.text) - offset)
        return Location(self.file, number, 1 - offset, end + 1)

    def setting(self, section: str, equals: int) -> Setting:
        """Return the assignment whose `=` is at this offset."""
        tail = self.text[equals + 1:]
        value = tail.lstrip(WHITESPACE)
        start = len(self.text) - len(value)
        if len(self.pieces) == 1:
            offset, number, _ = self.pieces[0]
            places: tuple[tuple[int, int, int], ...] = ((0, number, start - offset + 1),)
        else:
            places = tuple(
                (max(offset - start, 0), number, max(start - offset, 0) + 1)
                for offset, number, text in self.pieces if offset + len(text) > start
            ) or ((0, self.pieces[-1][1], 1),)
        return Setting(section, self.text[:equals].rstrip(WHITESPACE), value, self.location(), places)


def _section(line: _Line, version: int) -> str:
    name = line.text[1:-1]
    if line.text[-1] != "]":
        raise BadFileError(line.location(), "Invalid section header")
    if not is_safe(name, version) or (not name and version >= NO_GLOB_VERSION):
        raise BadFileError(line.location(), "Bad characters in section header")
    return name


def _logical_lines(text: str, file: str, *, long: bool) -> Iterator[_Line]:
    """Yield logical lines: continuations joined, comments removed even within a continuation. `long`: the file
    is long enough to exceed MAX_LINE_BYTES."""
    parts: list[tuple[int, str]] = []
    joined_bytes = 0
    bom_seen = False
    for number, physical in enumerate(physical_lines(text), 1):
        if long and byte_length(physical) >= MAX_LINE_BYTES:
            raise BadFileError(Location(file, number), "Line too long")
        if physical.lstrip(WHITESPACE)[:1] in ("#", ";"):
            continue
        line = physical
        if not bom_seen and line.startswith("\ufeff"):
            line = line[1:]
            bom_seen = True
        if parts and long and joined_bytes + byte_length(line) > MAX_LINE_BYTES:
            raise BadFileError(Location(file, number), "Continuation line too long")
        if line.endswith("\\") and (len(line) - len(line.rstrip("\\"))) % 2:
            parts.append((number, line[:-1] + " "))
            if long:
                joined_bytes += byte_length(line)
            continue
        parts.append((number, line))
        if (logical := _joined(parts, file)) is not None:
            yield logical
        parts = []
        joined_bytes = 0
    if parts and (logical := _joined(parts, file)) is not None:
        yield logical


def _joined(parts: list[tuple[int, str]], file: str) -> _Line | None:
    line = parts[0][1] if len(parts) == 1 else "".join(text for _, text in parts)
    text = line.strip(WHITESPACE)
    if not text:
        return None
    offset = len(line.lstrip(WHITESPACE)) - len(line)
    pieces: list[Piece] = []
    for number, part in parts:
        pieces.append((offset, number, part))
        offset += len(part)
    return _Line(text, pieces, file)


def lines_of(file: str, text: str) -> list[str]:
    """The lines of a file as locations count them. Those of a unit file end as read_line_full() has it."""
    return list(physical_lines(text)) if _UNIT_FILE.search(file) is not None else text.split("\n")


def physical_lines(text: str) -> Iterator[str]:
    """read_line_full(): a line ends with `\\n`, `\\r`, both in either order, or NUL."""
    if "\r" not in text and "\0" not in text:
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        yield from lines
        return
    position = 0
    while position < len(text) and (found := _LINE.match(text, position)) is not None:
        yield found[1]
        position = found.end()
