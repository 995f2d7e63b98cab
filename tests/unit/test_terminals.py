"""Every verb on every kind of terminal: narrow, without Unicode, without colour, closed; and on a full disk."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from dockerd_guard.cli import VERBS
from tests.support.hosts import Host

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
PLAIN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}

ROOT = "(root)"
"""Placeholder for the root directory of the host."""

CALLS = (
    ("init", "--root", ROOT), ("check", "config.example.yaml"), ("check", "--print", "config.example.yaml"),
    ("sockets", "--root", ROOT), ("sockets", "--root", ROOT, "--format", "json"),
    ("lint", "--root", ROOT), ("lint", "--root", ROOT, "--format", "json"),
    ("lint", "--root", ROOT, "--format", "sarif"), ("lint", "--root", ROOT, "--format", "github"),
    ("diff", "--root", ROOT), ("diff", "--root", ROOT, "--format", "json"),
    ("fix", "--policy", "/nonexistent"), ("run", "--help"),
    ("status",), ("status", "--format", "json"),
    ("history",), ("history", "--format", "json"), ("history", "--plot", "-"),
    ("fleet", "--policy", "/nonexistent"), ("explain",), ("explain", "DG103"), ("explain", "held"),
    ("--help",), ("nonsense",),
)
"""Every verb in all its formats. Without systemd or a journal those for a live host report that. The agent itself
has no terminal."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A host with findings that contain non-ASCII characters."""
    before = os.umask(0o022)
    host = Host(tmp_path_factory.mktemp("größe"))
    host.start("-H fd:// -H tcp://0.0.0.0:2375 --label größe=大 -H 'unix:///run/ö.sock'")
    host.put("/etc/dockerd-guard/config.yaml", "version: 1\nsockets: [fd://]\n")
    yield host.root
    os.umask(before)


def command(call: tuple[str, ...], root: Path) -> list[str]:
    return [sys.executable, "-m", "dockerd_guard", *(str(root) if word == ROOT else word for word in call)]


def run(call: tuple[str, ...], root: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(call, root), cwd=REPOSITORY, env={**PLAIN, **env}, capture_output=True, check=False,
                          timeout=PATIENCE_SECONDS)


def on_a_terminal(call: tuple[str, ...], root: Path, columns: int, **env: str) -> tuple[int, str]:
    """The exit code and the output on a terminal of this width."""
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command(call, root), cwd=REPOSITORY, env={**PLAIN, **env},
                               stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:
        pass  # EIO: the other end is closed
    os.close(ours)
    return process.wait(PATIENCE_SECONDS), said.decode()


def test_every_verb_is_here() -> None:
    assert {call[0] for call in CALLS} >= {verb.name for verb in VERBS}


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_terminal(root: Path, call: tuple[str, ...]) -> None:
    plain = run(call, root)
    assert plain.returncode in (0, 1, 2)
    assert b"Traceback" not in plain.stderr and b"\x1b" not in plain.stdout + plain.stderr

    for ascii_only in ({"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}):
        done = run(call, root, **ascii_only)
        assert (done.returncode, b"Traceback" in done.stderr) == (plain.returncode, False), done.stderr
    assert run(call, root, LC_ALL="C", PYTHONIOENCODING="ascii").stdout.isascii()

    code, said = on_a_terminal(call, root, 40)
    assert (code, "Traceback" in said) == (plain.returncode, False), said
    code, said = on_a_terminal(call, root, 40, NO_COLOR="1")
    assert (code, "\x1b" in said) == (plain.returncode, False), said

    gone, its = os.pipe()
    os.close(gone)
    left = subprocess.run(command(call, root), cwd=REPOSITORY, env=PLAIN, stdout=its, stderr=subprocess.PIPE,
                          check=False, timeout=PATIENCE_SECONDS)
    os.close(its)
    assert left.returncode in (0, 1, 2)
    assert b"Traceback" not in left.stderr and b"Exception" not in left.stderr, left.stderr

    with open("/dev/full", "wb") as full:
        lost = subprocess.run(command(call, root), cwd=REPOSITORY, env=PLAIN, stdout=full, stderr=subprocess.PIPE,
                              check=False, timeout=PATIENCE_SECONDS)
    assert lost.returncode == 2
    assert b"Traceback" not in lost.stderr and b"Exception" not in lost.stderr, lost.stderr


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_standard_output_that_is_closed(call: tuple[str, ...], root: Path) -> None:
    """AttributeError: 'NoneType' object has no attribute 'flush'."""
    left = on_closed_streams(">&-", call, root)
    assert left.returncode in (0, 1, 2)
    assert b"Traceback" not in left.stderr, left.stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_the_exit_code_is_the_same_on_closed_streams(closed: str, root: Path) -> None:
    call = ("lint", "--root", ROOT)
    assert on_closed_streams(closed, call, root).returncode == on_closed_streams("", call, root).returncode == 1


def on_closed_streams(closed: str, call: tuple[str, ...], root: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command(call, root)], cwd=REPOSITORY, env=PLAIN,
                          check=False, capture_output=True, timeout=PATIENCE_SECONDS)


def test_lint_fits_40_columns(root: Path) -> None:
    code, said = on_a_terminal(("lint", "--root", ROOT, "--color", "never"), root, 40)
    lines = [line.rstrip("\r") for line in said.split("\n")]
    assert code == 1
    # What is said on standard error is not folded.
    assert [line for line in lines if len(line) > 40 and not line.startswith("dockerd-guard: ")] == []
    caret = next(index for index, line in enumerate(lines) if "^~~" in line)
    column = lines[caret].index("^")
    assert lines[caret - 1][column:].startswith("tcp://0.0.0.0:23")
