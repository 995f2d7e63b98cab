"""A shell script as far as it is simple commands in a row: dash(1), POSIX Shell Command Language.

Quotes, variables, assignments, `export`, `set -e`, `exec`, "$@" and redirections are read; what has to
be run to be known ($(...), globs, `~`, if, loops, other files) is not.
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

_SET_ELSEWHERE = re.compile(
    "PATH|HOME|SHELL|TERM|LANG|_|PWD|OLDPWD|SHLVL|IFS|OPT(?:ARG|IND|ERR)|PS[0-9]|PPID|E?UID|GROUPS|HOST(?:NAME|TYPE)"
    "|OSTYPE|MACHTYPE|S?RANDOM|SECONDS|EPOCH[A-Z]+|LINENO|DIRSTACK|SHELLOPTS|BASH[A-Z_]*|PIPESTATUS|FUNCNAME"
    "|COLUMNS|LINES|LISTEN_[A-Z]+|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID|MEMORY_PRESSURE_[A-Z]+|WATCHDOG_[A-Z]+"
    "|TRIGGER_[A-Z]+")
"""Variables that the shell sets itself (dash(1), bash(1)), or who started it did: to what, no file tells."""

MAX_VALUES_LETTERS = 1024 * 1024
"""All values of variables that are put in: some kilobytes of script can stand for gigabytes of them."""

Result = tuple[tuple[FlagWord, ...], Mapping[str, str], bool]
"""The command that is run in the end, its environment, and whether that is certain."""


class _TooMuchError(Exception):
    """The script is more than simple commands."""


def shell_command(words: tuple[FlagWord, ...], environ: Mapping[str, str]) -> Result:
    """What `sh -c SCRIPT NAME ARGUMENTS...` runs; nothing for `sh FILE`."""
    at = 1
    while at < len(words) and words[at].text[:1] in ("-", "+") and "c" not in words[at].text.lstrip("-"):
        at += 2 if words[at].text in ("-o", "+o") else 1
    if at + 1 >= len(words) or not re.fullmatch(r"-[a-z]*c[a-z]*", words[at].text):
        return (), environ, False
    forks = "always" if words[0].text.rpartition("/")[2] in ("sh", "dash") else "redirect"
    return script_command(words[at + 1], words[at + 2:], environ, forks)


def script_command(script: FlagWord, arguments: tuple[FlagWord, ...], environ: Mapping[str, str], forks: str) -> Result:
    """What a script run with these arguments, $0 the first, ends up running.

    Without `exec`, bash (5.2, 5.3) becomes the last command of `-c` where that has no redirection, and dash
    (0.5.12, Debian's sh) never: `forks` is "redirect" or "always". What has another process ID is passed no
    sockets, since LISTEN_PID is not its own (sd_listen_fds(3)).
    """
    variables = dict(environ)
    exported = set(environ)
    certain = True
    in_place = True
    last: tuple[list[FlagWord], list[FlagWord], bool] = [], [], False
    reader = _Reader(script, variables, arguments)
    try:
        commands = _commands(reader)
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
                # What ran before had another environment than is told in the end.
                last = (*last[:2], False)
                continue
            if rest[0].text == "set" and not assignments and _only_options(rest[1:]):
                continue
            if rest[0].text == "exec" or "dockerd" in rest[0].text:
                # What follows is run once it has ended, if at all, but has to be good shell.
                is_last = not list(commands) and terminator in ("", "\n", ";")
                certain = certain and (rest[0].text == "exec" or terminator in ("", "\n", ";", "&&", "|"))
                found = _environ(variables, exported, assignments, reader.unknown)
                if terminator in ("|", "&") or (rest[0].text != "exec" and (
                        not is_last or forks == "always" or redirected)):
                    found.pop("LISTEN_FDS", None)
                return tuple(rest[rest[0].text == "exec":]), found, certain
            # What runs before may fail, or change what the next one finds.
            last, certain = (rest, assignments, certain), False
            in_place = terminator in ("", "\n", ";") and forks != "always" and not redirected
    except _TooMuchError:
        return (), environ, False
    words, assignments, certain = last
    found = _environ(variables, exported, assignments, reader.unknown)
    if not in_place:
        found.pop("LISTEN_FDS", None)
    return tuple(words), found, certain


def _environ(
    variables: Mapping[str, str], exported: set[str], assignments: list[FlagWord], unknown: set[str]
) -> dict[str, str]:
    """What a command is started with: what is exported and set, and `A=b COMMAND`, as far as it is known."""
    found = {name: value for name, value in variables.items() if name in exported}
    found.update(word.text.partition("=")[::2] for word in assignments)
    return {name: value for name, value in found.items() if name not in unknown}


def _only_options(words: list[FlagWord]) -> bool:
    """Whether set(1) leaves "$@" alone: `-e`, `-o pipefail`."""
    return all(word.text[:1] in ("-", "+") or word.text.isalpha() for word in words) and not any(
        word.text in ("-", "--", "") for word in words)


def _assign(words: list[FlagWord], variables: dict[str, str], exported: set[str], export: bool) -> None:
    for word in words:
        name, equals, value = word.text.partition("=")
        if not name.isidentifier():
            raise _TooMuchError
        if equals:
            variables[name] = value
        if export:
            exported.add(name)


def _unset(words: list[FlagWord], variables: dict[str, str], exported: set[str]) -> None:
    for word in words:
        if not word.text.isidentifier():
            raise _TooMuchError
        variables.pop(word.text, None)
        exported.discard(word.text)


def _commands(reader: _Reader) -> Iterator[tuple[list[FlagWord], list[FlagWord], str, bool]]:
    """The simple commands one after the other: assignments, words, what ends it, whether it is redirected.

    The reader's variables may change between two of them, as the commands say.
    """
    before = ""
    piped = False
    while reader.at < len(reader.script.text):
        terminator = reader.command()
        assignments, words, redirected = reader.assignments, reader.words, reader.redirected
        reader.assignments, reader.words, reader.redirected = [], [], False
        if assignments or words:
            if not piped:
                yield assignments, words, terminator, redirected
            before = terminator
        elif terminator not in ("", "\n"):
            # `;;`, `& &` and the like: the shell refuses them.
            raise _TooMuchError
        # Only what comes first in a pipe listens; the rest reads its output.
        piped = piped or terminator == "|"
    if before in ("&&", "||", "|"):
        raise _TooMuchError


class _Reader:
    """Splits a script into words, variables put in."""

    def __init__(self, script: FlagWord, variables: Mapping[str, str], arguments: tuple[FlagWord, ...]) -> None:
        self.script = script
        self.variables = variables
        self.arguments = arguments
        self.at = 0
        self.assignments: list[FlagWord] = []
        self.words: list[FlagWord] = []
        self.pieces: list[str] = []
        self.begun: int | None = None
        self.literal = True
        self.braces = False
        self.target = ""
        self.redirected = False
        self.is_assignment = False
        self.may_assign = True
        self.unknown: set[str] = set()
        self.vague = False
        self.room = MAX_VALUES_LETTERS

    def command(self) -> str:
        """Read up to what ends a command, and give that."""
        text = self.script.text
        while self.at < len(text):
            if text[self.at] == "#" and self.begun is None:
                end = text.find("\n", self.at)
                self.at = end if end >= 0 else len(text)
                continue
            found = _PART.match(text, self.at)
            if found is None:
                raise _TooMuchError
            self.at = found.end()
            if found.lastgroup == "end":
                self.finish()
                self.may_assign = True
                return found[0]
            self.part(found.lastgroup or "", found[0], found.start())
        self.finish()
        return ""

    def part(self, kind: str, text: str, start: int) -> None:
        """Take in a part of a word, or what stands between two."""
        if kind == "blank":
            self.finish()
        elif kind == "redirect":
            # The digit before it is no word; what follows is none either.
            if self.literal and "".join(self.pieces).isdigit():
                self.pieces, self.begun = [], None
            self.finish()
            self.target = text
            self.redirected = True
        elif kind == "arguments":
            self.all_arguments(text.startswith('"'))
        elif kind == "plain":
            if text == "~" and "".join(self.pieces[-1:])[-1:] in ("", "=", ":"):
                raise _TooMuchError
            self.braces = self.braces or text == "{"
            self.add(text, start, literal=True)
        elif kind == "single":
            self.add(text[1:-1], start)
        elif kind == "escape":
            if text != "\\\n":
                self.add(text[1], start)
        elif kind == "variable":
            self.split(self.value(text), start)
        else:
            self.add(self.double(), start)

    def add(self, text: str, start: int, literal: bool = False) -> None:
        """Lengthen the word, or begin one."""
        if self.begun is None:
            self.begun = start
            self.is_assignment = (literal and self.may_assign and not self.target
                                  and re.match(_ASSIGNMENT, text) is not None)
            self.may_assign = self.may_assign and (self.is_assignment or bool(self.target))
        self.pieces.append(text)
        self.literal = self.literal and literal

    def finish(self) -> None:
        """End the word, if there is one."""
        if self.begun is not None:
            text = "".join(self.pieces)
            offset = self.script.offset + (self.begun if self.literal else 0)
            if self.target in (">&", "<&") and not (text.isdigit() or text == "-"):
                raise _TooMuchError
            if self.braces and re.search(r"\{.*(,|\.\.).*\}", text, re.DOTALL):
                raise _TooMuchError  # two words to bash, one to dash
            if not self.target:
                kept = self.assignments if self.is_assignment else self.words
                if self.is_assignment or (self.is_export and "=" in text):
                    name = {text.partition("=")[0]}
                    self.unknown = self.unknown | name if self.vague else self.unknown - name
                kept.append(FlagWord(text, self.script.argument, offset))
            self.target = ""
        self.pieces, self.begun, self.literal, self.braces = [], None, True, False
        self.vague = False

    def all_arguments(self, quoted: bool) -> None:
        """Put in "$@" where it stands alone, and what comes to the same."""
        following = self.script.text[self.at:self.at + 1]
        if self.begun is not None or self.target or following not in ("", " ", "\t", "\n", ";", "&", "|"):
            raise _TooMuchError
        if not quoted and any(re.search(r"[ \t\n*?\[]", word.text) or not word.text for word in self.arguments[1:]):
            raise _TooMuchError
        self.words += self.arguments[1:]

    @property
    def is_export(self) -> bool:
        """Whether this is a word of export(1)."""
        return bool(self.words) and self.words[0].text == "export"

    def value(self, variable: str) -> str:
        """What a variable stands for; one that is not set for nothing, or for its default."""
        name, dash, default = variable.strip("${}").partition("-")
        if name.isdigit():
            place = int(name)
            if not place and not self.arguments:
                raise _TooMuchError  # what the shell goes by
            return self.within(self.arguments[place].text) if place < len(self.arguments) else ""
        found = self.variables.get(name.rstrip(":"))
        self.within(found or "")
        set_elsewhere = found is None and _SET_ELSEWHERE.fullmatch(name.rstrip(":")) is not None
        if set_elsewhere or found == UNKNOWN or name.rstrip(":") in self.unknown:
            # It may go into another variable, as in `PATH=$PATH:/opt/bin`, but into no word that counts.
            if not self.is_assignment and not self.is_export:
                raise _TooMuchError
            self.vague = True
            return ""
        return default if dash and (found is None or (name.endswith(":") and not found)) else found or ""

    def within(self, value: str) -> str:
        """Take a value in, as long as there is room."""
        self.room -= len(value)
        if self.room < 0:
            raise _TooMuchError
        return value

    def split(self, value: str, start: int) -> None:
        """Put in the value of a variable outside quotes: split at blanks, and globbed, which is too much."""
        if re.search(r"[*?\[]", value):
            raise _TooMuchError
        # Even a word that comes to nothing is no assignment, and none can follow it.
        self.may_assign = self.may_assign and (self.is_assignment or bool(self.target))
        parts = re.split(r"[ \t\n]+", value)
        # Shells differ, and differ with themselves, on what is split in these.
        if (len(parts) > 1 and (self.target or self.is_assignment or self.is_export)) or (
                self.is_assignment and self.assignments):
            raise _TooMuchError
        for place, part in enumerate(parts):
            if place:
                self.finish()
            if part:
                self.add(part, start)

    def double(self) -> str:
        """Read on to the closing double quote."""
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
        raise _TooMuchError
