"""Command lines: `ExecStart=` and its like, up to what execve(2) gets.

As config_parse_exec (src/core/load-fragment.c) and replace_env_argv (src/basic/env-util.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.assignments import NAME, Environment, Variable
from dockerd_guard.systemd.parse import is_valid_file_name, is_valid_path, simplify
from dockerd_guard.systemd.specifiers import BadSpecifierError, Specifiers
from dockerd_guard.systemd.syntax import MAX_TEXT, WHITESPACE, BadFileError, Problem, Setting, byte_length, is_safe
from dockerd_guard.systemd.words import SPLIT_VARIABLE, Extracted, Word, WordError, extract_first_word, rules_of

AMBIENT_REMOVED_VERSION = 258
"""`!!` is without effect from then on (NEWS)."""

VIA_SHELL_VERSION = 258
"""The `|` prefix came with it; before, it is a part of the name."""

DIRECTORY_REFUSED_VERSION = 253
"""path_implies_directory(): before, only a slash at the end was refused, `/usr/bin/.` was not."""

MAX_ARGUMENT_BYTES = 128 * 1024
"""MAX_ARG_STRLEN: one string given to execve(2), with its NUL (execve(2), fs/exec.c)."""

MAX_ARGUMENTS_BYTES = 6 * 1024 * 1024
"""All of them, environment included: 3/4 of _STK_LIM, whatever LimitSTACK= says."""

_ARGUMENT_BYTES = 1 + 8
"""What each takes there beside its characters: a NUL and a pointer."""

_SHOWN_ARGUMENTS = 1000

SHELL = "/bin/sh"
"""What a `|` command is loaded as; it is the user's shell that is run."""


class Command(NamedTuple):
    """One command: `path` is what is executed, `argv` what it is told, argv[0] included.

    `executable` is the first word as written, prefixes included; with `@` argv[0] is a word of its
    own, otherwise it is the executable again. `prefixes` are those of `-@:+!|` that were written.
    `shell` is what runs a `|` command in the end.
    """

    path: str
    argv: tuple[Word, ...]
    prefixes: str
    ignore_failure: bool
    no_env_expand: bool
    location: Location
    executable: Word
    shell: str = SHELL

    @property
    def head(self) -> str:
        """What a new ExecStart= has to start with, to change nothing but the arguments argv[1:]."""
        if "|" in self.prefixes:
            return self.prefixes
        return f"{self.executable.raw} {self.argv[0].raw}" if "@" in self.prefixes else self.executable.raw


class Argument(NamedTuple):
    """One argument of the process: which word of argv it came from and, if some of it came out of
    a variable, out of which. The location is that of the word, or the place where the variable was
    given its value where nothing else is in the argument."""

    text: str
    location: Location | None
    word: int
    variable: str | None = None
    certain: bool = True


class _Skip(Exception):
    """The rest of this assignment does not count."""


def commands(
    setting: Setting, specifiers: Specifiers, version: int, problems: list[Problem], *, lenient: bool = False
) -> Iterator[Command]:
    """Read one assignment of Exec*=, not an empty one; yields its commands.

    Raises BadFileError where systemd refuses, unless the command has the `-` prefix. When
    `lenient` nothing is refused: what is written comes back as far as it can be told.
    """
    position = 0
    value = setting.value
    more = True
    while more:
        # Only said in messages, which are cut off there: a line may be of a thousand commands.
        rest = value[position:position + MAX_TEXT + 1]
        reader = _Reader(setting, specifiers, version, problems, rest, False, lenient)
        try:
            first = reader.word(position)
        except BadFileError as error:
            # Where the command would begin an error costs no more than the rest of the line.
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
                "and is now ignored.", "ignored"))
        reader = reader._replace(ignore="-" in prefixes)
        try:
            if "|" in prefixes:
                executable, argv = _via_shell(reader, first, prefixes, path)
            else:
                executable = reader.executable(path, first)
                argv = [] if "@" in prefixes else [executable]
            end, position, more = reader.arguments(first.next, argv, first.end)
            if not argv:
                reader.refuse("Empty executable name or zeroeth argument", reader.rest, first.start, first.end)
                argv.append(executable)
        except _Skip:
            return
        yield Command(
            SHELL if "|" in prefixes else simplify(executable.text), tuple(argv), prefixes, "-" in prefixes,
            ":" in prefixes, setting.at(first.start, end), executable,
        )


