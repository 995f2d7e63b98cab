"""Command lines of `ExecStart=` and the other Exec*= settings, up to the arguments of execve(2).

Implements config_parse_exec() (src/core/load-fragment.c) and replace_env_argv() (src/basic/env-util.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.assignments import NAME, Environment, Variable
from dockerd_guard.systemd.parse import is_valid_file_name, is_valid_path, simplify
from dockerd_guard.systemd.specifiers import BadSpecifierError, Specifiers
from dockerd_guard.systemd.syntax import WHITESPACE, BadFileError, Problem, Setting, byte_length, is_safe
from dockerd_guard.systemd.words import (
    SPLIT_VARIABLE,
    Extracted,
    Word,
    WordError,
    extract_first_word,
    rules_of,
    skip_blanks,
    split_words,
)

AMBIENT_REMOVED_VERSION = 258
"""Since this version the `!!` prefix has no effect (NEWS)."""

VIA_SHELL_VERSION = 258
"""Introduced the `|` prefix. Before, `|` was part of the executable's name."""

DIRECTORY_REFUSED_VERSION = 253
"""Introduced path_implies_directory(). Before, only a trailing slash was refused, `/usr/bin/.` was not."""

MAX_ARGUMENT_BYTES = 128 * 1024
"""MAX_ARG_STRLEN: maximum length of one argument of execve(2), including its NUL (execve(2), fs/exec.c)."""

MAX_ARGUMENTS_BYTES = 6 * 1024 * 1024
"""Maximum length of all arguments and the environment: 3/4 of _STK_LIM, regardless of LimitSTACK=."""

_ARGUMENT_BYTES = 1 + 8
"""Overhead of each string: a NUL and a pointer."""

_SHOWN_ARGUMENTS = 1000

SHELL = "/bin/sh"
"""Path that a `|` command has when loaded. The shell of User= is executed."""


class Command(NamedTuple):
    """One command: `path` is the executable, `argv` its arguments including argv[0].

    `executable` is the first word as written, including prefixes. With `@` argv[0] is the second word,
    otherwise it is the executable. `prefixes` are those of `-@:+!|` that were written. `shell` is the
    shell that executes a `|` command.
    """

    path: str
    argv: tuple[Word, ...]
    prefixes: str
    no_env_expand: bool
    location: Location
    executable: Word
    shell: str = SHELL

    @property
    def head(self) -> str:
        """The beginning of an ExecStart= that differs only in argv[1:]."""
        if "|" in self.prefixes:
            return self.prefixes
        return f"{self.executable.raw} {self.argv[0].raw}" if "@" in self.prefixes else self.executable.raw


class Argument(NamedTuple):
    """One argument of the process. `word` is the index of the word in Command.argv, `variable` the first variable
    that was expanded in it. The location is that of the word, or that of the variable's value if the
    argument consists of the variable only."""

    text: str
    location: Location | None
    word: int
    variable: str | None = None
    certain: bool = True


class _Skip(Exception):
    """The rest of the assignment is ignored."""


def commands(
    setting: Setting, specifiers: Specifiers, version: int, problems: list[Problem], *, lenient: bool = False
) -> Iterator[Command]:
    """Parse one non-empty assignment of Exec*= and yield its commands.

    Raises BadFileError where systemd refuses the command, unless it has the `-` prefix. With `lenient`
    nothing is refused: the commands are returned as far as they can be parsed.
    """
    position = 0
    more = True
    while more:
        parser = _ExecParser(setting, specifiers, version, problems, False, lenient)
        try:
            first = parser.word(position)
        except BadFileError as error:
            # An error in the first word only drops the rest of the line.
            problems.append(Problem(error.location, error.text, "ignored"))
            return
        if first is None:
            return
        if first.text == ";":
            position = first.next
            continue
        prefixes, path = _prefixes(first.text, version)
        if prefixes.count("!") == 2 and version >= AMBIENT_REMOVED_VERSION:
            problems.append(Problem(
                setting.at(first.start, first.end), f"The !! modifier for {setting.key}= lines is no longer supported "
                "and is now ignored.", "noted"))
        parser = parser._replace(ignore="-" in prefixes)
        try:
            if "|" in prefixes:
                executable, argv = _via_shell(parser, first, prefixes, path)
            else:
                executable = parser.executable(path, first)
                argv = [] if "@" in prefixes else [executable]
            end, position, more = parser.arguments(first.next, argv, first.end)
            if not argv:
                parser.refuse("Empty executable name or zeroeth argument", first.start, first.end)
                argv.append(executable)
        except _Skip:
            return
        yield Command(
            SHELL if "|" in prefixes else simplify(executable.text), tuple(argv), prefixes, ":" in prefixes,
            setting.at(first.start, end), executable,
        )


