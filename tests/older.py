"""`python3 -m tests.older DEB DIRECTORY`: an apt repository with the package under a lower version, to upgrade from.

Only the version differs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def older(package: Path, directory: Path) -> Path:
    """Repack the package in the directory, and return the path of the new file."""
    deb = directory / "dockerd-guard_older_all.deb"
    with tempfile.TemporaryDirectory() as rootfs:
        subprocess.run(["dpkg-deb", "--raw-extract", package, rootfs], check=True)
        control = Path(rootfs, "DEBIAN/control")
        control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 0~before-"))
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", rootfs, deb], check=True,
                       stdout=subprocess.DEVNULL)
    return deb


def repository(package: Path, directory: Path) -> None:
    """Create an apt repository in the directory, for `deb [trusted=yes] file://DIRECTORY ./`."""
    directory.mkdir(parents=True, exist_ok=True)
    older(package, directory)
    with (directory / "Packages").open("wb") as index:
        subprocess.run(["dpkg-scanpackages", "--multiversion", "."], cwd=directory, stdout=index,
                       stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    repository(Path(sys.argv[1]), Path(sys.argv[2]))
