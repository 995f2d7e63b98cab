"""Parser for dockerd's command line: the grammar of spf13/pflag with the flags of each release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dockerd_guard.dockerd.gotext import quote, trim
from dockerd_guard.dockerd.hosts import without_credentials
from dockerd_guard.dockerd.options import Option, Options, options_of
from dockerd_guard.dockerd.values import CHECKS, TRUE
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, OLDEST_TESTED, Version


class FlagWord(NamedTuple):
    """A word of the command line with the index of its argument in argv and its offset there.

    A word of `sh -c "dockerd ..."` is a part of an argument. If the shell creates it from quotes or
    a variable, it does not occur there literally, and its offset is that of the whole argument.
    """

    text: str
    argument: int
    offset: int = 0


class Flag(NamedTuple):
    """A flag on the command line.

    `argument` is the index in argv of the word with its name, and `offset` the offset of the flag there: 0 for
    `--host`, the position of the letter for `-DHx`. `words` is 2 if the next word is the value.
    `value_argument` and `value_offset` locate the value; a flag without one (`--debug`) has None.
    """

    name: str
    value: str
    argument: int
    words: int
    offset: int
    value_argument: int | None = None
    value_offset: int = 0

    @property
    def is_true(self) -> bool:
        """Whether a bool flag is true."""
        return self.value in TRUE


class CommandLine(NamedTuple):
    """The parsed command line: flags, positional arguments, and pflag's first error, without values except hosts."""

    flags: tuple[Flag, ...] = ()
    positionals: tuple[FlagWord, ...] = ()
    error: str | None = None


class _FlagList(list[Flag]):
    """The parsed flags, and the names of runtimes in them."""

    def __init__(self) -> None:
        super().__init__()
        self.runtimes: set[str] = set()


def parse(words: tuple[FlagWord, ...], version: Version | None, stop: bool = False) -> CommandLine:
    """Parse the words after argv[0]; with `stop` only up to the first positional argument.

    Implements FlagSet.parseArgs of pflag, interspersed. dockerd stops at the first error. Here parsing continues
    after it, without the invalid word, so that all flags are returned. Invalid values are kept.
    """
    known = options_of(version)
    flags = _FlagList()
    positionals: list[FlagWord] = []
    error: str | None = None
    at = 0
    while at < len(words):
        message: str | None = None
        text = words[at].text
        if len(text) < 2 or text[0] != "-":
            if stop:
                return CommandLine(tuple(flags), words[at:])
            positionals.append(words[at])
            at += 1
        elif text == "--":
            positionals += words[at + 1:]
            break
        elif text[1] == "-":
            at, message = _long(words, at, known, flags, version)
        else:
            at, message = _short(words, at, known, flags, version)
        error = error or message
    return CommandLine(tuple(flags), tuple(positionals), error)


def last(flags: Iterable[Flag]) -> dict[str, Flag]:
    """Return the effective flag for each name, which is the last one."""
    return {flag.name: flag for flag in flags}


def _long(words: tuple[FlagWord, ...], at: int, known: Options, flags: _FlagList,
          version: Version | None) -> tuple[int, str | None]:
    text, argument, offset = words[at]
    name, equals, value = text[2:].partition("=")
    if not name or name[0] in "-=":
        return at + 1, f"bad flag syntax: --{name}"
    option = known.by_name.get(name)
    if option is None:
        return at + 1, f"unknown flag: --{name}"
    if equals:
        flag = Flag(name, value, argument, 1, offset, argument, offset + len(name) + 3)
    elif option.kind == "bool":
        flag = Flag(name, "true", argument, 1, offset)
    elif at + 1 < len(words):
        following = words[at + 1]
        flag = Flag(name, following.text, argument, 2, offset, following.argument, following.offset)
    else:
        return at + 1, f"flag needs an argument: {text}"
    return at + flag.words, _set(option, flag, flags, version)


def _short(words: tuple[FlagWord, ...], at: int, known: Options, flags: _FlagList,
           version: Version | None) -> tuple[int, str | None]:
    text, argument, offset = words[at]
    # pflag ignores words that begin with `-test.`, the flags of `go test`.
    if text.startswith("-test."):
        return at + 1, None
    place = 1
    while place < len(text):
        letter = text[place]
        option = known.by_letter.get(letter)
        if option is None:
            return at + 1, f"unknown shorthand flag: {_quote_letter(letter)}"
        flag_offset = offset + place
        if place + 2 < len(text) and text[place + 1] == "=":
            flag = Flag(option.name, text[place + 2:], argument, 1, flag_offset, argument, flag_offset + 2)
        elif option.kind == "bool":
            flag = Flag(option.name, "true", argument, 1, flag_offset)
        elif place + 1 < len(text):
            flag = Flag(option.name, text[place + 1:], argument, 1, flag_offset, argument, flag_offset + 1)
        elif at + 1 < len(words):
            following = words[at + 1]
            flag = Flag(option.name, following.text, argument, 2, flag_offset, following.argument, following.offset)
        else:
            return at + 1, f"flag needs an argument: {_quote_letter(letter)} in -{text[place:]}"
        error = _set(option, flag, flags, version)
        if error is not None or flag.value_argument is not None:
            return at + flag.words, error
        place += 1
    return at + 1, None


def _quote_letter(letter: str) -> str:
    # pflag works on bytes: of a non-ASCII letter it shows the first byte.
    return f"'{chr(letter.encode('utf-8', 'surrogateescape')[0])}'"


def _set(option: Option, flag: Flag, flags: _FlagList, version: Version | None) -> str | None:
    check = CHECKS.get(option.kind)
    message = check(flag.value, version or NEWEST_DOCKERD) if check is not None else None
    if version is None and check is not None and option.kind != "host" and not check(flag.value, OLDEST_TESTED):
        message = None
    if message is None and option.kind == "runtime":
        message = _duplicate_runtime_error(flag, flags)
    flags.append(flag)
    if message is None or message.startswith("panic: "):
        return message
    shown = f"-{option.short}, --{option.name}" if option.short else f"--{option.name}"
    if option.kind == "host":
        return without_credentials(f"invalid argument {quote(flag.value)} for {quote(shown)} flag: {message}")
    return f"invalid argument for {quote(shown)} flag: {message}"


def _duplicate_runtime_error(flag: Flag, flags: _FlagList) -> str | None:
    name = trim(flag.value.partition("=")[0]).lower()
    if name in flags.runtimes:
        return "runtime was already defined"
    flags.runtimes.add(name)
    return None


def is_set(given: Mapping[str, Flag], name: str) -> bool | None:
    """Return the value of a bool flag, or None if it is not given."""
    return given[name].is_true if name in given else None

UNKNOWN = "?"
"""Placeholder in an environment for a value that is not in any file."""
