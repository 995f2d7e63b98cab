"""Lists of dockerd's hosts in text that is not evaluated: filters of jq and yq, programs that write daemon.json,
variables of playbooks, modules of NixOS.

dockerd takes a host without a scheme for TCP, in daemon.json as after -H (moby, opts/hosts.go, ParseHost). Most lists
called `hosts` are of other programs, so one counts only near daemon.json, or what has the options of dockerd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_guard.observe import command_words, host_words

MAX_LISTS = 500
"""Lists near daemon.json that are looked at in one text; more of them count as one with a TCP address."""

MAX_KEYS = 2_000
"""Keys near daemon.json whose surroundings are looked at; what is behind them counts as one more list each."""

MAX_TOKENS = 60
"""Words and brackets of one list that are looked at."""

_NEAR = 2_000
"""Characters before and after a list in which daemon.json may be mentioned."""

MAX_VALUE_CHARACTERS = 1_000
"""Characters of a variable that are looked at."""

_TCP, _UNKNOWN = "names a TCP address for dockerd", "gives dockerd a host that is not known"

_LONGEST_BEFORE = 40
"""Characters before `hosts` that may belong to the name of the key."""

_OWNER_CHARACTERS, _BLOCK = 200, 400
"""Characters before a list that may show that it is another program's, and those of docker_service before its hosts."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_QUOTE = r"\\{0,3}[\"']"
_ADDS = r"(?:append|push|extend|insert|add|unshift|concat|union|update|unite)"
_KEY = (
    rf"host(?:s(?:(?:(?P<quoted>(?<=[\"']hosts){_QUOTE})|(?P<member>(?<=\.hosts)\b)|(?P<variable>(?<=_hosts)\b)"
    r"|(?P<bare>(?<![\w$.-]hosts)\b\}?))"
    r"(?:\]|\}){0,2}(?P<index>\[[^][\n]{0,12}\])?"
    rf"(?:[ \t]{{0,8}}(?P<operator>[|+]?=(?![=~])>?|:(?!:)|<<|\|\|=|\?\?=|//=|,[ \t]{{0,8}}[0-9]{{0,2}}\][ \t]{{0,8}};)"
    rf"|,[ \t]{{0,8}}\[\]\)\.{_ADDS}\(|\.{_ADDS}[ \t]{{0,8}}\(|(?<=\}})[ \t]{{0,8}},"
    r"|[ \t]{1,8}-Value[ \t])"
    r"|(?P<patch>(?<=/hosts)(?:/[-0-9])?[\"']?[,\s]{1,80}[\"']?value[\"']?:))"
    r"|(?P<chef>(?<=\bhost)[ \t]{1,4}(?=[\[\"'])))")
"""The key `hosts`, a variable for it, that of a JSON patch (RFC 6902) or of Chef's resource docker_service; and what
gives it a value: an assignment, a method of lists, setpath() of jq, Add-Member. It begins with a literal text, for
which re searches several times faster than for a choice."""

_BEFORE = {
    "quoted": r"\\{0,3}[\"']\Z", "member": r"\.\Z", "variable": r"\bdocker\w{0,20}_\Z",
    "bare": r"(?:(?<![\w$.-])\{)?\Z", "patch": r"/\Z", "chef": r"\Z"}
"""The part of it before that, for each kind."""

_DATA = r"(?i:\.(?:nix|toml|tf|tofu|hcl|dhall|jsonnet|libsonnet|cue|ps1|conf|cfg|ini)\Z)"
_WITHIN = r"[{(,;@]\s{0,80}\Z|\bjo[ \t][^\n;|&]{0,100}\Z"
"""Files in which an assignment at the beginning of a line is a key, and what stands before a key elsewhere. Programs
and scripts have the names of machines in a variable `hosts`."""

