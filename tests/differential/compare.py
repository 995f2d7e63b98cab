"""Compare dockerd-guard's reading of a layout with the judge's results.

These differences do not count:

- the address family of a wildcard that dockerd itself listens on (Go listens on [::] for both), but not of a socket
  that systemd passes;
- `localhost` and 127.0.0.1, and names in the machine's /etc/hosts and 10.99.0.1;
- /var/run and /run;
- the number of a port if the configured one is 0;
- drop-ins of the same name below two aliases: systemd's choice is random, and such a tree is not compared;
- names that cannot be resolved, addresses in use, and missing or wrong certificates: these are the host's state and
  not its configuration. `starts` may differ then, but not the addresses that dockerd reports.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dockerd_guard.model.address import Via, split_host_port
from dockerd_guard.model.limits import NO_LIMITS
from dockerd_guard.observe.configured import ACCEPTING, main_command, observe_configured, passed_by, values
from dockerd_guard.observe.observation import Configured
from dockerd_guard.rootfs import Rootfs
from tests.differential.layout import Layout

SKELETON_LINKS = {"/lib": "usr/lib", "/bin": "usr/bin", "/sbin": "usr/sbin", "/var/run": "/run"}

DPKG_STATUS = "Package: docker.io\nStatus: install ok installed\nVersion: {}\n"

RESOLVED = {"localhost": "127.0.0.1", "docker-host": "10.99.0.1", "docker.example.com": "10.99.0.1",
            "swarm-01": "10.99.0.1", "master": "10.99.0.1"}

BUILT_IN = frozenset((
    "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "USER", "LOGNAME", "HOME", "SHELL", "PATH",
    "LANG", "WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID", "MANAGERPID", "MANAGERPIDFDID", "CREDENTIALS_DIRECTORY",
    "FDSTORE", "TRIGGER_UNIT", "container",
))
"""Variables that systemd sets (systemd.exec(5)) or that come from the manager's environment."""

OF_WRAPPERS = frozenset((
    "LISTEN_PID", "SHLVL", "_", "PWD", "OLDPWD", "LD_PRELOAD", "_STDBUF_I", "_STDBUF_O", "_STDBUF_E",
    "_DOCKERD_ROOTLESS_CHILD", "ROOTLESSKIT_STATE_DIR"))
"""Variables that shells, stdbuf(1) and RootlessKit set for their children."""

STATE = re.compile(
    r"no such host|failed to lookup|server misbehaving|Temporary failure|X509 key pair|could not read CA"
    r"|could not load X509|cannot assign requested|bind: (?!address already)|invalid port|unknown port"
    r"|can't create unix socket|network is unreachable|i/o timeout|connection refused|no suitable address"
    r"|TLS configuration|missing address|userland-proxy-path is not set|failed to find runc"
    r"|failed to start daemon")
"""Errors of dockerd that result from the host's state or its build, not from the configuration."""

VMADDR_CID_ANY = 0xFFFFFFFF


class Facts(NamedTuple):
    """A release: the versions of systemd and dockerd, and some files of the machine."""

    systemd: int
    dockerd: str
    files: dict[str, bytes]


class Mismatch(NamedTuple):
    """One difference between dockerd-guard and the real programs."""

    what: str
    ours: object
    real: object

    def __str__(self) -> str:
        return f"{self.what}\n    ours: {self.ours}\n    real: {self.real}"


def skeleton(root: Path, facts: Facts) -> None:
    """Create the files that dockerd-guard needs to recognise the release."""
    for path, target in SKELETON_LINKS.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
    files = {**facts.files, "/usr/bin/bash": b"", "/usr/bin/sh": b"",
             f"/usr/lib/systemd/libsystemd-shared-{facts.systemd}.so": b"",
             "/var/lib/dpkg/status": DPKG_STATUS.format(facts.dockerd).encode()}
    Layout(files, {}, ("/run",)).write(root)


