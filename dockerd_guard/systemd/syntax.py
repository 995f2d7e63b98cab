"""The text of a unit file: lines, continuations, sections, assignments; each with its place.

As src/shared/conf-parser.c (config_parse, parse_line) and src/basic/fileio.c (read_line_full) of
systemd, whose behaviour here has not changed from 252 to 262.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dockerd_guard.model.location import Location

Effect = Literal["ignored", "rest-dropped", "refused", "file-ignored"]
"""How far a problem reaches: this line or word, the rest of the file, the whole unit, or all of a
drop-in (or socket unit) that is shadowed, masked or cannot be read."""

MAX_LINE_BYTES = 1024 * 1024
"""LONG_LINE_MAX: of one line, and of the lines that a continuation joins."""

NO_GLOB_VERSION = 258
"""From here on string_is_safe() refuses `*`, `?` and `[` as well, in section headers and in paths of
executables, and `[]` as a header (tried on 257 and 262)."""

WHITESPACE = " \t\n\r"

_LINE = re.compile(r"([^\n\r\0]*)(?:(?:\r\n|\n\r|[\n\r])\0?|\0|\Z)")
_UNSAFE = re.compile(r"[\x01-\x1f\x7f\"'\\]")
_UNSAFE_OR_GLOB = re.compile(r"[\x01-\x1f\x7f\"'\\*?\[]")
NOT_UTF8 = (
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)) + "]"
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


MAX_TEXT = 300
"""No message is longer, however long the line is that it quotes."""


def shown(text: str) -> str:
    """A message as it can be shown: bytes that are no text replaced, cut off where very long."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _offset(piece: tuple[int, int, object]) -> int:
    return piece[0]


def byte_length(text: str) -> int:
    """The length in bytes, as written in a file."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def is_utf8(text: str) -> bool:
    """Whether the bytes this was decoded from (with surrogateescape) are UTF-8 to systemd, which
    also refuses noncharacters (src/basic/utf8.c, unichar_is_valid)."""
    return text.isascii() or _NOT_UTF8.search(text) is None


def is_safe(text: str, version: int) -> bool:
    """string_is_safe(): no control characters, quotes or backslashes, and later no patterns."""
    if version < NO_GLOB_VERSION:
        return _UNSAFE.search(text) is None
    return _UNSAFE_OR_GLOB.search(text) is None and is_utf8(text)


def settings(
    data: bytes, file: str, sections: tuple[str, ...], problems: list[Problem], version: int
) -> Iterator[Setting]:
    """Read a unit file; yields what is assigned in `sections`, in order.

    What systemd would warn about goes to `problems`. Raises BadFileError where it would stop.
    """
    text = data.decode("utf-8", "surrogateescape")
    suspect = not is_utf8(text)
    section: str | None = None
    ignored_section = False
    for line in _logical_lines(text, file, long=len(data) >= MAX_LINE_BYTES):
        if suspect and not is_utf8(line.text):
            raise BadFileError(line.location(), f"String is not UTF-8 clean, ignoring assignment: {line.text}")
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
            said = "Missing '=', ignoring line." if equals else "Missing key name before '=', ignoring line."
            problems.append(Problem(line.location(), said, "ignored"))
        elif not ignored_section:
            problems.append(Problem(line.location(), "Assignment outside of section. Ignoring.", "ignored"))


def written_settings(data: bytes, file: str, key: str) -> Iterator[Setting]:
    """What looks like an assignment of this key, whatever the section and whatever is wrong with
    the file; nothing of sections that are extensions (`[X-...]`)."""
    section = ""
    for line in _logical_lines(data.decode("utf-8", "surrogateescape"), file, long=False):
        if line.text[0] == "[":
            section = line.text[1:].partition("]")[0]
        elif not section.startswith("X-") and (equals := line.text.find("=")) > 0:
            setting = line.setting(section, equals)
            if setting.key == key:
                yield setting


Piece = tuple[int, int, str]
"""A part of a logical line: where in the stripped line it begins (below zero where blanks were
stripped), the number of its physical line, and its text."""


class _Line(NamedTuple):
    """One logical line, never empty: without the blanks around it, and the parts it came from."""

    text: str
    pieces: list[Piece]
    file: str

    def location(self) -> Location:
        """Where it begins, up to the end of that physical line."""
        offset, number, text = self.pieces[bisect_right(self.pieces, 0, key=_offset) - 1]
        end = min(len(text.rstrip(WHITESPACE)), len(self.text) - offset)
        return Location(self.file, number, 1 - offset, end + 1)

    def setting(self, section: str, equals: int) -> Setting:
        """What is assigned, with the `=` at this place."""
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
        raise BadFileError(line.location(), f"Invalid section header '{line.text}'")
    if not is_safe(name, version) or (not name and version >= NO_GLOB_VERSION):
        raise BadFileError(line.location(), f"Bad characters in section header '{line.text}'")
    return name


def _logical_lines(text: str, file: str, *, long: bool) -> Iterator[_Line]:
    """Join what is continued; comments go, even amid a continuation. `long` says that the file is
    long enough for a line to be too long."""
    parts: list[tuple[int, str]] = []
    joined_bytes = 0
    bom_seen = False
    for number, physical in enumerate(_physical_lines(text), 1):
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


def _physical_lines(text: str) -> Iterator[str]:
    """read_line_full(): `\\n`, `\\r`, both in either order, and NUL end a line."""
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
