"""What is on a machine's disk: layers for an overlay, built once and kept in the cache.

The base layer is a Debian release with systemd and Docker, as mmdebstrap lays it. On it may lie a
layer with a .deb installed, so that a machine with the agent boots as fast as one without.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.machines.host import cache_directory, say

RELEASES = ("bookworm", "trixie", "sid")

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "docker.io", "iproute2", "iptables", "nftables", "procps",
    "busybox-static", "curl", "openssl", "socat", "less",
    "python3-pystemd", "python3-watchdog", "python3-yaml", "python3-structlog", "python3-nftables",
)
ALSO = {"bookworm": (), "trixie": ("docker-cli",), "sid": ("docker-cli",)}
"""The docker command is a package of its own from trixie on."""

APT_OPTIONS = {"bookworm": (), "trixie": (), "sid": ('Acquire::Check-Valid-Until "false"',)}

RECIPE = "2"
"""Part of every key: count up when the way of building changes."""


class BuildFailed(Exception):
    """A release or a layer that could not be built, with the end of the log."""


def base(release: str) -> Path:
    """Give the root directory of a release, building it when the cache has none (some 30 s)."""
    packages = (*PACKAGES, *ALSO[release])
    directory = _images() / f"{release}-{_key(RECIPE, release, *packages)}"
    with _building(directory) as draft:
        if draft is not None:
            say(f"Building a Debian {release} with systemd and Docker, once (half a minute): {directory}")
            options = [f"--aptopt={each}" for each in APT_OPTIONS[release]]
            _run(release, ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", *options,
                           f"--include={','.join(packages)}", release, str(draft), *_mirror()],
                 log=directory.with_suffix(".log"))
            # Empty, not missing: the first boot of each machine writes an id of its own, and
            # systemd does not take it for a first boot with presets (machine-id(5)).
            (draft / "etc/machine-id").write_bytes(b"")
            (draft / "var/lib/dbus/machine-id").unlink(missing_ok=True)
            # mmdebstrap copies ours.
            (draft / "etc/hostname").write_text(f"{release}\n")
            (draft / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {release}\n")
            (draft / "etc/resolv.conf").unlink(missing_ok=True)
            _forget_older(directory, f"{release}-*")
    return directory


def layers(release: str, *, package: Path | None = None, debian: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """Give the layers of a release, topmost first: with these packages of Debian, and with this .deb installed."""
    found: tuple[Path, ...] = (base(release),)
    if debian:
        # What apt fetched stays in its cache: there, they can be installed without a network once more.
        name = f"{found[0].name}~{_key(*debian)}"
        found = _installed(release, found, name, ", ".join(debian), APT_INSTALL, *debian)
    if package is not None:
        name = f"{found[0].name}+{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"
        with_package = _installed(release, found, name, package.name, DPKG_INSTALL, str(package))
        _forget_older(with_package[0], f"{found[0].name}+*")
        found = with_package
    return found


def _installed(release: str, below: tuple[Path, ...], name: str, what: str, script: str, *arguments: str
               ) -> tuple[Path, ...]:
    """Give these layers with one on top, made by a script in them."""
    directory = below[0].with_name(name)
    with _building(directory) as draft:
        if draft is not None:
            say(f"Installing {what} on Debian {release}.")
            work = directory.with_name(f".work-{os.getpid()}")
            with in_use(below):
                _run(release, ["unshare", "--mount", "sh", "-euc", ENTER + script, "sh",
                               ":".join(map(str, below)), str(draft), str(work), *arguments],
                     log=directory.with_suffix(".log"))
            shutil.rmtree(work, ignore_errors=True)
    return directory, *below


ENTER = """
below=$1 draft=$2 work=$3; shift 3
mkdir -p "$work/overlay" "$work/root"
mount -t overlay overlay -o "lowerdir=$below,upperdir=$draft,workdir=$work/overlay" "$work/root"
mount --bind /dev "$work/root/dev"; mount -t proc proc "$work/root/proc"
in_root() {
    chroot "$work/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}
"""

DPKG_INSTALL = """
cp "$1" "$work/root/tmp/package.deb"
in_root dpkg --install /tmp/package.deb
rm "$work/root/tmp/package.deb"
"""

APT_INSTALL = """
cp /etc/resolv.conf "$work/root/etc/resolv.conf"
in_root apt-get update
in_root apt-get install --yes --no-install-recommends --option APT::Keep-Downloaded-Packages=true "$@"
rm "$work/root/etc/resolv.conf"
"""


@contextlib.contextmanager
def in_use(layers: tuple[Path, ...]) -> Iterator[list[int]]:
    """Hold the layers while the block runs; whoever needs them longer is given the descriptors."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    held = [os.open(layer.with_suffix(".lock"), flags, 0o600) for layer in layers]
    try:
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield held
    finally:
        for fd in held:
            os.close(fd)


@contextlib.contextmanager
def _building(directory: Path) -> Iterator[Path | None]:
    """Yield a draft to build the directory in, or None when it is there; one builder at a time."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if directory.exists():
            yield None
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            yield None
            return
        draft = directory.with_name(f".draft-{directory.name}")
        _remove(draft)
        draft.mkdir(mode=0o755)
        try:
            yield draft
            draft.rename(directory)
        finally:
            _remove(draft)


def _forget_older(keep: Path, pattern: str) -> None:
    for other in keep.parent.glob(pattern):
        if other == keep or not other.is_dir():
            continue
        with open(other.with_suffix(".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # a machine stands on it
            _remove(other)
            other.with_suffix(".log").unlink(missing_ok=True)  # not the lock: somebody may wait for it


def _remove(directory: Path) -> None:
    if directory.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(directory)], check=True)


def _images() -> Path:
    return cache_directory() / "machines" / "images"


def _mirror() -> tuple[str, ...]:
    """Give the Debian mirror of $DEBIAN_MIRROR, else let mmdebstrap choose."""
    mirror = os.environ.get("DEBIAN_MIRROR")
    return (mirror,) if mirror else ()


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _run(release: str, command: list[str], *, log: Path) -> None:
    with open(log, "wb") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                              check=False)
    if done.returncode:
        end = log.read_text(errors="replace")[-3000:]
        raise BuildFailed(f"Debian {release} could not be built ({command[0]} said {done.returncode}); "
                          f"the end of {log}:\n{end}")
