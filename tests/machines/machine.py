"""A machine: boot it, run commands in it and outside of it, cut its power, remove it.

    with Machine.boot("bookworm", package=Path("dist/dockerd-guard_VERSION_all.deb")) as machine:
        machine.run("systemctl restart docker")
        assert machine.api_answers(port=2375) is False
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from tests.machines import image
from tests.machines.box import Box, children

ADDRESS = "10.77.0.2"
"""The machine's address on the veth pair to its outside host. Each pair has two namespaces of its own."""

OUTSIDE_ADDRESS = "10.77.0.1"

ADDRESS_IPV6 = "fd77::2"
OUTSIDE_ADDRESS_IPV6 = "fd77::1"

BOOT_TIMEOUT_SECONDS = 240
COMMAND_TIMEOUT_SECONDS = 180
WAIT_TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.05

ENVIRONMENT = ("HOME=/root", "LANG=C.UTF-8",
               "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
               "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")

# dockerd's containers need keyctl and bpf, which nspawn's filters would block.
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--capability=all",
          "--system-call-filter=add_key keyctl bpf @keyring", "--private-network", "--resolv-conf=off",
          "--timezone=off", "--link-journal=no", "--console=pipe", "--boot")

START_NSPAWN = """
cgroup=$1; shift
mkdir -p "$cgroup"
echo 0 > "$cgroup/cgroup.procs"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_SECCOMP=0 "$@"
"""

T = TypeVar("T")

_numbers = itertools.count(1)


class Done(NamedTuple):
    """The output and the exit status of a command."""

    command: str
    status: int
    out: str
    err: str


class CommandFailed(AssertionError):
    """A command ended with an exit status other than 0."""

    def __init__(self, done: Done) -> None:
        super().__init__(f"$ {done.command}\n{done.out}{done.err}(status {done.status})")
        self.done = done


