"""Ask the real ones. Runs as root inside a machine of its own, with nothing but the standard library.

Reads layouts from standard input, one JSON object a line, and writes what became of each. For each
layout: its files go where they belong, systemd reloads, starts the sockets of docker.service and
then docker.service itself, with the recorder standing wherever a dockerd might. What the recorder
saw (argv, environ, passed sockets) is given to the real dockerd, in namespaces of its own, with the
same sockets made again. dockerd connects to containerd right after it has all its listeners, so a
containerd that never answers tells when to look at what the kernel holds for it.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

RECORDS = Path("/run/differential/records")
STAGED = "/run/differential/generated"
REAL = "/usr/libexec/differential"

RECORDERS = (
    "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/usr/local/sbin/dockerd",
             "/opt/bin/dockerd",
    "/usr/lib/coreos/dockerd", "/usr/bin/dockerd-current", "/usr/bin/docker", "/usr/bin/docker-current",
    "/usr/bin/docker dockerd", "/usr/bin/dockerd ",
)
"""Where a dockerd might be looked for: the recorder stands at each."""

SEARCH_PATH = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached",
               "/run/systemd/system",
    "/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system", "/run/systemd/generator.late",
)

GENERATOR = """#!/bin/sh
# Each reload empties the generators' directories: what a layout has there is put there again.
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
    "basic.target", "default.target", "graphical.target", "local-fs.target", "multi-user.target",
                          "paths.target", "shutdown.target",
    "slices.target", "sockets.target", "sysinit.target", "timers.target", "umount.target",
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
"""What dockerd-rootless.sh wants: it runs what it is told, without namespaces of its own."""

ROOTLESS = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

PRIVATE = ("/run", "/etc/docker", "/root", "/opt", "/srv", "/tmp", "/var/lib/docker")
"""Directories that each dockerd has for itself, with what the layout has in them."""

NAMES = "127.0.0.1 localhost\n::1 localhost\n10.99.0.1 docker-host docker.example.com swarm-01 master\n"

OF_ONE_START = ("INVOCATION_ID=", "JOURNAL_STREAM=", "SYSTEMD_EXEC_PID=", "LISTEN_PID", "MEMORY_PRESSURE_")
"""Variables that are others each time and mean nothing to dockerd."""

NOT_OURS = ("/run/systemd", "/run/dbus", "/run/udev", "/run/user", "/run/host", "/run/differential")
MADE_BY_UNITS = (stat.S_IFSOCK, stat.S_IFIFO)

MAX_DAEMONS = 64
START_TIMEOUT_SECONDS = 5
CLIENT_TIMEOUT_SECONDS = 5
RECORD_TIMEOUT_SECONDS = 2
REFUSE_TIMEOUT_SECONDS = 25
PAUSE_SECONDS = 16
"""dockerd's own, for each host in the clear (20.10 and later)."""
FULL_START_SECONDS = 40

MS_REC, MS_PRIVATE, MS_NOSUID = 0x4000, 0x40000, 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000)

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    prepare()
    daemons: dict[int, Daemon] = {}
    known: dict[str, Any] = {}
    for line in sys.stdin:
        layout = json.loads(line)
        result: dict[str, Any] = {"id": layout["id"]}
        try:
            result["systemd"] = ask_systemd(layout)
        except Exception as error:
            result["trouble"] = f"{type(error).__name__}: {error}"
        record = next(iter(result.get("systemd", {}).get("records", ())), None)
        if record is None:
            say(result)
        elif (key := same_start(layout, record)) in known:
            say({**result, "daemon": known[key]})
        else:
            start_daemon(layout, record, Daemon(result, key), daemons)
        collect(daemons, known, MAX_DAEMONS - 1 if len(daemons) >= MAX_DAEMONS else None)
    collect(daemons, known, 0)


class Daemon:
    """A dockerd at work: what is known so far, and the pipe and the text its answer comes by."""

    def __init__(self, result: dict[str, Any], key: str) -> None:
        self.result = result
        self.key = key
        self.pipe = -1
        self.text = bytearray()