_TOKEN = (
    r"[ \t\r]*+(?:\\?\n[ \t\r\n]{0,200}(?P<item>-[ \t]{1,8})?"
    r"|(?P<open>@?[(\[]|\{(?=\s{0,80}[\"'][^\"'\n]{0,400}[\"']\s{0,80}[,}]))|(?P<close>[)\]}])"
    r"|(?P<join>[+,.]|//)(?=[\s\[\"'(]|\Z)"
    rf"|[rbfu]?\\{{0,3}}(?:\"(?P<double>(?:[^\"\\\n]|\\[^\"\n]){{0,400}})\\{{0,3}}\"|'(?P<single>[^'\n]{{0,400}})')"
    rf"|(?P<word>(?:{host_words.TEMPLATE}|[^\s\"',;()\[\]|{{}}\\]){{1,200}}))")
"""What a list consists of. Lines may be continued, or be items of YAML. Lists of Lua are in braces."""

_NAME_OF_VARIABLE = r"(?:\$ENV\.|env\.|\$\{?|\{\{-?[ \t]{0,8}[$.]?)?([A-Za-z_]\w{0,100})"
_ARGUMENT = (
    r"--arg(?:json)?[ \t]{1,8}([A-Za-z_]\w{0,60})[ \t]{1,8}"
    r"(\"[^\"\n]{0,400}\"|'[^'\n]{0,400}'|[^\s\"';]{1,400})")
"""A variable of jq(1)."""

_ABOUT_DAEMON = (
    r"(?i:daemon[._-]?json|dockerd\.json|virtualisation\.docker"
    r"|docker[\w.'\"\]\[:-]{0,30}?(?:daemon|opt|conf|cfg|settings|engine)"
    r"|\b(?:insecure-registries|registry-mirrors|log-driver|storage-driver|live-restore|exec-opts|data-root)\b)"
    r"|\bdocker[\"']?[ \t]{0,8}[:=][ \t]{0,8}\{?[ \t]{0,8}\n[ \t]{1,40}[\"']?hosts\b")
"""What has the options of dockerd: its file, its keys, a variable, or a block that has hosts first."""

_MAY_MATTER = rf"{_ABOUT_DAEMON}|\bdocker_service\b|\bdocker\w{{0,20}}_hosts\b"

_OF_OTHERS = (
    r"(?i:output\.|elastic|logstash|kibana|kafka|\bredis\b|zookeeper|mongo|beat\b|\bmodule[\"']?:|ingress|prometheus"
    r"|virtual_?host|\btls:|\b(?:env|self|args|inventory|groups?)\Z)")


_MORE = "$MORE"
"""What stands for the rest of a list."""


class _Key(NamedTuple):
    place: int
    value: int
    is_strict: bool
    """Whether only a key of JSON is written so, and any text in the list is a host of dockerd."""
    is_yaml: bool
    is_variable: bool = False
    """Whether it may be a list of machines, unless it has a socket."""


def first_host(path: str, text: str) -> tuple[int, str] | None:
    """Return the offset of the first list of dockerd's hosts with an address of TCP, or with one that the text does not
    have, and what the list does; None if there is none. Linear time."""
    if "host" not in text or (
            re.search(_MAY_MATTER, f"{path}\n{text}") is None and not is_filter(path, text)):
        return None
    known: dict[str, list[str]] | None = None
    for number, key in enumerate(_keys(path, text)):
        if number >= MAX_LISTS:
            return key.place, f"more than {MAX_LISTS} lists of hosts"
        elements = list(_elements(text, key.value, is_yaml=key.is_yaml))
        if key.is_variable and not any(element and host_words.is_local(element) for element, _ in elements):
            continue
        for element, is_quoted in elements:
            if known is None and (not is_quoted or host_words.is_unknown(element)):
                known = _variables(text)
            if way := _way(element, key, known or {}, is_quoted=is_quoted):
                return key.place, way
    return None


def is_filter(path: str, text: str) -> bool:
    """Whether a text is a filter of jq with an address of dockerd."""
    return path.endswith(".jq") and "tcp:" in text


