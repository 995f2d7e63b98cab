"""The expected completions, and an interactive shell on a terminal to try them."""

from __future__ import annotations

import os
import pty
import re
import select
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dockerd_guard.cli import VERBS
from dockerd_guard.rules.registry import TITLES

TIMEOUT_SECONDS = 30
"""Shells start slowly while many tests run."""

CASES = (
    ("dockerd-guard ", {verb.name for verb in VERBS}),
    ("dockerd-guard check --pr", {"--print"}),
    ("dockerd-guard check here/", {"here/directory/", "here/file.yaml"}),
    ("dockerd-guard so", {"sockets"}),
    # fish also offers words that contain the letters in this order: for --fo, --fail-on.
    ("dockerd-guard lint --form", {"--format"}),
    ("dockerd-guard lint --format ", {"text", "json", "sarif", "github"}),
    ("dockerd-guard lint --root / --format s", {"sarif"}),
    ("dockerd-guard explain DG20", {code for code in TITLES if code.startswith("DG20")}),
    ("dockerd-guard explain DG101 DG40", {code for code in TITLES if code.startswith("DG40")}),
    ("dockerd-guard lint --root here/", {"here/directory/"}),
    ("dockerd-guard lint here/", {"here/directory/", "here/file.yaml"}),
    ("dockerd-guard lint --stdin-filename here/", {"here/directory/", "here/file.yaml"}),
    ("dockerd-guard init --output here/", {"here/directory/", "here/file.yaml"}),
)
"""Command lines, and all words that complete the last word of each. The working directory contains `here`."""

BASH_SETUP = ("bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'; bind 'set enable-bracketed-paste off'; "
              "bind 'set completion-query-items 0'; bind 'set page-completions off'; . {script}")
ZSH_SETUP = ("fpath=({directory} $fpath); autoload -U compinit; compinit -u -D; unsetopt beep; "
             "setopt autolist nolistambiguous; LISTMAX=0; unset zle_bracketed_paste; PS1='> '")


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, command: list[str], setup: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)
        termios.tcsetwinsize(self.fd, (200, 200))
        # Split, so that the echo of the command does not match.
        self.ask(f"{setup}; echo rea''dy\n", lambda shown: "ready" in shown)

    def ask(self, keys: str, enough: Callable[[str], bool]) -> str:
        """Type keys. Return the terminal's output as soon as `enough` is true."""
        os.write(self.fd, keys.encode())
        shown = ""
        end = time.monotonic() + TIMEOUT_SECONDS
        while not enough(shown):
            left = end - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], f"after {keys!r} it only shows {shown!r}"
            shown += os.read(self.fd, 65536).decode()
        return shown

    def close(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def offers(words: set[str], shown: str) -> bool:
    """Whether the terminal shows all these words, or has completed the line if there is only one."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", shown)
    if len(words) == 1:
        return text.rstrip().removesuffix("=").endswith(tuple(words))  # zsh writes --option=
    # Lists show only the last part of a path.
    return all(re.search(rf"(?<![\w/.-]){re.escape(Path(word).name)}\b", text) for word in words)


def complete_on_a_terminal(command: list[str], setup: str) -> None:
    """Type each line of CASES and a tab into the shell that the command starts."""
    terminal = Terminal(command, setup)
    try:
        for line, words in CASES:
            terminal.ask("\x15", lambda _: True)  # an empty line
            terminal.ask(f"{line}\t", partial(offers, words))
    finally:
        terminal.close()