def say(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


# ---- the machine

def prepare() -> None:
    """Turn the machine into one that only serves this."""
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
    """Take away units that are not needed: a reload takes half the time."""
    directory = Path("/usr/lib/systemd/system")
    for each in directory.iterdir():
        if each.name in NEEDED_UNITS or each.name.startswith(("dbus.", "systemd-journald")):
            continue
        remove(str(each))


def anywhere() -> None:
    """Let sockets be bound to addresses this host does not have."""
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


def put(layout: dict[str, Any], made: list[str], below: tuple[str, ...] | None = None) -> None:
    """Write the layout, or what of it is below some directories; adds what was made to `made`, in order."""

    def directory(path: str) -> None:
        missing = []
        while path and not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for each in reversed(missing):
            os.mkdir(each)
            made.append(each)

    def wanted(path: str) -> bool:
        return below is None or path.startswith(tuple(each + "/" for each in below))

    for path in layout["directories"]:
        if wanted(path):
            directory(path)
    for path, content in layout["files"].items():
        if wanted(path):
            directory(os.path.dirname(path))
            with open(path, "wb") as file:
                file.write(meant(base64.b64decode(content)))
            made.append(path)
    for path, target in layout["links"].items():
        if wanted(path):
            directory(os.path.dirname(path))
            os.symlink(target, path)
            made.append(path)


def meant(content: bytes) -> bytes:
    """A file's content: `@cert` and the like stand for what was made here."""
    if content in (b"@ca", b"@cert", b"@key"):
        return Path(REAL, content[1:].decode() + ".pem").read_bytes()
    return content


def staged(layout: dict[str, Any]) -> dict[str, Any]:
    """The layout with what lies in the generators' directories where the generator finds it."""
    def where(path: str) -> str:
        return STAGED + path.removeprefix("/run/systemd") if path.startswith("/run/systemd/generator") else path

    return {**layout, "directories": [where(path) for path in layout["directories"]],
            "files": {where(path): content for path, content in layout["files"].items()},
            "links": {where(path): target for path, target in layout["links"].items()}}


# ---- systemd

def unit_names(layout: dict[str, Any]) -> list[str]:
    found = {"docker.service", "docker.socket"}
    for path in (*layout["files"], *layout["links"]):
        directory, _, name = path.rpartition("/")
        if directory in SEARCH_PATH and re.fullmatch(r"[A-Za-z0-9:_.\\@-]+\.(service|socket)", name):
            found.add(name)
    return sorted(found)


PROPERTIES = ("Id", "Names", "LoadState", "LoadError", "FragmentPath", "DropInPaths", "ActiveState",
              "SubState", "Result",
              "Triggers", "TriggeredBy", "Type", "ExecMainStatus")


def show(names: list[str]) -> dict[str, dict[str, str]]:
    """The units' properties, where they can be told."""
    found = {}
    text = run("systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names).stdout
    blocks = text.split("\n\n")
    if len(blocks) != len(names):
        blocks = [run("systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", name).stdout for name in names]
    for name, block in zip(names, blocks, strict=True):
        found[name] = dict(line.partition("=")[::2] for line in block.splitlines())
    return found


def active(units: dict[str, dict[str, str]]) -> list[str]:
    """Those of the units that are not known to be at rest."""
    return [name for name, unit in units.items() if unit.get("ActiveState") not in {"inactive", "failed"}]


def ask_systemd(layout: dict[str, Any]) -> dict[str, Any]:
    names = unit_names(layout)
    made: list[str] = []
    try:
        put(staged(layout), made)
        run("systemctl", "daemon-reload")
        units = show(names)
        if left := [name for name in active(units) if "ActiveState" in units[name]]:
            # A reload leaves what is active as it is: its sockets would be those of a tree before this one.
            raise RuntimeError(f"{left} did not end with the tree before")
        # What is no UTF-8 (`\\xff` in ExecStart=) no D-Bus message can hold: nothing is shown then.
        service = units.get("docker.service", {})
        services = set(service.get("Names", "").split()) | {"docker.service"}
        triggers = set(service.get("TriggeredBy", "").split())
        sockets = []
        for name in names:
            unit = units.get(name, {})
            if name.endswith(".socket") and unit.get("Id") not in sockets and (
                    services & set(unit.get("Triggers", "").split()) or unit.get("Id") in triggers):
                sockets.append(unit["Id"])
        for name in sockets:
            run("systemctl", "start", "--", name)
        done = run("systemctl", "start", "docker.service")
        after = show(["docker.service", *sockets])
        service = after.get("docker.service", {})
        return {"state": units.get("docker.service", {}).get("LoadState"), "error": service.get("LoadError"),
                "sockets": {name: after.get(name, {}) for name in sockets}, "service": service,
                "said": done.stderr.strip(), "status": done.returncode, "records": records(not done.returncode)}
    finally:
        # Also those that were not asked to start: what requires them starts them, whatever service they are for.
        # One by one: systemctl 262 stops none of several where one cannot be stopped.
        for name in active(show(names)):
            run("systemctl", "stop", "--", name)
        run("systemctl", "reset-failed")
        for path in reversed(made):
            if os.path.islink(path) or not os.path.isdir(path):
                remove(path)
            else:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        for each in (*RECORDS.iterdir(), *in_the_way()):
            remove(str(each))


def in_the_way() -> list[Path]:
    """Sockets and FIFOs that units have made: one of another mode makes the next one fail."""
    found = (Path(directory, name) for directory, _, names in os.walk("/run") for name in names
             if not directory.startswith(NOT_OURS))
    return [path for path in found if stat.S_IFMT(path.lstat().st_mode) in MADE_BY_UNITS]


def records(expected: bool) -> list[dict[str, Any]]:
    """What the recorder saw, oldest first, of the first start only. Where one is expected it is waited for:
    with Type=simple systemctl is back before the program runs."""
    deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
    while expected and not any(RECORDS.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.005)
    found: list[dict[str, Any]] = []
    for directory in sorted(RECORDS.iterdir()):
        deadline = time.monotonic() + 10
        while not (directory / "done").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the recorder does not come to an end")
            time.sleep(0.005)
        if "/containerd.service" in (directory / "cgroup").read_text():
            continue  # a drop-in in service.d makes a dockerd of that one, too
        environ = text((directory / "environ").read_bytes()).split("\0")[:-1]
        record = {"argv": text((directory / "argv").read_bytes()).split("\0")[:-1],
                  "environ": environ, "sockets": (directory / "sockets").read_text().splitlines(),
                  "program": os.readlink(directory / "program"), "taken": []}
        if f"LISTEN_PID={directory.name.rpartition('-')[2]}" not in environ:
            # Passed to somebody else: a shell that runs it in a process of its own. They are taken all the same.
            record["taken"], record["sockets"] = record["sockets"], []
        first = found[0] if found else record
        if invocation(first) == invocation(record):
            found.append(record)
    return found


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def invocation(record: dict[str, Any]) -> str:
    return next((each for each in record["environ"] if each.startswith("INVOCATION_ID=")), "")


# ---- dockerd

def same_start(layout: dict[str, Any], record: dict[str, Any]) -> str:
    """What two starts have in common when dockerd cannot tell them apart."""
    environ = sorted(each for each in record["environ"] if not each.startswith(OF_ONE_START))
    files = {path: content for path, content in {**layout["files"], **layout["links"]}.items()
             if path.startswith(PRIVATE) and not path.startswith("/run/systemd/")}
    return json.dumps([record["program"], record["argv"], environ, record["sockets"], record["taken"],
                       sorted(files.items()),
                       layout["directories"], layout["full"]])


def start_daemon(layout: dict[str, Any], record: dict[str, Any], daemon: Daemon, daemons: dict[int, Daemon]) -> None:
    daemon.pipe, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(daemon.pipe)
        answer: dict[str, Any]
        try:
            answer = in_namespaces(layout, record, write_end)
        except BaseException as error:
            answer = {"trouble": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            os.write(write_end, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_end)
    os.set_blocking(daemon.pipe, False)
    daemons[pid] = daemon


def collect(daemons: dict[int, Daemon], known: dict[str, Any], until: int | None) -> None:
    """Take the answers that are there; with `until`, wait until no more than so many are at it."""
    while daemons:
        wait = 0.2 if until is not None and len(daemons) > until else 0
        ready, _, _ = select.select([daemon.pipe for daemon in daemons.values()], [], [], wait)
        for pid, daemon in list(daemons.items()):
            if daemon.pipe not in ready:
                continue
            if data := os.read(daemon.pipe, 1 << 20):
                daemon.text.extend(data)
                continue
            os.close(daemon.pipe)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            del daemons[pid]
            try:
                answer = json.loads(bytes(daemon.text))
                known[daemon.key] = answer
            except ValueError:
                answer = {"trouble": f"no answer: {bytes(daemon.text)!r}"}
            say({**daemon.result, "daemon": answer})
        if not ready and (until is None or len(daemons) <= until):
            return


def in_namespaces(layout: dict[str, Any], record: dict[str, Any], write_end: int) -> dict[str, Any]:
    if libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    pid = os.fork()
    if pid:
        os.close(write_end)
        os.waitpid(pid, 0)
        os._exit(0)
    libc.prctl(1, signal.SIGKILL)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    for directory in PRIVATE:
        mount("tmpfs", directory, "tmpfs")
    os.chmod("/run", 0o755)
    os.makedirs("/run/containerd")
    anywhere()
    up("lo")
    if layout["full"]:
        # All addresses are here: what is listened at can be asked.
        run("ip", "route", "add", "local", "default", "dev", "lo")
        run("ip", "-6", "route", "add", "local", "default", "dev", "lo")
    put(layout, [], PRIVATE)
    return watch_daemon(layout, record)


def mount(source: str | None, target: str, kind: str | None, flags: int = 0) -> None:
    words = [None if each is None else each.encode() for each in (source, target, kind)]
    if libc.mount(*words, flags, None):
        raise OSError(ctypes.get_errno(), f"mount {target}")


def up(interface: str) -> None:
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16sH14x", interface.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(asking, siocgifflags, request))[1]
        fcntl.ioctl(asking, siocsifflags, struct.pack("16sH14x", interface.encode(), flags | iff_up))


def program(record: dict[str, Any]) -> str:
    name = "docker" if re.fullmatch(r"docker(-current|-latest)?", os.path.basename(record["program"])) else "dockerd"
    return f"{REAL}/{name}"


def talkative(layout: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """argv with --debug, which changes nothing but what is logged, unless the file may have it too."""
    argv = list(record["argv"])
    written = b"".join(base64.b64decode(each) for each in layout["files"].values())
    # A key of that name would conflict with the flag; JSON can hide it behind an escape.
    if b'debug"' not in written.lower() and b"\\u" not in written and program(record).endswith("dockerd"):
        argv[1:1] = ["--debug"]
    return argv


def watch_daemon(layout: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0912, PLR0915 -- one wait for many things
    full = bool(layout.get("full"))
    containerd = None if full else fake_containerd(record)
    taken = [make_again(line) for line in record["taken"]]
    given = [make_again(line) for line in record["sockets"]]
    given_inodes = {}
    for number, each in enumerate(given):
        given_inodes[os.fstat(each.fileno()).st_ino] = 3 + number
    log_read, log_write = os.pipe()
    if full:
        subprocess.Popen(["containerd"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    pid = os.fork()
    if pid == 0:
        become(program(record), talkative(layout, record), record["environ"], given, log_write)
    os.close(log_write)
    os.set_blocking(log_read, False)
    log = bytearray()
    hosts = max(1, sum(b"tcp" in each.encode("utf-8", "replace") or b":" in each.encode("utf-8", "replace")
                       for each in record["argv"]) + str(layout["files"]).count("tcp"))
    deadline = time.monotonic() + (
        REFUSE_TIMEOUT_SECONDS + PAUSE_SECONDS * min(hosts, 6) + (FULL_START_SECONDS if full else 0))
    if program(record).endswith("/docker"):
        # The client asks a daemon that is not there: whatever it wants to know, no daemon comes of it.
        deadline = time.monotonic() + CLIENT_TIMEOUT_SECONDS
    status = None
    outcome = "timeout"
    serving_since = 0.0
    while time.monotonic() < deadline:
        wanted: list[Any] = [log_read, *(containerd or ())]
        ready, _, _ = select.select(wanted, [], [], 0.5)
        if log_read in ready:
            data = os.read(log_read, 1 << 16)
            log += data
            if not data:
                _, status = os.waitpid(pid, 0)
                outcome = "ended"
                break
        if [each for each in ready if each != log_read]:
            outcome = "listening"
            break
        if full and b"API listen on" in log and b"Daemon has completed initialization" in log:
            serving_since = serving_since or time.monotonic()
            # 20.10 ends when one of its listeners breaks, but not at once.
            if time.monotonic() - serving_since > (5 if b"ServeAPI error" in log else 0.3):
                outcome = "serving"
                break
        done, ended = os.waitpid(pid, os.WNOHANG)
        if done:
            status, outcome = ended, "ended"
            with contextlib.suppress(BlockingIOError):
                log += os.read(log_read, 1 << 20)
            break
    if full and outcome == "timeout" and program(record).endswith("/dockerd"):
        outcome = "serving"  # told to log no more than warnings, it says nothing of it
    with contextlib.suppress(BlockingIOError):
        while data := os.read(log_read, 1 << 16):
            log += data
    for each in taken:
        each.close()
    answer: dict[str, Any] = {
        "outcome": outcome, "status": None if status is None else os.waitstatus_to_exitcode(status),
        "log": text(bytes(log))[-6000:],
        "created": re.findall(r'Listener created for HTTP on (.*?) \((.*?)\)"', text(bytes(log))),
    }
    if outcome != "ended":
        answer["listening"] = held_by(pid, given_inodes)
        if outcome == "serving":
            answer["tls"] = {str(each[1:]): probe(each) for each in answer["listening"] if each[0] == "tcp"}
    return answer


def fake_containerd(record: dict[str, Any]) -> list[socket.socket]:
    """Listen where dockerd looks for containerd."""
    paths = {"/run/containerd/containerd.sock", "/var/run/docker/containerd/containerd.sock"}
    # Where it runs without root: systemContainerdRunning() in moby cmd/dockerd/daemon_linux.go.
    paths |= {f"{each.partition('=')[2]}/containerd/containerd.sock" for each in record["environ"]
              if each.startswith("XDG_RUNTIME_DIR=")}
    argv = record["argv"]
    for index, word in enumerate(argv):
        if word == "--containerd" and index + 1 < len(argv):
            paths.add(argv[index + 1])
        elif word.startswith("--containerd="):
            paths.add(word.partition("=")[2])
    made = []
    for path in paths:
        if path.startswith(("/run/", "/tmp/", "/var/run/")) and len(path) < 100:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                listener.bind(path)
                listener.listen()
                made.append(listener)
    return made


def make_again(line: str) -> socket.socket | IO[bytes]:
    """A socket as the recorder described it."""
    _, family_, kind_, listening, only, address_ = line.split()
    family, kind = int(family_), int(kind_)
    if family < 0:
        # ListenFIFO= and its like: any pipe is as little of a socket.
        return os.fdopen(os.pipe()[0], "rb", 0)
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    address = bytes.fromhex(address_) if address_ != "-" else b""
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
    if family == socket.AF_UNIX:
        path = address[2:] if address[2:3] == b"\0" else address[2:].partition(b"\0")[0]
        if path[:1] == b"/":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # Of two units with one path both get a socket, and the later one the name.
            remove(text(path))
    buffer = ctypes.create_string_buffer(address, len(address))
    if libc.bind(made.fileno(), buffer, len(address)):
        raise OSError(ctypes.get_errno(), f"bind {line}")
    if int(listening):
        made.listen()
    return made


def become(path: str, argv: list[str], environ: list[str], given: list[socket.socket | IO[bytes]], log: int) -> None:
    """Turn this process into dockerd, with descriptors as systemd gives them. Never returns."""
    try:
        libc.prctl(1, signal.SIGKILL)
        high = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 200) for each in given]
        log = fcntl.fcntl(log, fcntl.F_DUPFD, 200)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number, each in enumerate(high):
            os.dup2(each, 3 + number)
        os.closerange(3 + len(high), 1024)
        os.chdir("/")
        kept = [each for each in environ if not each.startswith(("LISTEN_PID=", "NOTIFY_SOCKET=", "WATCHDOG_",
                                                                 "LISTEN_PIDFDID="))]
        if given:
            kept.append(f"LISTEN_PID={os.getpid()}")
        words = (ctypes.c_char_p * (len(argv) + 1))(*[raw(each) for each in argv], None)
        block = (ctypes.c_char_p * (len(kept) + 1))(*[raw(each) for each in kept], None)
        libc.execve(raw(path), words, block)
        os.write(2, f"execve: {os.strerror(ctypes.get_errno())}\n".encode())
    finally:
        os._exit(126)


def raw(word: str) -> bytes:
    return word.encode("utf-8", "surrogateescape")


def held_by(pid: int, given: dict[int, int]) -> list[list[Any]]:
    """The listening sockets of a process, but those passed that it has not touched."""
    inodes: dict[int, set[int]] = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{number}"))
            if found:
                inodes.setdefault(int(found[1]), set()).add(int(number))

    def untouched(inode: int) -> bool:
        if inode not in given or inodes[inode] != {given[inode]}:
            return False
        flags = re.search(r"^flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{given[inode]}").read_text(), re.M)
        return flags is not None and not int(flags[1], 8) & os.O_CLOEXEC

    answer = []
    for inode, what in listeners().items():
        if inode in inodes and not untouched(inode):
            answer.append([*what, "passed" if inode in given else "own"])
    return sorted(answer)


def listeners() -> dict[int, list[Any]]:
    """All that listens in this network namespace: inode -> what."""
    found: dict[int, list[Any]] = {}
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] != "0A":
                continue
            host, port = fields[1].split(":")
            packed = b"".join(struct.pack("=I", int(host[at:at + 8], 16)) for at in range(0, len(host), 8))
            found[int(fields[9])] = ["tcp", socket.inet_ntop(family, packed), int(port, 16)]
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(None, 7)
        if int(fields[3], 16) & 0x10000:
            found[int(fields[6])] = ["unix", fields[7] if len(fields) > 7 else ""]
    return found


def probe(listener: list[Any]) -> str:
    """Ask a listening address for /_ping: in the clear, then by TLS without a certificate."""
    host, port = listener[1], listener[2]
    target = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(host, host)
    question = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
    try:
        with socket.create_connection((target, port), 5) as plain:
            plain.sendall(question)
            if plain.recv(4096).startswith(b"HTTP/1.0 200"):
                return "none"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection((target, port), 5) as below, context.wrap_socket(below) as secret:
            secret.sendall(question)
            return "server" if secret.recv(4096).startswith(b"HTTP/1.0 200") else "?"
    except ssl.SSLError as error:
        return "mutual" if "certificate" in str(error).lower() else f"? {error}"
    except OSError as error:
        return f"? {error}"


if __name__ == "__main__":
    main()
