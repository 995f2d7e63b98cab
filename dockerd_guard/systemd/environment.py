"""The environment of a service: what is assigned where, and what holds in the end.

As config_parse_environ and its relatives (src/core/load-fragment.c), parse_env_file_internal
(src/basic/env-file.c) and what exec_invoke() (src/core/exec-invoke.c) puts together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.source import Location
from dockerd_guard.systemd.syntax import WHITESPACE, Problem, is_utf8
from dockerd_guard.tree import Unreadable

if TYPE_CHECKING:
    from dockerd_guard.systemd.units import Service
    from dockerd_guard.systemd.words import Word
    from dockerd_guard.tree import Tree

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name of a variable, as env_name_is_valid() has it."""

EXPANSION_BEFORE_UNSET_VERSION = 262
"""From here on UnsetEnvironment= applies after `$X` was expanded (NEWS)."""

COMMENT_ESCAPE_VERSION = 254
"""Before, a backslash at the end of a comment made the next line a part of it (NEWS)."""

SET_AT_START = frozenset((
    "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "PATH", "SYSTEMD_EXEC_PID", "TRIGGER_PATH", "TRIGGER_UNIT"))
"""What systemd sets when it starts any service, to values that no file tells (systemd.exec(5))."""

_OF_PASSED = frozenset(("LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID"))
"""Likewise, where descriptors are passed; without any none of them is set, and LISTEN_FDS neither."""

_OF_MEMORY_PRESSURE = frozenset(("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"))
MEMORY_PRESSURE_VERSION = 254
"""From here on these are set where the kernel counts memory pressure (NEWS)."""


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
    """What a service is started with; `failure` says why the start fails before anything runs.

    `expansion` is what `$X` in a command line stands for: up to 261 the same. `unknown` are names
    whose values only the running manager knows, `untold` those of them that the process has as well.
    """

    variables: Mapping[str, Variable]
    problems: tuple[Problem, ...]
    failure: str | None
    expansion: Mapping[str, Variable]
    unknown: frozenset[str]
    untold: frozenset[str] = frozenset()


class FileAssignments(NamedTuple):
    """What a file of variables says; `error` is why systemd refuses all of it."""

    assignments: tuple[Assigned, ...]
    problems: tuple[Problem, ...] = ()
    error: str | None = None


def assignment(word: Word) -> Assigned | None:
    """`NAME=VALUE`, with the place of the value; None where it is no assignment."""
    name, equals, value = word.text.partition("=")
    if not equals or not NAME.fullmatch(name) or not is_utf8(value):
        return None
    where = word.location
    start = word.raw.find(value, len(name) + 1)
    verbatim = where is not None and start > 0 and where.end_column - where.column == len(word.raw)
    if where is not None and verbatim:
        column = where.column + start
        where = where._replace(column=column, end_column=column + len(value))
    return Assigned(name, Variable(value, where, word.certain, verbatim))


_OF_MANAGER = re.compile(r"LANG(UAGE)?|LC_[A-Z]+|TERM|PATH|HOME|SHELL|container(_[a-z]+)?|SYSTEMD_[A-Z_]+")
"""What PID 1 may have been given by the kernel, a container manager or its locale.conf. PassEnvironment= of
anything else passes nothing (systemd.exec(5)), unless DefaultEnvironment= has it."""


class _LoadError(Exception):
    """Why an environment file cannot be loaded."""


def resolve_environment(
    service: Service, tree: Tree, version: int, manager_environment: Mapping[str, Variable] | None = None,
    descriptors: int | None = None,
) -> Environment:
    """Merge all sources in the order of systemd.exec(5), later ones over earlier ones.

    `manager_environment` is what the running manager gives every service, as far as it is known;
    else DefaultEnvironment= of its files counts. `descriptors` is how many the service is passed,
    None where nobody knows.
    """
    problems: list[Problem] = []
    if manager_environment is None:
        from dockerd_guard.systemd.manager_conf import default_environment  # it needs this module

        manager_environment = default_environment(tree, version)
    merged: dict[str, Variable] = dict(manager_environment)
    if "LISTEN_FDS" in service.set_at_start:
        descriptors = None
    if descriptors:
        merged["LISTEN_FDS"] = Variable(str(descriptors))
    merged.update({assigned.name: assigned.variable for assigned in service.built_in})
    merged.update({assigned.name: assigned.variable for assigned in service.environment})
    failure = None
    # Each file once, where it was last named: what it assigned before is assigned again.
    files: dict[str, FileAssignments] = {}
    for file in service.environment_files:
        try:
            _load(tree, file, version, files, problems)
        except _LoadError as error:
            failure = f"Failed to load environment files: {error}"
            problems.append(Problem(file.location, f"{failure}: {file.path}", "refused"))
            break
    for found in files.values():
        merged.update({assigned.name: assigned.variable for assigned in found.assignments})
    kept = dict(merged)
    for unset in service.unset_environment:
        name, equals, value = unset.text.partition("=")
        if name in kept and (not equals or kept[name].value == value):
            del kept[name]
    unset_first = version < EXPANSION_BEFORE_UNSET_VERSION
    unknown = SET_AT_START.union(service.set_at_start, (
        word.text for word in service.pass_environment if _OF_MANAGER.fullmatch(word.text)))
    if version >= MEMORY_PRESSURE_VERSION:
        unknown |= _OF_MEMORY_PRESSURE
    if descriptors != 0:
        unknown |= _OF_PASSED if descriptors else {*_OF_PASSED, "LISTEN_FDS"}
    untold = unknown.difference(word.text for word in service.unset_environment)
    if unset_first:
        return Environment(kept, tuple(problems), failure, kept, untold, untold)
    return Environment(kept, tuple(problems), failure, merged, unknown, untold)


def _load(
    tree: Tree, file: EnvironmentFile, version: int, files: dict[str, FileAssignments], problems: list[Problem]
) -> None:
    """exec_context_load_environment(): one EnvironmentFile=, which may be many files."""
    paths = _matches(tree, file.path)
    if not paths and not file.optional:
        raise _LoadError("No such file or directory")
    for path in paths:
        if path in files:
            files[path] = files.pop(path)
            continue
        try:
            found = _read(tree, path, version)
        except _LoadError as error:
            if not file.optional:
                raise
            problems.append(Problem(Location(path), f"{error}; ignored for the '-' in EnvironmentFile=-{file.path}",
                                    "file-ignored"))
            continue
        problems += found.problems
        files[path] = found


def _read(tree: Tree, path: str, version: int) -> FileAssignments:
    if path == "/dev/null":
        return FileAssignments(())
    try:
        data = tree.read(path)
    except FileNotFoundError:
        raise _LoadError("No such file or directory") from None
    except Unreadable as error:
        entry = tree.stat(path)
        if entry is not None and entry.is_character_device:
            return FileAssignments(())
        raise _LoadError(str(error)) from None
    found = read_environment_file(data, path, version)
    if found.error:
        raise _LoadError(found.error)
    return found


MAX_MATCHES = 20_000
"""Paths of one pattern that are followed: with links in circles each `/*` multiplies them."""

_MAGIC = re.compile(r"[*?\[\\]")
_BRACKET = re.compile(r"([!^]?)(\]?(?:\[:[a-z]+:\]|[^\]])*)\]")
_CLASSES = {  # glob(7), as far as ASCII goes
    "[:alnum:]": "0-9A-Za-z", "[:alpha:]": "A-Za-z", "[:blank:]": " \\t", "[:cntrl:]": "\\x01-\\x1f\\x7f",
    "[:digit:]": "0-9", "[:graph:]": "!-~", "[:lower:]": "a-z", "[:print:]": " -~",
    "[:punct:]": "!-/:-@\\[-`{-~", "[:space:]": "\\t-\\r ", "[:upper:]": "A-Z", "[:xdigit:]": "0-9A-Fa-f",
}


def _matches(tree: Tree, pattern: str) -> list[str]:
    """glob(3) without flags: what is there, sorted; a pattern leads into no hidden name."""
    paths = [""]
    for part in pattern.split("/")[1:]:
        if not _MAGIC.search(part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        glob = _Glob(part)
        matches = (f"{path}/{name}" for path in paths for name in _names(tree, path or "/")
                   if glob.matches(name) and (name[0] != "." or part[0] == "." or part.startswith("\\.")))
        paths = list(islice(matches, MAX_MATCHES + 1))
        if len(paths) > MAX_MATCHES:
            raise _LoadError(f"more than {MAX_MATCHES} paths match")
    return sorted(path for path in paths if path == "/dev/null" or _exists(tree, path))


def _names(tree: Tree, path: str) -> tuple[str, ...]:
    try:
        return tree.names(path)
    except Unreadable:
        return ()


def _exists(tree: Tree, path: str) -> bool:
    try:
        return tree.stat(path or "/", follow=False) is not None
    except Unreadable:
        return False


class _Glob:
    """One part of a path with `*`, `?`, `[...]` and backslashes; never more than linear in a name
    for each star."""

    def __init__(self, pattern: str) -> None:
        pieces: list[str] = [""]
        position = 0
        while position < len(pattern):
            character = pattern[position]
            position += 1
            if character == "*":
                pieces.append("")
            elif character == "?":
                pieces[-1] += "."
            elif character == "[" and (found := _BRACKET.match(pattern, position)):
                parts = re.split(r"(\[:[a-z]+:\])", found[2])
                inner = "".join(_CLASSES.get(part) or re.sub(r"([\\\[&~|])", r"\\\1", part) for part in parts)
                pieces[-1] += f"[{'^' if found[1] else ''}{inner}]"
                position = found.end()
            else:
                if character == "\\" and position < len(pattern):
                    character = pattern[position]
                    position += 1
                pieces[-1] += re.escape(character)
        try:
            self._pieces = [re.compile(piece, re.DOTALL) for piece in pieces]
        except re.error:  # a range from high to low
            self._pieces = [re.compile(r"(?!)")]

    def matches(self, name: str) -> bool:
        """Whether a name fits, hidden names left aside."""
        first, *middle = self._pieces
        if not middle:
            return first.fullmatch(name) is not None
        found = first.match(name)
        for piece in middle[:-1]:
            if found is None:
                return False
            found = piece.search(name, found.end())
        if found is None:
            return False
        last = middle[-1]
        return any(last.fullmatch(name, start) for start in range(found.end(), len(name) + 1))


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
