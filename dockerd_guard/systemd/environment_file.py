"""How systemd reads the files of EnvironmentFile= (src/basic/env-file.c)."""

from __future__ import annotations

import re
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.assignments import NAME, Assigned, Variable
from dockerd_guard.systemd.syntax import WHITESPACE, Problem, is_utf8

COMMENT_ESCAPE_VERSION = 254
"""Before, a backslash at the end of a comment made the next line a part of it (NEWS)."""


class FileAssignments(NamedTuple):
    """What a file of variables says; `error` is why systemd refuses all of it."""

    assignments: tuple[Assigned, ...]
    problems: tuple[Problem, ...] = ()
    error: str | None = None

_NEWLINE = "\n\r"

_NEEDS_ESCAPE = '"\\`$'

_TO_KEY_END = re.compile(r"[^=\n\r]*")

_TO_BARE_END = re.compile(r"[^\\\n\r]*")

_TO_QUOTE = {"'": re.compile(r"[^']*"), '"': re.compile(r'[^"\\]*')}


def read_environment_file(data: bytes, file: str, version: int) -> FileAssignments:
    """Read a file of variables (EnvironmentFile=, os-release and the like); never raises.

    Not shell: no `$`, `export` makes the line invalid, quotes may stand anywhere in a value.
    """
    if b"\0" in data:
        return FileAssignments((), (), f"{file}: Bad message")
    reader = _FileReader(data.decode("utf-8", "surrogateescape"), file, version)
    reader.run()
    return FileAssignments(tuple(reader.assignments), tuple(reader.problems), reader.error)


class _FileReader:
    """The state machine of parse_env_file_internal(), with the places kept."""

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
        """Count a line where one ends here, as editors do: a `\\r` alone ends an assignment, but no line."""
        if self.text[position] == "\n":
            self.line += 1
            self.line_start = position + 1

    def statement(self, position: int) -> int:
        """Read a comment, a blank or an assignment; returns where to go on."""
        text = self.text
        character = text[position]
        if character in "#;":
            return self.comment(position + 1)
        if character in WHITESPACE:
            self.pass_newline(position)
            return position + 1
        # Whatever a line begins with is the key's first character, also a "=".
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
        """Read a value up to the end of its line; quoted parts may stand one after another."""
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
        """Read up to the closing quote, or the end of the file."""
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
        """Read on to the end of the line; here quotes mean nothing any more. Blanks at the end do
        not count, those before an escape do."""
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
            self.problems.append(Problem(
                place, f"Ignoring invalid environment assignment '{key}={variable.value}'", "ignored"))
        else:
            self.assignments.append(Assigned(key, variable))
