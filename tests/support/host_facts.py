"""What is so on a machine, by means that share no code with dockerd-guard: requests from outside and inside, ss, /proc.

Two equal `Facts`, taken before and after a statement was read, show that nothing changed meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine
from tests.support.correction import POLICY

CLIENT = "/root/client"
"""Where the outside has the client's certificate and key."""

OPEN = ("plain", "server")
"""Answers of an API that authenticates nobody."""

API = (*OPEN, "mutual")

TLS_OF = {"plain": "none", "server": "server", "mutual": "mutual"}
"""What dockerd-guard calls an answer."""

LOOPBACK = "127.0.0.1"

# Prints how each address and port answers: refused, silent (connected, but nothing came), plain, server (TLS that asks
# for no certificate), mutual (TLS that refuses a client without one), other (no Docker API).
PROBE = r"""
import concurrent.futures, json, socket, ssl, sys
targets, client = json.loads(sys.argv[1]), sys.argv[2]
ASK = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
TIMEOUT_S = 2.5
def received(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
        if len(data) > 65536:
            break
    return data
def is_api(data):
    return data.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")) and b"\r\nApi-Version:" in data
def encrypted(target, certificate):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(client + "/cert.pem", client + "/key.pem")
    with socket.create_connection(target, TIMEOUT_S) as plain, context.wrap_socket(plain) as secure:
        secure.sendall(ASK)
        return is_api(received(secure))
def answer(target):
    target = tuple(target)
    try:
        connection = socket.create_connection(target, TIMEOUT_S)
    except OSError:
        return "refused"
    try:
        with connection:
            connection.sendall(ASK)
            data = received(connection)
    except TimeoutError:
        return "silent"
    except OSError as error:
        data = b""
    if is_api(data):
        return "plain"
    try:
        return "server" if encrypted(target, False) else "other"
    except ssl.SSLError as error:
        if "CERTIFICATE" not in str(error):
            return "other"
    except TimeoutError:
        return "silent"
    except OSError as error:
        return "other" if data else "silent"
    try:
        return "mutual" if not client or encrypted(target, True) else "other"
    except OSError as error:
        return "mutual, and refuses our client: %s" % error
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(json.dumps(list(pool.map(answer, targets))))
"""

# Prints the processes that run a dockerd under any name, with their start and network namespace, the listening TCP
# sockets, the states of the units, the policy, and whether the API answers at its UNIX socket.
LOOK = r"""
import json, os, socket, subprocess, sys
binaries = [os.stat(path) for path in ("/usr/sbin/dockerd", "/usr/local/sbin/engine") if os.path.exists(path)]
binaries = {(status.st_dev, status.st_ino) for status in binaries}
dockerds = []
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        status = os.stat("/proc/%s/exe" % pid)
        if (status.st_dev, status.st_ino) in binaries:
            start = open("/proc/%s/stat" % pid).read().rpartition(")")[2].split()[19]
            is_on_host = os.readlink("/proc/%s/ns/net" % pid) == os.readlink("/proc/1/ns/net")
            dockerds.append([int(pid), int(start), os.readlink("/proc/%s/exe" % pid), is_on_host,
                             "docker.service" in open("/proc/%s/cgroup" % pid).read()])
    except OSError:
        pass
def shown(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout
units, properties = {}, "MainPID,ActiveState,SubState,NRestarts,StateChangeTimestampMonotonic"
for unit in ("docker.service", "docker.socket", "dockerd-guard.service"):
    lines = shown("systemctl", "show", unit, "--property=" + properties).splitlines()
    units[unit] = dict(line.split("=", 1) for line in lines)
try:
    policy = open(sys.argv[1]).read()
except OSError:
    policy = ""
api = None
if units["docker.service"]["ActiveState"] == "active":
    # Otherwise a connection would start it.
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2.5)
            connection.connect("/run/docker.sock")
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            api = b" 200 " in connection.recv(4096).partition(b"\n")[0]
    except (FileNotFoundError, ConnectionRefusedError):
        api = False
    except OSError:
        pass
print(json.dumps({"dockerds": sorted(dockerds), "units": units, "policy": policy, "ss": shown("ss", "-Hltnpe"),
                  "api": api}))
"""

_PID = re.compile(r"pid=(\d+)")
_INODE = re.compile(r"ino:(\d+)")


