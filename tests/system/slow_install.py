"""The wheel in bare environments of each release's Python (3.11, 3.13, 3.14): pip, pipx and uv.

The machine has no network. What it needs from PyPI is fetched before, for its Python.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.machines.machine import Machine

WHEELS = "/opt/wheels"
OFFLINE = (f"PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} "
           f"UV_OFFLINE=1 UV_NO_INDEX=1 UV_FIND_LINKS={WHEELS} UV_PYTHON_DOWNLOADS=never")

INSTALLS = {
    "pip": "python3 -m venv /opt/bare && /opt/bare/bin/pip install dockerd-guard && "
           "ln -s /opt/bare/bin/dockerd-guard /usr/local/bin",
    "pipx": "PIPX_BIN_DIR=/usr/local/bin pipx install dockerd-guard",
    "uv": "UV_TOOL_BIN_DIR=/usr/local/bin /opt/uv tool install --python /usr/bin/python3 dockerd-guard",
}


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("python3-venv", "pipx")


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel, built by `make wheel`."""
    (found,) = (Path(__file__).resolve().parents[2] / "dist").glob("*.whl")
    return found


def fetch(python: str, directory: Path) -> None:
    """Download PyYAML for this version of Python, and what pipx installs beside it."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
                    f"--python-version={python}", f"--dest={directory}", "PyYAML", "pip", "setuptools",
                    "wheel"], check=True)


def test_every_installer_installs_a_working_command(bare_machine: Machine, wheel: Path, tmp_path: Path) -> None:
    machine = bare_machine
    fetch(machine.run("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").out.strip(), tmp_path)
    machine.run(f"mkdir {WHEELS}")
    for path in (wheel, *tmp_path.iterdir()):
        machine.copy_in(path, f"{WHEELS}/{path.name}")
    machine.copy_in(Path(sys.executable).with_name("uv"), "/opt/uv")
    machine.run("chmod 755 /opt/uv")
    machine.write("/etc/docker/daemon.json", '{"hosts": ["tcp://0.0.0.0:2375"]}\n')
    for name, command in INSTALLS.items():
        machine.run(f"export {OFFLINE}; {command}", timeout=300)
        program = machine.run("readlink -f /usr/local/bin/dockerd-guard").out
        assert machine.run("dockerd-guard --version").out.startswith("dockerd-guard "), name
        found = machine.run("dockerd-guard lint --root /", check=False)
        assert (found.status, "[DG103]" in found.out) == (1, True), (name, found.out + found.err)
        # The libraries of the agent are Debian packages of this machine, which this environment does not use.
        agent = machine.run("dockerd-guard run", check=False)
        assert (agent.status, "install the extra `agent`" in agent.err) == (2, True), (name, agent.err)
        assert machine.run("dockerd-guard check - --quiet", input="version: 1\nsockets: [fd://]\n").status == 0
        machine.run(f"rm /usr/local/bin/dockerd-guard {program}")
