"""The command line: output, exit codes, and broken input."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockerd_guard import cli
from dockerd_guard.rules.registry import TITLES
from tests.support.command_line import IS_INSTALLED, PROGRAM, REPOSITORY, Call, run
from tests.support.hosts import OVERRIDE, SERVICE, Host

pytest_plugins = ["tests.support.fixtures"]

OPEN = "-H fd:// -H tcp://0.0.0.0:2375"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


# -- contracts ------------------------------------------------------------------------------------


def test_a_given_dockerd_version(stock_host: Host, call: Call) -> None:
    said = call("sockets", "--root", stock_host.root, "--format", "json", "--docker-version", "20.10.24")
    assert said.json["dockerd_version"] == "20.10.24"


def test_sockets_that_do_not_start(stock_host: Host, call: Call) -> None:
    stock_host.put("/etc/docker/daemon.json", '{"hosts": ["tcp://10.0.0.5:2375"]}')
    layer = call("sockets", "--root", stock_host.root, "--format", "json").json["layers"]["configured"]
    assert (layer["starts"], layer["refused_by"], layer["hosts"]) == (
        False, "dockerd", ["fd://", "tcp://10.0.0.5:2375"])
    assert "both as a flag and in the configuration file" in layer["reason"]


# -- several roots --------------------------------------------------------------------------------


def test_several_roots_print_a_line_each(stock_host: Host, tmp_path: Path, call: Call) -> None:
    open_host = tmp_path / "open"
    open_host.mkdir()
    Host(open_host).start(OPEN)
    gone = tmp_path / "gone"
    said = call("lint", "--format", "json", "--root", stock_host.root, "--root", open_host, "--root", gone)
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 2
    assert [line["root"] for line in lines] == [str(stock_host.root), str(open_host), str(gone)]
    assert [len(line.get("findings", ())) for line in lines] == [0, 1, 0]
    assert lines[2]["error"].endswith("No such file or directory")
    assert call("lint", "--format", "json", "--root", stock_host.root, "--root", open_host).code == 1


def test_several_roots_as_text_and_sarif(stock_host: Host, call: Call) -> None:
    assert call("sockets", "--root", stock_host.root, "--root", stock_host.root).out.count(f"{stock_host.root}:\n") == 2
    said = call("lint", "--format", "sarif", "--root", stock_host.root, "--root", stock_host.root)
    assert len(said.json["runs"]) == 2


# -- the policy -----------------------------------------------------------------------------------


def test_a_given_policy_replaces_that_of_the_root(stock_host: Host, tmp_path: Path, call: Call) -> None:
    stock_host.put("/etc/dockerd-guard/config.yaml", "version: 1\nsockets: [unix:///run/other.sock]\n")
    given = tmp_path / "policy.yaml"
    given.write_text("version: 1\nsockets:\n  - fd://\n  - tcp://127.0.0.1:2376\n")
    said = call("lint", "--root", stock_host.root, "--policy", given)
    assert said.code == 1
    assert said.out.split("\n")[:3] == [
        f"{given}:4:5: error: tcp://127.0.0.1:2376 is declared, but the files on disk do not configure it [DG102]",
        " 4 |   - tcp://127.0.0.1:2376",
        "   |     ^~~~~~~~~~~~~~~~~~~~"]


@pytest.mark.parametrize("text", ["version: 1\nsokets: [fd://]\n", None])
def test_an_invalid_policy_exits_with_2(stock_host: Host, tmp_path: Path, call: Call, text: str | None) -> None:
    given = tmp_path / "policy.yaml"
    if text is not None:
        given.write_text(text)
    said = call("lint", "--root", stock_host.root, "--policy", given)
    assert (said.code, said.out) == (2, "")
    assert f"dockerd-guard: {given}:" in said.err


# -- usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [
    [], ["nonsense"], ["lint", "--no-such"], ["lint", "--format", "xml"], ["sockets", "--format", "sarif"],
    ["lint", "--docker-version", "new"], ["lint", "--roo", "/"], ["explain", "DG999"],
])
def test_bad_usage_exits_with_2(words: list[str]) -> None:
    try:
        assert cli.main(words) == 2
    except SystemExit as left:
        assert left.code == 2


@pytest.mark.parametrize("words", [["--help"], ["lint", "--help"], ["--version"]])
def test_help_exits_with_0(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0
    assert "dockerd-guard" in capsys.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS, ids=lambda verb: verb.name)
def test_the_help_of_a_verb_has_examples_that_can_be_parsed(
    verb: cli.Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb.examples
    for words, what in verb.examples:
        shown = words.partition(" > ")[0].split()
        assert cli.parser().parse_args(shown).verb in {verb.name, "diff"}
        assert what
    with pytest.raises(SystemExit):
        cli.main([verb.name, "--help"])
    out = capsys.readouterr().out
    assert all(f"  dockerd-guard {words}\n" in out for words, _ in verb.examples)
    assert all(len(line) <= 80 for line in out.splitlines()), out


def test_explain(call: Call) -> None:
    assert call("explain").out.split("\n")[0] == f"DG101  {TITLES['DG101']}"
    assert call("explain", "dg103").out.startswith(f"# DG103: {TITLES['DG103']}\n")
    assert call("explain", "DG103", "DG104").out.count("## Why\n") == 2


# -- broken input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "make"), [
    (SERVICE, os.mkfifo),
    (SERVICE, lambda path: path.symlink_to("/nowhere")),
    (SERVICE, Path.mkdir),
    (SERVICE, lambda path: path.write_bytes(bytes(range(256)) * 64)),
    (SERVICE, lambda path: path.write_bytes(b"[Service]\nExecStart=/" + b"x" * 2**21)),
    (SERVICE, lambda path: path.write_bytes(b"[Service]\nExecStart=/x\0\n\xff\n")),
    (OVERRIDE, os.mkfifo),
    (OVERRIDE, lambda path: path.symlink_to("loop")),
    (OVERRIDE, Path.mkdir),
    (OVERRIDE, lambda path: path.write_bytes(b"\xff\xfe\0")),
    ("/etc/docker/daemon.json", os.mkfifo),
    ("/etc/docker/daemon.json", Path.mkdir),
    ("/etc/docker/daemon.json", lambda path: path.write_bytes(b"[" * 100_000)),
    ("/etc/docker/daemon.json", lambda path: path.write_bytes(b'{"hosts": ["\x1b[2J\xff"]}')),
    ("/etc/default/docker", lambda path: path.write_bytes(b"DOCKER_OPTS='-H\n" * 10_000)),
])
@pytest.mark.parametrize("words", [["lint"], ["sockets"], ["lint", "--format", "json"]], ids="-".join)
def test_a_broken_file(
    stock_host: Host, call: Call, path: str, make: Callable[[Path], object], words: list[str]
) -> None:
    """A finding or an error with the file name; no hang, no traceback, no control characters."""
    target = stock_host.root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    make(target)
    said = call(*words, "--root", stock_host.root)
    assert "Traceback" not in said.err
    assert "\x1b" not in said.out + said.err
    assert said.code in (0, 1, 2)
    if words != ["sockets"] and not path.startswith("/etc/default"):
        assert path.rpartition("/")[2] in said.out + said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read all files")
def test_an_unreadable_file_exits_with_2_here(stock_host: Host, call: Call) -> None:
    stock_host.put(OVERRIDE, "", 0)
    said = call("lint", "--root", stock_host.root)
    assert (said.code, said.out) == (2, "")
    assert OVERRIDE in said.err


@contextlib.contextmanager
def nobody(host: Host) -> Iterator[None]:
    """Become user nobody, who can search the directories above the host."""
    for directory in (host.root, *host.root.parents):
        if directory.stat().st_mode & 0o011 != 0o011:
            directory.chmod(directory.stat().st_mode & 0o7777 | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
def test_an_unreadable_file_exits_with_2(stock_host: Host, call: Call) -> None:
    """The same as user nobody."""
    stock_host.start("-H fd://")
    assert call("lint", "--root", stock_host.root).code == 0
    (stock_host.root / OVERRIDE[1:]).chmod(0o600)
    with nobody(stock_host):
        said = call("lint", "--root", stock_host.root)
    assert (said.code, said.out) == (2, "")
    assert f"dockerd-guard: {OVERRIDE}: cannot be read: Permission denied" in said.err


@needs_root
@pytest.mark.parametrize(("path", "mode"), [
    ("/var/lib/docker/daemon.json", 0o700),
    ("/etc/dockerd/daemon.json", 0o700),
    ("/etc/docker/deamon.json", 0o711),
    ("/etc/docker/daemon.json.d/a.json", 0o700),
    ("/etc/systemd/docker.service.d/a.conf", 0o700),
])
def test_a_place_of_misplaced_files_may_be_closed(stock_host: Host, call: Call, path: str, mode: int) -> None:
    """dockerd and systemd read nothing there. Root sees the file that has no effect."""
    stock_host.put(path, "")
    assert f"{path}:1:1: warning: this file has no effect" in call("lint", "--root", stock_host.root).out
    (stock_host.root / path[1:]).parent.chmod(mode)
    with nobody(stock_host):
        said = call("lint", "--root", stock_host.root)
    assert (said.code, said.out) == (0, "nothing wrong\n")


@needs_root
def test_a_condition_in_a_closed_directory_is_unread(stock_host: Host) -> None:
    """`status` of an ordinary account goes on without it."""
    stock_host.put("/etc/systemd/system/docker.socket.d/a.conf", "[Unit]\nConditionPathExists=/root/docker\n")
    stock_host.put("/root/docker", "")
    (stock_host.root / "root").chmod(0o700)
    with nobody(stock_host):
        seen = stock_host.see()
    assert set(seen.rootfs.denied) == {"/root/docker"}


def test_a_closed_pipe(stock_host: Host) -> None:
    """Like `| head -1`: no traceback on standard error."""
    roots = [word for _ in range(50) for word in ("--root", str(stock_host.root))]
    pipe_out, pipe_in = os.pipe()
    os.close(pipe_out)
    done = subprocess.run([*PROGRAM, "sockets", *roots], cwd=REPOSITORY,
                          stdout=pipe_in, stderr=subprocess.PIPE, check=False)
    os.close(pipe_in)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.skipif(IS_INSTALLED, reason="python3 -I takes no encoding from the environment")
def test_a_terminal_without_unicode(stock_host: Host) -> None:
    stock_host.start("-H fd:// -H tcp://0.0.0.0:2375 --label=größe")
    done = run("lint", "--root", stock_host.root, env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert done.returncode == 1, done.stderr
    assert rb"--label=gr\xf6\xdfe" in done.stdout


def test_thousands_of_drop_ins(stock_host: Host, call: Call) -> None:
    for number in range(4_900):
        stock_host.put(f"/etc/systemd/system/docker.service.d/{number:05}.conf", "[Service]\nEnvironment=A=B\n")
    assert call("lint", "--root", stock_host.root).code == 0


def test_the_linter_needs_only_yaml(stock_host: Host) -> None:
    """lint and sockets import neither pystemd nor structlog nor watchdog."""
    program = ("import sys; from dockerd_guard.cli import main; main(sys.argv[1:]); "
               "print(*{'pystemd', 'structlog', 'watchdog', '_ssl', 'subprocess'} & sys.modules.keys())")
    for verb in ("lint", "sockets"):
        done = subprocess.run([sys.executable, "-c", program, verb, "--root", stock_host.root], cwd=REPOSITORY,
                              capture_output=True, text=True, check=True)
        assert done.stdout.endswith("\n\n"), done.stdout
