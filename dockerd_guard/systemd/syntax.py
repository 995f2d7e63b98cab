"""The text of a unit file: lines, continuations, sections, assignments; each with its place.

As src/shared/conf-parser.c (config_parse, parse_line) and src/basic/fileio.c (read_line_full) of
systemd, whose behaviour here has not changed from 252 to 262.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dockerd_guard.source import Location

Effect = Literal["ignored", "rest-dropped", "refused", "file-ignored"]
"""How far a problem reaches: this line or word, the rest of the file, the whole unit, or all of a
drop-in (or socket unit) that is shadowed, masked or cannot be read."""

MAX_LINE_BYTES = 1024 * 1024
"""LONG_LINE_MAX: of one line, and of the lines that a continuation joins."""

EMPTY_SECTION_REFUSED_VERSION = 258
"""From here on `[]` is no section header (tried on 257 and 262)."""

WHITESPACE = " \t\n\r"

_LINE = re.compile(r"([^\n\r\0]*)(?:(?:\r\n|\n\r|[\n\r])\0?|\0|\Z)")
_UNSAFE = re.compile(r"[\x01-\x1f\x7f\"'\\]")
NOT_UTF8 = (
    "[\ud800-\udfff\ufdd0-\ufdef" + "".join(chr(p << 16 | c) for p in range(17) for c in (0xFFFE, 0xFFFF)) + "]"
)
"""Matches what systemd does not take for UTF-8, in a text decoded with surrogateescape."""

_NOT_UTF8 = re.compile(NOT_UTF8)


class Problem(NamedTuple):
    """What systemd would say about a line, in its own words where it has any, and what that does."""

    location: Location
    text: str
    effect: Effect


class BadFileError(Exception):
    """An error that ends the reading of a file: in a drop-in the rest is dropped, in the unit's
    own file the unit is refused. `fatal_setting` tells LoadState=bad-setting from error."""

    def __init__(self, location: Location, text: str, *, fatal_setting: bool = False) -> None:
        super().__init__(text)
        self.location = location
        self.text = text
        self.fatal_setting = fatal_setting


class Setting(NamedTuple):
    """One assignment, blanks stripped, continuations joined.

    `location` spans the assignment from its key on, as far as it stands on that line. `pieces`
    say which part of the value stands where: (offset in value, line, column), by offset.
    """

    section: str
    key: str
    value: str
    location: Location
    pieces: tuple[tuple[int, int, int], ...]

    def at(self, start: int, end: int) -> Location:
        """Where the characters `start` to `end` of the value stand; cut off at the line's end."""
        pieces = self.pieces
        index = bisect_right(pieces, start, key=_offset) - 1 if len(pieces) > 1 else 0
        offset, line, column = pieces[index]
        if index + 1 < len(pieces):
            # The blank before the next piece is the backslash of this line.
            end = max(start, min(end, pieces[index + 1][0] - 1))
        return Location(self.location.file, line, column + start - offset, column + end - offset)


def _offset(piece: tuple[int, int, int]) -> int:
    return piece[0]


def is_utf8(text: str) -> bool:
    """Whether the bytes this was decoded from (with surrogateescape) are UTF-8 to systemd, which
    also refuses noncharacters (src/basic/utf8.c, unichar_is_valid)."""
    return text.isascii() or _NOT_UTF8.search(text) is None


