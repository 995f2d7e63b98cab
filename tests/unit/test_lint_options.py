"""Options of `lint`: which findings are reported, which of them fail, and how they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockerd_guard.rules import ignore_comments
from tests.support.command_line import Call
from tests.support.hosts import OVERRIDE, Host

pytest_plugins = ["tests.support.fixtures"]

OPEN = "-H fd:// -H tcp://0.0.0.0:2375"
IGNORE = "# dockerd-guard: ignore="


@pytest.fixture
def open_host(stock_host: Host) -> Host:
    """A host with DG103 (error) and DG305 (warning)."""
    stock_host.start(OPEN)
    stock_host.put("/etc/default/docker", "DOCKER_OPTS=--debug\n")
    return stock_host


@pytest.mark.parametrize(("words", "codes", "code"), [
    ([], ["DG103", "DG305"], 1),
    (["--select", "DG103"], ["DG103"], 1),
    (["--select", "dg3"], ["DG305"], 1),
    (["--select", "DG3,DG1"], ["DG103", "DG305"], 1),
    (["--select", "DG2"], [], 0),
    (["--ignore", "DG103"], ["DG305"], 1),
    (["--ignore", "DG1", "--ignore", "DG305"], [], 0),
    (["--select", "DG1", "--ignore", "DG103"], [], 0),
    (["--fail-on", "error"], ["DG103", "DG305"], 1),
    (["--fail-on", "error", "--select", "DG3"], ["DG305"], 0),
    (["--fail-on", "warning", "--select", "DG3"], ["DG305"], 1),
    (["--exit-zero"], ["DG103", "DG305"], 0),
])
def test_which_findings_are_reported_and_fail(
    open_host: Host, call: Call, words: list[str], codes: list[str], code: int
) -> None:
    said = call("lint", "--root", open_host.root, "--format", "json", *words)
    assert (sorted(finding["code"] for finding in said.json["findings"]), said.code) == (codes, code)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: one directory configures dockerd, the others do not, or in a script."""
    for path, text in (("overlay/etc/docker/daemon.json", '{"hosts": ["tcp://0.0.0.0:2375"]}\n'),
                       ("empty/values.yaml", "a: 1\n"), ("script/run.sh", "dockerd -H tcp://0.0.0.0:2375\n"),
                       ("unit/docker-prune.service", "[Service]\nExecStart=/usr/bin/docker system prune\n")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "code", "said"), [
    ([], 1, "overlay/etc/docker/daemon.json:1:13"),
    (["overlay"], 1, "overlay/etc/docker/daemon.json:1:13"),
    (["--root", "overlay"], 1, "/etc/docker/daemon.json:1:13"),
    (["empty"], 2, "empty: contains no configuration of dockerd"),
    (["empty", "--allow-empty"], 0, "empty: contains no configuration of dockerd"),
    (["empty", "--allow-empty", "--format", "json"], 0, '"notes"'),
    (["empty", "overlay", "--allow-empty", "--ignore", "DG1,DG2"], 0, "empty: contains no configuration of dockerd"),
    (["empty", "overlay", "--ignore", "DG1,DG2"], 2, "empty: contains no configuration of dockerd"),
    (["--root", "empty"], 2, "no configuration of dockerd found below empty"),
    (["--root", "empty", "--allow-empty"], 0, "no configuration of dockerd found below empty"),
    (["unit", "--allow-empty"], 0, "the files configure no dockerd"),
    (["unit/docker-prune.service", "--allow-empty"], 0, "the files configure no dockerd"),
    (["empty/values.yaml", "--allow-empty"], 2, "not recognized"),
    (["script", "--allow-empty"], 2, "names a TCP address for dockerd"),
    (["missing", "--allow-empty"], 2, "missing: No such file or directory"),
    (["--root", "missing", "--allow-empty"], 2, "missing: No such file or directory"),
    (["overlay", "--allow-empty"], 1, "[DG103]"),
    (["--fix", "--diff"], 1, "names a TCP address for dockerd"),
], ids=str)
def test_a_hook_judges_the_working_directory_and_never_the_host(
    repository: None, call: Call, words: list[str], code: int, said: str
) -> None:
    found = call("lint", "--no-host", *words)
    assert (found.code, said in found.out + found.err) == (code, True), found.out + found.err