def read(layout: Layout, facts: Facts) -> tuple[Configured, tuple[str, ...]]:
    """Read a layout. Return what is configured, and the addresses of the sockets passed to dockerd."""
    with tempfile.TemporaryDirectory(prefix="differential-") as directory:
        skeleton(Path(directory), facts)
        layout.write(Path(directory))
        with Rootfs(directory, limits=NO_LIMITS) as rootfs:
            seen = observe_configured(rootfs)
            names = seen.environment.unknown_variables | seen.environment.variables.keys()
            passes = {"LISTEN_FDS", "LISTEN_PID"} <= names
            return seen, tuple(address for address, _ in passed_by(seen.sockets)) if passes else ()


def compare(layout: Layout, facts: Facts, real: dict[str, Any]) -> list[Mismatch] | None:
    """Return all differences; None if systemd's own result is random."""
    if "error" in real:
        return [Mismatch("error", None, real["error"])]
    try:
        seen, passed = read(layout, facts)
    except Exception as error:
        return [Mismatch("crash", f"{type(error).__name__}: {error}", None)]
    if any(unit.ambiguity for unit in (seen.service.unit, *(socket_.unit for socket_ in seen.sockets))):
        return None
    found = list(_systemd(seen, passed, real["systemd"]))
    if not found and "daemon" in real:
        found += _daemon(seen, real["systemd"], real["daemon"])
    return found


def _systemd(seen: Configured, passed: tuple[str, ...], real: dict[str, Any]) -> Iterator[Mismatch]:
    unit, layer = seen.service.unit, seen.layer
    if seen.service.unit.name != "docker.service" and real["state"] == "not-found":
        return  # without docker.service, dockerd-guard looks for another service that runs dockerd
    if real["state"] is not None and unit.load_state != real["state"]:
        yield Mismatch("LoadState", f"{unit.load_state} ({unit.reason})",
                       f"{real['state']} ({real['error']})")
        return
    refused = layer.refused_by == "systemd"
    if not real["records"]:
        if real["service"].get("ExecMainStatus") in ("203", "200") or not _is_direct(seen):
            return  # the program is not there, or none of ours
        if not refused and not _cannot_be_bound(seen, real):
            yield Mismatch("systemd starts it", True, _why(real))
        return
    if refused:
        yield Mismatch("systemd starts it", f"no: {layer.reason}", real["records"][0]["argv"])
        return
    record = real["records"][0]
    if _is_certain(seen):
        # A wrapper's own argv nobody records; what comes out of it has another argv[0].
        ours = list(layer.argv) if _is_direct(seen) else [word.text for word in seen.daemon.program.words]
        theirs = record["argv"] if _is_direct(seen) else record["argv"][1:]
        if ours != theirs:
            yield Mismatch("argv", ours, theirs)
        yield from _environment(seen, record)
    ours = [_passed(address) for address in passed]
    theirs = [each for line in record["sockets"] if (each := received(line)) is not None]
    if len(real["sockets"]) > 1:
        # The order of units is that of a hash table with a random key (service_collect_fds).
        ours, theirs = sorted(ours), sorted(theirs)
    if ours != theirs and _is_direct(seen) and not _cannot_be_bound(seen, real):
        yield Mismatch("passed sockets", ours, f"{theirs} {_why(real)}")


def _why(real: dict[str, Any]) -> str:
    states = " ".join(f"{name}={unit.get('LoadState')}/{unit.get('ActiveState')}/{unit.get('Result')}"
                      for name, unit in {**real["sockets"], "docker.service": real["service"]}.items())
    return f"no: {real['stderr']} {states}"


def _is_direct(seen: Configured) -> bool:
    """Whether systemd executes dockerd itself, and so the recorder."""
    command = main_command(seen.service)
    return command is not None and re.fullmatch(r"dockerd?(-current|-daemon)?",
                                                command.path.rpartition("/")[2]) is not None


def _is_certain(seen: Configured) -> bool:
    """Whether dockerd-guard reports dockerd's arguments as certain, also through wrappers."""
    program = seen.daemon.program
    return all(argument.certain for argument in seen.arguments) and program.certain and (
        _is_direct(seen) or (seen.daemon.certain and program.reason is None))


