"""The hook, the action and the template for CI: their shell steps on a repository of a user.

pip needs PyPI, as `make venv` does. No machine is booted.
"""

from __future__ import annotations

import json
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
POLICY = "version: 1\nsockets: [fd://]\n"
OPEN = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"
UNIT = "[Service]\nExecStart=/usr/bin/dockerd\n"
SERVICES = "services:\n  web:\n    image: web\n    ports: ['80:80']\n"
PRIVATE = "    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n"

ROLE = {
    "site.yml": "- hosts: all\n  roles: [docker]\n",
    "dockerd-guard/config.yaml": POLICY,
    "roles/docker/tasks/main.yml": "- ansible.builtin.template:\n    src: daemon.json.j2\n"
                                   "    dest: /etc/docker/daemon.json\n",
    "roles/docker/templates/daemon.json.j2": '{\n  "log-driver": "{{ docker_log_driver }}"\n}\n',
}
OVERLAY = {
    "policy.yaml": POLICY,
    "overlay/etc/docker/daemon.json": "{}\n",
    "overlay/usr/lib/systemd/system/docker.service": UNIT,
    "overlay/usr/lib/systemd/system/docker.socket": "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\n",
    "overlay/etc/systemd/system/app.service": "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/usr/bin/app\n",
}
OPEN_OVERLAY = OVERLAY | {"overlay/etc/docker/daemon.json": '{\n  "hosts": ["fd://", "tcp://0.0.0.0:2375"]\n}\n'}
CLOUD = {
    "main.tf": 'resource "vm" "a" {\n  user_data = templatefile("user-data.tftpl", { mirror = var.mirror })\n}\n',
    "user-data.tftpl": "#cloud-config\nwrite_files:\n  - path: /etc/docker/daemon.json\n    content: |\n"
                       '      {"registry-mirrors": ["https://${mirror}"]}\n',
}
PYTHON = {
    "pyproject.toml": "[project]\nname = 'x'\n",
    "README.md": "Run `dockerd -H tcp://0.0.0.0:2375`.\n",
    "src/x/client.py": "client = docker.DockerClient('tcp://127.0.0.1:2375')\n",
    "Dockerfile": "FROM python\nCMD gunicorn -b tcp://0.0.0.0:8000 app\n",
    "docker-compose.yml": SERVICES,
    ".gitlab-ci.yml": "test:\n  services: [docker:dind]\n  variables: {DOCKER_HOST: 'tcp://docker:2375'}\n",
}


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "init.defaultBranch=main",
                    *arguments], cwd=directory, check=True, capture_output=True)


def repository(where: Path, files: Mapping[str, str]) -> Path:
    """A repository with these files, in the index and not committed, so that the hook sees them as changed."""
    where.mkdir()
    git(where, "init")
    for path, text in files.items():
        (where / path).parent.mkdir(parents=True, exist_ok=True)
        (where / path).write_text(text)
    git(where, "add", ".")
    return where