def wait_for(condition: Callable[[], T | None], what: str, *, timeout: float = WAIT_TIMEOUT_SECONDS) -> T:
    """Call `condition` until its result is true, and return that.

    Raises TimeoutError with `what` and the last result.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {timeout:.0f} s; the last answer was {answer!r}")
        time.sleep(POLL_SECONDS)


class Machine:
    """A machine in a box. Every method may raise CommandFailed or TimeoutError."""

    def __init__(self, release: str, box: Box) -> None:
        self.release = release
        self.box = box
        self.leader = 0
        self._outside = 0

    # Life cycle

    @classmethod
    def boot(cls, release: str, *, package: Path | None = None, debian: tuple[str, ...] = (),
             name: str | None = None, keep: bool = False) -> Self:
        """Boot a new machine of a Debian release, with additional Debian packages and a .deb installed.

        A kept machine needs a name and outlives this process. `attach` finds it again.
        """
        layers = image.layers(release, package=package, debian=debian)
        box = Box.start(name or f"{release}-{os.getpid()}-{next(_numbers)}", layers, keep=keep)
        machine = cls(release, box)
        try:
            machine._start_outside()
            machine.power_on()
        except BaseException:
            machine.close()
            raise
        return machine

    @classmethod
    def attach(cls, name: str) -> Self:
        """Return the running machine with this name. Raises LookupError if there is none."""
        box = Box.attach(name)
        try:
            state = json.loads((box.directory / "machine.json").read_text())
        except FileNotFoundError:
            raise LookupError(f"the machine called {name} never came up") from None
        machine = cls(state["release"], box)
        machine.leader, machine._outside = state["leader"], state["outside"]
        return machine

    @property
    def name(self) -> str:
        return self.box.directory.name

    @property
    def outside_pid(self) -> int:
        """The process whose network namespace is the other end of the machine's veth pair."""
        return self._outside

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the machine and remove its disk."""
        self.box.stop()

    def power_on(self) -> None:
        """Start the machine on its disk and wait until it is up and connected to the outside."""
        console = self._console()
        started = subprocess.Popen(
            self.box.enter("sh", "-euc", START_NSPAWN, "sh", self.box.cgroup, *NSPAWN,
                           f"--machine={self.release}", f"--directory={self.box.directory}/root"),
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        os.close(console)

        def leader() -> int | None:
            if started.poll() is not None:
                raise RuntimeError(f"{self.release} did not start:\n{self.console()[-3000:]}")
            for nspawn in children(started.pid):
                for leader in children(nspawn):
                    # nspawn's child is first nspawn itself, then init. It can be entered when systemd has replaced it.
                    if _comm(leader) == "systemd":
                        return leader
            return None

        self.leader = wait_for(leader, "systemd as PID 1", timeout=BOOT_TIMEOUT_SECONDS)
        self._link()
        self._remember()
        wait_for(self._is_up, "systemctl is-system-running", timeout=BOOT_TIMEOUT_SECONDS)

    def power_off(self) -> None:
        """Shut the machine down. Its disk stays; power_on() starts it again."""
        self.run("systemctl poweroff", check=False)
        self._wait_until_off()

    def power_cut(self) -> None:
        """Kill all processes of the machine at once."""
        os.kill(self.leader, signal.SIGKILL)
        self._wait_until_off()

    def reboot(self) -> None:
        """Shut the machine down and start it again."""
        self.power_off()
        self.power_on()

    @property
    def is_on(self) -> bool:
        return self.leader != 0 and _alive(self.leader)

    def on_disk(self, command: str, *, input: str | None = None) -> Done:
        """Run a shell line in the directory of its disk, `root`, also while the machine is off."""
        line = f"cd {shlex.quote(str(self.box.directory))}; {command}"
        return _run(self.box.enter("sh", "-euc", line), command, True, input, COMMAND_TIMEOUT_SECONDS)

    # Commands

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs argv in the machine."""
        return ["nsenter", "--target", str(self.leader), "--all", "--",
                "env", "-i", *ENVIRONMENT, *argv]

    def run(self, command: str | Sequence[str], *, check: bool = True, input: str | None = None,
            timeout: float = COMMAND_TIMEOUT_SECONDS) -> Done:
        """Run a shell line or an argument list as root in the machine."""
        return _run(self.command(*_argv(command)), command, check, input, timeout)

    def popen(self, command: str | Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in the machine without waiting. Options are those of subprocess.Popen."""
        return subprocess.Popen(self.command(*_argv(command)), text=True, **options)

    def read(self, path: str) -> str:
        """Return the text of a file in the machine."""
        return self.run(["cat", "--", path]).out

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in place, and create its directory.

        The file is empty only for a moment: the agent reads it while it is written.
        """
        script = ('text=$(cat; echo .) && mkdir -p "$(dirname "$1")" && printf %s "${text%.}" > "$1" && '
                  'chmod "$2" "$1"')
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], input=text)

    def remove(self, *paths: str) -> None:
        self.run(["rm", "-rf", "--", *paths])

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path], check=False).status == 0

    def copy_in(self, source: Path, path: str) -> None:
        """Copy a file of this host into the machine."""
        with open(source, "rb") as file:
            subprocess.run(self.command("sh", "-c", 'cat > "$1"', "sh", path), stdin=file, check=True)

    def install(self, package: Path) -> Done:
        """Install a .deb with apt. Its dependencies are already installed."""
        self.copy_in(package, f"/tmp/{package.name}")
        return self.run(["apt-get", "install", "--yes", "--no-install-recommends", "--reinstall",
                         "--allow-downgrades", f"/tmp/{package.name}"])

    # State

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit, as systemctl shows them."""
        lines = self.run(["systemctl", "show", unit, f"--property={','.join(names)}"]).out.splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def main_pid(self, unit: str = "docker.service") -> int:
        """Return the main PID of a unit, in the machine; 0 if it does not run."""
        return int(self.properties(unit, "MainPID")["MainPID"])

    def is_active(self, unit: str) -> bool:
        return self.properties(unit, "ActiveState")["ActiveState"] == "active"

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the entries that `journalctl ARGUMENTS` selects, oldest first, with all fields."""
        done = self.run(["journalctl", "--no-pager", "--output=json", "--all", *arguments], check=False)
        if done.status and (done.err or done.status != 1):  # status 1 without output: --grep= found nothing
            raise CommandFailed(done)
        return [json.loads(line) for line in done.out.splitlines()]

    def sync_journal(self) -> None:
        """Wait until journald has taken in everything that was sent to it. Programs do not wait for it."""
        self.run("journalctl --sync")

    def console(self) -> str:
        """Return the console output of the boot."""
        return (self.box.directory / "console.log").read_text(errors="replace")

    # Docker

    def import_busybox(self) -> None:
        """Import an image without a registry: Debian's static busybox."""
        self.run("""cd "$(mktemp -d)" && mkdir bin && cp /usr/bin/busybox bin && ln -s busybox bin/sh &&
                    ln -s busybox bin/sleep && tar c bin | docker import - busybox""")

    def start_container(self, name: str = "bystander") -> int:
        """Start a container that keeps running, and return the PID of its first process in the machine."""
        if self.run(["docker", "image", "inspect", "busybox"], check=False).status:
            self.import_busybox()
        # PID 1 without a signal handler ignores SIGTERM, and each stop would take 10 s.
        self.run(["docker", "run", "--detach", "--init", "--network=none", f"--name={name}", "busybox",
                  "/bin/sh", "-c", "while :; do sleep 1000; done", name])
        return self.started_container_pid(name)

    def started_container_pid(self, name: str = "bystander") -> int:
        """Wait for the container's first process and return its PID in the machine.

        `docker run` and `docker start` return when runc resumes its child, before the child's execve().
        """
        return wait_for(lambda: self.container_pid(name), f"the first process of container {name}")

    def container_pid(self, name: str = "bystander") -> int:
        """Return the PID of the container's first process in the machine without asking dockerd; 0 if there is none."""
        script = """
            host=$(readlink /proc/1/ns/pid)
            for each in /proc/[0-9]*; do
                case $(tr '\\0' ' ' < $each/cmdline) in
                    *" $1 ") [ $(readlink $each/ns/pid) = $host ] || echo ${each#/proc/};;
                esac
            done 2>/dev/null"""
        found = self.run(["sh", "-c", script, "sh", name]).out
        return min(map(int, found.split()), default=0)

    # The outside

    def outside(self, command: str | Sequence[str], *, check: bool = True, input: str | None = None,
                timeout: float = COMMAND_TIMEOUT_SECONDS) -> Done:
        """Run a command on another host that has the release's programs and reaches the machine over the veth pair."""
        return _run(self.outside_command(*_argv(command)), command, check, input, timeout)

    def outside_command(self, *argv: str) -> list[str]:
        """Return the command line that runs argv outside."""
        return ["nsenter", "--target", str(self._outside), "--mount", "--net", "--pid", "--root", "--wd",
                "--", "env", "-i", *ENVIRONMENT, *argv]

    def api_answers(self, port: int = 2375, *, address: str = ADDRESS) -> bool:
        """Whether the Docker API answers from outside without TLS."""
        address = f"[{address}]" if ":" in address else address
        asked = self.outside(["curl", "--silent", "--max-time", "5", f"http://{address}:{port}/_ping"],
                             check=False)
        return asked.status == 0 and asked.out == "OK"

    def socket_answers(self, path: str = "/run/docker.sock") -> bool:
        """Whether the Docker API answers on a UNIX socket in the machine."""
        asked = self.run(["curl", "--silent", "--max-time", "5", "--unix-socket", path, "http://localhost/_ping"],
                         check=False)
        return asked.status == 0 and asked.out == "OK"

    # Internals

    def _start_outside(self) -> None:
        root = f"{self.box.directory}/outside"
        console = self._console()
        process = subprocess.Popen(
            self.box.enter("unshare", "--net", "--mount", "chroot", root, "sleep", "infinity"),
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)
        os.close(console)

        def outside() -> int | None:
            return next((child for child in children(process.pid) if _comm(child) == "sleep"), None)

        self._outside = wait_for(outside, "process outside")

    def _link(self) -> None:
        """Create the veth pair."""
        outside = ["nsenter", "--target", str(self._outside), "--net", "ip"]
        inside = ["nsenter", "--target", str(self.leader), "--net", "ip"]
        # The kernel removes the previous pair with the machine's network namespace, but with a delay.
        subprocess.run([*outside, "link", "delete", "eth0"], capture_output=True, check=False)
        for command in (
            [*outside, "link", "set", "lo", "up"],
            [*outside, "link", "add", "eth0", "type", "veth",
             "peer", "name", "eth0", "netns", str(self.leader)],
            [*outside, "address", "add", f"{OUTSIDE_ADDRESS}/24", "dev", "eth0"],
            [*outside, "address", "add", f"{OUTSIDE_ADDRESS_IPV6}/64", "dev", "eth0", "nodad"],
            [*outside, "link", "set", "eth0", "up"],
            [*inside, "address", "add", f"{ADDRESS}/24", "dev", "eth0"],
            [*inside, "address", "add", f"{ADDRESS_IPV6}/64", "dev", "eth0", "nodad"],
            [*inside, "link", "set", "eth0", "up"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(command)}: {done.stderr}")

    def _is_up(self) -> bool:
        # "degraded" is accepted: some units cannot work in a container (systemd-modules-load).
        state = self.run(["systemctl", "is-system-running"], check=False).out.strip()
        return state in ("running", "degraded")

    def _wait_until_off(self) -> None:
        wait_for(lambda: not _alive(self.leader), "end of the machine", timeout=BOOT_TIMEOUT_SECONDS)
        cgroup = self.box.cgroup

        def empty() -> bool:
            events = self.box.enter("cat", f"{cgroup}/cgroup.events")
            return "populated 0" in subprocess.run(events, capture_output=True, text=True, check=True).stdout

        wait_for(empty, "end of the machine's last process", timeout=BOOT_TIMEOUT_SECONDS)
        self.leader = 0

    def _console(self) -> int:
        return os.open(self.box.directory / "console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _remember(self) -> None:
        state = {"release": self.release, "leader": self.leader, "outside": self._outside}
        (self.box.directory / "machine.json").write_text(json.dumps(state))


def _argv(command: str | Sequence[str]) -> list[str]:
    return ["sh", "-c", command] if isinstance(command, str) else list(command)


def _run(argv: list[str], shown: str | Sequence[str], check: bool, input: str | None, timeout: float) -> Done:
    text = shown if isinstance(shown, str) else shlex.join(shown)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                          start_new_session=True) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException as error:
            # nsenter's child is in another PID namespace, but in the same process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError(f"$ {text}\nno end within {timeout:.0f} s") from None
            raise
    done = Done(text, process.returncode, out, err)
    if check and done.status:
        raise CommandFailed(done)
    return done


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
