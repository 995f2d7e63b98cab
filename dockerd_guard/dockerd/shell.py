"""Evaluates shell scripts that are lists of simple commands (dash(1), POSIX Shell Command Language).

Supported are quotes, variables, assignments, `export`, `set -e`, `exec`, "$@" and redirections. Constructs whose
result depends on execution ($(...), globs, `~`, if, loops, other files) are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dockerd_guard.dockerd.flags import UNKNOWN, FlagWord

_VARIABLE = r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9]|\{[A-Za-z_][A-Za-z0-9_]*(?::?-[^{}$`\"'\\]*)?\})"
_PART = re.compile(
    rf"(?P<blank>[ \t]+)|(?P<arguments>\"\$@\"|\$[@*])|(?P<single>'[^']*')|(?P<escape>\\(?s:.))"
    rf"|(?P<variable>{_VARIABLE})|(?P<open>\")|(?P<end>\n|;|&&|\|\||\||&)|(?P<redirect>>>|>&|<&|>\||>|<)"
    r"|(?P<plain>[^\s'\"\\$`;&|<>(){}*?#\[\]~!]+|[{}#\[\]~!])")
_QUOTED = re.compile(rf"(?P<text>[^\"\\$`]+)|(?P<escape>\\[\"\\$`\n])|(?P<backslash>\\)|(?P<variable>{_VARIABLE})"
                     r"|(?P<close>\")")
_ASSIGNMENT = r"[A-Za-z_][A-Za-z0-9_]*="
_KEYWORDS = frozenset((
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}", "!",
    "[[", "function", "trap", "eval", "source", ".", "shift", "cd", "return", "exit",
))

_SET_EXTERNALLY = re.compile(
    "PATH|HOME|SHELL|TERM|LANG|_|PWD|OLDPWD|SHLVL|IFS|OPT(?:ARG|IND|ERR)|PS[0-9]|PPID|E?UID|GROUPS|HOST(?:NAME|TYPE)"
    "|OSTYPE|MACHTYPE|S?RANDOM|SECONDS|EPOCH[A-Z]+|LINENO|DIRSTACK|SHELLOPTS|BASH[A-Z_]*|PIPESTATUS|FUNCNAME"
    "|COLUMNS|LINES|LISTEN_[A-Z]+|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|MEMORY_PRESSURE_[A-Z]+|WATCHDOG_[A-Z]+"
    "|TRIGGER_[A-Z]+")
"""Variables set by the shell (dash(1), bash(1)) or by its parent process, with values that are not in any file."""

MAX_EXPANSION_CHARACTERS = 1024 * 1024
"""Maximum total length of expanded variables. A script of some kilobytes can expand to gigabytes."""

Result = tuple[tuple[FlagWord, ...], Mapping[str, str], bool]
"""The executed command, its environment, and whether this is certain."""


class _UnsupportedShellError(Exception):
    """The script uses constructs that are not supported."""


def shell_command(words: tuple[FlagWord, ...], environ: Mapping[str, str]) -> Result:
    """Return the command that `sh -c SCRIPT NAME ARGUMENTS...` executes; an empty one for `sh FILE`."""
    at = 1
    while at < len(words) and words[at].text[:1] in ("-", "+") and "c" not in words[at].text.lstrip("-"):
        at += 2 if words[at].text in ("-o", "+o") else 1
    if at + 1 >= len(words) or not re.fullmatch(r"-[a-z]*c[a-z]*", words[at].text):
        return (), environ, False
    forks = "always" if words[0].text.rpartition("/")[2] in ("sh", "dash") else "redirect"
    return script_command(words[at + 1], words[at + 2:], environ, forks)


def script_command(script: FlagWord, arguments: tuple[FlagWord, ...], environ: Mapping[str, str], forks: str) -> Result:
    """Return the command that a script executes, given its arguments beginning with $0.

    `forks` is "redirect" for bash (5.2, 5.3), which replaces itself by the last command of `-c` unless that has a
    redirection, and "always" for dash (0.5.12, Debian's sh), which does so only with `exec`. A command with
    another process ID gets no sockets, since LISTEN_PID does not match (sd_listen_fds(3)).
    """
    variables = dict(environ)
    exported = set(environ)
    certain = True
    same_process = True
    last: tuple[list[FlagWord], list[FlagWord], bool] = [], [], False
    lexer = _ShellLexer(script, variables, arguments)
    try:
        commands = _commands(lexer)
        for assignments, rest, terminator, redirected in commands:
            if rest and rest[0].text in _KEYWORDS:
                return (), environ, False
            if not rest or (rest[0].text in ("export", "unset") and not assignments):
                if terminator not in ("", "\n", ";", "&&"):
                    return (), environ, False
                if rest and rest[0].text == "unset":
                    _unset(rest[1:], variables, exported)
                else:
                    _assign(rest[1:] or assignments, variables, exported, bool(rest))
                # The previous command had a different environment from the one returned at the end.
                last = (*last[:2], False)
                continue
            if rest[0].text == "set" and not assignments and _only_options(rest[1:]):
                continue
            if rest[0].text == "exec" or "dockerd" in rest[0].text:
                # The following commands run after dockerd has ended, if at all. Parse them for syntax errors.
                is_last = not list(commands) and terminator in ("", "\n", ";")
                certain = certain and (rest[0].text == "exec" or terminator in ("", "\n", ";", "&&", "|"))
                found = _environ(variables, exported, assignments, lexer.unknown)
                if terminator in ("|", "&") or (rest[0].text != "exec" and (
                        not is_last or forks == "always" or redirected)):
                    found.pop("LISTEN_FDS", None)
                return tuple(rest[rest[0].text == "exec":]), found, certain
            # A command before dockerd may fail, or change the state of the host.
            last, certain = (rest, assignments, certain), False
            same_process = terminator in ("", "\n", ";") and forks != "always" and not redirected
    except _UnsupportedShellError:
        return (), environ, False
    words, assignments, certain = last
    found = _environ(variables, exported, assignments, lexer.unknown)
    if not same_process:
        found.pop("LISTEN_FDS", None)
    return tuple(words), found, certain


def _environ(
    variables: Mapping[str, str], exported: set[str], assignments: list[FlagWord], unknown: set[str]
) -> dict[str, str]:
    """Return the environment of a command: exported variables and `A=b COMMAND`, without unknown values."""
    found = {name: value for name, value in variables.items() if name in exported}
    found.update(word.text.partition("=")[::2] for word in assignments)
    return {name: value for name, value in found.items() if name not in unknown}


def _only_options(words: list[FlagWord]) -> bool:
    """Whether a set command keeps "$@": it has only options such as `-e`, `-o pipefail`."""
    return all(word.text[:1] in ("-", "+") or word.text.isalpha() for word in words) and not any(
        word.text in ("-", "--", "") for word in words)


def _assign(words: list[FlagWord], variables: dict[str, str], exported: set[str], export: bool) -> None:
    for word in words:
        name, equals, value = word.text.partition("=")
        if not name.isidentifier():
            raise _UnsupportedShellError
        if equals:
            variables[name] = value
        if export:
            exported.add(name)


def _unset(words: list[FlagWord], variables: dict[str, str], exported: set[str]) -> None:
    for word in words:
        if not word.text.isidentifier():
            raise _UnsupportedShellError
        variables.pop(word.text, None)
        exported.discard(word.text)


def _commands(lexer: _ShellLexer) -> Iterator[tuple[list[FlagWord], list[FlagWord], str, bool]]:
    """Yield assignments, words, terminator and whether it is redirected for each simple command.

    The caller may change the lexer's variables between two commands.
    """
    before = ""
    piped = False
    while lexer.at < len(lexer.script.text):
        terminator = lexer.command()
        assignments, words, redirected = lexer.assignments, lexer.words, lexer.redirected
        lexer.assignments, lexer.words, lexer.redirected = [], [], False
        if assignments or words:
            if not piped:
                yield assignments, words, terminator, redirected
            before = terminator
        elif terminator not in ("", "\n"):
            # Syntax error: `;;`, `& &` and so on.
            raise _UnsupportedShellError
        # Only the first command of a pipeline listens; the others read its output.
        piped = piped or terminator == "|"
    if before in ("&&", "||", "|"):
        raise _UnsupportedShellError


class _ShellLexer:
    """Splits a script into words and expands variables."""

    def __init__(self, script: FlagWord, variables: Mapping[str, str], arguments: tuple[FlagWord, ...]) -> None:
        self.script = script
        self.variables = variables
        self.arguments = arguments
        self.at = 0
        self.assignments: list[FlagWord] = []
        self.words: list[FlagWord] = []
        self.pieces: list[str] = []
        self.word_start: int | None = None
        self.literal = True
        self.braces = False
        self.target = ""
        self.redirected = False
        self.is_assignment = False
        self.may_assign = True
        self.unknown: set[str] = set()
        self.is_unknown = False
        self.remaining_characters = MAX_EXPANSION_CHARACTERS

    def command(self) -> str:
        """Read one command and return its terminator, "" at the end of the script."""
        text = self.script.text
        while self.at < len(text):
            if text[self.at] == "#" and self.word_start is None:
                end = text.find("\n", self.at)
                self.at = end if end >= 0 else len(text)
                continue
            found = _PART.match(text, self.at)
            if found is None:
                raise _UnsupportedShellError
            self.at = found.end()
            if found.lastgroup == "end":
                self.finish()
                self.may_assign = True
                return found[0]
            self.part(found.lastgroup or "", found[0], found.start())
        self.finish()
        return ""

    def part(self, kind: str, text: str, start: int) -> None:
        """Process a part of a word, or a separator."""
        if kind == "blank":
            self.finish()
        elif kind == "redirect":
            # The digit before a redirection and the word after it are not arguments.
            if self.literal and "".join(self.pieces).isdigit():
                self.pieces, self.word_start = [], None
            self.finish()
            self.target = text
            self.redirected = True
        elif kind == "arguments":
            self.all_arguments(text.startswith('"'))
        elif kind == "plain":
            if text == "~" and "".join(self.pieces[-1:])[-1:] in ("", "=", ":"):
                raise _UnsupportedShellError
            self.braces = self.braces or text == "{"
            self.add(text, start, literal=True)
        elif kind == "single":
            self.add(text[1:-1], start)
        elif kind == "escape":
            if text != "\\\n":
                self.add(text[1], start)
        elif kind == "variable":
            self.expand_unquoted(self.value(text), start)
        else:
            self.add(self.read_double_quoted(), start)

    def add(self, text: str, start: int, literal: bool = False) -> None:
        """Append to the current word, or begin one."""
        if self.word_start is None:
            self.word_start = start
            self.is_assignment = (literal and self.may_assign and not self.target
                                  and re.match(_ASSIGNMENT, text) is not None)
            self.may_assign = self.may_assign and (self.is_assignment or bool(self.target))
        self.pieces.append(text)
        self.literal = self.literal and literal

    def finish(self) -> None:
        """End the current word, if any."""
        if self.word_start is not None:
            text = "".join(self.pieces)
            offset = self.script.offset + (self.word_start if self.literal else 0)
            if self.target in (">&", "<&") and not (text.isdigit() or text == "-"):
                raise _UnsupportedShellError
            if self.braces and re.search(r"\{.*(,|\.\.).*\}", text, re.DOTALL):
                raise _UnsupportedShellError  # brace expansion in bash, literal in dash
            if not self.target:
                kept = self.assignments if self.is_assignment else self.words
                if self.is_assignment or (self.is_export and "=" in text):
                    name = {text.partition("=")[0]}
                    self.unknown = self.unknown | name if self.is_unknown else self.unknown - name
                kept.append(FlagWord(text, self.script.argument, offset))
            self.target = ""
        self.pieces, self.word_start, self.literal, self.braces = [], None, True, False
        self.is_unknown = False

    def all_arguments(self, quoted: bool) -> None:
        """Expand "$@" if it is a whole word, and `$@` and `$*` if they are equivalent."""
        following = self.script.text[self.at:self.at + 1]
        if self.word_start is not None or self.target or following not in ("", " ", "\t", "\n", ";", "&", "|"):
            raise _UnsupportedShellError
        if not quoted and any(re.search(r"[ \t\n*?\[]", word.text) or not word.text for word in self.arguments[1:]):
            raise _UnsupportedShellError
        self.words += self.arguments[1:]

    @property
    def is_export(self) -> bool:
        """Whether the current command is export."""
        return bool(self.words) and self.words[0].text == "export"

    def value(self, variable: str) -> str:
        """Return the value of a variable, or its default; "" if it is not set."""
        name, dash, default = variable.strip("${}").partition("-")
        if name.isdigit():
            place = int(name)
            if not place and not self.arguments:
                raise _UnsupportedShellError  # the name of the shell
            return self.count(self.arguments[place].text) if place < len(self.arguments) else ""
        found = self.variables.get(name.rstrip(":"))
        self.count(found or "")
        set_externally = found is None and _SET_EXTERNALLY.fullmatch(name.rstrip(":")) is not None
        if set_externally or found == UNKNOWN or name.rstrip(":") in self.unknown:
            # Allowed in the value of another variable (`PATH=$PATH:/opt/bin`), but not in an argument.
            if not self.is_assignment and not self.is_export:
                raise _UnsupportedShellError
            self.is_unknown = True
            return ""
        return default if dash and (found is None or (name.endswith(":") and not found)) else found or ""

    def count(self, value: str) -> str:
        """Count a value towards MAX_EXPANSION_CHARACTERS and return it."""
        self.remaining_characters -= len(value)
        if self.remaining_characters < 0:
            raise _UnsupportedShellError
        return value

    def expand_unquoted(self, value: str, start: int) -> None:
        """Expand a variable outside quotes: it is split at blanks. Globs are not supported."""
        if re.search(r"[*?\[]", value):
            raise _UnsupportedShellError
        # An expansion is not an assignment, even if it is empty, and no assignment can follow it.
        self.may_assign = self.may_assign and (self.is_assignment or bool(self.target))
        parts = re.split(r"[ \t\n]+", value)
        # Shells and their versions differ in whether these are split.
        if (len(parts) > 1 and (self.target or self.is_assignment or self.is_export)) or (
                self.is_assignment and self.assignments):
            raise _UnsupportedShellError
        for place, part in enumerate(parts):
            if place:
                self.finish()
            if part:
                self.add(part, start)

    def read_double_quoted(self) -> str:
        """Read up to the closing double quote and return the text."""
        text = self.script.text
        pieces: list[str] = []
        while self.at < len(text):
            found = _QUOTED.match(text, self.at)
            if found is None:
                break
            self.at = found.end()
            if found.lastgroup == "close":
                return "".join(pieces)
            if found.lastgroup == "variable":
                pieces.append(self.value(found[0]))
            elif found.lastgroup == "escape":
                pieces.append(found[0][1].strip("\n"))
            else:
                pieces.append(found[0])
        raise _UnsupportedShellError
