"""Commands that run containers (`docker run`, `podman create`, `docker service create`) in text that is not evaluated:
scripts, units, lists of arguments in YAML and JSON.

The options are those of docker-run(1), podman-run(1) and docker-service-create(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from dockerd_guard.observe import command_words
from dockerd_guard.observe.socket_mounts import is_socket_mount

MAX_EXPANDED_WORDS = 5_000
"""Words of variables in one text; one with more of them counts as one with such a command."""

# Compiled where it is first used (re caches it): most trees do not need it.
_COMMAND = (
    r"\b(?:run|create)\b(?=\\{0,3}[\"']?[\s\\`^,]{1,200}\\{0,3}[\"']{0,2}[-$<{])\\{0,3}[\"']?"
    r"|\b(?:args|options)[\"']?(?:[ \t]{0,8}(?:=>|[:=]))?[ \t]{0,8}[\"'](?=-)"
    r"|\boptions:(?:[ \t]{1,8}[>|][+-]?[ \t]{0,8}\n[ \t]{1,80}|[ \t]{1,8})(?=-(?![ \t]))")
"""A command and the beginning of its first option, or of a variable; or options as a string for such a command, as in
a Vagrantfile (developer.hashicorp.com/vagrant/docs/provisioning/docker), a Jenkinsfile or a workflow of GitHub."""

_NAME = "(?:run|create)"

_BOOLEANS = frozenset(f"--{name}" for name in (
    "detach", "disable-content-trust", "env-host", "help", "http-proxy", "init", "interactive", "no-healthcheck",
    "no-hostname", "no-hosts", "no-resolve-image", "oom-kill-disable", "passwd", "privileged", "publish-all", "quiet",
    "read-only", "read-only-tmpfs", "replace", "rm", "rmi", "rootfs", "sig-proxy", "tls-verify", "tty",
    "use-api-socket", "with-registry-auth"))
"""Options whose next word is not their value."""

_LETTERS_WITH_VALUE = frozenset("acehlmpuvw")


def first_exposed(text: str) -> int | None:
    """Return the offset of the first command whose container mounts the API socket, and publishes a port or uses the
    network of the host; None if there is none. Linear time."""
    if re.search(r"-[A-Za-z]{0,8}[pP]|--net", text) is None:
        return None
    variables: dict[str, list[str]] = {}
    has_variables = False
    room, position, starts = MAX_EXPANDED_WORDS, 0, re.compile(_COMMAND)
    while (command := starts.search(text, position)) is not None:
        options = _Options()
        position = command.end()
        for word, end in command_words.words(text, command, _NAME):
            if "$" not in word and "{{" not in word:
                if not options.take(word):
                    break
            else:
                if not has_variables:
                    variables, has_variables = command_words.variables(text), True
                values = list(islice(command_words.expanded(word, variables), room + 1))
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
