"""Command lines: `ExecStart=` and its like, up to what execve(2) gets.

As config_parse_exec (src/core/load-fragment.c) and replace_env_argv (src/basic/env-util.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.source import Location
from dockerd_guard.systemd.environment import NAME, Environment, Variable
from dockerd_guard.systemd.specifiers import BadSpecifierError, Specifiers
from dockerd_guard.systemd.syntax import WHITESPACE, BadFileError, Problem, Setting
from dockerd_guard.systemd.words import Extracted, Word, WordError, extract_first_word

_PATH_MAX_BYTES = 4096
_NAME_MAX_BYTES = 255
_UNSAFE = re.compile(r"[\x01-\x1f\x7f\"'\\]")


class Command(NamedTuple):
    """One command: `path` is what is executed, `argv` what it is told, argv[0] included.

    `executable` is the first word as written, prefixes included; with `@` argv[0] is a word of its
    own, otherwise it is the executable again. `prefixes` are those of `-@:+!|` that were written.
    """

    path: str
    argv: tuple[Word, ...]
    prefixes: str
    ignore_failure: bool
    no_env_expand: bool
    location: Location
    executable: Word

    @property
    def head(self) -> str:
        """What a new ExecStart= has to start with, to change nothing but the arguments."""
        return f"{self.executable.raw} {self.argv[0].raw}" if "@" in self.prefixes else self.executable.raw


class Argument(NamedTuple):
    """One argument of the process: which word of argv it came from and, if all of it came out of
    a variable or some of it did, out of which, with the place where that was given its value."""

    text: str
    location: Location | None
    word: int
    variable: str | None = None
    certain: bool = True


class _Skip(Exception):
    """The rest of this assignment does not count."""


def commands(setting: Setting, specifiers: Specifiers, version: int, problems: list[Problem]) -> Iterator[Command]:
    """Read one assignment of Exec*=, not an empty one; yields its commands.

    Raises BadFileError where systemd refuses, unless the command has the `-` prefix.
    """
    position = 0
    value = setting.value
    while True:
        first = _word(setting, position, problems, fatal=False)
        if first is None:
            return
        if first.text == ";":
            position = first.next
            continue
        prefixes, path = _prefixes(first.text, version)
        reader = _Reader(setting, specifiers, problems, ignore="-" in prefixes)
        try:
            executable = reader.executable(path, first)
            argv = [] if "@" in prefixes else [executable]
            position, more = reader.arguments(first.next, argv)
            if not argv:
                reader.refuse("Empty executable name or zeroeth argument", value, 0, len(value))
        except _Skip:
            return
        yield Command(
            simplify(executable.text), tuple(argv), prefixes, "-" in prefixes, ":" in prefixes,
            setting.at(first.start, position), executable,
        )
        if not more:
            return


def _word(setting: Setting, position: int, problems: list[Problem], *, fatal: bool) -> Extracted | None:
    """extract_first_word_and_warn: unknown escapes stay as they are, with a warning."""
    value = setting.value
    try:
        return extract_first_word(value, position)
    except WordError:
        pass
    try:
        found = extract_first_word(value, position, keep_unknown_escapes=True)
    except WordError as error:
        where = setting.at(error.position - 1, error.position)
        text = f'Unbalanced quoting, ignoring: "{value}"'
        if fatal:
            raise BadFileError(where, text, fatal_setting=True) from None
        problems.append(Problem(where, text, "ignored"))
        return None
    if found is not None:
        problems.append(Problem(setting.at(found.start, found.end),
                                f'Ignoring unknown escape sequences: "{found.text}"', "ignored"))
    return found


def _prefixes(word: str, version: int) -> tuple[str, str]:
    """Split the prefixes off, each of which counts once; `!!` counts as one."""
    end = 0
    seen: set[str] = set()
    for character in word:
        if character == "!" and "!" in seen and not seen & {"+", "!!"}:
            seen.add("!!")
        elif (character in "+!" and not seen & {"+", "!", "!!"}) or ((character in "-@:" or (character == "|" and version >= 258)) and character not in seen):
            seen.add(character)
        else:
            break
        end += 1
    return word[:end], word[end:]


class _Reader(NamedTuple):
    """Reads the parts of one command; refuses them or, with the `-` prefix, only skips."""

    setting: Setting
    specifiers: Specifiers
    problems: list[Problem]
    ignore: bool

    def refuse(self, text: str, what: str, start: int, end: int) -> None:
        where = self.setting.at(start, end)
        if self.ignore:
            self.problems.append(Problem(where, f"{text}, ignoring: {what}", "ignored"))
            raise _Skip
        raise BadFileError(where, f"{text}: {what}", fatal_setting=True)

    def expanded(self, text: str, raw: Extracted) -> Word:
        try:
            value, certain = self.specifiers.expand(text)
        except BadSpecifierError as error:
            self.refuse(f"Failed to resolve unit specifiers in '{text}'", f"Invalid slot ({error})",
                        raw.start, raw.end)
            raise AssertionError from None  # refuse() always raises
        return Word(value, self.setting.value[raw.start:raw.end], self.setting.at(raw.start, raw.end), certain)

    def executable(self, text: str, raw: Extracted) -> Word:
        word = self.expanded(text, raw)
        path = word.text
        if not path:
            self.refuse("Empty path in command line", self.setting.value, raw.start, raw.end)
        if _UNSAFE.search(path):
            self.refuse("Executable path contains special characters", path, raw.start, raw.end)
        if path.endswith("/") or path.rpartition("/")[2] in (".", ".."):
            self.refuse("Executable path specifies a directory", path, raw.start, raw.end)
        if not (_is_valid_path(path) if path.startswith("/") else _is_valid_name(path)):
            self.refuse("Neither a valid executable name nor an absolute path", path, raw.start, raw.end)
        return word

    def arguments(self, position: int, argv: list[Word]) -> tuple[int, bool]:
        """Append the arguments; returns where they end and whether another command follows."""
        value = self.setting.value
        end = position
        while position < len(value):
            if value[position] == ";" and _ends_word(value, position + 1):
                return _skip_blanks(value, position + 1), True
            if value.startswith("\\;", position) and _ends_word(value, position + 2):
                argv.append(Word(";", "\\;", self.setting.at(position, position + 2)))
                end = position + 2
                position = _skip_blanks(value, end)
                continue
            try:
                found = _word(self.setting, position, self.problems, fatal=True)
            except BadFileError as error:
                if not self.ignore:
                    raise
                self.problems.append(Problem(error.location, error.text, "ignored"))
                raise _Skip from None
            if found is None:
                break
            argv.append(self.expanded(found.text, found))
            end = found.end
            position = found.next
        return end, False


def _ends_word(value: str, position: int) -> bool:
    return position >= len(value) or value[position] in WHITESPACE


def _skip_blanks(value: str, position: int) -> int:
    while position < len(value) and value[position] in WHITESPACE:
        position += 1
    return position


def simplify(path: str) -> str:
    """path_simplify(): no double slashes, no `.`, no slash at the end."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _is_valid_path(path: str) -> bool:
    return _length(path) < _PATH_MAX_BYTES and all(_length(part) <= _NAME_MAX_BYTES for part in path.split("/"))


