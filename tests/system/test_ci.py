"""The hook, the action and the template for CI: their shell steps on a repository of a user.

pip needs PyPI, as `make venv` does. No machine is booted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
DAEMON_JSON = "overlay/etc/docker/daemon.json"
OPEN = '{\n  "hosts": ["fd://", "tcp://0.0.0.0:2375"]\n}\n'
GOOD = "{}\n"
UNIT = "[Service]\nExecStart=/usr/bin/dockerd\n"
POLICY = "version: 1\nsockets: [fd://]\n"


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "init.defaultBranch=main",
                    *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with an overlay for hosts."""
    where = tmp_path / "user's repository"
    for path, text in ((DAEMON_JSON, GOOD), ("policy.yaml", POLICY),
                       ("overlay/usr/lib/systemd/system/docker.service", UNIT),
                       ("overlay/usr/lib/systemd/system/docker.socket",
                        "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\n")):
        (where / path).parent.mkdir(parents=True, exist_ok=True)
        (where / path).write_text(text)
    git(where, "init")
    git(where, "add", ".")
    git(where, "commit", "--message=x")
    return where


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as another repository uses it: what is to be committed here, as a commit."""
    where = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP,
                            capture_output=True, check=True).stdout
    names = b"\0".join(name for name in listed.split(b"\0") if name and (TOP / os.fsdecode(name)).exists())
    packed = subprocess.run(["tar", "--create", "--null", "--files-from=-"], cwd=TOP, input=names, capture_output=True,
                            check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=where, input=packed, check=True)
    git(where, "init")
    git(where, "add", "--all")
    git(where, "commit", "--message=x")
    return where


def run(command: list[str], directory: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(command, cwd=directory, env={**os.environ, **environment}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
    return done.returncode, done.stdout


def test_pre_commit_runs_the_hook(repository: Path, checkout: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pre_commit", "try-repo", "--verbose", str(checkout), "dockerd-guard"]
    environment = {"PRE_COMMIT_HOME": str(tmp_path / "hooks")}
    (repository / "README").write_text("x\n")
    git(repository, "add", ".")
    code, said = run(command, repository, environment)
    assert (code, "no files to check" in said) == (0, True), said

    # `.` is the root of the host: args cannot be given to try-repo.
    for path in (repository / "overlay").iterdir():
        path.rename(repository / path.name)
    for text, code in ((GOOD, 0), (OPEN, 1)):
        (repository / "etc/docker/daemon.json").write_text(text)
        git(repository, "add", "--all")
        found, said = run(command, repository, environment)
        assert (found, "[DG103]" in said) == (code, code == 1), said


def steps(inputs: Mapping[str, str]) -> list[tuple[list[str], dict[str, str]]]:
    """The commands of action.yml as the runner starts them, each with its environment."""
    action: dict[str, Any] = yaml.safe_load((TOP / "action.yml").read_text())
    values = {name: inputs.get(name, given["default"]) for name, given in action["inputs"].items()}
    found = []
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash" and "${{" not in step["run"]
        environment = {name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda name: values[name[1]], text)
                       for name, text in step.get("env", {}).items()}
        found.append((["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], environment))
    return found


@pytest.fixture(scope="module")
def runner(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the steps, after the first one."""
    where = tmp_path_factory.mktemp("runner")
    environment = {"RUNNER_TEMP": str(where / "its files"), "GITHUB_ACTION_PATH": str(checkout)}
    (command, more), _ = steps({})
    code, said = run(command, where, environment | more)
    assert code == 0, said
    return environment


class Case(NamedTuple):
    """The content of daemon.json, the inputs of the action, and the exit code and a part of the output."""

    text: str
    inputs: dict[str, str]
    code: int
    said: str


@pytest.mark.parametrize("case", [
    Case(OPEN, {"root": "overlay", "policy": "policy.yaml", "args": "--docker-version 26.1.5"}, 1,
         r"^::error .*DG101.*file=overlay/etc/docker/daemon\.json,line=2,"),
    Case(OPEN, {"root": "overlay"}, 1, r"^::error .*DG103.*file=overlay/etc/docker/daemon\.json,line=2,"),
    Case(GOOD, {"root": "overlay", "policy": "policy.yaml"}, 0, ""),
    Case(GOOD, {"root": "overlay", "policy": "$(touch ran)'\"; touch ran; #"}, 2, "no such file"),
], ids=["policy", "no policy", "good", "injection"])
def test_the_action_annotates_files(repository: Path, runner: dict[str, str], tmp_path: Path, case: Case) -> None:
    (repository / DAEMON_JSON).write_text(case.text)
    _, (command, environment) = steps(case.inputs)
    code, output = run(command, repository, runner | environment)
    assert code == case.code, output
    assert re.search(case.said, output, re.MULTILINE), output
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (OPEN, 1)], ids=["good", "open"])
def test_the_job_of_gitlab(repository: Path, checkout: Path, text: str, code: int) -> None:
    (repository / DAEMON_JSON).write_text(text)
    job = yaml.safe_load((TOP / "packaging/gitlab-ci.yml").read_text())["dockerd-guard"]
    variables = {**job["variables"], "CI_PROJECT_DIR": str(repository), "DOCKERD_GUARD_PACKAGE": str(checkout),
                 "DOCKERD_GUARD_ROOT": "overlay", "DOCKERD_GUARD_ARGS": "--policy policy.yaml"}
    # GitLab's runner joins the lines.
    found, output = run(["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])], repository, variables)
    assert (found, "[DG101]" in output) == (code, code == 1), output
