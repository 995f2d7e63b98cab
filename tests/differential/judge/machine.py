"""The machine: prepared so that it serves only the judge."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

RECORDS = Path("/run/differential/records")
STAGED = "/run/differential/generated"
REAL = "/usr/libexec/differential"

PRIVATE = ("/run", "/etc/docker", "/root", "/opt", "/srv", "/tmp", "/var/lib/docker")
"""Directories that each dockerd has for itself, with the layout's files in them."""

RECORDERS = (
    "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/usr/local/sbin/dockerd", "/opt/bin/dockerd",
    "/usr/lib/coreos/dockerd", "/usr/bin/dockerd-current", "/usr/bin/docker", "/usr/bin/docker-current",
    "/usr/bin/docker dockerd", "/usr/bin/dockerd ",
)
"""Paths of dockerd in the generated trees. The recorder is installed at each."""

GENERATOR = """#!/bin/sh
# Each reload empties the generators' directories. This copies the layout's files back.
cp -a /run/differential/generated/generator/. "$1" 2>/dev/null
cp -a /run/differential/generated/generator.early/. "$2" 2>/dev/null
cp -a /run/differential/generated/generator.late/. "$3" 2>/dev/null
exit 0
"""

STUB = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""

NEEDED_UNITS = frozenset((
    "basic.target", "default.target", "graphical.target", "local-fs.target", "multi-user.target", "paths.target",
    "shutdown.target", "slices.target", "sockets.target", "sysinit.target", "timers.target", "umount.target",
    "containerd.service",
))

CERTIFICATES = """
cd "$1"
new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
$new -x509 -days 3650 -subj /CN=ca -keyout ca-key.pem -out ca.pem
$new -subj /CN=localhost -keyout key.pem -out cert.csr
openssl x509 -req -in cert.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 -out cert.pem
"""

STAND_INS = {
    "/usr/bin/rootlesskit": """#!/bin/sh
while case "$1" in --*) true;; *) false;; esac; do shift; done
ROOTLESSKIT_STATE_DIR=/tmp/dockerd-rootless exec "$@"
""",
    "/usr/bin/slirp4netns": "#!/bin/sh\necho --netns-type\n",
}
"""Programs that dockerd-rootless.sh requires. They run the given command without new namespaces."""
ROOTLESS = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
NAMES = "127.0.0.1 localhost\n::1 localhost\n10.99.0.1 docker-host docker.example.com swarm-01 master\n"
START_TIMEOUT_SECONDS = 5
libc = ctypes.CDLL(None, use_errno=True)


def prepare() -> None:
    """Replace every dockerd, remove what is not needed, and set systemd's timeouts."""
    RECORDS.mkdir(parents=True, exist_ok=True)
    RECORDS.chmod(0o1777)
    if Path(REAL).exists():
        return
    run("systemctl", "stop", "docker.service", "docker.socket", "containerd.service")
    for each in Path("/etc/systemd/system").glob("*/docker.*"):
        each.unlink()
    for directory in ("/lib/systemd/system", "/usr/lib/systemd/system"):
        for each in Path(directory).glob("docker.*"):
            each.unlink()
        (Path(directory) / "containerd.service").write_text(STUB)
    for timer in Path("/etc/systemd/system/timers.target.wants").glob("*"):
        run("systemctl", "stop", timer.name)
        timer.unlink()
    fewer_units()
    real = Path(REAL)
    real.mkdir()
    for program in ("/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/bin/docker"):
        if Path(program).exists():
            shutil.move(program, REAL + "/" + Path(program).name)
    run("sh", "-euc", CERTIFICATES, "sh", REAL)
    shutil.copy(ROOTLESS, "/usr/bin/dockerd-rootless.sh")
    for path, script in STAND_INS.items():
        Path(path).write_text(script)
        os.chmod(path, 0o755)
    for path in RECORDERS:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/root/recorder", path)
        os.chmod(path, 0o755)
    generators = Path("/etc/systemd/system-generators")
    generators.mkdir(exist_ok=True)
    for each in Path("/usr/lib/systemd/system-generators").iterdir():
        (generators / each.name).symlink_to("/dev/null")
    (generators / "differential").write_text(GENERATOR)
    (generators / "differential").chmod(0o755)
    configuration = Path("/etc/systemd/system.conf.d/differential.conf")
    configuration.parent.mkdir(exist_ok=True)
    configuration.write_text(f"[Manager]\nDefaultTimeoutStartSec={START_TIMEOUT_SECONDS}\n"
                             "DefaultTimeoutStopSec=2\nDefaultStartLimitBurst=100000\nLogLevel=err\n")
    for path in ("/etc/default/docker", "/etc/docker", "/root/.docker"):
        remove(path)
    for path in PRIVATE:
        os.makedirs(path, exist_ok=True)
    anywhere()
    Path("/etc/hosts").write_text(NAMES)
    run("systemctl", "daemon-reload")


def fewer_units() -> None:
    """Remove units that are not needed. This halves the time of a reload."""
    directory = Path("/usr/lib/systemd/system")
    for each in directory.iterdir():
        if each.name in NEEDED_UNITS or each.name.startswith(("dbus.", "systemd-journald")):
            continue
        remove(str(each))


def anywhere() -> None:
    """Allow sockets to be bound to addresses that this host does not have."""
    for version in ("ipv4", "ipv6"):
        Path(f"/proc/sys/net/{version}/ip_nonlocal_bind").write_text("1")


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)


def run(*command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", timeout=timeout,
                          check=False)
