"""`lint --fix` and `lint --diff` on files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

NO_RESET = "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n"
WITH_RESET = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd://\n"
SOCKET = "[Socket]\nListenStream=/run/docker.sock\nSocketMode={}\n"
COMMENT = "# dockerd-guard: ignore="


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "before", "after"), [
    ("override.conf", NO_RESET, WITH_RESET),
    ("override.conf", NO_RESET.replace("\n", "\r\n"), WITH_RESET.replace("\n", "\r\n")),
    ("override.conf", NO_RESET.replace("ExecStart", "  ExecStart"), WITH_RESET.replace("ExecStart", "  ExecStart")),
    ("override.conf.j2", NO_RESET.replace("fd://", "fd:// --label {{ x }}"),
     WITH_RESET.replace("fd://", "fd:// --label {{ x }}")),
    ("docker.socket", SOCKET.format("0666"), SOCKET.format("0660")),
    ("override.conf", WITH_RESET.replace("ExecStart=/", f"{COMMENT}DG103 old\nExecStart=/"), WITH_RESET),
    ("override.conf", WITH_RESET.replace("fd://", "tcp://0.0.0.0:2375").replace(
        "ExecStart=/", f"{COMMENT}DG103,DG105 lab\nExecStart=/"),
     WITH_RESET.replace("fd://", "tcp://0.0.0.0:2375").replace("ExecStart=/", f"{COMMENT}DG103 lab\nExecStart=/")),
])
def test_safe_edits(name: str, before: str, after: str, here: Path, call: Call) -> None:
    file = here / name
    file.write_bytes(before.encode())
    file.chmod(0o640)
    assert "1 fixable with `dockerd-guard lint --fix`" in call("lint", name).out
    said = call("lint", name, "--fix", "--diff")
    assert said.code == 1 and said.out.startswith(f"--- a/{name}\n+++ b/{name}\n@@ ")
    assert file.read_bytes() == before.encode()
    said = call("lint", name, "--fix")
    assert (file.read_bytes(), said.code) == (after.encode(), 0), said.out
    assert f"fixed {name}" in said.err
    assert file.stat().st_mode & 0o777 == 0o640
    assert call("lint", name, "--fix", "--diff").out == ""


@pytest.mark.parametrize(("name", "text"), [
    # What dockerd listens on is not changed: whether a client needs it is not known.
    ("override.conf", WITH_RESET.replace("fd://", "tcp://0.0.0.0:2375")),
    ("daemon.json", '{"hosts": ["tcp://0.0.0.0:2375"]}'),
    # Which of two commands is meant is not known.
    ("docker.service", "[Service]\nExecStart=/usr/bin/dockerd\nExecStart=/usr/bin/dockerd -H fd://\n"),
])
def test_other_files_stay(name: str, text: str, here: Path, call: Call) -> None:
    (here / name).write_text(text)
    said = call("lint", name, "--fix")
    assert (said.code, (here / name).read_text()) == (1, text)
    assert "fixable" not in said.out
    assert call("lint", name, "--diff").out == ""


def test_the_target_of_a_link_is_edited(tmp_path: Path, call: Call) -> None:
    (tmp_path / "real").write_text(NO_RESET)
    (tmp_path / "override.conf").symlink_to("real")
    assert call("lint", tmp_path / "override.conf", "--fix").code == 0
    assert (tmp_path / "override.conf").is_symlink() and (tmp_path / "real").read_text() == WITH_RESET


@pytest.mark.parametrize("words", [["--fix"], ["--diff", "--root", "/"], ["--fix", "-"]])
def test_only_files_are_edited(words: list[str], call: Call) -> None:
    said = call("lint", *words)
    assert said.code == 2 and "need files as arguments" in said.err
