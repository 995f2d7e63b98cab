"""What the host we run on must be and have: Debian, root, namespaces, and a few packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MACHINE_PACKAGES = ("mmdebstrap", "systemd-container", "iproute2", "util-linux", "debian-archive-keyring")
BUILD_PACKAGES = ("debhelper", "dh-python", "dpkg-dev", "python3-all", "python3-setuptools", "python3-yaml")

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES_WANTED = 4096
"""All machines share root's and each takes some twenty: with the usual 128 the fifth does not boot."""

INSTEAD = """\
What to do instead: take a Debian 12 machine (a virtual machine will do), become root there, and run
the same command in a fresh clone. `make check` (lint, types, unit tests) needs none of this, and
`python3 -m dockerd_guard lint` works anywhere."""


class Unfit(Exception):
    """This host cannot boot machines, or cannot build the package: why, and what to do instead."""


def say(text: str) -> None:
    """Tell the person in front what is going on; it never mixes with a command's output."""
    print(text, file=sys.stderr, flush=True)


def prepare(*packages: str) -> None:
    """Install those packages that are missing; raises Unfit where that is not possible."""
    if shutil.which("apt-get") is None:
        raise Unfit(f"This is no Debian: no apt-get to install {', '.join(packages)} with.\n{INSTEAD}")
    missing = [package for package in packages if not _installed(package)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise Unfit(f"Only root can install {', '.join(missing)}.\n{INSTEAD}")
    say(f"Installing {', '.join(missing)} with apt-get (once).")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "--yes", "--no-install-recommends", *missing)):
        done = subprocess.run(["apt-get", "-q", *command], env=environment, text=True, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise Unfit(f"apt-get {command[0]} failed:\n{done.stdout[-3000:]}\n{INSTEAD}")


def prepare_machines() -> None:
    """Make sure that this host can boot machines; raises Unfit."""
    if os.geteuid() != 0:
        raise Unfit(f"Booting a machine takes root, and you are uid {os.geteuid()}.\n{INSTEAD}")
    prepare(*MACHINE_PACKAGES)
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc",
         "mount", "-t", "tmpfs", "none", "/mnt"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if probe.returncode:
        raise Unfit("Here root may not make namespaces or mount in them (a container without privileges?): "
                    f"{probe.stderr.strip()}\n{INSTEAD}")
    if int(INOTIFY_INSTANCES.read_text()) < INOTIFY_INSTANCES_WANTED:
        say(f"Raising {INOTIFY_INSTANCES} to {INOTIFY_INSTANCES_WANTED}, until this host's next boot.")
        INOTIFY_INSTANCES.write_text(f"{INOTIFY_INSTANCES_WANTED}\n")


def cache_directory() -> Path:
    """Where built machines are kept between runs, outside the tree."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "dockerd-guard"


def _installed(package: str) -> bool:
    asked = subprocess.run(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package],
                           capture_output=True, text=True, check=False)
    return asked.stdout.startswith("ii")
