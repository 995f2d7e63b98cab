"""dockerd's answer: the real program, started in namespaces of its own as systemd started the recorder."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import IO, Any

from tests.differential.judge.files import put
from tests.differential.judge.machine import PRIVATE, REAL, anywhere, libc, run
from tests.differential.judge.sockets import held_by, make_socket, probe
from tests.differential.judge.units import text

OF_ONE_START = ("INVOCATION_ID=", "JOURNAL_STREAM=", "SYSTEMD_EXEC_PID=", "LISTEN_PID", "MEMORY_PRESSURE_")
"""Variables that differ between starts and that dockerd does not read."""
CLIENT_TIMEOUT_SECONDS = 5
REFUSE_TIMEOUT_SECONDS = 25

PAUSE_SECONDS = 16
"""How long dockerd itself waits for each host without TLS (20.10 and later)."""
FULL_START_SECONDS = 40
MS_REC, MS_PRIVATE, MS_NOSUID = 0x4000, 0x40000, 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000)


class Daemon:
    """A running dockerd: the result so far, the pipe for its answer, and the text read from it."""

    def __init__(self, result: dict[str, Any], key: str) -> None:
        self.result = result
        self.key = key
        self.pipe = -1
        self.text = bytearray()


def emit(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def same_start(layout: dict[str, Any], record: dict[str, Any]) -> str:
    """Return a key that is equal for starts that are equal to dockerd."""
    environ = sorted(each for each in record["environ"] if not each.startswith(OF_ONE_START))
    files = {path: content for path, content in {**layout["files"], **layout["links"]}.items()
             if path.startswith(PRIVATE) and not path.startswith("/run/systemd/")}
    return json.dumps([record["program"], record["argv"], environ, record["sockets"], record["taken"],
                       sorted(files.items()), layout["directories"], layout["full"]])


def start_daemon(layout: dict[str, Any], record: dict[str, Any], daemon: Daemon, daemons: dict[int, Daemon]) -> None:
    daemon.pipe, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(daemon.pipe)
        answer: dict[str, Any]
        try:
            answer = in_namespaces(layout, record, write_end)
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            os.write(write_end, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_end)
    os.set_blocking(daemon.pipe, False)
    daemons[pid] = daemon


def collect(daemons: dict[int, Daemon], known: dict[str, Any], until: int | None) -> None:
    """Read the available answers. With `until`, wait until at most that many dockerds run."""
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
                answer = {"error": f"no answer: {bytes(daemon.text)!r}"}
            emit({**daemon.result, "daemon": answer})
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
        # Every address is local, so that each listener can be probed.
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


def with_debug(layout: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Return argv with --debug, which changes only the log, unless daemon.json may contain that key."""
    argv = list(record["argv"])
    written = b"".join(base64.b64decode(each) for each in layout["files"].values())
    # A key of that name would conflict with the flag; JSON can hide it behind an escape.
    if b'debug"' not in written.lower() and b"\\u" not in written and program(record).endswith("dockerd"):
        argv[1:1] = ["--debug"]
    return argv


def watch_daemon(layout: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0912, PLR0915 -- one loop waits for everything
    full = bool(layout.get("full"))
    containerd = None if full else fake_containerd(record)
    taken = [make_socket(line) for line in record["taken"]]
    given = [make_socket(line) for line in record["sockets"]]
    given_inodes = {}
    for number, each in enumerate(given):
        given_inodes[os.fstat(each.fileno()).st_ino] = 3 + number
    log_read, log_write = os.pipe()
    if full:
        subprocess.Popen(["containerd"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    pid = os.fork()
    if pid == 0:
        become(program(record), with_debug(layout, record), record["environ"], given, log_write)
    os.close(log_write)
    os.set_blocking(log_read, False)
    log = bytearray()
    hosts = max(1, sum(b"tcp" in each.encode("utf-8", "replace") or b":" in each.encode("utf-8", "replace")
                       for each in record["argv"]) + str(layout["files"]).count("tcp"))
    deadline = time.monotonic() + (
        REFUSE_TIMEOUT_SECONDS + PAUSE_SECONDS * min(hosts, 6) + (FULL_START_SECONDS if full else 0))
    if program(record).endswith("/docker"):
        # The client asks a daemon that does not run, and never starts one.
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
        outcome = "serving"  # with a log level above info it does not log this
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
    """Return listeners on the paths where dockerd expects containerd."""
    paths = {"/run/containerd/containerd.sock", "/var/run/docker/containerd/containerd.sock"}
    # Paths of a rootless dockerd: systemContainerdRunning() in moby cmd/dockerd/daemon_linux.go.
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


def become(path: str, argv: list[str], environ: list[str], given: list[socket.socket | IO[bytes]], log: int) -> None:
    """Execute dockerd, with descriptors passed as systemd passes them. Does not return."""
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