def settings(
    data: bytes, file: str, sections: tuple[str, ...], problems: list[Problem], version: int
) -> Iterator[Setting]:
    """Read a unit file; yields what is assigned in `sections`, in order.

    What systemd would warn about goes to `problems`. Raises BadFileError where it would stop.
    """
    text = data.decode("utf-8", "surrogateescape")
    suspect = not is_utf8(text)
    long = len(data) >= MAX_LINE_BYTES
    section: str | None = None
    ignored_section = False
    for pieces in _logical_lines(text, file, long):
        first_line, first_column, line = pieces[0]
        if len(pieces) > 1:
            line = "".join(piece for _, _, piece in pieces)
        stripped = line.strip(WHITESPACE)
        if not stripped:
            continue
        lead = len(line) - len(line.lstrip(WHITESPACE))
        start = lead
        if len(pieces) == 1:
            where = Location(file, first_line, first_column + lead, first_column + lead + len(stripped))
        else:
            where = _first_place(pieces, lead, file)
        if suspect and not is_utf8(stripped):
            raise BadFileError(where, "String is not UTF-8 clean, ignoring assignment")
        if stripped[0] == "[":
            if stripped[-1] != "]" or (stripped == "[]" and version >= EMPTY_SECTION_REFUSED_VERSION):
                raise BadFileError(where, f"Invalid section header '{stripped}'")
            section = stripped[1:-1]
            if _UNSAFE.search(section):
                raise BadFileError(where, f"Bad characters in section header '{stripped}'")
            if section not in sections:
                if not section.startswith("X-"):
                    problems.append(Problem(where, f"Unknown section '{section}'. Ignoring.", "ignored"))
                section = None
                ignored_section = True
            continue
        if section is None:
            if not ignored_section:
                problems.append(Problem(where, "Assignment outside of section. Ignoring.", "ignored"))
            continue
        equals = stripped.find("=")
        if equals <= 0:
            said = "Missing '=', ignoring line." if equals else "Missing key name before '=', ignoring line."
            problems.append(Problem(where, said, "ignored"))
            continue
        key = stripped[:equals].rstrip(WHITESPACE)
        tail = stripped[equals + 1:]
        value = tail.lstrip(WHITESPACE)
        start += equals + 1 + len(tail) - len(value)
        if len(pieces) == 1:
            places: tuple[tuple[int, int, int], ...] = ((0, first_line, first_column + start),)
        else:
            places = _places(pieces, start)
        yield Setting(section, key, value, where, places)


def written_settings(data: bytes, file: str, key: str) -> Iterator[Setting]:
    """What looks like an assignment of this key, whatever the section and whatever is wrong with
    the file; nothing of sections that are extensions (`[X-...]`)."""
    text = data.decode("utf-8", "surrogateescape")
    section = ""
    for pieces in _logical_lines(text, file, long=False):
        line = "".join(piece for _, _, piece in pieces)
        stripped = line.strip(WHITESPACE)
        if stripped.startswith("["):
            section = stripped[1:].partition("]")[0]
            continue
        name, equals, tail = stripped.partition("=")
        if not equals or name.rstrip(WHITESPACE) != key or section.startswith("X-"):
            continue
        value = tail.lstrip(WHITESPACE)
        lead = len(line) - len(line.lstrip(WHITESPACE))
        start = lead + len(stripped) - len(value)
        yield Setting(section, key, value, _first_place(pieces, lead, file), _places(pieces, start))


Piece = tuple[int, int, str]
"""Line, column of its first character, text; the backslash of a continuation is a blank already."""


def _logical_lines(text: str, file: str, long: bool) -> Iterator[list[Piece]]:
    pieces: list[Piece] = []
    joined_bytes = 0
    bom_seen = False
    number = 0
    for line in _physical_lines(text):
        number += 1
        if long and _bytes(line) >= MAX_LINE_BYTES:
            raise BadFileError(Location(file, number), "Line too long")
        stripped = line.lstrip(WHITESPACE)
        if stripped and stripped[0] in "#;":
            continue
        if not bom_seen and line.startswith("\ufeff"):
            line = line[1:]
            bom_seen = True
        if pieces and long and joined_bytes + _bytes(line) > MAX_LINE_BYTES:
            raise BadFileError(Location(file, number), "Continuation line too long")
        if (len(line) - len(line.rstrip("\\"))) % 2:
            line = line[:-1] + " "
            pieces.append((number, 1, line))
            if long:
                joined_bytes += _bytes(line)
            continue
        pieces.append((number, 1, line))
        yield pieces
        pieces = []
        joined_bytes = 0
    if pieces:
        yield pieces


def _physical_lines(text: str) -> Iterator[str]:
    if "\r" not in text and "\0" not in text:
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        yield from lines
        return
    position = 0
    while position < len(text):
        found = _LINE.match(text, position)
        assert found is not None  # every part of it may be empty
        yield found[1]
        position = found.end()


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _first_place(pieces: list[Piece], lead: int, file: str) -> Location:
    for line, column, text in pieces:
        if lead < len(text):
            return Location(file, line, column + lead, column + len(text.rstrip(WHITESPACE)))
        lead -= len(text)
    return Location(file, pieces[-1][0])


def _places(pieces: list[Piece], start: int) -> tuple[tuple[int, int, int], ...]:
    places = []
    offset = -start
    for line, column, text in pieces:
        end = offset + len(text)
        if end > 0:
            places.append((max(offset, 0), line, column + max(-offset, 0)))
        offset = end
    return tuple(places) or ((0, pieces[-1][0], pieces[-1][1]),)
