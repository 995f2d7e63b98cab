"""The namespaces of a machine and of its outside host. They end with their owner.

A box is an idle process: PID 1 of a PID namespace, in a mount namespace with the machine's disk mounted and a cgroup v2
tree. It ends when the pipe to its owner closes, for whatever reason, and the kernel then ends all processes and removes
all mounts in it. A kept box has no such pipe and lives until it is stopped. A directory remains, and a lock on it that
shows whether the box is alive: the next start removes the directories of dead boxes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.machines import image
from tests.machines.host import cache_directory

START_TIMEOUT_SECONDS = 300
"""Long, since the disk is copied where overlayfs is not available."""

SCRIPT = """
directory=$1 cgroup=$2 keep=$3 layers=$4
cd "$directory"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
umount --recursive /sys/fs/cgroup || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$cgroup" root upper work outside
rm -rf work/work
if ! [ -e copied ] && ! mount -t overlay overlay -o "lowerdir=$layers,upperdir=upper,workdir=work" root; then
    echo "overlayfs is not to be had in $directory: copying the disk instead"
    touch copied
fi
if [ -e copied ] && ! [ -e copied/complete ]; then
    echo "$layers" | tr : '\\n' | tac | while read -r layer; do
        cp --archive --reflink=auto "$layer/." root
    done
fi
# Docker's own overlays cannot lie on ours.
mkdir -p docker containerd root/var/lib/docker root/var/lib/containerd
mount --bind docker root/var/lib/docker
mount --bind containerd root/var/lib/containerd
mount --bind "${layers##*:}" outside
mount -o remount,bind,ro outside
for each in tmp root run; do mount -t tmpfs tmpfs "outside/$each"; done
mount -t proc proc outside/proc
mount --rbind /dev outside/dev
echo ready
exec >/dev/null 2>&1
if [ "$keep" = yes ]; then exec sleep infinity; else exec cat; fi
"""


class Box:
    """A started box. `pid` is its idle process, in the caller's PID namespace."""

    def __init__(self, directory: Path, pid: int, pipe: int | None) -> None:
        self.directory = directory
        self.pid = pid
        self._pipe = pipe

    @classmethod
    def start(cls, name: str, layers: tuple[Path, ...], *, keep: bool = False) -> Self:
        """Start a box with this name on a new disk over the layers, topmost first.

        Raises FileExistsError if a box of this name is alive, RuntimeError if it cannot start.
        """
        directory = _boxes() / name
        with _alone():
            _sweep()
            try:
                directory.mkdir()
            except FileExistsError:
                raise FileExistsError(f"a machine called {name} is running; "
                                      f"end it with: python3 -m tests.machines stop {name}") from None
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        read_end, write_end = os.pipe()
        try:
            with image.in_use(layers) as held, open(directory / "box.log", "wb") as log:
                process = subprocess.Popen(
                    ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                     "sh", "-eufc", SCRIPT, "sh", str(directory), cgroup(name), "yes" if keep else "no",
                     ":".join(str(layer) for layer in layers)],
                    stdin=subprocess.DEVNULL if keep else read_end, stdout=log, stderr=log,
                    pass_fds=(lock, *held), start_new_session=True)
            os.close(read_end)
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            while not (log_text := (directory / "box.log").read_text(errors="replace")).endswith("ready\n"):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise RuntimeError(f"the namespaces of machine {name} could not be set up:\n{log_text}")
                time.sleep(0.01)
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(lock)
        (pid,) = children(process.pid)
        (directory / "pid").write_text(f"{pid} {start_time(pid)}\n")
        if keep:
            os.close(write_end)
        return cls(directory, pid, None if keep else write_end)

    @classmethod
    def attach(cls, name: str) -> Self:
        """Return the running box with this name. Raises LookupError if there is none."""
        directory = _boxes() / name
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid, started = map(int, (directory / "pid").read_text().split())
            if start_time(pid) == started:
                return cls(directory, pid, None)
        raise LookupError(f"no machine called {name} is running")

    def enter(self, *command: str) -> list[str]:
        """Return the command line that runs a command in the box's PID and mount namespaces."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--", *command]

    @property
    def cgroup(self) -> str:
        """The path of the box's cgroup inside the box."""
        return f"/sys/fs/cgroup/{cgroup(self.directory.name)}"

    def stop(self) -> None:
        """End all processes in the box and remove its directory."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        with contextlib.suppress(FileNotFoundError), open(self.directory / "lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held until the last process has ended
        sweep()


def sweep() -> None:
    """Remove the directories of dead boxes."""
    with _alone():
        _sweep()


def names() -> tuple[str, ...]:
    """Return the names of the running boxes."""
    with _alone():
        _sweep()
        return tuple(sorted(path.name for path in _boxes().iterdir()))


def children(pid: int) -> tuple[int, ...]:
    """Return the children of a process (proc_pid_stat(5))."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int(_stat(int(entry))[1]) == pid:
                    found.append(int(entry))
    return tuple(found)


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks. Together with the PID, it identifies a process."""
    return int(_stat(pid)[19])


def cgroup(name: str) -> str:
    return f"dockerd-guard-test-{name}"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Lock the directory of boxes while the block runs."""
    _boxes().mkdir(parents=True, exist_ok=True)
    with open(_boxes().with_name("boxes.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep() -> None:
    for directory in _boxes().iterdir():
        with open(directory / "lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            # The cgroups of dead processes remain until they are removed.
            subprocess.run(["unshare", "--mount", "sh", "-c", REMOVE_CGROUPS, "sh", cgroup(directory.name)],
                           capture_output=True, check=False)
            subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(directory)], check=True)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on. The second may contain anything, even `)`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _boxes() -> Path:
    return cache_directory() / "machines" / "boxes"


REMOVE_CGROUPS = """
umount --recursive /sys/fs/cgroup || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd "/sys/fs/cgroup/$1" || exit 0
find . -depth -type d -exec rmdir {} + || :
cd .. && rmdir "$1"
"""
