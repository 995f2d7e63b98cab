"""dockerd's command line: spf13/pflag's grammar over the flags a release knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dockerd_guard.dockerd.gotext import quote, trim
from dockerd_guard.dockerd.options import Option, Options, options_of
from dockerd_guard.dockerd.values import CHECKS, TRUE
from dockerd_guard.dockerd.version import NEWEST, OLD, Version


class Word(NamedTuple):
    """A word of the command line, and where it stands: the index in argv and where it begins there.

    A word out of `sh -c "dockerd ..."` stands inside another; one that is made by the shell (out of
    quotes or a variable) does not stand there as it is, and its `offset` is that of the whole.
    """

    text: str
    argument: int
    offset: int = 0


class Flag(NamedTuple):
    """A flag as given.

    `argument` is the index in argv of the word that names it and `offset` where its own letters begin
    there: 0 for `--host`, the letter's place for `-DHx`. `words` is 2 where it took the next word as
    its value. `value_argument` and `value_offset` say where the value stands; a flag without one
    (`--debug`) has None.
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
        """Whether a bool flag is set to true."""
        return self.value in TRUE


class CommandLine(NamedTuple):
    """What pflag makes of the words: the flags up to an error, what is left over, and the error."""

    flags: tuple[Flag, ...] = ()
    positionals: tuple[Word, ...] = ()
    error: str | None = None


class _Found(list[Flag]):
    """The flags so far, and the runtimes that they name."""

    def __init__(self) -> None:
        super().__init__()
        self.runtimes: set[str] = set()


def parse(words: tuple[Word, ...], version: Version | None, stop: bool = False) -> CommandLine:
    """Read the words after the program's name; with `stop`, only up to the first positional.

    pflag: FlagSet.parseArgs, interspersed. The first error ends it in dockerd; what is written behind it
    is read on here, as if the word that is wrong were not there, and a value that is refused is kept.
    """
    known = options_of(version)
    flags = _Found()
    positionals: list[Word] = []
    error: str | None = None
    at = 0
    while at < len(words):
        wrong: str | None = None
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
            at, wrong = _long(words, at, known, flags, version)
        else:
            at, wrong = _short(words, at, known, flags, version)
        error = error or wrong
    return CommandLine(tuple(flags), tuple(positionals), error)


def last(flags: Iterable[Flag]) -> dict[str, Flag]:
    """The flag that counts for each name: the last one."""
    return {flag.name: flag for flag in flags}


def _long(words: tuple[Word, ...], at: int, known: Options, flags: _Found,
          version: Version | None) -> tuple[int, str | None]:
    text, argument, offset = words[at]
    name, equals, value = text[2:].partition("=")
    if not name or name[0] in "-=":
        return at + 1, f"bad flag syntax: {text}"
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


def _short(words: tuple[Word, ...], at: int, known: Options, flags: _Found,
           version: Version | None) -> tuple[int, str | None]:
    text, argument, offset = words[at]
    # pflag leaves `go test`'s own flags alone, and all that stands in such a word.
    if text.startswith("-test."):
        return at + 1, None
    place = 1
    while place < len(text):
        letter = text[place]
        option = known.by_letter.get(letter)
        if option is None:
            return at + 1, f"unknown shorthand flag: {_letter(letter)} in -{text[place:]}"
        here = offset + place
        if place + 2 < len(text) and text[place + 1] == "=":
            flag = Flag(option.name, text[place + 2:], argument, 1, here, argument, here + 2)
        elif option.kind == "bool":
            flag = Flag(option.name, "true", argument, 1, here)
        elif place + 1 < len(text):
            flag = Flag(option.name, text[place + 1:], argument, 1, here, argument, here + 1)
        elif at + 1 < len(words):
            following = words[at + 1]
            flag = Flag(option.name, following.text, argument, 2, here, following.argument, following.offset)
        else:
            return at + 1, f"flag needs an argument: {_letter(letter)} in -{text[place:]}"
        error = _set(option, flag, flags, version)
        if error is not None or flag.value_argument is not None:
            return at + flag.words, error
        place += 1
    return at + 1, None


def _letter(letter: str) -> str:
    # pflag reads bytes: of a letter outside ASCII it sees the first byte.
    return f"'{chr(letter.encode('utf-8', 'surrogateescape')[0])}'"


def _set(option: Option, flag: Flag, flags: _Found, version: Version | None) -> str | None:
    check = CHECKS.get(option.kind)
    wrong = check(flag.value, version or NEWEST) if check is not None else None
    if version is None and check is not None and option.kind != "host" and not check(flag.value, OLD):
        wrong = None
    if wrong is None and option.kind == "runtime":
        wrong = _second_runtime(flag, flags)
    flags.append(flag)
    if wrong is None or wrong.startswith("panic: "):
        return wrong
    shown = f"-{option.short}, --{option.name}" if option.short else f"--{option.name}"
    return f"invalid argument {quote(flag.value)} for {quote(shown)} flag: {wrong}"


def _second_runtime(flag: Flag, flags: _Found) -> str | None:
    name = trim(flag.value.partition("=")[0]).lower()
    if name in flags.runtimes:
        return f"runtime '{name}' was already defined"
    flags.runtimes.add(name)
    return None


def without_flags(argv: tuple[str, ...], flags: Iterable[Flag], names: frozenset[str]) -> tuple[str, ...]:
    """argv with every flag of these names taken out, what they swallowed included.

    Of combined shorthands the rest stays: `-DHx` without host is `-D`. `flags` are those parsed out
    of this very argv (Daemon.flags); flags that stand inside a word of `sh -c` are left where they are.
    """
    gone: set[int] = set()
    cut: dict[int, set[int]] = {}
    ends: dict[int, int] = {}
    for flag in flags:
        if flag.name not in names or argv[flag.argument][:1] != "-":
            continue
        word = argv[flag.argument]
        if flag.words == 2 and flag.value_argument is not None:
            gone.add(flag.value_argument)
        if word.startswith("--"):
            gone.add(flag.argument)
        elif flag.value_argument is None:
            cut.setdefault(flag.argument, set()).add(flag.offset)
        else:
            ends[flag.argument] = flag.offset
    left: list[str] = []
    for index, word in enumerate(argv):
        if index in gone:
            continue
        kept = "".join(letter for place, letter in enumerate(word[:ends.get(index, len(word))])
                       if place not in cut.get(index, ()))
        if kept == "-" and word != "-":
            continue
        left.append(kept)
    return tuple(left)


def is_set(given: Mapping[str, Flag], name: str) -> bool | None:
    """A bool flag's value, or None where it was not given."""
    return given[name].is_true if name in given else None