@pytest.mark.parametrize(("words", "error"), [
    (["--select", "DG999"], "--select: no rule DG999"),
    (["--select", "DG1O3"], "--select: no rule DG1O3; did you mean DG103?"),
    (["--ignore", "DG1O3"], "--ignore: no rule DG1O3;"),
])
def test_an_unknown_code_is_an_error(open_host: Host, call: Call, words: list[str], error: str) -> None:
    """What a wrong --ignore should have been is not suggested: that would hide findings."""
    said = call("lint", "--root", open_host.root, *words)
    assert (said.code, said.out) == (2, "")
    assert error in said.err and ("did you mean" in said.err) == ("did you mean" in error)
    assert error in call("lint", "--root", open_host.root, *words, "--format", "json").json["error"]
    run, = call("lint", "--root", open_host.root, *words, "--format", "sarif").json["runs"]
    assert not run["invocations"][0]["executionSuccessful"] and error in json.dumps(run)
    said = call("lint", "--root", open_host.root, *words, "--format", "github")
    assert said.code == 2 and said.out.startswith(f"::error title=dockerd-guard::{error}")


def test_a_github_log_shows_what_a_comment_ignores(stock_host: Host, call: Call) -> None:
    """Who reviews a pull request sees what it waives."""
    stock_host.put(OVERRIDE, f"[Service]\nExecStart=\n{IGNORE}DG103 lab ::error::\nExecStart=/usr/bin/dockerd {OPEN}\n")
    said = call("lint", "--root", stock_host.root, "--format", "github")
    shown, = (line for line in said.out.split("\n") if "DG103" in line)
    assert said.code == 0 and shown.startswith("::notice title=dockerd-guard DG103,file=") and ",line=4," in shown
    assert "::ignored by a comment (lab ::error): tcp://0.0.0.0:2375 (-H) exposes" in shown


@pytest.mark.parametrize("reason", ["", "   ", "--", ":", "\u200b\u202e", "\u2800", "\xa0"])
def test_a_reason_can_be_read(reason: str, stock_host: Host, call: Call) -> None:
    stock_host.put(OVERRIDE, f"[Service]\nExecStart=\n{IGNORE}DG103 {reason}\nExecStart=/usr/bin/dockerd {OPEN}\n")
    said = call("lint", "--root", stock_host.root)
    assert said.code == 1 and "DG103]" in said.out and "it gives no reason after the code" in said.out


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\0"])
def test_a_comment_counts_lines_as_systemd_does(end: str, stock_host: Host, call: Call) -> None:
    lines = ["[Service]", "ExecStart=", f"{IGNORE}DG103 lab", f"ExecStart=/usr/bin/dockerd {OPEN}", ""]
    stock_host.put(OVERRIDE, end.join(lines))
    said = call("lint", "--root", stock_host.root, "--format", "json", "--select", "DG103")
    assert [entry["reason"] for entry in said.json.get("ignored", [])] == ["lab"]
    # With lone carriage returns before it, a comment is not about another line.
    stock_host.put(OVERRIDE, end.join([*lines[:2], f"{IGNORE}DG103 lab", "Environment=A=b", *lines[3:]]))
    said = call("lint", "--root", stock_host.root, "--format", "json", "--select", "DG103")
    assert [finding["code"] for finding in said.json["findings"]] == ["DG103"]


def test_nothing_wrong_is_not_said_of_what_is_left_out(open_host: Host, call: Call) -> None:
    open_host.put("/etc/rc.local", "dockerd &\n")
    said = call("lint", "--root", open_host.root, "--ignore", "DG1,DG3")
    assert (said.code, said.out) == (2, "no other findings; 2 left out by --select or --ignore\n")


def test_hidden_findings_are_counted(open_host: Host, call: Call) -> None:
    said = call("lint", "--root", open_host.root, "--ignore", "DG1,DG3")
    assert said.out == "no other findings; 2 left out by --select or --ignore\n"


def test_exit_zero_does_not_hide_that_nothing_was_judged(tmp_path: object, call: Call) -> None:
    assert call("lint", "--root", tmp_path, "--exit-zero").code == 2


def test_statistics(open_host: Host, call: Call) -> None:
    said = call("lint", "--root", open_host.root, "--statistics")
    assert said.out.split("\n")[0].startswith("    1  DG103  TCP without client authentication")
    said = call("lint", "--root", open_host.root, "--statistics", "--format", "json")
    assert said.json["statistics"] == {"DG103": 1, "DG305": 1}


