"""bash completion as the package's build makes it. tests/system/test_completion.py tries the other shells, and man."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.completion import BASH_SETUP, CASES, complete_on_a_terminal

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash."""
    directory = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, "-B", "packaging/completion.py", directory], cwd=TOP, check=True,
                   env={**os.environ, "PYTHONPATH": str(TOP)})
    return directory / "dockerd-guard.bash"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here/directory").mkdir(parents=True)
    (tmp_path / "here/file.yaml").touch()
    return tmp_path


def test_bash(script: Path, here: Path) -> None:
    complete_on_a_terminal(
        ["env", "-i", f"--chdir={here}", f"PATH={os.environ['PATH']}", f"HOME={here}", "TERM=dumb", "LC_ALL=C.UTF-8",
         "PS1=> ", "bash", "--norc", "--noprofile", "-i"], BASH_SETUP.format(script=script))


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash_offers_these_and_no_more(script: Path, here: Path, line: str, words: set[str]) -> None:
    typed = line.split(" ")
    done = subprocess.run(
        ["bash", "-c", 'compopt() { :; }; . "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dockerd_guard; '
                       "printf '%s\\n' \"${COMPREPLY[@]}\"", "bash", script, *typed],
        cwd=here, capture_output=True, text=True, check=True)
    # Readline adds the slash behind a directory.
    offered = {word + "/" * (here / word).is_dir() for word in done.stdout.split()}
    assert {word for word in offered if not word.startswith("-") or typed[-1]} == words