def _via_shell(parser: _ExecParser, first: Extracted, prefixes: str, path: str) -> tuple[Word, list[Word]]:
    """Return the executable and argv of a `|` command: the shell, with the words as its arguments."""
    location = parser.setting.at(first.start, first.end)
    raw = parser.setting.value[first.start:first.end]
    executable = Word(first.text, raw, location)
    argv = [Word("-sh" if "@" in prefixes else "sh", prefixes, location)]
    if path:
        # Not expanded, as in 262: specifiers are expanded only in the following words.
        quote = raw[:1] if raw[:1] in ("'", '"') else ""
        argv.append(Word(path, quote + raw[len(quote) + len(prefixes):], location))
    return executable, argv


def _prefixes(word: str, version: int) -> tuple[str, str]:
    """Split off the prefixes. Each may occur once; `!!` is one prefix."""
    single = "-@:|" if version >= VIA_SHELL_VERSION else "-@:"
    seen: set[str] = set()
    end = 0
    for letter in word:
        character = "!!" if letter == "!" and "!" in seen else letter
        if character in seen or not (
            character == "!!" or character in single or (character in "+!" and seen.isdisjoint(("+", "!")))
        ):
            break
        seen.add(character)
        end += 1
    return word[:end], word[end:]


class _ExecParser(NamedTuple):
    """Parser for one command. An error refuses the unit, or with the `-` prefix drops the rest of the assignment."""

    setting: Setting
    specifiers: Specifiers
    version: int
    problems: list[Problem]
    ignore: bool
    lenient: bool

    def refuse(self, text: str, start: int, end: int) -> None:
        """Raise BadFileError, or _Skip with the `-` prefix. Does nothing if lenient. The error has no values (I11)."""
        if self.lenient:
            return
        location = self.setting.at(start, end)
        if self.ignore:
            self.problems.append(Problem(location, f"{text}, ignoring", "ignored"))
            raise _Skip
        raise BadFileError(location, text, fatal_setting=True)

    def word(self, position: int) -> Extracted | None:
        """extract_first_word_and_warn(): unknown escapes are kept, with a warning."""
        value = self.setting.value
        rules = rules_of(self.version)
        try:
            return extract_first_word(value, position, rules)
        except WordError:
            pass
        try:
            found = extract_first_word(value, position, rules._replace(keep_unknown_escapes=True))
        except WordError:
            if self.lenient:
                return extract_first_word(value, position, rules._replace(keep_unknown_escapes=True, relax=True))
            location = self.setting.at(skip_blanks(value, position), len(value))
            raise BadFileError(location, "Unbalanced quoting, ignoring", fatal_setting=True) from None
        if found is not None:
            self.problems.append(Problem(self.setting.at(found.start, found.end),
                                         "Ignoring unknown escape sequences", "noted"))
        return found

    def expanded(self, text: str, raw: Extracted) -> Word:
        """Expand specifiers; an unknown one is refused."""
        certain = True
        try:
            text, certain = self.specifiers.expand(text)
        except BadSpecifierError as error:
            self.refuse(f"Failed to resolve unit specifiers: {error}", raw.start, raw.end)
        return Word(text, self.setting.value[raw.start:raw.end], self.setting.at(raw.start, raw.end), certain)

    def executable(self, text: str, raw: Extracted) -> Word:
        """Check the executable: an absolute path, or a name to be searched."""
        word = self.expanded(text, raw)
        path = word.text
        ends_in_dots = self.version >= DIRECTORY_REFUSED_VERSION and path.rpartition("/")[2] in (".", "..")
        if not path:
            self.refuse("Empty path in command line", raw.start, raw.end)
        elif not is_safe(path, self.version):
            self.refuse("Executable path contains special characters", raw.start, raw.end)
        elif path.endswith("/") or ends_in_dots:
            self.refuse("Executable path specifies a directory", raw.start, raw.end)
        elif not (is_valid_path(path) if path.startswith("/") else is_valid_file_name(path)):
            self.refuse("Neither a valid executable name nor an absolute path", raw.start, raw.end)
        return word

    def arguments(self, position: int, argv: list[Word], end: int) -> tuple[int, int, bool]:
        """Append the arguments to argv. Returns the end of the command, the next position, and whether
        another command follows."""
        value = self.setting.value
        while position < len(value):
            if value[position] == ";" and _ends_word(value, position + 1):
                return end, skip_blanks(value, position + 1), True
            if value.startswith("\\;", position) and _ends_word(value, position + 2):
                end = position + 2
                argv.append(Word(";", "\\;", self.setting.at(position, end)))
                position = skip_blanks(value, end)
                continue
            try:
                found = self.word(position)
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
        return end, position, False


def _ends_word(value: str, position: int) -> bool:
    return position >= len(value) or value[position] in WHITESPACE