def _undecided(seen: Configured, systemd: dict[str, Any]) -> bool:
    """Whether the passed sockets do not follow from the configuration: some could not be bound; a descriptor is chosen
    by number, and units have no order; or dockerd is passed something that accepts no connections."""
    by_number = any(re.fullmatch(r"fd://[^*].*", host) for host in seen.layer.hosts)
    return _cannot_be_bound(seen, systemd) or (by_number and len(seen.sockets) > 1) or any(
        item.kind not in ACCEPTING for socket_ in seen.sockets for item in socket_.listen)


def _cannot_be_bound(seen: Configured, real: dict[str, Any]) -> bool:
    """Whether a socket unit failed because of the host's state: a vsock CID, a link-local address without an interface,
    or an address that another socket unit uses."""
    failed = [name for name, unit in real["sockets"].items() if unit.get("ActiveState") == "failed"]
    return bool(failed) and (len(real["sockets"]) > 1 or any(
        item.address.startswith(("vsock", "[fe80:")) or not item.certain or item.address.endswith("/")
        for socket_ in seen.sockets for item in socket_.listen))


def _environment(seen: Configured, record: dict[str, Any]) -> Iterator[Mismatch]:
    theirs = dict(each.partition("=")[::2] for each in record["environ"])
    ours = dict(values(seen.environment))
    if not _is_direct(seen):
        ours = {name: value for name, value in seen.daemon.program.environ.items() if name != "LISTEN_FDS"}
    uncertain = {name for name, variable in seen.environment.variables.items() if not variable.certain}
    for name in sorted(ours.keys() | theirs.keys()):
        if name in uncertain or (name not in ours and name in BUILT_IN) or name in OF_WRAPPERS:
            continue
        if ours.get(name) != theirs.get(name):
            yield Mismatch(f"environment {name}", ours.get(name), theirs.get(name))


def _passed(address: str) -> str:
    if address.startswith("unix://"):
        return "unix " + address.removeprefix("unix://")
    if address.startswith("tcp://"):
        host, port = split_host_port(address)
        return f"tcp {ipaddress.ip_address(host.partition('%')[0])} {port}"
    return re.sub("^vsock://(-1)?:", f"vsock://{VMADDR_CID_ANY}:", address)


def received(line: str) -> str | None:
    """Return a passed socket in the form of _passed(); None if it is not a listening stream socket."""
    _, family_, kind, listening, _, address_ = line.split()
    family = int(family_)
    if kind not in ("1", "5") or listening != "1":
        return None
    address = bytes.fromhex(address_)
    if family == socket.AF_UNIX:
        path = address[2:]
        path = b"@" + path[1:] if path[:1] == b"\0" else path.partition(b"\0")[0]
        return "unix " + path.decode("utf-8", "surrogateescape")
    port = int.from_bytes(address[2:4], "big")
    if family == socket.AF_INET:
        return f"tcp {ipaddress.IPv4Address(address[4:8])} {port}"
    if family == socket.AF_INET6:
        return f"tcp {ipaddress.IPv6Address(address[8:24])} {port}"
    return f"vsock://{int.from_bytes(address[8:12], 'little')}:{int.from_bytes(address[4:8], 'little')}"


