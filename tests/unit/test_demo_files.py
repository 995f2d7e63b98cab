"""`make demo` where no machine can be booted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.demo_files import NOT_SHOWN

TOP = Path(__file__).resolve().parents[2]
UNFIT = "sh -c 'echo Only root can do this. >&2; exit 1'"


def programs(directory: Path, *names: str) -> dict[str, str]:
    """An environment whose PATH has only these programs and this Python."""
    for name in names:
        found = shutil.which(name)
        assert found is not None, name
        (directory / name).symlink_to(found)
    (directory / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (directory / "python3").chmod(0o755)
    return {**os.environ, "PATH": str(directory)}


@pytest.mark.parametrize("tool", ["git", "patch"])
def test_the_part_of_the_linter_is_shown(tmp_path: Path, tool: str) -> None:
    """With the reason, and with what could not be shown. The temporary directory may be in a checkout."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    subprocess.run(["git", "init", "--quiet", tmp_path / "tmp"], check=True)
    environment = programs(tmp_path / "bin", "bash", "sh", "cat", "sed", "find", tool)
    environment["TMPDIR"] = str(tmp_path / "tmp")
    make = shutil.which("make")
    assert make is not None
    done = subprocess.run([make, "--silent", "demo", f"MACHINES={UNFIT}"], cwd=TOP, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "Only root can do this.\n"
    for words in ("[DG103]", "[DG201]", "+++ b/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf",
                  "+++ b/etc/docker/daemon.json\n", "the files comply with the policy again", *NOT_SHOWN):
        assert words in done.stdout
    assert os.listdir(tmp_path / "tmp") == [".git"]


def test_without_pyyaml_it_describes_what_to_install() -> None:
    code = "import sys; sys.modules['yaml'] = None; import tests.demo_files as demo; sys.exit(demo.main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=False)
    assert (done.returncode, "install python3-yaml" in done.stderr) == (2, True), done.stderr
