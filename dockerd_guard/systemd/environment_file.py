"""Parser for environment files (EnvironmentFile=), as parse_env_file_internal() in src/basic/env-file.c."""

from __future__ import annotations

import re
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.assignments import NAME, Assigned, Variable
from dockerd_guard.systemd.syntax import WHITESPACE, Problem, is_utf8

COMMENT_ESCAPE_VERSION = 254
"""Before this version a backslash at the end of a comment continued it on the next line (NEWS)."""


class FileAssignments(NamedTuple):
    """The content of an environment file. `error` is why systemd refuses the whole file."""

    assignments: tuple[Assigned, ...]
    problems: tuple[Problem, ...] = ()
    error: str | None = None

_NEWLINE = "\n\r"

_NEEDS_ESCAPE = '"\\`$'

_TO_KEY_END = re.compile(r"[^=\n\r]*")

_TO_BARE_END = re.compile(r"[^\\\n\r]*")

_TO_QUOTE = {"'": re.compile(r"[^']*"), '"': re.compile(r'[^"\\]*')}


def read_environment_file(data: bytes, file: str, version: int) -> FileAssignments:
    """Parse an environment file (EnvironmentFile=, os-release and so on). Never raises.

    This is not shell syntax: `$` is not expanded, `export` makes a line invalid, and quotes are
    allowed anywhere in a value.
    """
    if b"\0" in data:
        return FileAssignments((), (), f"{file}: Bad message")
    parser = _EnvironmentFileParser(data.decode("utf-8", "surrogateescape"), file, version)
    parser.run()
    return FileAssignments(tuple(parser.assignments), tuple(parser.problems), parser.error)


class _EnvironmentFileParser:
    """The state machine of parse_env_file_internal(), with source locations."""

    def __init__(self, text: str, file: str, version: int) -> None:
        self.text = text
        self.file = file
        self.version = version
        self.assignments: list[Assigned] = []
        self.problems: list[Problem] = []
        self.error: str | None = None
        self.line = 1
        self.line_start = 0

    def run(self) -> None:
        position = 0
        while position < len(self.text) and self.error is None:
            position = self.statement(position)

    def place(self, start: int, end: int) -> Location:
        return Location(self.file, self.line, start - self.line_start + 1, end - self.line_start + 1)

    def pass_newline(self, position: int) -> None:
        """Count a line break. As in editors, `\\r` alone is none, although it ends an assignment."""
        if self.text[position] == "\n":
            self.line += 1
            self.line_start = position + 1

    def statement(self, position: int) -> int:
        """Read a comment, a blank or an assignment. Returns the next position."""
        text = self.text
        character = text[position]
        if character in "#;":
            return self.comment(position + 1)
        if character in WHITESPACE:
            self.pass_newline(position)
            return position + 1
        # The first character always belongs to the key, even "=".
        found = _TO_KEY_END.match(text, position + 1)
        end = found.end() if found else position
        if end < len(text) and text[end] == "=":
            key = text[position:end].rstrip(WHITESPACE)
            return self.assignment(key, self.place(position, position + len(key)), end + 1)
        if end < len(text):
            self.pass_newline(end)
        return end + 1

    def comment(self, position: int) -> int:
        text = self.text
        while position < len(text):
            found = _TO_BARE_END.match(text, position)
            position = found.end() if found else position
            if position >= len(text):
                break
            escaped = text[position] == "\\"
            position += escaped
            if position < len(text):
                self.pass_newline(position)
                position += 1
                if text[position - 1] in _NEWLINE and not (escaped and self.version < COMMENT_ESCAPE_VERSION):
                    break
        return position

    def assignment(self, key: str, place: Location, position: int) -> int:
        """Read a value up to the end of its line. It may consist of several quoted parts."""
        text = self.text
        parts: list[str] = []
        places: list[Location] = []
        while position < len(text):
            character = text[position]
            if character in _NEWLINE:
                self.pass_newline(position)
                position += 1
                break
            if character in WHITESPACE:
                position += 1
            elif character in "'\"":
                position = self.quoted(position + 1, character, parts, places)
            else:
                position = self.bare(position, parts, places)
                break
        value = "".join(parts)
        if len(places) == 1 and places[0].end_column - places[0].column == len(value):
            variable = Variable(value, places[0], True, True)
        elif places:
            variable = Variable(value, places[0])
        else:
            variable = Variable(value, place._replace(column=place.end_column))
        self.push(key, place, variable)
        return position

    def quoted(self, position: int, quote: str, parts: list[str], places: list[Location]) -> int:
        """Read up to the closing quote or the end of the file. Returns the next position."""
        text = self.text
        while position < len(text):
            found = _TO_QUOTE[quote].match(text, position)
            end = found.end() if found else position
            if end > position:
                parts.append(text[position:end])
                first_end = text.find("\n", position, end)
                places.append(self.place(position, end if first_end < 0 else first_end))
                if first_end >= 0:
                    self.line += text.count("\n", position, end)
                    self.line_start = text.rindex("\n", position, end) + 1
            if end >= len(text) or text[end] == quote:
                return end + 1
            position = end + 1
            if position < len(text):
                character = text[position]
                self.pass_newline(position)
                if character in _NEEDS_ESCAPE:
                    parts.append(character)
                    places.append(self.place(position, position + 1))
                elif character != "\n":
                    parts.append("\\" + character)
                    places.append(self.place(position - 1, position + 1))
                position += 1
        return position

    def bare(self, position: int, parts: list[str], places: list[Location]) -> int:
        """Read an unquoted part up to the end of the line; quotes are literal here. Trailing blanks are
        dropped, blanks before an escape are kept. Returns the next position."""
        text = self.text
        while position < len(text):
            found = _TO_BARE_END.match(text, position)
            end = found.end() if found else position
            at_end = end >= len(text) or text[end] != "\\"
            part = text[position:end].rstrip(WHITESPACE) if at_end else text[position:end]
            if part:
                parts.append(part)
                places.append(self.place(position, position + len(part)))
            if at_end:
                if end < len(text):
                    self.pass_newline(end)
                return end + 1
            position = end + 1
            if position < len(text):
                if text[position] not in _NEWLINE:
                    parts.append(text[position])
                    places.append(self.place(position, position + 1))
                self.pass_newline(position)
                position += 1
        return position

    def push(self, key: str, place: Location, variable: Variable) -> None:
        if not is_utf8(key) or not is_utf8(variable.value):
            self.error = f"{self.file}:{place.line}: invalid UTF-8 in key or value"
        elif not NAME.fullmatch(key):
            self.problems.append(Problem(place, "Ignoring invalid environment assignment", "ignored"))
        else:
            self.assignments.append(Assigned(key, variable))
