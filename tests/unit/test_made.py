"""What the package installs that is made of the code: completion, by completing in each shell; man pages, by man."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dockerd_guard.cli import VERBS, parser
from dockerd_guard.policy.keys import KEYS
from dockerd_guard.policy.schema import text_of
from dockerd_guard.rules.registry import TITLES

TOP = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30
"""Shells start slowly where many tests run; nothing waits longer than it takes."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Man pages and completion as the package's build makes them."""
    directory = tmp_path_factory.mktemp("made")
    for script in ("man.py", "completion.py"):
        subprocess.run([sys.executable, "-B", f"packaging/{script}", directory], cwd=TOP, check=True,
                       env={**os.environ, "PYTHONPATH": str(TOP)})
    return directory


def needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


# -- completion -------------------------------------------------------------------------------------


CASES = (
    ("dockerd-guard ", {verb.name for verb in VERBS}),
    ("dockerd-guard so", {"sockets"}),
    ("dockerd-guard lint --f", {"--format"}),
    ("dockerd-guard lint --format ", {"text", "json", "sarif", "github"}),
    ("dockerd-guard lint --root / --format s", {"sarif"}),
    ("dockerd-guard explain DG20", {code for code in TITLES if code.startswith("DG20")}),
    ("dockerd-guard explain DG101 DG40", {code for code in TITLES if code.startswith("DG40")}),
    ("dockerd-guard lint --root here/", {"here/directory/"}),
    ("dockerd-guard init --output here/", {"here/directory/", "here/file.yaml"}),
)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here/directory").mkdir(parents=True)
    (tmp_path / "here/file.yaml").touch()
    return tmp_path


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, command: list[str], directory: Path, setup: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvpe(command[0], command, {"PATH": os.environ["PATH"], "HOME": str(directory), "TERM": "dumb",
                                             "LC_ALL": "C.UTF-8", "PS1": "> "})
        termios.tcsetwinsize(self.fd, (200, 200))
        # Two words, so that the echo of the command is not taken for its answer.
        self.ask(f"{setup}; echo rea''dy\n", lambda said: "ready" in said)

    def ask(self, keys: str, enough: Callable[[str], bool]) -> str:
        """Type, and give what the terminal shows as soon as it is enough."""
        os.write(self.fd, keys.encode())
        said = ""
        end = time.monotonic() + PATIENCE_SECONDS
        while not enough(said):
            left = end - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], f"after {keys!r} it only shows {said!r}"
            said += os.read(self.fd, 65536).decode()
        return said

    def close(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def offers(words: set[str], said: str) -> bool:
    """Whether the terminal shows all these words, or (where there is one) has put it into the line."""
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", said)
    if len(words) == 1:
        return shown.rstrip().removesuffix("=").endswith(tuple(words))  # zsh writes --option=
    # In a list, a path is shown by its last part.
    return all(re.search(rf"(?<![\w/.-]){re.escape(Path(word).name)}\b", shown) for word in words)


def complete_on_a_terminal(command: list[str], here: Path, setup: str) -> None:
    terminal = Terminal(command, here, setup)
    try:
        for line, words in CASES:
            terminal.ask("\x15", lambda said: True)  # an empty line
            terminal.ask(f"{line}\t", partial(offers, words))
    finally:
        terminal.close()


def test_bash(made: Path, here: Path) -> None:
    complete_on_a_terminal(
        [needed("bash"), "--norc", "--noprofile", "-i"], here,
        "bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'; "
        "bind 'set enable-bracketed-paste off'; bind 'set completion-query-items 0'; "
        f"bind 'set page-completions off'; . {made}/dockerd-guard.bash")


def test_zsh(made: Path, here: Path) -> None:
    complete_on_a_terminal(
        [needed("zsh"), "-f", "-i"], here,
        f"fpath=({made} $fpath); autoload -U compinit; compinit -u -D; unsetopt beep; setopt autolist nolistambiguous; "
        "LISTMAX=0; unset zle_bracketed_paste; PS1='> '")


@pytest.mark.parametrize(("line", "words"), CASES)
def test_fish(made: Path, here: Path, line: str, words: set[str]) -> None:
    done = subprocess.run([needed("fish"), "--no-config", "-c",
                           f"source {made}/dockerd-guard.fish; complete -C '{line}'"],
                          cwd=here, capture_output=True, text=True, check=True, env={**os.environ, "HOME": str(here)})
    assert {offered.partition("\t")[0] for offered in done.stdout.splitlines()} == words


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash_offers_these_and_no_more(made: Path, here: Path, line: str, words: set[str]) -> None:
    typed = line.split(" ")
    done = subprocess.run(
        ["bash", "-c", 'compopt() { :; }; . "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dockerd_guard; '
                       "printf '%s\\n' \"${COMPREPLY[@]}\"", "bash", made / "dockerd-guard.bash", *typed],
        cwd=here, capture_output=True, text=True, check=True)
    # Readline adds the slash behind a directory.
    offered = {word + "/" * (here / word).is_dir() for word in done.stdout.split()}
    assert {word for word in offered if not word.startswith("-") or typed[-1]} == words


# -- man pages --------------------------------------------------------------------------------------


def rendered(page: Path) -> str:
    done = subprocess.run([needed("man"), "--warnings", "--local-file", page], capture_output=True, text=True,
                          check=True, env={**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8"})
    assert done.stderr == ""
    return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)


def test_the_command_has_all_its_words_in_its_page(made: Path) -> None:
    text = rendered(made / "dockerd-guard.8")
    verbs = next(action.choices for action in parser()._actions if isinstance(action.choices, dict))
    for name, verb in verbs.items():
        section = text.partition(f"\n   {name}\n")[2]
        assert section, name
        for action in verb._actions:
            if "--help" not in action.option_strings:
                wanted = (action.option_strings or [action.metavar])[-1]
                assert re.search(rf"^ +{re.escape(wanted)}\b", section, re.MULTILINE), (name, wanted)


def test_the_policy_has_all_its_keys_in_its_page(made: Path) -> None:
    text = " ".join(rendered(made / "dockerd-guard.yaml.5").split())
    for key in KEYS:
        assert f"{key.word}: {text_of(key)}" in text, key.name


def test_nothing_is_lost_in_roff(made: Path) -> None:
    """Backslashes, quotes and lines that begin with a dot come out as they went in."""
    text = rendered(made / "dockerd-guard.yaml.5")
    for line in (TOP / "config.example.yaml").read_text().splitlines():
        assert line in text
