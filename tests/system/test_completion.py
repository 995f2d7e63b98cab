"""Completion and man pages as installed, tested in each shell and with man(1)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dockerd_guard.cli import parser
from dockerd_guard.policy.keys import KEYS
from dockerd_guard.policy.schema import text_of
from tests.machines.machine import Machine
from tests.support.completion import BASH_SETUP, CASES, ZSH_SETUP, complete_on_a_terminal

TOP = Path(__file__).resolve().parents[2]
SHARE = "/usr/share"


@pytest.fixture
def debian() -> tuple[str, ...]:
    return "fish", "man-db", "zsh"


def test_every_shell_completes(machine: Machine) -> None:
    machine.run("mkdir -p /tmp/home/here/directory; touch /tmp/home/here/file.yaml")

    def shell(*argv: str) -> list[str]:
        return machine.command("env", "--chdir=/tmp/home", "HOME=/tmp/home", "TERM=dumb", "LC_ALL=C.UTF-8", "PS1=> ",
                               *argv)

    complete_on_a_terminal(shell("bash", "--norc", "--noprofile", "-i"),
                           BASH_SETUP.format(script=f"{SHARE}/bash-completion/completions/dockerd-guard"))
    complete_on_a_terminal(shell("zsh", "-f", "-i"), ZSH_SETUP.format(directory=f"{SHARE}/zsh/vendor-completions"))
    for line, words in CASES:
        # fish loads vendor completions automatically.
        done = machine.run(f"cd /tmp/home; HOME=/tmp/home fish -c {shlex.quote(f'complete -C {line!r}')}")
        assert {offered.partition("\t")[0] for offered in done.out.splitlines()} == words, line


def rendered(machine: Machine, page: str) -> str:
    """Return a page as man(1) renders it, without formatting. Asserts that groff reports no warning."""
    done = machine.run(["env", "MANWIDTH=1000", "LC_ALL=C.UTF-8", "man", "--warnings", page])
    assert done.err == ""
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.out)


def test_man_pages_are_complete(machine: Machine) -> None:
    command = rendered(machine, "dockerd-guard")
    verbs = next(action.choices for action in parser()._actions if isinstance(action.choices, dict))
    for name, verb in verbs.items():
        # Headings are indented by at most three columns.
        section = re.split(r"\n {,3}(?=\S)", command.partition(f"\n   {name}\n")[2], maxsplit=1)[0]
        assert section, name
        for action in verb._actions:
            # A short name precedes: -v, --verbose
            for option in action.option_strings or [action.metavar or action.dest]:
                entry = re.compile(rf"^ +(?:-.*, )?{re.escape(option)}(?![\w-])", re.MULTILINE)
                assert entry.search(section) or option in ("-h", "--help"), (name, option)

    policy = rendered(machine, "dockerd-guard.yaml")
    on_one_line = " ".join(policy.split())
    for key in KEYS:
        assert f"{key.word}: {text_of(key)}" in on_one_line, key.name
    # Backslashes, quotes and lines that begin with a dot are kept by roff.
    for line in (TOP / "config.example.yaml").read_text().splitlines():
        assert line in policy