def run(command: list[str], directory: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(command, cwd=directory, env={**os.environ, **environment}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
    return done.returncode, done.stdout


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


class Case(NamedTuple):
    """A repository, the code of lint in the hook and in CI, and a part of the output of both."""

    files: dict[str, str]
    hook: int
    job: int
    said: str = ""


CASES = {
    "role": Case(ROLE, 0, 0),
    "role, open": Case(ROLE | {"roles/docker/templates/override.conf.j2": OPEN}, 1, 1, "DG103"),
    "overlay": Case(OVERLAY, 0, 0),
    "overlay, open": Case(OPEN_OVERLAY, 1, 1, "DG103"),
    "compose, published": Case({"compose.yaml": SERVICES + PRIVATE}, 1, 1, "DG108"),
    "compose, private": Case({"compose.yaml": "services:\n  a:\n    image: a\n" + PRIVATE}, 0, 0),
    "cloud-init": Case(CLOUD, 0, 0),
    "cloud-init, open": Case(CLOUD | {"user-data.tftpl": CLOUD["user-data.tftpl"].replace(
        "registry-mirrors", "hosts").replace("https://${mirror}", "tcp://${mirror}:2375")}, 1, 1, "DG103"),
    "script": Case({"setup.sh": "dockerd -H tcp://0.0.0.0:2375 &\n", "docker.yml": "a: 1\n"}, 2, 2,
                   r"setup\.sh:1: names a TCP address for dockerd"),
    "unrelated": Case(PYTHON, 0, 2, r"\.: contains no configuration of dockerd"),
}


class Hook:
    """The hook of the checkout in other repositories. Its environment is installed once."""

    def __init__(self, checkout: Path, home: Path) -> None:
        self._checkout, self._home = checkout, home

    def __call__(self, where: Path, *words: str, **settings: Any) -> tuple[int, str]:
        """Run it on what is in the index. Returns the exit code of the hook, and the output of pre-commit.

        `settings` are keys of the hook in .pre-commit-config.yaml.
        """
        hook = {"id": "dockerd-guard", "verbose": True, **settings}
        repo = {"repo": str(self._checkout), "rev": "HEAD", "hooks": [hook]}
        config = self._home / "config.yaml"
        config.write_text(json.dumps({"repos": [repo]}))
        code, said = run([sys.executable, "-m", "pre_commit", "run", "--config", str(config), *words], where,
                         {"PRE_COMMIT_HOME": str(self._home)})
        found = re.search("^- exit code: ([0-9]+)$", said, re.MULTILINE)
        assert (code == 0) == (found is None), said
        return int(found[1]) if found is not None else 0, said


@pytest.fixture(scope="module")
def hook(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Hook:
    return Hook(checkout, tmp_path_factory.mktemp("hooks"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_hook_judges_the_repository(hook: Hook, tmp_path: Path, case: Case) -> None:
    code, said = hook(repository(tmp_path / "user's repository", case.files))
    assert code == case.hook, said
    assert re.search(case.said, said), said


@pytest.mark.parametrize(("args", "code", "said"), [
    (["overlay"], 1, "DG103"),
    (["--policy", "policy.yaml"], 1, "DG101"),
    (["--root", "overlay", "--policy", "policy.yaml"], 1, "DG101"),
    (["--root=roles"], 0, "no configuration of dockerd found below roles"),
    ([], 1, "DG103"),
    (["roles"], 0, "roles/docker/templates/daemon.json.j2: judged with"),
    (["overly"], 2, "overly: No such file or directory"),
], ids=repr)
def test_the_users_args_leave_the_host_alone(hook: Hook, tmp_path: Path, args: list[str], code: int, said: str) -> None:
    """pre-commit replaces the args of a hook by those of the user."""
    found, output = hook(repository(tmp_path / "a", OPEN_OVERLAY | ROLE), args=args)
    assert (found, said in output) == (code, True), output


@pytest.mark.parametrize("path", ["README", "src/docker.d/a/x.py", "dockerd-guard/config.yaml", "package.json"])
def test_other_files_do_not_start_the_hook(hook: Hook, tmp_path: Path, path: str) -> None:
    code, said = hook(repository(tmp_path / "a", OPEN_OVERLAY), "--files", path)
    assert (code, "no files to check" in said) == (0, True), said


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


class Inputs(NamedTuple):
    """Inputs of the action, and the exit code and a part of the output."""

    inputs: dict[str, str]
    code: int
    said: str


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_action_judges_the_repository(runner: dict[str, str], tmp_path: Path, case: Case) -> None:
    _, (command, environment) = steps({})
    code, output = run(command, repository(tmp_path / "user's repository", case.files), runner | environment)
    assert code == case.job, output
    assert re.search(case.said, output), output


@pytest.mark.parametrize("case", [
    Inputs({"root": "overlay", "policy": "policy.yaml", "args": "--docker-version 26.1.5"}, 1,
           r"^::error .*DG101.*file=overlay/etc/docker/daemon\.json,line=2,"),
    Inputs({"paths": "roles overlay"}, 1, r"^::error .*DG103.*file=overlay/etc/docker/daemon\.json,line=2,"),
    Inputs({"paths": "roles\n\noverlay/etc\n", "args": "--ignore DG305\n--fail-on\nerror\n"}, 1, "^::error .*DG103"),
    Inputs({"paths": "roles"}, 0, ""),
    Inputs({"paths": ""}, 1, "^::error .*DG103"),
    Inputs({"root": "overlay", "paths": "missing"}, 1, "^::error .*DG103"),
    Inputs({"root": "roles"}, 2, "^::error .*no configuration of dockerd"),
    Inputs({"root": "roles", "args": "--allow-empty"}, 0, "^::notice .*no configuration of dockerd"),
    Inputs({"policy": "$(touch ran)'\"; touch ran; #"}, 2, "no such file"),
    Inputs({"paths": "$(touch${IFS}ran) ;touch${IFS}ran"}, 2, "No such file"),
], ids=lambda case: " ".join(case.inputs))
def test_inputs_of_the_action(runner: dict[str, str], tmp_path: Path, case: Inputs) -> None:
    _, (command, environment) = steps(case.inputs)
    code, output = run(command, repository(tmp_path / "a", OPEN_OVERLAY | ROLE), runner | environment)
    assert code == case.code, output
    assert re.search(case.said, output, re.MULTILINE), output
    assert not list(tmp_path.rglob("ran"))


def job(where: Path, variables: Mapping[str, str], lines: slice) -> tuple[int, str]:
    script = yaml.safe_load((TOP / "packaging/gitlab-ci.yml").read_text())["dockerd-guard"]["script"]
    # GitLab's runner joins the lines.
    return run(["bash", "-eo", "pipefail", "-c", "\n".join(script[lines])], where, variables)


@pytest.fixture(scope="module")
def prepared(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variable that the first lines of the job's script set, which install a source archive of a commit."""
    where = tmp_path_factory.mktemp("gitlab")
    archive = where / "dockerd-guard-main.tar.gz"
    (where / "project").mkdir()
    git(checkout, "archive", "--prefix=dockerd-guard-main/", f"--output={archive}", "HEAD")
    code, output = job(where / "project", {"DOCKERD_GUARD_PACKAGE": str(archive), "TMPDIR": str(where)}, slice(-1))
    assert (code, [*(where / "project").iterdir()]) == (0, []), output
    (made,) = where.glob("tmp.*")
    return {"dockerd_guard": str(made)}


@pytest.mark.parametrize(("name", "variables", "code", "said"), [
    ("overlay, open", {"ROOT": "overlay", "ARGS": "--policy policy.yaml"}, 1, "DG101"),
    ("overlay, open", {"ROOT": "overlay", "PATHS": "missing"}, 1, "DG103"),
    ("role, open", {"PATHS": "roles"}, 1, "DG103"),
    ("role, open", {"PATHS": " site.yml\nroles "}, 1, "site.yml: not recognized"),
    ("role, open", {"PATHS": "dockerd-guard"}, 2, "dockerd-guard: contains no configuration of dockerd"),
    ("unrelated", {"ARGS": "--allow-empty"}, 0, "contains no configuration of dockerd"),
    *((name, {}, case.job, "") for name, case in CASES.items()),
])
def test_the_job_of_gitlab_judges_the_repository(  # noqa: PLR0913, PLR0917 -- a row of the table
    prepared: dict[str, str], tmp_path: Path, name: str, variables: dict[str, str], code: int, said: str
) -> None:
    where = repository(tmp_path / "user's repository", CASES[name].files)
    found, output = job(where, prepared | {f"DOCKERD_GUARD_{name}": value for name, value in variables.items()},
                        slice(-1, None))
    assert (found, said in output) == (code, True), output


@pytest.mark.parametrize("package", [None, "", "dockerd-guard", "dockerd-guard[agent]==0.2", "x.whl"])
def test_the_job_of_gitlab_installs_nothing_by_name(tmp_path: Path, package: str | None) -> None:
    """Anybody may register the name of a package that is in no index."""
    variables = {"DOCKERD_GUARD_PACKAGE": package} if package is not None else {}
    code, output = job(tmp_path, {"TMPDIR": str(tmp_path), **variables}, slice(None))
    assert (code, "DOCKERD_GUARD_PACKAGE must be the URL" in output) == (1, True), output
    assert not [*tmp_path.iterdir()]