def expand(command: Command, environment: Environment | Mapping[str, Variable]) -> tuple[Argument, ...]:
    """Expand variables. Returns the exact arguments of execve(2), including argv[0].

    A few kilobytes of text can expand to gigabytes. Expansion stops at MAX_ARGUMENTS_BYTES, where
    execve(2) fails anyway (see too_long); the last argument then holds most of the text.
    """
    if not isinstance(environment, Environment):
        environment = Environment(environment, (), None, environment, frozenset())
    found: list[Argument] = []
    size = 0
    for argument in _expanded(command, environment):
        found.append(argument)
        size += len(argument.text) + _ARGUMENT_BYTES
        if size > MAX_ARGUMENTS_BYTES:
            if rest := found[_SHOWN_ARGUMENTS:]:
                found[_SHOWN_ARGUMENTS:] = [argument._replace(text=" ".join(each.text for each in rest))]
            break
    if not found:
        # Linux gives a program without any argument an empty argv[0] (fs/exec.c, do_execveat_common(), since 5.18).
        found.append(Argument("", command.argv[0].location, 0))
    return tuple(_in_shell(command, found)) if "|" in command.prefixes else tuple(found)


def _expanded(command: Command, environment: Environment) -> Iterator[Argument]:
    for index, word in enumerate(command.argv):
        if "$" not in word.text or command.no_env_expand:
            yield Argument(word.text, word.location, index, None, word.certain)
        elif word.text[0] == "$" and word.text[1:2] not in ("{", "$"):
            yield from _split_variable(word, index, environment)
        else:
            yield _replace_variables(word, index, environment)


def too_long(arguments: tuple[Argument, ...], variables: Mapping[str, Variable]) -> bool:
    """Whether execve(2) fails with E2BIG on every kernel."""
    strings = [argument.text for argument in arguments]
    strings += [f"{name}={variable.value}" for name, variable in variables.items()]
    sizes = [byte_length(string) for string in strings]
    return max(sizes, default=0) >= MAX_ARGUMENT_BYTES or (
        sum(sizes) + len(sizes) * _ARGUMENT_BYTES > MAX_ARGUMENTS_BYTES)


def _in_shell(command: Command, arguments: list[Argument]) -> Iterator[Argument]:
    """Return the arguments of a `|` command: `SHELL -c 'WORDS'`, the words joined by blanks without quoting.
    With `@` the shell is a login shell."""
    login = "-" if "@" in command.prefixes else ""
    yield Argument(login + command.shell, command.executable.location, 0)
    words = arguments[1:]
    if words:
        yield Argument("-c", command.executable.location, 0)
        yield Argument(" ".join(word.text for word in words), command.location, 1,
                       next((word.variable for word in words if word.variable), None),
                       all(word.certain for word in words))


def _split_variable(word: Word, index: int, environment: Environment) -> Iterator[Argument]:
    """Expand a word that is `$NAME`: it becomes zero or more arguments."""
    name = word.text[1:]
    if not NAME.fullmatch(name):
        return
    variable = environment.expansion.get(name)
    if variable is None:
        if name in environment.unknown_expansion:
            yield Argument("", word.location, index, name, certain=False)
        return
    for part in split_words(variable.value, SPLIT_VARIABLE):
        yield Argument(part.text, variable.at(part.start, part.end) or word.location, index, name,
                       word.certain and variable.certain)


def _replace_variables(word: Word, index: int, environment: Environment) -> Argument:
    """Replace `${NAME}` by its value without splitting, and `$$` by `$`."""
    text, variables = word.text, environment.expansion
    parts: list[str] = []
    used: list[str] = []
    certain = word.certain
    position = size = 0
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
            size += len(variable.value)
            if size > MAX_ARGUMENTS_BYTES:
                position = len(text)
                break
        elif name in environment.unknown_expansion:
            certain = False
            used.append(name)
    parts.append(text[position:])
    location = word.location
    if used and text == "${" + used[0] + "}" and used[0] in variables:
        location = variables[used[0]].location or location
    return Argument("".join(parts), location, index, used[0] if used else None, certain)


def _next_reference(text: str, position: int) -> tuple[int, int, str | None] | None:
    """Return start, end and name of the next `$$` or `${NAME}`; the name of `$$` is None."""
    while (start := text.find("$", position)) >= 0:
        following = text[start + 1:start + 2]
        if following == "$":
            return start, start + 2, None
        if following != "{":
            position = start + 2
            continue
        end = start + 2
        while end < len(text) and text[end] not in "}:":
            end += 1
        if end >= len(text):
            return None
        if text[end] == "}":
            return start, end + 1, text[start + 2:end]
        # `${X:-d}` is not supported: it is kept, and scanning continues after the colon.
        position = end + 1
    return None