class Listener(NamedTuple):
    """A listening TCP socket of the host's network namespace; `host` is "*" for both families."""

    host: str
    port: int
    inode: int
    pids: tuple[int, ...]

    @property
    def is_loopback(self) -> bool:
        return self.host.startswith("127.") or self.host == "::1"

    def covers(self, address: str) -> bool:
        """Whether a connection to this address of the machine may reach it."""
        return self.host in ("*", "::", address) or (self.host == "0.0.0.0" and ":" not in address)


class Dockerd(NamedTuple):
    """A process that runs a dockerd, under whatever name."""

    pid: int
    started: int
    executable: str
    is_on_host: bool
    """Whether it is in the host's network namespace."""
    is_of_docker_service: bool


class Facts(NamedTuple):
    """What is so. `outside`: the answers to a host outside, by address and port; `inside`: the same for the machine.
    `api`: whether the API answers at /run/docker.sock, False if clients are refused, None if that is not known."""

    listeners: tuple[Listener, ...]
    dockerds: tuple[Dockerd, ...]
    outside: dict[tuple[str, int], str]
    inside: dict[tuple[str, int], str]
    units: dict[str, dict[str, str]]
    policy: str
    api: bool | None = None

    @property
    def main_pid(self) -> int:
        return int(self.units["docker.service"]["MainPID"])

    @property
    def is_up(self) -> bool:
        """Whether docker.service has started, its dockerd runs, and clients reach it at its UNIX socket."""
        is_active = self.units["docker.service"]["ActiveState"] in ("active", "reloading")
        return is_active and self.main_pid != 0 and self.api is not False

    @property
    def agent_pid(self) -> int:
        return int(self.units["dockerd-guard.service"]["MainPID"])

    def at(self, port: int) -> list[Listener]:
        return [each for each in self.listeners if each.port == port]

    def owner(self, address: str, port: int) -> str:
        """Who listens there: main, second (another dockerd), copy (one under another name), systemd (alone), another
        program, or nobody."""
        pids = {pid for each in self.at(port) if each.covers(address) for pid in each.pids}
        if self.main_pid in pids and self.main_pid:
            return "main"
        for each in self.dockerds:
            if each.pid in pids:
                return "second" if each.executable.endswith("/dockerd") else "copy"
        return "systemd" if pids == {1} else "program" if pids else "nobody"

    @property
    def is_open(self) -> bool:
        """Whether anything answers outside without authentication."""
        return any(answer in OPEN for answer in self.outside.values())

    def answers(self, port: int) -> set[str]:
        """How a port answers inside, where nothing is blocked."""
        return {answer for (_, each), answer in self.inside.items() if each == port and answer != "refused"}


def give_certificate_to_outside(machine: Machine) -> None:
    """Copy the client's certificate of make_certificates()."""
    for name in ("cert.pem", "key.pem"):
        machine.outside(["sh", "-euc", f"mkdir -p {CLIENT}; cat >{CLIENT}/{name}"],
                        input=machine.read(f"/etc/docker/client/{name}"))


def look(machine: Machine, ports: Iterable[int]) -> Facts:
    """Return what is so now. All `ports` are probed, and all that listen besides."""
    seen: dict[str, Any] = json.loads(machine.run(["python3", "-c", LOOK, POLICY]).out)
    listeners = tuple(sorted(_listener(line) for line in seen["ss"].splitlines()))
    wanted = sorted({*ports, *(each.port for each in listeners)})
    outside = [(address, port) for address in (ADDRESS, ADDRESS_IPV6) for port in wanted]
    inside = [(LOOPBACK if each.host in ("*", "0.0.0.0", "::") else each.host, each.port)
              for each in listeners]
    outside_answers = machine.outside(["python3", "-c", PROBE, json.dumps(outside), CLIENT]).out
    inside_answers = machine.run(["python3", "-c", PROBE, json.dumps(inside), ""]).out
    return Facts(
        listeners, tuple(Dockerd(*each) for each in seen["dockerds"]),
        dict(zip(outside, json.loads(outside_answers), strict=True)),
        dict(zip(inside, json.loads(inside_answers), strict=True)), seen["units"], seen["policy"], seen["api"])


def _listener(line: str) -> Listener:
    local = line.split()[3]
    host, _, port = local.rpartition(":")
    inode = _INODE.search(line)
    return Listener(host.strip("[]").partition("%")[0], int(port), int(inode[1]) if inode is not None else 0,
                    tuple(sorted({int(pid) for pid in _PID.findall(line)})))
