"""The wheel and the sdist: reproducible, complete, and usable with PyYAML alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SOURCES = ("dockerd_guard", "packaging", "docs", "setup.cfg", "pyproject.toml", "LICENSE", "README.md", "NEWS.md",
           "CONTRIBUTING.md", "config.example.yaml")

EPOCH = "1700000000"

BARE = """
import sys, yaml
sys.path = [sys.argv.pop(1), *(path for path in sys.path if "site-packages" not in path)]
sys.modules.update(dict.fromkeys(("pystemd", "structlog", "watchdog", "nftables")))
from dockerd_guard.cli import main
sys.exit(main())
"""
"""Runs a wheel with the standard library and PyYAML. None in sys.modules raises ModuleNotFoundError."""

TREE = TOP / "tests/data/lint/open-port"

CALLS = (
    (("lint", "--root", "ROOT", "--format", "sarif"), 1, "DG103"),
    (("diff", "--root", "ROOT", "--policy", "config.example.yaml"), 1, "zz-dockerd-guard.conf"),
    (("sockets", "--root", "ROOT"), 0, "tcp://0.0.0.0:2375"),
    (("init", "--root", "ROOT"), 0, "DANGER: tcp://0.0.0.0:2375"),
    (("explain", "DG103"), 0, "## How to fix"),
    (("check", "-"), 0, "<stdin> is valid."),
    (("history", "--help"), 0, "--since"),
    (("sockets",), 0, "install the extra `agent` of the Python package"),
    (("run",), 2, "this needs pystemd, structlog, watchdog: install the extra `agent`, in a clone pip install "
                  "'.[agent]'"),
    (("run", "--policy", "missing"), 2, "this needs pystemd, structlog, watchdog"),
    (("fix",), 2, "this needs pystemd: install the extra `agent`"),
    (("fix", "--policy", "missing"), 2, "this needs pystemd: install the extra `agent`"),
)
"""Command lines, their exit codes, and a part of the output."""


def build(directory: Path, umask: int) -> dict[str, bytes]:
    """Both files of a copy of the checkout that was made with this umask."""
    tree, out = directory / "tree", directory / "out"
    out.mkdir(parents=True)
    tree.mkdir()
    for name in SOURCES:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / name, tree)
    for path in (tree, *tree.rglob("*")):
        path.chmod((0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644) & ~umask)
        os.utime(path, (umask, umask))
    (tree / "packaging/__pycache__").mkdir()
    (tree / "packaging/__pycache__/man.cpython-311.pyc").write_bytes(os.urandom(8))
    subprocess.run([sys.executable, "packaging/distributions.py", out, *SOURCES], cwd=tree, check=True, umask=umask,
                   env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("built")
    build(where, 0o022)
    return where / "out"


def one(built: Path, pattern: str) -> Path:
    (path,) = built.glob(pattern)
    return path


def files(top: Path) -> set[str]:
    return {str(path.relative_to(TOP)) for path in (top, *top.rglob("*")) if path.is_file() and path.suffix != ".pyc"}


def test_two_builds_are_equal(built: Path, tmp_path: Path) -> None:
    assert build(tmp_path, 0o077) == {path.name: path.read_bytes() for path in built.iterdir()}


def test_twine_accepts_them(built: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *built.iterdir()],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr


def test_only_pyyaml_is_required(built: Path) -> None:
    with zipfile.ZipFile(one(built, "*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    required = metadata.get_all("Requires-Dist", [])
    assert [line.partition(">")[0] for line in required if "extra ==" not in line] == ["PyYAML"]
    assert [line.partition(">")[0] for line in required if "extra ==" in line] == ["pystemd", "structlog", "watchdog"]


def test_the_files_are_complete(built: Path) -> None:
    """The wheel has the pages of the rules; the sdist has what builds the Debian package too."""
    package, *others = (files(TOP / name) for name in SOURCES)
    with zipfile.ZipFile(one(built, "*.whl")) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == package
    with tarfile.open(one(built, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert names == package.union(*others, {"PKG-INFO"})


@pytest.mark.parametrize(("call", "code", "said"), CALLS, ids=[call[0] for call, _, _ in CALLS])
def test_verbs_need_pyyaml_alone(built: Path, tmp_path: Path, call: tuple[str, ...], code: int, said: str) -> None:
    shutil.unpack_archive(one(built, "*.whl"), tmp_path, "zip")
    words = [str(TREE / "root") if word == "ROOT" else word for word in call]
    done = subprocess.run([sys.executable, "-c", BARE, tmp_path, *words], cwd=TOP, capture_output=True, text=True,
                          check=False, input="version: 1\nsockets: [fd://]\n")
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
