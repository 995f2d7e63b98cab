"""`make apt-repo`: a host installs and upgrades from the repository, and Docker is not restarted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.machines import host
from tests.machines.machine import Machine, wait_for
from tests.older import older as repack

TOP = Path(__file__).resolve().parents[2]
AGENT = "dockerd-guard.service"
URI = "http://127.0.0.1:8000"
KEY = "packagers@example.org"
FIRST_DAY = 1_700_000_000
DAY_S = 86_400
APT = "env DEBIAN_FRONTEND=noninteractive apt-get --yes --no-install-recommends"


class Repositories(NamedTuple):
    """The repository with a lower version, with the current one by another key, and by the same key. In this order
    each is a day newer: the web server sends what is newer by a second."""

    older: Path
    foreign: Path
    current: Path


@pytest.fixture(scope="module")
def repositories(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repositories]:
    host.prepare("reprepro", "gnupg")
    where = tmp_path_factory.mktemp("apt")
    # The path of gpg-agent's socket has at most 107 bytes.
    home = Path(f"/run/dockerd-guard-test-gnupg-{os.getpid()}")
    home.mkdir(mode=0o700)
    environment = {**os.environ, "GNUPGHOME": str(home)}
    found = Repositories(where / "older", where / "foreign", where / "current")
    lower = where / "deb"
    lower.mkdir()
    try:
        subprocess.run(["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", KEY], env=environment,
                       check=True)
        for directory, deb, key in ((found.older, repack(package, lower), [KEY]), (found.current, package, [KEY]),
                                    (found.foreign, package, [])):
            subprocess.run([TOP / "packaging/apt-repo", deb, directory, URI, *key], env=environment, check=True,
                           stdout=subprocess.DEVNULL)
        for day, directory in enumerate(found):
            for path in directory.rglob("*"):
                os.utime(path, (FIRST_DAY + day * DAY_S,) * 2)
        yield found
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        # gpg-agent removes its sockets while it ends.
        shutil.rmtree(home, ignore_errors=True)


def publish(machine: Machine, directory: Path) -> None:
    """Replace the files that the machine's web server offers."""
    machine.run("rm -rf /srv/apt && mkdir -p /srv/apt")
    packed = subprocess.run(["tar", "--create", "."], cwd=directory, capture_output=True, check=True).stdout
    subprocess.run(machine.command("tar", "--extract", "--directory=/srv/apt"), input=packed, check=True)


def key_id(repository: Path) -> str:
    """The long ID of the key that a repository is signed with, the end of its fingerprint."""
    with tempfile.TemporaryDirectory() as home:
        shown = subprocess.run(["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys",
                                repository / "dockerd-guard.asc"], capture_output=True, text=True, check=True).stdout
    return next(line.split(":")[4] for line in shown.splitlines() if line.startswith("pub:"))


def test_install_and_upgrade_do_not_restart_docker(bare_machine: Machine, repositories: Repositories) -> None:
    machine = bare_machine
    container = machine.start_container()
    dockerd = machine.main_pid()
    publish(machine, repositories.older)
    machine.run("systemd-run --unit=web python3 -m http.server --bind 127.0.0.1 --directory /srv/apt 8000")
    wait_for(lambda: machine.run(f"curl --silent --fail {URI}/dockerd-guard.asc", check=False).status == 0, "server")

    # As the README describes it. The machine has no network, so Debian's own repositories are left out.
    machine.run("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*; mkdir -p /etc/apt/keyrings")
    machine.run(f"cd /etc/apt && curl --silent --fail -o keyrings/dockerd-guard.asc {URI}/dockerd-guard.asc "
                f"-o sources.list.d/dockerd-guard.sources {URI}/dockerd-guard.sources")
    machine.run(f"{APT} update && {APT} install dockerd-guard")
    wait_for(lambda: machine.is_active(AGENT), "agent")
    agent = machine.main_pid(AGENT)
    assert "0~before" in machine.run("dpkg-query --show dockerd-guard").out

    publish(machine, repositories.foreign)
    refused = machine.run("apt-get update --error-on=any", check=False)
    assert refused.status != 0, refused.out
    assert key_id(repositories.foreign) in refused.out + refused.err
    assert "0~before" in machine.run("apt-cache policy dockerd-guard | grep Candidate").out

    publish(machine, repositories.current)
    machine.run(f"{APT} update && {APT} upgrade")
    assert "0~before" not in machine.run("dpkg-query --show dockerd-guard").out
    wait_for(lambda: machine.main_pid(AGENT) not in (0, agent), "new agent")

    assert (machine.main_pid(), machine.container_pid()) == (dockerd, container)
    assert machine.properties("docker.service", "NRestarts")["NRestarts"] == "0"
