"""Commands that run containers (`docker run`, `podman create`, `docker service create`) in text that is not evaluated:
scripts, units, lists of arguments in YAML and JSON.

The options are those of docker-run(1), podman-run(1) and docker-service-create(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from dockerd_guard.observe.socket_mounts import is_socket_mount

MAX_EXPANDED_WORDS = 5_000
"""Words of variables in one text; one with more of them counts as one with such a command."""

MAX_DEPTH = 3
"""Variables within the values of others."""

MAX_WORD_CHARACTERS, MAX_VARIABLES, MAX_VALUE_CHARACTERS = 1_000, 10, 10_000
"""Of a word with variables, and of what it stands for."""

_COMMAND = re.compile(
    r"\b(?:run|create)\b(?=\\{0,3}[\"']?[\s\\`^,]{1,200}\\{0,3}[\"']{0,2}[-$<{])\\{0,3}[\"']?"
    r"|\b(?:args|options)[\"']?(?:[ \t]{0,8}(?:=>|[:=]))?[ \t]{0,8}[\"'](?=-)")
"""A command and the beginning of its first option, or of a variable; or options as a string for such a command, as in
a Vagrantfile (developer.hashicorp.com/vagrant/docs/provisioning/docker) or a Jenkinsfile."""

_ITEM = re.compile(r"(?:\A|\n)([ \t]{0,200})-[ \t]{1,8}[\"']?(?:run|create)[\"']?[ \t\r]{0,80}(?=\n)")
"""A command in a list of YAML in which each word is an item."""

_WORD = re.compile(
    r"(?:[ \t\r]|[\\`^][ \t\r]{0,80}\n|,[ \t\r]{0,80}\n|(?<=[\"']),(?=[ \t]{0,80}\\{0,3}[\"'])"
    r"|\n(?=\s{0,200}[\"']?-[A-Za-z-]))*+"
    r"(?P<word>(?:[^\s;\"'{$,\\`^]++|\"[^\"\n]{0,4000}\"|'[^'\n]{0,4000}'|\{\{[^\n}]{0,400}\}\}|\$\([^\n)]{0,400}\)|\$\{[^\n}]{0,400}\}"
    r"|(?![\\`^,][ \t\r]{0,80}\n|(?<=[\"']),[ \t]{0,80}\\{0,3}[\"'])[^\s;])++)")
"""A word after what separates it from the one before. A line that begins with an option continues the line before it,
as in a folded block of YAML."""
_SEPARATORS = frozenset(("|", "||", "&", "&&"))
_MARKS = str.maketrans("", "", "\"'`\\")

_BOOLEANS = frozenset(f"--{name}" for name in (
    "detach", "disable-content-trust", "env-host", "help", "http-proxy", "init", "interactive", "no-healthcheck",
    "no-hostname", "no-hosts", "no-resolve-image", "oom-kill-disable", "passwd", "privileged", "publish-all", "quiet",
    "read-only", "read-only-tmpfs", "replace", "rm", "rmi", "rootfs", "sig-proxy", "tls-verify", "tty",
    "use-api-socket", "with-registry-auth"))
"""Options whose next word is not their value."""

_LETTERS_WITH_VALUE = frozenset("acehlmpuvw")

_NAME = r"([A-Za-z_]\w{0,100})"
_VARIABLE = re.compile(rf"\$\{{?{_NAME}(?:\[[@*]\])?\}}?|\{{\{{-?[ \t]{{0,8}}[$.]?{_NAME}[ \t]{{0,8}}-?\}}\}}")
_ASSIGNMENT = re.compile(
    rf"[\"']{_NAME}=([^\"'\n]{{0,4000}})[\"']|(?<![\w$]){_NAME}(?!=[\"'][A-Za-z_]\w{{0,100}}=)"
    r"(?:[ \t]{0,8}:=[ \t]{0,8}|\+?=|[ \t]{0,8}=[ \t]{1,8}|:[ \t]{1,8})"
    r"(\"[^\"]{0,4000}\"|'[^']{0,4000}'|\([^)]{0,4000}\)|(?<=[ \t])[^\n\"'(][^\n]{0,4000}|[^\s;\"'(]{1,4000})")
"""A variable of a shell, of systemd, of YAML or of a template, and its value."""


def first_exposed(text: str) -> int | None:
    """Return the offset of the first command whose container mounts the API socket, and publishes a port or uses the
    network of the host; None if there is none. Linear time."""
    if re.search(r"-[A-Za-z]{0,8}[pP]|--net", text) is None:
        return None
    variables: dict[str, list[str]] = {}
    has_variables = False
    room, position = MAX_EXPANDED_WORDS, 0
    while (command := _COMMAND.search(text, position)) is not None:
        options = _Options()
        position = command.end()
        for word, end in _words(text, command):
            if "$" not in word and "{{" not in word:
                if not options.take(word):
                    break
            else:
                if not has_variables:
                    variables, has_variables = _variables(text), True
                values = list(islice(_expanded(word, variables, MAX_DEPTH), room + 1))
                room -= len(values)
                if room < 0:
                    return command.start()
                options.take_all(values)
            position = end
        if options.has_socket and options.is_reachable:
            return command.start()
    return None


class _Options:
    """The options of a command, as far as they decide who can connect to the API socket."""

    def __init__(self) -> None:
        self.has_socket = False
        self.is_reachable = False
        self.pending = ""
        """The last option, if it needs a value."""

    def take(self, word: str) -> bool:
        """Take a word. False for one that ends the options, as the name of the image."""
        pending, self.pending = self.pending, ""
        if pending and not word.startswith("-"):
            self._set(pending, word)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            if equals or name in _BOOLEANS:
                self._set(name, value)
            else:
                self.pending = name
            return word != "--"
        elif word.startswith("-"):
            for place, letter in enumerate(word[1:], 2):
                if letter in _LETTERS_WITH_VALUE:
                    value = word[place:].lstrip(" =")
                    self.pending = "" if value else f"-{letter}"
                    self._set(f"-{letter}", value)
                    break
                self._set(f"-{letter}", "")
        else:
            return not word
        return True

    def take_all(self, words: Iterable[str]) -> None:
        """Take the words of all values of a variable. Where a value is needed, each may be it."""
        pending = self.pending
        for word in words:
            if pending and not word.startswith("-"):
                self._set(pending, word)
            else:
                self.take(word)
        self.pending = self.pending if self.pending != pending else ""

    def _set(self, option: str, value: str) -> None:
        if option in ("-v", "--volume", "--mount"):
            # Without a colon or `=` it is a volume without a name.
            self.has_socket = self.has_socket or (re.search("[:=]", value) is not None and is_socket_mount(value))
        elif option == "--use-api-socket":
            self.has_socket = self.has_socket or value != "false"
        elif option in ("-P", "--publish-all"):
            self.is_reachable = self.is_reachable or value != "false"
        elif option in ("-p", "--publish"):
            self.is_reachable = self.is_reachable or (bool(value) and not value.endswith(("/udp", "protocol=udp")))
        elif option in ("--net", "--network"):
            self.is_reachable = self.is_reachable or re.fullmatch("(?:name=)?host", value) is not None


def _words(text: str, command: re.Match[str]) -> Iterator[tuple[str, int]]:
    """Yield the words after a command without their quotes, each with its end."""
    item = _ITEM.match(text, max(0, text.rfind("\n", max(0, command.start() - 300), command.start())))
    if item is not None and item.end() >= command.end():
        pattern = re.compile(rf"\n{item[1]}-[ \t]{{1,8}}(?!-[ \t])([^\n]{{1,4000}})")
        position = item.end()
        while (found := pattern.match(text, position)) is not None:
            position = found.end()
            yield found[1].strip().translate(_MARKS), position
        return
    position = command.end()
    while (found := _WORD.match(text, position)) is not None:
        position = found.end()
        word = found["word"].translate(_MARKS).rstrip(",]")
        if word in _SEPARATORS:
            return
        yield word, position


def _variables(text: str) -> dict[str, list[str]]:
    """The values that a text assigns to each variable."""
    found: dict[str, list[str]] = {}
    for quoted, value, name, other in _ASSIGNMENT.findall(text):
        found.setdefault(quoted or name, []).append((value or other).strip("()").translate(_MARKS))
    return found


def _expanded(word: str, variables: Mapping[str, list[str]], depth: int) -> Iterator[str]:
    """Yield the words that a word stands for, with each value of its variables."""
    names = [first or second for first, second in _VARIABLE.findall(word)]
    count = max((len(variables.get(name, ())) for name in names), default=0)
    if not count or not depth:
        yield word
        return

    for number in range(count):
        def value(found: re.Match[str], number: int = number) -> str:
            values = variables.get(found[1] or found[2], [found[0]])
            return values[min(number, len(values) - 1)]

        for part in _VARIABLE.sub(value, word[:MAX_WORD_CHARACTERS], MAX_VARIABLES)[:MAX_VALUE_CHARACTERS].split():
            yield from _expanded(part, variables, depth - 1)
