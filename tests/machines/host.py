"""Requirements of the host that runs machines: Debian, root, namespaces, and some packages."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

MACHINE_PACKAGES = ("mmdebstrap", "systemd-container", "iproute2", "util-linux", "debian-archive-keyring")

INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES_WANTED = 4096
"""All machines share root's limit, and each uses about twenty: with the default of 128, the fifth does not boot."""

INSTEAD = """\
Use a Debian 12 machine (a virtual machine, for example) and run the same command as root in a fresh clone.
`make check` (lint, types, unit tests) and `python3 -m dockerd_guard lint` have none of these requirements."""


class Unfit(Exception):
    """This host cannot boot machines or build the package. The message has the reason and an alternative."""


def log(text: str) -> None:
    """Print a message about progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def prepare(*packages: str) -> None:
    """Install the missing ones of these packages. Raises Unfit if that is not possible."""
    if shutil.which("apt-get") is None:
        raise Unfit(f"This is not Debian: there is no apt-get to install {', '.join(packages)} with.\n{INSTEAD}")
    if not (missing := _missing(packages)):
        return
    if os.geteuid() != 0:
        raise Unfit(f"Only root can install {', '.join(missing)}.\n{INSTEAD}")
    cache_directory().mkdir(parents=True, exist_ok=True)
    with open(cache_directory() / "prepare.lock", "w") as lock:
        # apt-get fails if another worker of the tests runs it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing := _missing(packages):
            _install(missing)


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if not _installed(package)]


def _install(missing: list[str]) -> None:
    log(f"Installing {', '.join(missing)} with apt-get (once).")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "--yes", "--no-install-recommends", *missing)):
        done = subprocess.run(["apt-get", "-q", *command], env=environment, text=True, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise Unfit(f"apt-get {command[0]} failed:\n{done.stdout[-3000:]}\n{INSTEAD}")


def prepare_machines() -> None:
    """Check that this host can boot machines, and install what is missing. Raises Unfit."""
    if os.geteuid() != 0:
        raise Unfit(f"Booting a machine requires root, and the UID is {os.geteuid()}.\n{INSTEAD}")
    prepare(*MACHINE_PACKAGES)
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc",
         "mount", "-t", "tmpfs", "none", "/mnt"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if probe.returncode:
        raise Unfit("root cannot create namespaces or mount file systems here (an unprivileged container?): "
                    f"{probe.stderr.strip()}\n{INSTEAD}")
    if int(INOTIFY_INSTANCES.read_text()) < INOTIFY_INSTANCES_WANTED:
        log(f"Raising {INOTIFY_INSTANCES} to {INOTIFY_INSTANCES_WANTED}, until this host's next boot.")
        INOTIFY_INSTANCES.write_text(f"{INOTIFY_INSTANCES_WANTED}\n")


def cache_directory() -> Path:
    """Return the directory, outside the tree, that keeps built machines between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "dockerd-guard"


def _installed(package: str) -> bool:
    asked = subprocess.run(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package],
                           capture_output=True, text=True, check=False)
    return asked.stdout.startswith("ii")