def _keys(path: str, text: str) -> Iterator[_Key]:
    """Yield the keys that have a value, near what has the options of dockerd."""
    mentions = [found.start() for found in re.finditer(_ABOUT_DAEMON, text)]
    has_resource = "docker_service" in text
    mention = keys = 0
    # A filter of jq need not name the file that it edits.
    is_about = re.search(_ABOUT_DAEMON, path) is not None or is_filter(path, text)
    is_data = re.search(_DATA, path) is not None
    for found in re.finditer(_KEY, text):
        if found["chef"] is not None and not has_resource:
            continue
        place = found.start()
        while mention < len(mentions) and mentions[mention] < place - _NEAR:
            mention += 1
        is_near = is_about or (mention < len(mentions) and mentions[mention] < place + _NEAR)
        if not is_near and found["variable"] is None and found["chef"] is None:
            continue
        kind = next(name for name in _BEFORE if found[name] is not None)
        first = re.search(_BEFORE[kind], text[max(0, place - _LONGEST_BEFORE):place])
        if first is None:
            continue
        start = place - len(first[0])
        if kind == "chef":
            _, resource, block = text[max(0, start - _BLOCK):start].rpartition("docker_service")
            if resource and re.search(r"\bend\b", block) is None:
                yield _Key(start, found.end(), is_strict=True, is_yaml=False)
            continue
        keys += 1
        if keys > MAX_KEYS:
            yield _Key(start, found.end(), is_strict=True, is_yaml=False)
            continue
        before = text[max(0, start - _OWNER_CHARACTERS):start]
        if re.search(_OF_OTHERS, before) is not None:
            continue
        is_member = kind == "member" and re.search(r"[\w)\]]\Z", before) is not None
        if kind == "bare" and found["operator"] == "=" and not (is_data or re.search(_WITHIN, before) is not None):
            continue
        is_plain = is_member or kind == "bare"
        is_yaml = (is_plain or kind == "variable") and found["operator"] == ":"
        yield _Key(start, found.end(), not is_plain, is_yaml, kind == "variable")


def _elements(text: str, position: int, *, is_yaml: bool) -> Iterator[tuple[str, bool]]:
    """Yield the words of a list, each with whether it has quotation marks."""
    token = re.compile(_TOKEN)
    depth, is_complete, in_items = 0, False, False
    for _ in range(MAX_TOKENS):
        found = token.match(text, position)
        if found is None:
            return
        position = found.end()
        if found["open"] is not None:
            depth += 1
            is_complete = False
        elif found["close"] is not None:
            depth -= 1
            is_complete = depth <= 0
            if depth < 0:
                return
        elif found["join"] is not None:
            is_complete = False
        elif found["item"] is not None:
            in_items, is_complete = True, False
        elif (element := next((each for each in found.group("double", "single", "word") if each is not None), None)
              ) is not None:
            if is_complete and not depth:
                return
            yield element, found["word"] is None
            is_complete = True
        elif not depth and (is_complete or in_items or is_yaml):
            # A line ends what is in no brackets. Lines of YAML that are no items are keys.
            return
    yield _MORE, False


def _way(element: str, key: _Key, known: dict[str, list[str]], *, is_quoted: bool) -> str:
    """What an element of a list does; empty if it names no TCP address."""
    element = element.replace("\\", "").strip()
    if host_words.is_local(element):
        return ""
    if host_words.is_tcp(element):
        return _TCP
    is_unknown = host_words.is_unknown(element)
    if is_unknown or (not is_quoted and not key.is_yaml and re.fullmatch(r"[A-Za-z_]\w{0,100}", element) is not None):
        name = re.match(_NAME_OF_VARIABLE, element)
        values = known.get(name[1], []) if name is not None else [element]
        for word in _words_of(values):
            if host_words.is_tcp(word):
                return _TCP
            if key.is_strict and host_words.is_unknown(word):
                return _UNKNOWN
        return "" if values or not is_unknown or key.is_yaml else _UNKNOWN
    is_host = key.is_strict and is_quoted and re.fullmatch(r"(?!tcp\Z)[\w.:*-]{1,255}", element) is not None
    return _TCP if is_host else ""


def _words_of(values: list[str]) -> Iterator[str]:
    for value in values[:MAX_TOKENS]:
        yield from re.findall(r"[^\s,\"'\[\]()]+", value[:MAX_VALUE_CHARACTERS])


def _variables(text: str) -> dict[str, list[str]]:
    known = command_words.variables(text)
    for name, value in re.findall(_ARGUMENT, text):
        known.setdefault(name, []).append(value.strip("\"'"))
    return {name: list(dict.fromkeys(values)) for name, values in known.items()}