def test_quiet(open_host: Host, call: Call) -> None:
    said = call("lint", "--root", open_host.root, "--quiet", "--select", "DG3")
    assert said.out.startswith("/etc/default/docker:1:") and "1 warning" not in said.out and said.err == ""
    assert call("lint", "--root", open_host.root, "--quiet", "--select", "DG2").out == ""
    assert "no configuration" in call("lint", "--root", open_host.root / "etc/default", "--quiet").err


def test_colour(open_host: Host, call: Call) -> None:
    assert "\x1b[1;31merror:\x1b[0m" in call("lint", "--root", open_host.root, "--color", "always").out
    assert "\x1b" not in call("lint", "--root", open_host.root).out


# -- comments -------------------------------------------------------------------------------------


def with_comment(host: Host, comment: str, before: str = "") -> None:
    host.put(OVERRIDE, f"[Service]\nExecStart=\n{comment}\n{before}ExecStart=/usr/bin/dockerd \\\n  {OPEN}\n")


@pytest.mark.parametrize(("comment", "before"), [
    (f"{IGNORE}DG103 CI runner", ""),
    (f"; {IGNORE[2:]}DG103 CI runner", ""),
    ("  #dockerd-guard:ignore = dg103: CI runner", ""),
    (f"{IGNORE}DG204,DG103 CI runner", ""),
    (f"{IGNORE}DG103 CI runner", "\n# what follows is wanted\n"),
])
def test_a_comment_ignores_the_finding_of_the_next_assignment(
    stock_host: Host, call: Call, comment: str, before: str
) -> None:
    with_comment(stock_host, comment, before)
    said = call("lint", "--root", stock_host.root, "--select", "DG103", "--format", "json")
    assert (said.code, said.json["findings"]) == (0, [])
    ignored, = said.json["ignored"]
    assert (ignored["code"], ignored["reason"]) == ("DG103", "CI runner")
    assert call("lint", "--root", stock_host.root, "--no-comments").code == 1
    run, = call("lint", "--root", stock_host.root, "--select", "DG103", "--format", "sarif").json["runs"]
    result, = run["results"]
    assert result["suppressions"][0]["justification"] == "CI runner"
    assert "1 ignored by comments" in call("lint", "--root", stock_host.root, "--select", "DG103").out


@pytest.mark.parametrize(("comment", "codes", "message"), [
    (f"{IGNORE}DG103", ["DG103", "DG501"], "gives no reason"),
    (f"{IGNORE}DG104 not here", ["DG103", "DG501"], "DG104, which is not reported here"),
    (f"{IGNORE}DG999 no such", ["DG103", "DG501"], "which is no rule"),
    (f"{IGNORE}DG101 needs a policy", ["DG103"], ""),
    ("# dockerd-guard ignore=DG103 no colon", ["DG103"], ""),
    (f"{IGNORE}DG103,DG105 one of them", ["DG501"], "DG105, which is not reported here"),
])
def test_a_comment_without_effect_is_reported(
    stock_host: Host, call: Call, comment: str, codes: list[str], message: str
) -> None:
    with_comment(stock_host, comment)
    found = call("lint", "--root", stock_host.root, "--format", "json").json["findings"]
    assert sorted(finding["code"] for finding in found) == codes
    comments = [finding for finding in found if finding["code"] == "DG501"]
    assert all(message in finding["message"] and finding["line"] == 3 for finding in comments)


def test_a_comment_is_about_the_next_assignment_only(stock_host: Host, call: Call) -> None:
    stock_host.put(OVERRIDE, f"[Service]\n{IGNORE}DG103 elsewhere\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n")
    assert call("lint", "--root", stock_host.root).code == 1


def test_a_comment_in_an_environment_file(stock_host: Host, call: Call) -> None:
    stock_host.put(OVERRIDE, "[Service]\nEnvironmentFile=/etc/default/docker\nExecStart=\n"
                             "ExecStart=/usr/bin/dockerd $DOCKER_OPTS\n")
    stock_host.put("/etc/default/docker", f"{IGNORE}DG103 lab network\nDOCKER_OPTS='-H tcp://0.0.0.0:2375'\n")
    assert call("lint", "--root", stock_host.root).code == 0


def test_many_comments_take_linear_time() -> None:
    data = (f"{IGNORE}DG103 x\n" * 20_000 + "A=b\n").encode()
    assert len(list(ignore_comments.read_comments(data, "/a.conf"))) == 20_000
