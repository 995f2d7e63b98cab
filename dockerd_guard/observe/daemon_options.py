"""Options of dockerd in text that is not evaluated, apart from its command: variables of shells and playbooks,
arguments beside a command in another key, what sed(1) puts beside `fd://`.

dockerd takes a host without a scheme for TCP (moby, opts/hosts.go, ParseHost).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import islice
from typing import NamedTuple

from dockerd_guard.observe import command_words, host_words

MAX_HOSTS = 1_000
"""Hosts after options that are looked at in one text; more of them count as one of TCP."""

MAX_WORDS = 100
"""Words that one host may stand for."""

_OWNED, _NEAR, _BESIDE = 600, 2_000, 300
"""Characters between the name of a variable and its last option, between dockerd and the name, and before fd://."""

# Patterns are compiled where they are first used (re caches them): most trees need none.
_FD = r"fd:(?:\\{0,3}/){2}"
_HOST = rf"(?:{host_words.TEMPLATE}|\[[0-9a-fA-F:.]{{2,45}}\]|[^\s\"',;\\()\[\]|{{}}<>&#@!~])"
_OPTION = (
    r"(?<![\w.-])(?:-[A-GI-Za-z]{0,3}H|--host(?![\w-]))"
    r"(?:\\{0,3}[\"']{0,2},?(?:\\\n|\s){1,80}\\{0,3}[\"']?|[ \t]{0,8}=\\{0,3}[\"']?|\\{0,3}[\"']{0,2}(?=[0-9\[$]))"
    rf"(?P<host>{_HOST}{{1,200}})"
    rf"|{_FD}(?:(?P<mark>[#|,!@~])(?P<other>{_HOST}{{3,200}})(?P=mark)"
    rf"|\\{{0,3}}[\"'],\s{{0,8}}\\{{0,3}}[\"'](?P<next>{_HOST}{{3,200}})"
    rf"|[ \t]{{1,8}}(?P<item>(?:{host_words.TEMPLATE}|\$\w{{1,80}}"
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-fA-F:]{2,45}\])"
    r":[0-9]{1,5}))?")
"""An option and its host; or fd://, and what sed(1) puts in its place, or what follows it in a list."""

_IN_LIST = rf"[\"'](?P<host>{_HOST}{{3,200}})\\{{0,3}}[\"'],\s{{0,8}}\\{{0,3}}[\"']\Z"
"""What stands before fd:// in a list."""

_ASSIGNS = r"[\"'\])]{0,3}\s{0,8}(?:[+:?]?=>?|:)"
_OWNER = (
    r"(?P<docker>(?i:docker)[\w'\"\]\[.:-]{0,30}?(?i:opt|arg|flag|param)\w{0,12}"
    rf"{_ASSIGNS}|\bdocker[\"']?:\s{{1,80}}(?:extra_|daemon_)?(?:args|opts|options|flags)[\"']?:|{_FD})"
    r"|(?P<any>\bset[ \t]{1,8}--[ \t]"
    rf"|(?i:\b(?:\w{{1,30}}_)?(?:options|opts|args|flags|arguments|parameters)|\bextraOptions){_ASSIGNS})")
"""What the options are of: a variable of dockerd by its name, or any variable with options."""

_DOCKERD = (
    r"\b(?:dockerd|virtualisation\.docker|(?:sysconfig|default|conf\.d)/docker|docker\.service)\b(?![-.]\w)"
    r"|\{\s{0,8}[\"'](?:::)?docker[\"']|\bvirtualisation[ \t]{0,8}=[ \t]{0,8}\{\s{0,80}docker\b")
_OF_DOCKERD = (
    r"(?:\A|/)(?:sv|service|services|runit|s6[\w-]{0,20}|conf\.d|default|sysconfig|init\.d|rc\.d)/dockerd?(?:[./]|\Z)")
"""A path of a service or a file with its options."""

