"""`python3 -m tests.older DEB DIRECTORY`: the package under a lower version, as a repository to upgrade from.

What differs between the two is the version alone: an upgrade meets whatever the package does at one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path


def older(package: Path, directory: Path) -> Path:
    """Repack it in the directory; the new file's path."""
    deb = directory / "dockerd-guard_older_all.deb"
    with tempfile.TemporaryDirectory() as rootfs:
        subprocess.run(["dpkg-deb", "--raw-extract", package, rootfs], check=True)
        control = Path(rootfs, "DEBIAN/control")
        control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 0~before-"))
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", rootfs, deb], check=True,
                       stdout=subprocess.DEVNULL)
    return deb


def repository(package: Path, directory: Path) -> None:
    """Make the directory what apt takes as `deb [trusted=yes] file://DIRECTORY ./`."""
    directory.mkdir(parents=True, exist_ok=True)
    older(package, directory)
    with (directory / "Packages").open("wb") as index:
        subprocess.run(["dpkg-scanpackages", "--multiversion", "."], cwd=directory, stdout=index,
                       stderr=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    repository(Path(sys.argv[1]), Path(sys.argv[2]))