def _daemon(seen: Configured, systemd: dict[str, Any], real: dict[str, Any]) -> Iterator[Mismatch]:
    layer = seen.layer
    if "error" in real:
        yield Mismatch("error", None, real["error"])
        return
    if not seen.daemon.certain:
        return
    error = last_words(real["log"])
    created = [f"{proto}://{address}" for proto, address in real["created"]]
    if real["outcome"] == "timeout" and re.fullmatch(r"docker(-current|-latest)?",
                                                     layer.argv[0].rpartition("/")[2]):
        if layer.refused_by != "dockerd":
            yield Mismatch("dockerd starts", f"{layer.starts} {layer.hosts}", f"no: the client hangs {error}")
        return
    if real["outcome"] == "timeout":
        yield Mismatch("error: dockerd neither ended nor listened", layer.hosts, error)
        return
    if real["outcome"] == "ended":
        refused = layer.refused_by == "dockerd"
        if not refused and not STATE.search(error):
            yield Mismatch("dockerd starts", f"{layer.starts} {layer.hosts}",
                           f"no ({real['status']}): {error}")
        elif not refused and set(created) - set(layer.hosts):
            yield Mismatch("hosts", layer.hosts, created)
        return
    if layer.refused_by == "dockerd":
        if not _cannot_be_bound(seen, systemd):
            yield Mismatch("dockerd starts", f"no: {layer.reason}", f"{created} {real['listening']}")
        return
    if created and list(layer.hosts) != created:
        yield Mismatch("hosts", layer.hosts, created)
    # The kernel lists no vsock in /proc/net.
    ours = {our_key(binding.address, binding.via) for binding in layer.bindings
            if not binding.address.startswith("vsock:")}
    theirs = {their_key(each, seen.daemon.metrics_addr) for each in real["listening"]} - {None}
    if not _same_places(ours, theirs) and not _undecided(seen, systemd):
        yield Mismatch("listening", sorted(ours), sorted(map(str, theirs)))
    yield from _tls(seen, real)


def _same_places(ours: set[str], theirs: set[str | None]) -> bool:
    if not any(each.endswith(" 0") for each in ours):
        return ours == theirs
    # The kernel chose a port: only the addresses can be compared.
    one, other = ({re.sub("^(tcp .*) [0-9]+$", r"\1", str(each)) for each in found} for found in (ours, theirs))
    return one == other


def _tls(seen: Configured, real: dict[str, Any]) -> Iterator[Mismatch]:
    if "tls" not in real:
        return
    theirs = {}
    for each, kind in real["tls"].items():
        host, port, *_ = re.findall(r"[^\[\]', ]+", each)
        theirs[f"tcp {'*' if host in ('::', '0.0.0.0') else host} {port}"] = kind
    metrics = seen.daemon.metrics_addr.rpartition(":")[2]
    for binding in seen.layer.bindings:
        if binding.is_tcp:
            key = our_key(binding.address, Via.FLAG)
            if key in theirs and theirs[key] != str(binding.tls) and not key.endswith(f" {metrics}"):
                yield Mismatch(f"TLS of {binding.address}", str(binding.tls), theirs[key])


def last_words(log: str) -> str:
    """Return dockerd's error: the output that is not in log format, else the end of the log."""
    log = re.sub(r"Usage:\s+dockerd.*", "", log, flags=re.S) if "Usage:" in log else log
    plain = [line for line in log.splitlines() if line and not line.startswith("time=")]
    if plain:
        return "\n".join(plain)[-700:]
    return "\n".join(log.splitlines()[-2:])[-700:]


def our_key(address: str, via: Via) -> str:
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        if path.startswith("/"):
            path = re.sub("/+", "/", path)
        return "unix " + re.sub("^/var/run/", "/run/", path)
    if not address.startswith("tcp://"):
        return address
    host, port = split_host_port(address)
    host = RESOLVED.get(host.lower(), host)
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None)
        ip = mapped or ip
        host = "*" if ip.is_unspecified and via is not Via.SOCKET_UNIT else str(ip)
        if via is Via.SOCKET_UNIT and ip.is_unspecified:
            host = "*"
    except ValueError:
        host = {"0": "*", "0.0": "*", "127.1": "127.0.0.1", "0x7f.1": "127.0.0.1", "1": "0.0.0.1",
                "": "*"}.get(host, host)
    return f"tcp {host} {int(port) if port.isdecimal() else port}"


def their_key(each: list[Any], metrics: str) -> str | None:
    kind, address, *rest = each
    if kind == "unix":
        if address.startswith(("/var/run/docker/", "/run/docker/", "/tmp/docker/")) and rest == ["own"]:
            return None  # metrics.sock, libnetwork's: not the API
        if address.startswith("/"):
            address = re.sub("/+", "/", address)
        return "unix " + re.sub("^/var/run/", "/run/", address)
    port = rest[0]
    if metrics.endswith(f":{port}") and rest[1] == "own":
        return None
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return f"tcp {'*' if ip.is_unspecified else ip} {port}"
