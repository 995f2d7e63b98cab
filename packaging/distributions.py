"""Writes the wheel and the sdist: `distributions.py DIRECTORY PATH...`, in the checkout, with SOURCE_DATE_EPOCH set.

The same sources give the same bytes, whatever their modification times and modes and the umask. setuptools builds the
wheel from a copy of these paths. Its own sdist has neither the documents nor the Debian package, and has the time of
the build: the sdist is written here instead.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory


def copy(paths: list[str], tree: Path) -> list[Path]:
    """Copy the paths with fixed modes. Returns the copied files in the order of their names."""
    for name in paths:
        if os.path.isdir(name):
            shutil.copytree(name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(name, tree / name)
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return sorted(path for path in tree.rglob("*") if path.is_file())


def write_sdist(sdist: Path, tree: Path, files: list[Path], epoch: int) -> None:
    """Write these files of the tree as a .tar.gz archive, in a directory with the archive's name."""
    top = sdist.name.removesuffix(".tar.gz")
    with (sdist.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as compressed,
          tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive):
        for path in files:
            member = tarfile.TarInfo(f"{top}/{path.relative_to(tree)}")
            member.size, member.mode, member.mtime = path.stat().st_size, path.stat().st_mode & 0o777, epoch
            with path.open("rb") as content:
                archive.addfile(member, content)


def main(directory: Path, paths: list[str]) -> None:
    """Build both files in the directory."""
    os.umask(0o022)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    with TemporaryDirectory() as name:
        tree, built = Path(name, "tree"), Path(name, "built")
        tree.mkdir()
        files = copy(paths, tree)
        subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index",
                        "--no-deps", "--no-build-isolation", "--wheel-dir", built, tree], check=True)
        (wheel,) = built.iterdir()
        release = "-".join(wheel.name.split("-")[:2])
        metadata = tree / "PKG-INFO"
        with zipfile.ZipFile(wheel) as archive:
            metadata.write_bytes(archive.read(f"{release}.dist-info/METADATA"))
        directory.mkdir(exist_ok=True)
        shutil.copy(wheel, directory)
        write_sdist(directory / f"{release}.tar.gz", tree, [metadata, *files], epoch)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