def _via_shell(reader: _Reader, first: Extracted, prefixes: str, path: str) -> tuple[Word, list[Word]]:
    """A `|` command is the shell, with the words as its arguments."""
    where = reader.setting.at(first.start, first.end)
    raw = reader.setting.value[first.start:first.end]
    executable = Word(first.text, raw, where)
    argv = [Word("-sh" if "@" in prefixes else "sh", prefixes, where)]
    if path:
        # No specifiers here, as in 262: only the words after it are expanded.
        quote = raw[:1] if raw[:1] in ("'", '"') else ""
        argv.append(Word(path, quote + raw[len(quote) + len(prefixes):], where))
    return executable, argv


def _prefixes(word: str, version: int) -> tuple[str, str]:
    """Split the prefixes off, each of which counts once; `!!` counts as one."""
    once = "-@:|" if version >= VIA_SHELL_VERSION else "-@:"
    seen: set[str] = set()
    end = 0
    for letter in word:
        character = "!!" if letter == "!" and "!" in seen else letter
        if character in seen or not (
            character == "!!" or character in once or (character in "+!" and seen.isdisjoint(("+", "!")))
        ):
            break
        seen.add(character)
        end += 1
    return word[:end], word[end:]


class _Reader(NamedTuple):
    """Reads the parts of one command; refuses them or, with the `-` prefix, only skips."""

    setting: Setting
    specifiers: Specifiers
    version: int
    problems: list[Problem]
    rest: str
    ignore: bool
    lenient: bool

    def refuse(self, text: str, what: str, start: int, end: int) -> None:
        """Raises, unless all is to be told."""
        if self.lenient:
            return
        where = self.setting.at(start, end)
        if self.ignore:
            self.problems.append(Problem(where, f"{text}, ignoring: {what}", "ignored"))
            raise _Skip
        raise BadFileError(where, f"{text}: {what}", fatal_setting=True)

    def word(self, position: int) -> Extracted | None:
        """extract_first_word_and_warn(): unknown escapes stay as they are, with a warning."""
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
            where = self.setting.at(_skip_blanks(value, position), len(value))
            raise BadFileError(where, f'Unbalanced quoting, ignoring: "{self.rest}"', fatal_setting=True) from None
        if found is not None:
            self.problems.append(Problem(self.setting.at(found.start, found.end),
                                         f'Ignoring unknown escape sequences: "{found.text}"', "ignored"))
        return found

    def expanded(self, text: str, raw: Extracted) -> Word:
        """Put specifiers in; a bad one is refused."""
        certain = True
        try:
            text, certain = self.specifiers.expand(text)
        except BadSpecifierError as error:
            self.refuse(f"Failed to resolve unit specifiers in '{text}'", str(error), raw.start, raw.end)
        return Word(text, self.setting.value[raw.start:raw.end], self.setting.at(raw.start, raw.end), certain)

    def executable(self, text: str, raw: Extracted) -> Word:
        """The path to execute, or a name to look for."""
        word = self.expanded(text, raw)
        path = word.text
        ends_in_dots = self.version >= DIRECTORY_REFUSED_VERSION and path.rpartition("/")[2] in (".", "..")
        if not path:
            self.refuse("Empty path in command line", self.rest, raw.start, raw.end)
        elif not is_safe(path, self.version):
            self.refuse("Executable path contains special characters", path, raw.start, raw.end)
        elif path.endswith("/") or ends_in_dots:
            self.refuse("Executable path specifies a directory", path, raw.start, raw.end)
        elif not (is_valid_path(path) if path.startswith("/") else is_valid_file_name(path)):
            self.refuse("Neither a valid executable name nor an absolute path", path, raw.start, raw.end)
        return word

    def arguments(self, position: int, argv: list[Word], end: int) -> tuple[int, int, bool]:
        """Append the arguments; returns where the command ends, where to read on, and whether
        there is another command."""
        value = self.setting.value
        while position < len(value):
            if value[position] == ";" and _ends_word(value, position + 1):
                return end, _skip_blanks(value, position + 1), True
            if value.startswith("\\;", position) and _ends_word(value, position + 2):
                end = position + 2
                argv.append(Word(";", "\\;", self.setting.at(position, end)))
                position = _skip_blanks(value, end)
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


