"""The environment of a service: what is assigned where, and what holds in the end.

As config_parse_environ and its relatives (src/core/load-fragment.c), parse_env_file_internal
(src/basic/env-file.c) and build of the environment in exec_child (src/core/exec-invoke.c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.source import Location
from dockerd_guard.systemd.syntax import WHITESPACE, Problem, is_utf8
from dockerd_guard.tree import Unreadable

if TYPE_CHECKING:
    from dockerd_guard.systemd.units import Service
    from dockerd_guard.tree import Tree

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name of a variable, as env_name_is_valid() has it."""


class Variable(NamedTuple):
    """A value and where it is written; `location` is None for what systemd itself sets."""

    value: str
    location: Location | None = None
    certain: bool = True
    verbatim: bool = False
    """Whether the value stands in the file as it is, from `location` on, on one line."""

    def at(self, start: int, end: int) -> Location | None:
        """Where a part of the value stands; all of it where that cannot be told."""
        if self.location is None or not self.verbatim:
            return self.location
        file, line, column, _ = self.location
        return Location(file, line, column + start, column + end)


class Assigned(NamedTuple):
    """One variable given a value by Environment= or by a file."""

    name: str
    variable: Variable

    @property
    def value(self) -> str:
        """The value alone."""
        return self.variable.value


class EnvironmentFile(NamedTuple):
    """One EnvironmentFile=: the path or pattern, and whether it may be missing (`-`)."""

    path: str
    optional: bool
    location: Location


class Environment(NamedTuple):
    """What a service is started with; `failure` says why the start fails before anything runs."""

    variables: Mapping[str, Variable]
    problems: tuple[Problem, ...] = ()
    failure: str | None = None


class FileAssignments(NamedTuple):
    """What a file of variables says; `error` is why systemd refuses all of it."""

    assignments: tuple[Assigned, ...]
    problems: tuple[Problem, ...] = ()
    error: str | None = None


NOTHING: Mapping[str, Variable] = MappingProxyType({})


def resolve_environment(
    service: Service, tree: Tree, version: int, manager_environment: Mapping[str, Variable] = NOTHING
) -> Environment:
    """Merge all sources in the order of systemd.exec(5), later ones over earlier ones."""
    problems: list[Problem] = []
    merged: dict[str, Variable] = dict(manager_environment)
    merged.update({assigned.name: assigned.variable for assigned in service.environment})
    failure = None
    for file in service.environment_files:
        try:
            for path in _matches(tree, file.path):
                found = _load(tree, path, version)
                problems += found.problems
                merged.update({assigned.name: assigned.variable for assigned in found.assignments})
        except OSError as error:
            if not file.optional:
                failure = f"Failed to load environment files: {error.strerror or error}"
                problems.append(Problem(file.location, f"{failure}: {file.path}", "refused"))
                break
    for unset in service.unset_environment:
        name, equals, value = unset.text.partition("=")
        if name in merged and (not equals or merged[name].value == value):
            del merged[name]
    return Environment(merged, tuple(problems), failure)


def _load(tree: Tree, path: str, version: int) -> FileAssignments:
    try:
        data = tree.read(path)
    except Unreadable as error:
        raise OSError(5, error.reason) from None
    found = read_environment_file(data, path, version)
    if found.error:
        raise OSError(22, found.error)
    return found