def _is_valid_name(name: str) -> bool:
    return "/" not in name and name not in (".", "..") and _length(name) <= _NAME_MAX_BYTES


_REFERENCE = re.compile(r"\$(?:\$|\{([^}:]*)([}:]|\Z))")


def expand(command: Command, environment: Environment | Mapping[str, Variable]) -> tuple[Argument, ...]:
    """Put the variables in: exactly what execve(2) gets, argv[0] included."""
    variables = environment.variables if isinstance(environment, Environment) else environment
    found: list[Argument] = []
    for index, word in enumerate(command.argv):
        if "$" not in word.text or command.no_env_expand:
            found.append(Argument(word.text, word.location, index, None, word.certain))
        elif word.text[0] == "$" and word.text[1:2] not in ("{", "$"):
            found.extend(_split_variable(word, index, variables))
        else:
            found.append(_replace_variables(word, index, variables))
    return tuple(found)


def _split_variable(word: Word, index: int, variables: Mapping[str, Variable]) -> Iterator[Argument]:
    name = word.text[1:]
    variable = variables.get(name) if NAME.fullmatch(name) else None
    if variable is None:
        return
    position = 0
    while (part := extract_first_word(variable.value, position, unescape=False, relax=True)) is not None:
        yield Argument(part.text, variable.at(part.start, part.end), index, name, word.certain and variable.certain)
        position = part.next


def _replace_variables(word: Word, index: int, variables: Mapping[str, Variable]) -> Argument:
    text = word.text
    parts: list[str] = []
    used: list[str] = []
    certain = word.certain
    position = 0
    while (found := _next_reference(text, position)) is not None:
        start, end, name = found
        parts.append(text[position:start])
        position = end
        if name is None:
            parts.append("$")
            continue
        variable = variables.get(name) if NAME.fullmatch(name) else None
        if variable is not None:
            parts.append(variable.value)
            certain = certain and variable.certain
            used.append(name)
    parts.append(text[position:])
    location = word.location
    if used and text == "${" + used[0] + "}":
        location = variables[used[0]].location or location
    return Argument("".join(parts), location, index, used[0] if used else None, certain)


def _next_reference(text: str, position: int) -> tuple[int, int, str | None] | None:
    """The next `$$` or `${NAME}`: start, end and name (None for `$$`)."""
    while (start := text.find("$", position)) >= 0:
        following = text[start + 1:start + 2]
        if following == "$":
            return start, start + 2, None
        if following == "{":
            end = start + 2
            while end < len(text) and text[end] not in "}:":
                end += 1
            if end >= len(text):
                return None
            if text[end] == "}":
                return start, end + 1, text[start + 2:end]
            # `${X:-d}` is not supported: what stands before the colon stays as it is.
            position = end + 1
        else:
            position = start + 2
    return None
