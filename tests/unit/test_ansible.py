"""The Ansible collection and the Puppet module agree with the package; their facts are valid."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import dockerd_guard
from dockerd_guard.plan.assessment import plan_for
from dockerd_guard.policy.model import POLICY_FILE, Restart
from dockerd_guard.policy.reader import parse_policy
from tests.support.hosts import Host

pytest_plugins = ["tests.support.fixtures"]

TOP = Path(__file__).resolve().parents[2]
COLLECTION = TOP / "packaging/ansible"
ROLE = COLLECTION / "roles/agent"
MODULE = TOP / "packaging/puppet/dockerd_guard"
FACTS: Mapping[str, tuple[Path, Callable[[Any], Any]]] = {
    "Ansible": (ROLE / "files/dockerd_guard.fact", lambda fact: fact),
    "Puppet": (MODULE / "facts.d/dockerd_guard.sh", lambda fact: {"dockerd_guard": fact}),
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_both_have_the_version_of_the_package() -> None:
    """Semantic Versioning 2.0.0, section 9, writes 0.2.0.dev0 as 0.2.0-dev0."""
    version = dockerd_guard.__version__.replace(".dev", "-dev")
    assert read(COLLECTION / "galaxy.yml")["version"] == version
    assert read(MODULE / "metadata.json")["version"] == version
    assert f"\nv{version}\n" in (COLLECTION / "CHANGELOG.rst").read_text()


def test_the_arguments_are_described_with_their_defaults() -> None:
    defaults = read(ROLE / "defaults/main.yml")
    for name, entry in read(ROLE / "meta/argument_specs.yml")["argument_specs"].items():
        assert {key: option["default"] for key, option in entry["options"].items()} == defaults, name
        assert entry["options"]["agent_restart"]["choices"] == ["", *map(str, Restart)]


def test_the_default_policy_is_that_of_the_package() -> None:
    assert read(ROLE / "defaults/main.yml")["agent_policy"] == read(TOP / "packaging/config.yaml")


def test_nothing_but_fix_restarts_docker() -> None:
    """docker.service is not named, and no service is restarted."""
    for path in (*COLLECTION.rglob("*.yml"), *MODULE.rglob("*.pp")):
        assert not re.search(r"state: restarted|docker\.service|name: docker\b|'docker'", path.read_text()), path


@pytest.mark.parametrize("tool", FACTS)
@pytest.mark.parametrize(("status", "output", "fact"), [
    (0, '{"schema": 1}', {"schema": 1}),
    (1, '{"wrong": ["1 error"]}', {"wrong": ["1 error"]}),
    (2, "", None),
    (127, "", None),
])
def test_the_fact_is_valid_whatever_status_says(
    tmp_path: Path, tool: str, status: int, output: str, fact: dict[str, Any] | None
) -> None:
    """Ansible discards the output of a script that exits with anything but 0."""
    if status != 127:
        program = tmp_path / "dockerd-guard"
        program.write_text(f"#!/bin/sh\necho 'an error' >&2\nprintf %s '{output}'\nexit {status}\n")
        program.chmod(0o755)
    script, wanted = FACTS[tool]
    environment = {"PATH": f"{tmp_path}:{os.defpath}"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, wanted(fact), "")


@pytest.mark.parametrize("files", [
    {"/etc/systemd/system/docker.service.d/port.conf":
     "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"},
    {"/etc/systemd/system/docker.socket.d/port.conf": "[Socket]\nListenStream=2375\n"},
    {"/etc/systemd/system/docker-tcp.socket": "[Socket]\nListenStream=2375\nService=docker.service\n",
     "/etc/systemd/system/docker.service.d/tcp.conf": "[Unit]\nRequires=docker-tcp.socket\n"},
], ids=["flag", "docker.socket", "another socket unit"])
def test_a_copy_of_the_policy_plans_the_same_files(stock_host: Host, files: dict[str, str]) -> None:
    """`fix --policy COPY` and the agent must not each replace the file of the other."""
    for path, text in files.items():
        stock_host.put(path, text)
    plans = [plan_for(stock_host.see(), parse_policy(b"version: 1\nsockets: [fd://]\n", path)).changes
             for path in (POLICY_FILE, "/run/policy")]
    assert plans[0]
    assert plans[0] == plans[1]