def _matches(tree: Tree, pattern: str) -> list[str]:
    """The files of a pattern, sorted, as glob(3); raises FileNotFoundError where there is none."""
    paths = [""]
    for part in pattern.split("/")[1:]:
        if not re.search(r"[*?\[\\]", part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        wanted = part
        paths = [
            f"{path}/{name}"
            for path in paths
            for name in tree.names(path or "/")
            if fnmatchcase(name, wanted) and (not name.startswith(".") or wanted.startswith("."))
        ]
    found = sorted(path for path in paths if tree.stat(path) is not None)
    if not found:
        raise FileNotFoundError(2, "No such file or directory")
    return found


_NEWLINE = "\n\r"
_NEEDS_ESCAPE = '"\\`$'


def read_environment_file(data: bytes, file: str, version: int) -> FileAssignments:
    """Read a file of variables (EnvironmentFile=, os-release and the like); never raises.

    Not shell: no `$`, `export` makes the line invalid, quotes may stand anywhere in a value.
    """
    text = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    reader = _FileReader(text, file, version)
    reader.run()
    return FileAssignments(tuple(reader.assignments), tuple(reader.problems), reader.error)


class _FileReader:
    """The state machine of parse_env_file_internal, with the places kept."""

    def __init__(self, text: str, file: str, version: int) -> None:
        self.text = text
        self.file = file
        self.version = version
        self.assignments: list[Assigned] = []
        self.problems: list[Problem] = []
        self.error: str | None = None
        self.line = 1
        self.line_start = 0

    def place(self, position: int, end: int) -> Location:
        column = position - self.line_start + 1
        return Location(self.file, self.line, column, column + end - position)

    def run(self) -> None:
        position = 0
        while position < len(self.text) and self.error is None:
            position = self.statement(position)

    def newline(self, position: int) -> None:
        if self.text[position] == "\n":
            self.line += 1
            self.line_start = position + 1

    def statement(self, position: int) -> int:
        """Read one comment, one blank or one line with a key; returns where the next begins."""
        text = self.text
        character = text[position]
        if character in "#;":
            return self.comment(position)
        if character in WHITESPACE:
            self.newline(position)
            return position + 1
        end = _find_any(text, "=" + _NEWLINE, position)
        if end >= len(text) or text[end] != "=":
            if end < len(text):
                self.newline(end)
            return end + 1
        key = text[position:end].rstrip(WHITESPACE)
        return self.value(key, self.place(position, position + len(key)), end + 1)

    def comment(self, position: int) -> int:
        text = self.text
        while position < len(text):
            if text[position] == "\\":
                position += 1
                if position < len(text):
                    self.newline(position)
                    if text[position] in _NEWLINE and self.version >= 254:
                        return position + 1
            elif text[position] in _NEWLINE:
                self.newline(position)
                return position + 1
            position = _find_any(text, "\\" + _NEWLINE, position + 1)
        return position

    def value(self, key: str, key_place: Location, position: int) -> int:  # noqa: PLR0912 -- one state machine
        text = self.text
        parts: list[str] = []
        begin: tuple[int, Location] | None = None
        verbatim = True
        bare_from = 0  # parts from here on may end in blanks that do not count
        bare = False
        while position < len(text):
            character = text[position]
            if not bare and character in WHITESPACE and character not in _NEWLINE:
                position += 1
                continue
            if character in _NEWLINE:
                self.newline(position)
                position += 1
                break
            if begin is None:
                begin = (position, self.place(position, position + 1))
            if character == "\\":
                verbatim = False
                position += 1
                if position < len(text):
                    self.newline(position)
                    if text[position] not in _NEWLINE:
                        parts.append(text[position])
                    position += 1
                bare = True
                bare_from = len(parts)
            elif not bare and character in "'\"":
                verbatim = False
                position = self.quoted(position + 1, character, parts)
                bare_from = len(parts)
            else:
                if not bare:
                    bare = True
                end = _find_any(text, "\\" + _NEWLINE, position)
                parts.append(text[position:end])
                position = end
        if bare:
            tail = "".join(parts[bare_from:]).rstrip(WHITESPACE)
            parts[bare_from:] = [tail]
        value = "".join(parts)
        where = key_place
        if begin is not None:
            _, where = begin
            if verbatim:
                where = where._replace(end_column=where.column + len(value))
            else:
                end = len(text[:position].rstrip(_NEWLINE)) if where.line == self.line else where.column
                where = where._replace(end_column=max(where.column + 1, end - self.line_start + 1))
        self.push(key, key_place, Variable(value, where, True, verbatim))
        return position

    def quoted(self, position: int, quote: str, parts: list[str]) -> int:
        text = self.text
        special = quote if quote == "'" else '"\\'
        while position < len(text):
            end = _find_any(text, special, position)
            part = text[position:end]
            parts.append(part)
            if "\n" in part:
                self.line += part.count("\n")
                self.line_start = position + part.rindex("\n") + 1
            if end >= len(text):
                return end
            if text[end] == quote:
                return end + 1
            position = end + 1
            if position >= len(text):
                return position
            character = text[position]
            self.newline(position)
            if character in _NEEDS_ESCAPE:
                parts.append(character)
            elif character != "\n":
                parts.append("\\" + character)
            position += 1
        return position

    def push(self, key: str, place: Location, variable: Variable) -> None:
        if not is_utf8(key) or not is_utf8(variable.value):
            self.error = f"{self.file}: invalid UTF-8 in key or value"
        elif not NAME.fullmatch(key):
            self.problems.append(Problem(place, f"Ignoring invalid environment assignment '{key}='", "ignored"))
        else:
            self.assignments.append(Assigned(key, variable))


def _find_any(text: str, characters: str, position: int) -> int:
    """The first place of any of the characters, or the end."""
    found = re.compile("[" + re.escape(characters) + "]").search(text, position)
    return found.start() if found else len(text)