def _skip_blanks(value: str, position: int) -> int:
    while position < len(value) and value[position] in WHITESPACE:
        position += 1
    return position


def expand(command: Command, environment: Environment | Mapping[str, Variable]) -> tuple[Argument, ...]:
    """Put the variables in: exactly what execve(2) gets, argv[0] included.

    A few kilobytes can name gigabytes: where all is longer than any kernel takes (see too_long) it ends, with
    most of it in the last argument.
    """
    unknown: frozenset[str] = frozenset()
    variables = environment
    if isinstance(environment, Environment):
        variables, unknown = environment.expansion, environment.unknown
    assert not isinstance(variables, Environment)  # noqa: S101 -- for the type checker
    found: list[Argument] = []
    size = 0
    for argument in _expanded(command, variables, unknown):
        found.append(argument)
        size += len(argument.text) + _ARGUMENT_BYTES
        if size > MAX_ARGUMENTS_BYTES:
            if rest := found[_SHOWN_ARGUMENTS:]:
                found[_SHOWN_ARGUMENTS:] = [argument._replace(text=" ".join(each.text for each in rest))]
            break
    return tuple(_in_shell(command, found)) if "|" in command.prefixes else tuple(found)


def _expanded(
    command: Command, variables: Mapping[str, Variable], unknown: frozenset[str]
) -> Iterator[Argument]:
    for index, word in enumerate(command.argv):
        if "$" not in word.text or command.no_env_expand:
            yield Argument(word.text, word.location, index, None, word.certain)
        elif word.text[0] == "$" and word.text[1:2] not in ("{", "$"):
            yield from _split_variable(word, index, variables, unknown)
        else:
            yield _replace_variables(word, index, variables, unknown)


def too_long(arguments: tuple[Argument, ...], variables: Mapping[str, Variable]) -> bool:
    """Whether execve(2) certainly fails with E2BIG."""
    strings = [argument.text for argument in arguments]
    strings += [f"{name}={variable.value}" for name, variable in variables.items()]
    sizes = [byte_length(string) for string in strings]
    return max(sizes, default=0) >= MAX_ARGUMENT_BYTES or (
        sum(sizes) + len(sizes) * _ARGUMENT_BYTES > MAX_ARGUMENTS_BYTES)


def _in_shell(command: Command, arguments: list[Argument]) -> Iterator[Argument]:
    """A `|` command runs as `SHELL -c 'WORDS'`, the words joined by blanks, not quoted again;
    with `@` as a login shell."""
    login = "-" if "@" in command.prefixes else ""
    yield Argument(login + command.shell, command.executable.location, 0)
    words = arguments[1:]
    if words:
        yield Argument("-c", command.executable.location, 0)
        yield Argument(" ".join(word.text for word in words), command.location, 1,
                       next((word.variable for word in words if word.variable), None),
                       all(word.certain for word in words))


def _split_variable(
    word: Word, index: int, variables: Mapping[str, Variable], unknown: frozenset[str]
) -> Iterator[Argument]:
    """`$NAME` alone is none, one or many arguments."""
    name = word.text[1:]
    if not NAME.fullmatch(name):
        return
    variable = variables.get(name)
    if variable is None:
        if name in unknown:
            yield Argument("", word.location, index, name, certain=False)
        return
    position = 0
    while (part := extract_first_word(variable.value, position, SPLIT_VARIABLE)) is not None:
        yield Argument(part.text, variable.at(part.start, part.end) or word.location, index, name,
                       word.certain and variable.certain)
        position = part.next


def _replace_variables(
    word: Word, index: int, variables: Mapping[str, Variable], unknown: frozenset[str]
) -> Argument:
    """`${NAME}` is put in as it is; `$$` is a `$`."""
    text = word.text
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
        elif name in unknown:
            certain = False
            used.append(name)
    parts.append(text[position:])
    location = word.location
    if used and text == "${" + used[0] + "}" and used[0] in variables:
        location = variables[used[0]].location or location
    return Argument("".join(parts), location, index, used[0] if used else None, certain)


def _next_reference(text: str, position: int) -> tuple[int, int, str | None] | None:
    """The next `$$` or `${NAME}`: start, end and name (None for `$$`)."""
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
        # `${X:-d}` is not supported: it stays, and reading goes on after the colon.
        position = end + 1
    return None