_BETWEEN = r"(?:[^\n\\]|\\[\s\S]?|\n(?=[ \t]{0,80}(?:[-\"'+]|\Z|\$\{?\w{1,60}\}?[ \t\"']{0,8}(?:\\?\n|\Z))))*+"
_ENDS = r"[\"')][ \t]{0,8}(?:;|&&|\|\|)"
_CLIENT = r"(?<![\w.-])docker[ \t]{1,8}[\"']?\$\{?([A-Za-z_]\w{0,100})"
_OF_CLIENT = r"(?i:\$\{?DOCKER_HOST\b)"


def first_host(path: str, text: str) -> tuple[int, str] | None:
    """Return the offset of the first host that options give dockerd, if it is one of TCP or the text does not have it,
    and what it does; None if there is none. Linear time."""
    if re.search(r"-[A-Za-z]{0,3}H|--host|fd:", text) is None:
        return None
    is_owned = _Owners(path, text).has
    known: dict[str, list[str]] | None = None
    count = 0
    for option in re.finditer(_OPTION, text):
        host = option["host"] or _beside_fd(option, text)
        if not host or host_words.is_local(host) or (option["host"] and not is_owned(option)):
            continue
        if (count := count + 1) > MAX_HOSTS:
            return option.start(), f"more than {MAX_HOSTS} hosts of dockerd"
        if "$" in host or "{{" in host:
            known = command_words.variables(text) if known is None else known
            words = list(islice(command_words.expanded(host, known), MAX_WORDS))
        else:
            words = [host]
        for word in words:
            if host_words.is_tcp(word):
                return option.start(), "names a TCP address for dockerd"
            if host_words.is_unknown(word) and re.match(_OF_CLIENT, word) is None:
                return option.start(), "gives dockerd a host that is not known"
    return None


def _beside_fd(option: re.Match[str], text: str) -> str:
    """What stands beside fd:// in a list, or in its place; empty if nothing does."""
    if (host := option["other"] or option["next"] or option["item"]) is not None:
        return host
    if text[max(0, option.start() - 1)] not in "\"'":
        return ""
    before = re.search(_IN_LIST, text[max(0, option.start() - _BESIDE):option.start()])
    return before["host"] if before is not None else ""


class _Owners:
    """Which options of a text are dockerd's. The whole text is searched once, however many options it has."""

    def __init__(self, path: str, text: str) -> None:
        self._text = text
        self._owners: list[_Owner] = []
        self._ends: list[int] | None = None
        self._is_of_dockerd = re.search(_OF_DOCKERD, path) is not None
        self._dockerds: list[int] | None = None
        self._clients: frozenset[str] | None = None

    def has(self, option: re.Match[str]) -> bool:
        """Whether an option belongs to a variable or key with options of dockerd."""
        if self._ends is None:
            self._owners = [_Owner(found.start(), found.end(), found["docker"] is not None, found[0])
                            for found in re.finditer(_OWNER, self._text)]
            self._ends = [owner.end for owner in self._owners]
        nearest = bisect_right(self._ends, option.start()) - 1
        if nearest < 0 or self._ends[nearest] < option.start() - _OWNED:
            return False
        owner = self._owners[nearest]
        between = self._text[owner.end:option.start()]
        if (not owner.is_dockers and not self._is_near_dockerd(owner, option.end())) or (
                re.fullmatch(_BETWEEN, between) is None or re.search(_ENDS, between) is not None):
            return False
        if self._clients is None:
            self._clients = frozenset(re.findall(_CLIENT, self._text))
        return self._clients.isdisjoint(re.findall(r"\w+", owner.name))

    def _is_near_dockerd(self, owner: _Owner, end: int) -> bool:
        if self._dockerds is None:
            self._dockerds = [found.start() for found in re.finditer(_DOCKERD, self._text)]
        return self._is_of_dockerd or bisect_left(self._dockerds, owner.start - _NEAR) < bisect_left(
            self._dockerds, end + _NEAR)


class _Owner(NamedTuple):
    start: int
    end: int
    is_dockers: bool
    name: str
