"""`lint --fix` and `lint --diff` on files."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from dockerd_guard.commands._fix_files import Edited, write
from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

NO_RESET = "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n"
WITH_RESET = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd://\n"
SOCKET = "[Socket]\nListenStream=/run/docker.sock\nSocketMode={}\n"
COMMENT = "# dockerd-guard: ignore="


def carried(text: str) -> str:
    return "#cloud-config\nwrite_files:\n- path: /etc/systemd/system/docker.socket\n  content: |\n" + textwrap.indent(
        text, "    ")


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
    ("docker.socket", "[Socket]\n ListenStream=/run/docker.sock\n",
     "[Socket]\n SocketMode=0660\n ListenStream=/run/docker.sock\n"),
    ("user-data", carried("[Socket]\nListenStream=/run/docker.sock\n"),
     carried("[Socket]\nSocketMode=0660\nListenStream=/run/docker.sock\n")),
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


def test_owner_and_mode_stay(here: Path, call: Call) -> None:
    """Another owner can only be given by root; for other accounts this is their own file."""
    file = here / "override.conf"
    file.write_text(NO_RESET)
    owner = (4321, 4322) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    file.chmod(0o2640)
    assert call("lint", file, "--fix").code == 0
    status = file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (*owner, 0o2640)


def test_a_file_that_is_named_twice_is_edited_once(here: Path, call: Call) -> None:
    (here / "override.conf").write_text(NO_RESET)
    assert call("lint", "override.conf", "./override.conf", "--fix").code == 0
    assert (here / "override.conf").read_text() == WITH_RESET


def test_a_file_that_only_a_unit_refers_to_is_not_edited(here: Path, call: Call) -> None:
    (here / "a").mkdir()
    (here / "a/override.conf").write_text(
        "[Service]\nEnvironmentFile=/etc/my.env\nExecStart=\nExecStart=/usr/bin/dockerd $O\n")
    (here / "a/my.env").write_text(f"{COMMENT}DG103 old\nO=--debug\n")
    assert "fixable" not in call("lint", "a/override.conf").out
    assert "DG501" in call("lint", "a/override.conf", "--fix").out
    assert COMMENT in (here / "a/my.env").read_text()
    assert call("lint", "a", "--fix").code == 0 and COMMENT not in (here / "a/my.env").read_text()


@pytest.mark.parametrize(("name", "error"), [
    ("hard link", "it has another hard link, which would keep the old text"),
    ("draft", "override.conf.dockerd-guard-new exists, of an edit that did not end; remove it"),
    ("changed", "it has changed since it was read"),
    ("FIFO", "it has changed since it was read"),
])
def test_what_is_not_replaced(name: str, error: str, here: Path) -> None:
    file = here / "override.conf"
    file.write_text("other\n" if name == "changed" else NO_RESET)
    if name == "hard link":
        (here / "other").hardlink_to(file)
    elif name == "draft":
        (here / "override.conf.dockerd-guard-new").touch()
    elif name == "FIFO":
        file.unlink()
        os.mkfifo(file)
    written, (refusal,) = write([Edited(str(file), NO_RESET, WITH_RESET)])
    assert written == [] and refusal.startswith(f"{file}: not edited: ") and refusal.endswith(error), refusal
    assert name == "FIFO" or file.read_text() != WITH_RESET
    assert name == "draft" or not (here / "override.conf.dockerd-guard-new").exists()


@pytest.mark.parametrize("arguments", [
    "-H fd:// -H tcp://0.0.0.0:2375", "-H 0.0.0.0", "--host=:2375", "-DH 10.0.0.5:4243", "-H0.0.0.0",
    "-H fd:// $DOCKER_OPTS", "-H fd:// \\\n  -H tcp://10.0.0.5:2376",
])
def test_no_edit_lets_systemd_start_what_opens_a_port(here: Path, call: Call, arguments: str) -> None:
    """As it is, systemd refuses docker.service."""
    text = f"[Service]\nExecStart=/usr/bin/dockerd {arguments}\n"
    (here / "override.conf").write_text(text)
    said = call("lint", "override.conf", "--fix")
    assert (said.code, (here / "override.conf").read_text()) == (1, text)
    assert "not edited: its ExecStart= may open a TCP socket, which systemd refuses as it is" in said.err


@pytest.mark.parametrize(("more", "code"), [([], 1), (["--exit-zero"], 0), (["--select", "DG204"], 0)])
def test_a_diff_without_edits_is_no_all_clear(here: Path, call: Call, more: list[str], code: int) -> None:
    (here / "daemon.json").write_text('{"hosts": ["tcp://0.0.0.0:2375"]}\n')
    said = call("lint", "daemon.json", "--diff", *more)
    assert (said.code, said.out) == (code, "")
    assert ("findings without --diff: 2" in said.err) == ("--select" not in more)


def test_a_diff_is_divided_at_line_feeds_only(here: Path, call: Call) -> None:
    (here / "override.conf").write_bytes(f"{NO_RESET}# a\x0cb\u2028c\x85d\r\n".encode())
    said = call("lint", "override.conf", "--diff")
    assert said.code == 1 and said.out.count("\n") == 7 and "No newline" not in said.out, said.out
    assert call("lint", "override.conf", "--diff", "--exit-zero").code == 0


def test_a_file_with_other_line_ends_is_not_edited(here: Path, call: Call) -> None:
    """systemd counts a lone carriage return as a line end, patch(1) and editors do not."""
    text = NO_RESET.replace("[Service]", "[Service]\rA=b\rC=d")
    (here / "override.conf").write_bytes(text.encode())
    said = call("lint", "override.conf", "--fix")
    assert "DG204" in said.out and (here / "override.conf").read_bytes() == text.encode()


@pytest.mark.parametrize("words", [["--fix"], ["--diff", "--root", "/"], ["--fix", "-"]])
def test_only_files_are_edited(words: list[str], call: Call) -> None:
    said = call("lint", *words)
    assert said.code == 2 and "need files as arguments" in said.err


@pytest.mark.parametrize(("name", "why"), [
    ("hard link", "it has another hard link, which would keep the old text"),
    ("draft", "{here}/override.conf.dockerd-guard-new exists, of an edit that did not end; remove it"),
    ("carriage return", "it has lines that end in a lone carriage return or NUL"),
    ("two commands", "it has several ExecStart=, and which one is meant is not known"),
    ("referenced", "it is no argument"),
])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_file_that_is_not_edited_is_judged_all_the_same(
    name: str, why: str, form: str, here: Path, call: Call
) -> None:
    file = here / "override.conf"
    file.write_text(NO_RESET)
    if name == "hard link":
        (here / "other").hardlink_to(file)
    elif name == "draft":
        (here / "override.conf.dockerd-guard-new").touch()
    elif name == "carriage return":
        file.write_bytes(b"[Service]\rA=b\r" + NO_RESET.encode())
    elif name == "two commands":
        file.write_text(f"{NO_RESET}ExecStart=/usr/bin/dockerd\n")
    elif name == "referenced":
        file.write_text(f"{WITH_RESET.replace('-H fd://', '$O')}EnvironmentFile=/etc/my.env\n")
        (here / "my.env").write_text(f"{COMMENT}DG103 old\nO=--debug\n")
    before = file.read_bytes()
    said = call("lint", "override.conf", "--fix", "--format", form)
    assert (said.code, file.read_bytes()) == (1, before)
    assert ("DG501" if name == "referenced" else "DG204") in said.out and "fixable" not in said.out
    edited = "./my.env" if name == "referenced" else "override.conf"
    text = f"{edited.removeprefix('./')}: not edited: {why.format(here=os.path.realpath(here))}"
    assert text in said.err and said.err.count("not edited") == 1, said.err
    assert form == "text" or text in said.json["notes"]
    assert "not edited" not in call("lint", "override.conf").err
    assert "not edited" in call("lint", "override.conf", "--diff").err


@pytest.mark.parametrize(("path", "content"), [
    ("docker.service.d/a.conf", '"[Service]\\nExecStart=/usr/bin/dockerd -H fd://\\n"'),
    ("docker.socket.d/a.conf", "W1NvY2tldF0KU29ja2V0TW9kZT0wNjY2Cg==\n  encoding: b64"),
    ("docker.socket", '"[Socket]\\nListenStream=/run/docker.sock\\n"'),
])
def test_text_that_is_quoted_or_encoded_is_not_edited(path: str, content: str, here: Path, call: Call) -> None:
    text = f"#cloud-config\nwrite_files:\n- path: /etc/systemd/system/{path}\n  content: {content}\n"
    (here / "user-data").write_text(text)
    said = call("lint", "user-data", "--fix")
    assert (said.code, (here / "user-data").read_text()) == (1, text)
    assert "user-data: not edited: the text of the unit in it is quoted or encoded" in said.err, said.err


def test_other_files_are_edited_beside_one_that_is_not(here: Path, call: Call) -> None:
    (here / "a").mkdir()
    (here / "a/override.conf").write_text(NO_RESET)
    (here / "docker.socket").write_text(SOCKET.format("0666"))
    (here / "other").hardlink_to(here / "docker.socket")
    said = call("lint", "a/override.conf", "docker.socket", "--fix")
    assert said.code == 1 and "fixed a/override.conf\n" in said.err and "docker.socket: not edited: it has" in said.err
    assert "DG106" in said.out and (here / "a/override.conf").read_text() == WITH_RESET


@pytest.mark.parametrize("form", ["json", "sarif", "github"])
def test_a_diff_has_no_other_format(form: str, here: Path, call: Call) -> None:
    (here / "override.conf").write_text(NO_RESET)
    said = call("lint", "override.conf", "--diff", "--format", form)
    assert said.code == 2 and "--diff prints a unified diff" in said.out and "+++" not in said.out
