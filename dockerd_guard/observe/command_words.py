"""Words of commands in text that is not evaluated, as scripts, units, Dockerfiles, and lists of arguments in YAML and
JSON; and the values of variables in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

MAX_DEPTH = 3
"""Variables within the values of others."""

MAX_WORD_CHARACTERS, MAX_VARIABLES, MAX_VALUE_CHARACTERS = 1_000, 10, 10_000
"""Of a word with variables, and of what it stands for."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_WORD = (
    r"(?:[ \t\r]|[\\`^][ \t\r]{0,80}\n|,[ \t\r]{0,80}\n|(?<=[\"']),(?=[ \t]{0,80}\\{0,3}[\"'])"
    r"|\n(?=\s{0,200}[\"']?-[A-Za-z-]))*+"
    r"(?P<word>(?:[^\s;\"'{$,\\`^]++|\"[^\"\n]{0,4000}\"|'[^'\n]{0,4000}'|\{\{[^\n}]{0,400}\}\}|\$\([^\n)]{0,400}\)|\$\{[^\n}]{0,400}\}"
    r"|(?![\\`^,][ \t\r]{0,80}\n|(?<=[\"']),[ \t]{0,80}\\{0,3}[\"'])[^\s;])++)")
"""A word after what separates it from the one before. A line that begins with an option continues the line before it,
as in a folded block of YAML."""
_SEPARATORS = frozenset(("|", "||", "&", "&&"))
_MARKS = str.maketrans("", "", "\"'`\\")

_NAME = r"([A-Za-z_]\w{0,100})"
_VARIABLE = (rf"\$\{{?{_NAME}(?:\[[@*]\])?\}}?|\{{\{{-?[ \t]{{0,8}}[$.]?{_NAME}[ \t]{{0,8}}-?\}}\}}")
_ASSIGNMENT = (
    rf"[\"']{_NAME}=([^\"'\n]{{0,4000}})[\"']|(?<![\w$]){_NAME}(?!=[\"'][A-Za-z_]\w{{0,100}}=)"
    r"(?:[ \t]{0,8}:=[ \t]{0,8}|\+?=|[ \t]{0,8}=[ \t]{1,8}|:[ \t]{1,8})"
    r"(\"[^\"]{0,4000}\"|'[^']{0,4000}'|\([^)]{0,4000}\)|(?<=[ \t])[^\n\"'(][^\n]{0,4000}|[^\s;\"'(]{1,4000})")
"""A variable of a shell, of systemd, of YAML or of a template, and its value."""


def words(text: str, command: re.Match[str], name: str) -> Iterator[tuple[str, int]]:
    """Yield the words after a command without their quotes, each with its end. `name` is a pattern for the command as
    an item of a list of YAML in which each word is one."""
    item = re.compile(rf"(?:\A|\n)([ \t]{{0,200}})-[ \t]{{1,8}}[\"']?{name}[\"']?[ \t\r]{{0,80}}(?=\n)").match(
        text, max(0, text.rfind("\n", max(0, command.start() - 300), command.start())))
    if item is not None and item.end() >= command.end():
        pattern = re.compile(rf"\n{item[1]}-[ \t]{{1,8}}(?!-[ \t])([^\n]{{1,4000}})")
        position = item.end()
        while (found := pattern.match(text, position)) is not None:
            position = found.end()
            yield found[1].strip().translate(_MARKS), position
        return
    position, word_after = command.end(), re.compile(_WORD)
    while (found := word_after.match(text, position)) is not None:
        position = found.end()
        word = found["word"].translate(_MARKS).rstrip(",]")
        if word in _SEPARATORS:
            return
        yield word, position


def variables(text: str) -> dict[str, list[str]]:
    """The values that a text assigns to each variable."""
    found: dict[str, list[str]] = {}
    for quoted, value, name, other in re.findall(_ASSIGNMENT, text):
        found.setdefault(quoted or name, []).append((value or other).strip("()").translate(_MARKS))
    return found


def expanded(word: str, known: Mapping[str, list[str]], depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the words that a word stands for, with each value of its variables."""
    names = [first or second for first, second in re.findall(_VARIABLE, word)]
    count = max((len(known.get(name, ())) for name in names), default=0)
    if not count or not depth:
        yield word
        return

    for number in range(count):
        def value(found: re.Match[str], number: int = number) -> str:
            values = known.get(found[1] or found[2], [found[0]])
            return values[min(number, len(values) - 1)]

        words_of = re.sub(_VARIABLE, value, word[:MAX_WORD_CHARACTERS], count=MAX_VARIABLES)
        for part in words_of[:MAX_VALUE_CHARACTERS].split():
            yield from expanded(part, known, depth - 1)
