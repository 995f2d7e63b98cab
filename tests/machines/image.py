"""The disks of machines: layers for overlayfs, built once and kept in the cache.

mmdebstrap builds the base layer, a Debian release with systemd and Docker. A second layer may contain an installed
.deb, so that a machine with the agent boots as fast as one without.
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

from tests.machines.host import cache_directory, log

RELEASES = ("bookworm", "trixie", "sid")

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "docker.io", "iproute2", "iptables", "nftables", "procps",
    "busybox-static", "curl", "openssl", "socat", "less",
    "python3-pystemd", "python3-watchdog", "python3-yaml", "python3-structlog", "python3-nftables",
)
ALSO = {"bookworm": (), "trixie": ("docker-cli",), "sid": ("docker-cli",)}
"""From trixie on, the docker command is a package of its own."""

APT_OPTIONS = {"bookworm": (), "trixie": (), "sid": ('Acquire::Check-Valid-Until "false"',)}

RECIPE = "2"
"""Part of every key. Increase it when the build procedure changes."""


class BuildFailed(Exception):
    """A release or a layer could not be built. The message has the end of the log."""


def base(release: str) -> Path:
    """Return the root directory of a release. It is built if the cache does not have it (30 s)."""
    packages = (*PACKAGES, *ALSO[release])
    directory = _images() / f"{release}-{_key(RECIPE, release, *packages)}"
    with _building(directory) as draft:
        if draft is not None:
            log(f"Building a Debian {release} with systemd and Docker, once (half a minute): {directory}")
            options = [f"--aptopt={each}" for each in APT_OPTIONS[release]]
            _run(release, ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", *options,
                           f"--include={','.join(packages)}", release, str(draft), *_mirror()],
                 log=directory.with_suffix(".log"))
            # Empty, not missing: each machine writes its own id at the first boot, and systemd does not apply presets
            # as in a first boot (machine-id(5)).
            (draft / "etc/machine-id").write_bytes(b"")
            (draft / "var/lib/dbus/machine-id").unlink(missing_ok=True)
            # mmdebstrap copies those of this host.
            (draft / "etc/hostname").write_text(f"{release}\n")
            (draft / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {release}\n")
            (draft / "etc/resolv.conf").unlink(missing_ok=True)
            _forget_older(directory, f"{release}-*")
    return directory


def layers(release: str, *, package: Path | None = None, debian: tuple[str, ...] = ()) -> tuple[Path, ...]:
    """Return the layers of a release, topmost first, with additional Debian packages and a .deb installed."""
    found: tuple[Path, ...] = (base(release),)
    if debian:
        # Packages stay in apt's cache, so that they can be installed again without a network.
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
    """Return these layers with one on top that a script creates in them."""
    directory = below[0].with_name(name)
    with _building(directory) as draft:
        if draft is not None:
            log(f"Installing {what} on Debian {release}.")
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
    """Lock the layers while the block runs. Yields the descriptors, for callers that need the locks longer."""
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
    """Yield a draft directory to build in, or None if the directory exists. One process builds at a time."""
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
                continue  # a machine uses it
            _remove(other)
            other.with_suffix(".log").unlink(missing_ok=True)  # the lock file stays: another process may wait for it


def _remove(directory: Path) -> None:
    if directory.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(directory)], check=True)


def _images() -> Path:
    return cache_directory() / "machines" / "images"


def _mirror() -> tuple[str, ...]:
    """Return the Debian mirror of $DEBIAN_MIRROR; mmdebstrap chooses if it is not set."""
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
        raise BuildFailed(f"Debian {release} could not be built (exit status {done.returncode} of {command[0]}); "
                          f"the end of {log}:\n{end}")
