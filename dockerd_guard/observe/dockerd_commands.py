"""Commands that start dockerd in text that is not evaluated: scripts, Dockerfiles, lists of arguments in YAML and JSON.

dockerd takes a host without a scheme for TCP (moby, opts/hosts.go, ParseHost).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from dockerd_guard.observe import command_words

MAX_NAMES = 50
"""Variables with the name of dockerd in one text."""

MAX_WORDS = 5_000
"""Words of variables, and hosts, in one text; one with more of them counts as one with such a command."""

_PROGRAM = r"(?:dockerd(?:-entrypoint\.sh|-rootless\.sh|\.exe)?|balenad|balena-engine-daemon)"
"""dockerd, what starts it, and balenaEngine's."""

_NAME = rf"(?:[\w./@{{}}$-]{{0,200}}/)?{_PROGRAM}"
# Patterns are compiled where they are first used (re caches them): most trees need none.
_ENDS = (
    r"(?=\\{0,3}[\"')]{0,2}[\s\\`^,]{1,200}\\{0,3}[\"']{0,2}[-$<{])"
    r"\\{0,3}[\"')]{0,2}")
_COMMAND = (
    rf"(?<![\w.$-]){_PROGRAM}{_ENDS}")
_IS_PROGRAM = (
    r"(?<![\w$])([A-Za-z_]\w{0,60}+)(?:=|[ \t]{0,8}:=[ \t]{0,8}|:[ \t]{1,8})[\"'`]?"
    rf"(?:\$\(|\b(?:exec|sudo|nohup|which|command|type)[ \t]|-\w[ \t]){{0,4}}"
    rf"(?:[\w./{{}}$-]{{0,100}}/)?{_PROGRAM}(?![\w-])")
"""A variable with the name of dockerd, and what may stand before and after it there."""

_VARIABLE = r"(?:\$\{?+\w{1,60}+\}?+|\{\{[ \t]{0,4}+[$.]?+\w{1,60}+[ \t]{0,4}+\}\})"
_SPELLED = rf"(?<![\w./$-])((?:[\w./-]{{0,80}}+{_VARIABLE}){{1,4}}[\w./-]{{0,80}}+){_ENDS}"
"""A word of variables and letters that may be the name of a command: `${X}d`."""

_XARGS = (
    r"\bxargs(?:[ \t]{1,8}+(?:-[aIdELnPs][ \t]{1,8}+\S{1,80}|-{1,2}[\w-]\S{0,80}|sudo|exec|nohup|env|nice))*+"
    rf"[ \t]{{1,8}}+[\"']?{_NAME}(?![\w./-])")
"""xargs(1), which gives dockerd what it reads."""

_HOST = r"(?:-[A-Za-z]{0,8}?H|--host)(?:=|\Z)|-[A-GI-Za-z]{0,8}H(?=.)"

_IS_TCP = (
    r"(?!(?:unix|fd|npipe):|/)[\w.${}\[\]*-]{0,200}(?::[0-9$]|tcp:)|tcp:"
    r"|(?:[0-9]{1,3}\.){3}[0-9]{1,3}\Z|\[[0-9a-fA-F:]{2,45}\]")
_IS_UNKNOWN = r"\$|\{\{"


def first_host(text: str) -> tuple[int, str] | None:
    """Return the offset of the first host that is one of TCP, or whose value the text does not have, and what the
    command does with it; None if there is none."""
    is_tcp, is_unknown = re.compile(_IS_TCP), re.compile(_IS_UNKNOWN)
    for place, host in hosts_of(text):
        if host is None:
            return place, "gives dockerd options that are not known"
        if is_tcp.match(host) is not None:
            return place, "names a TCP address for dockerd"
        if is_unknown.match(host) is not None:
            return place, "gives dockerd a host that is not known"
    return None


def hosts_of(text: str) -> Iterator[tuple[int, str | None]]:
    """Yield the hosts that commands give dockerd, each with its offset; None where there are more words than are read.
    Linear time."""
    known: dict[str, list[str]] | None = None
    if "xargs" in text and (reader := re.search(_XARGS, text)) is not None:
        yield reader.start(), None
        return
    names = "|".join(sorted(set(islice(re.findall(_IS_PROGRAM, text), MAX_NAMES))))
    spelled = "|".join(map(re.escape, _spelled(text)))
    starts = re.compile(
        _COMMAND + (rf"|\$\{{?(?:{names})\b\}}?{_ENDS}" if names else "")
        + (rf"|(?<![\w./$-])(?:{spelled}){_ENDS}" if spelled else ""))
    room, position, is_option = MAX_WORDS, 0, re.compile(_HOST)
    while (command := starts.search(text, position)) is not None:
        position = command.end()
        is_host = False
        for word, position in command_words.words(text, command, _NAME):
            if not is_host and not word.startswith("-") and "$" not in word and "{{" not in word:
                continue
            values = [word]
            if not is_host and word.startswith("$("):
                # What a command prints: the words after its name are looked at.
                values = word[2:].rstrip(")").split()[1:]
            elif "$" in word or "{{" in word:
                known = command_words.variables(text) if known is None else known
                values = list(islice(command_words.expanded(word, known), room + 1))
                room -= len(values)
            if room < 0:
                yield command.start(), None
                return
            for value in values:
                option = is_option.match(value)
                if host := value[option.end():] if option is not None else value if is_host else "":
                    yield position - 1, host
                    room -= 1
                is_host = option is not None and option.end() == len(value)


def _spelled(text: str) -> list[str]:
    """Return the words that are the name of dockerd with the values of their variables."""
    if "-H" not in text and "--host" not in text:
        return []
    words = list(islice(dict.fromkeys(found[1] for found in re.finditer(_SPELLED, text)), MAX_NAMES))
    known = command_words.variables(text) if words else {}
    return [word for word in words if any(
        re.fullmatch(_NAME, value) is not None for value in islice(command_words.expanded(word, known), MAX_NAMES))]
