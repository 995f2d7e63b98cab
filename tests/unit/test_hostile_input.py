"""`lint` on one mebibyte of anything: under one second of CPU time and 100 MB. What is not read is a finding.

Each case runs in a process of its own. CPU time does not depend on what else this machine does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dockerd_guard.model.limits import LIMITS, Limits
from dockerd_guard.rootfs import BeyondLimitError, Rootfs
from tests.support.hosts import OVERRIDE, SERVICE, STOCK

MIB = 1 << 20
CPU_LIMIT_S = 4.0
"""The slowest one takes 0.9 s on an idle host of two processors, up to 1.7 s on a busy one. What is not linear takes
minutes."""

MEMORY_LIMIT_KB = 100_000

DAEMON_JSON, ENVIRONMENT, OTHER = "/etc/docker/daemon.json", "/etc/default/docker", "/etc/systemd/system/o.service"
SOCKET = "/usr/lib/systemd/system/docker.socket"
START = b"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// "
VARIABLE = b"[Service]\nEnvironmentFile=/etc/default/docker\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// $OPTIONS\n"

PROGRAM = r"""
import re, resource, sys
from dockerd_guard import cli
code = cli.main(["lint", "--root", sys.argv[1]])
sys.stdout.flush()
used = resource.getrusage(resource.RUSAGE_SELF)
peak = re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]
print(f"MEASURED {used.ru_utime + used.ru_stime} {peak}", file=sys.stderr)
sys.exit(code)
"""

Files = dict[str, bytes]


def full(head: bytes, piece: bytes, tail: bytes = b"", size: int = MIB) -> bytes:
    """Return `size` bytes: a head, a piece repeated, and a tail."""
    room = size - len(head) - len(tail)
    return head + (piece * (room // len(piece) + 1))[:room] + tail


def numbered(template: str, count: int) -> bytes:
    """Return a text repeated, with `{0}` replaced by its number, `{1}` and `{2}` by the bytes of the number."""
    return b"".join(template.format(number, number >> 8 & 255, number & 255).encode() for number in range(count))


def hosts(template: str, count: int) -> bytes:
    return b'{"hosts":[' + numbered(f'"{template}",', count)[:-1] + b"]}"


CASES: dict[str, Files] = {
    "NUL in docker.service": {SERVICE: b"\0" * MIB},
    "NUL in a drop-in": {OVERRIDE: b"\0" * MIB},
    "NUL in daemon.json": {DAEMON_JSON: b"\0" * MIB},
    "NUL in an environment file": {OVERRIDE: VARIABLE, ENVIRONMENT: b"\0" * MIB},
    "a=b above the first section": {OVERRIDE: full(b"", b"a=b\n")},
    "a=b": {OVERRIDE: full(b"[Service]\n", b"a=b\n")},
    "a=b in an environment file": {OVERRIDE: VARIABLE, ENVIRONMENT: full(b"", b"a=b\n")},
    "a=b in Environment=": {OVERRIDE: full(b"[Service]\nEnvironment=", b"a=b ")},
    "chmod with a long mode": {OVERRIDE: full(b"[Service]\nExecStartPost=/bin/chmod ", b"a", b" /run/docker.sock\n")},
    "chmod often": {OVERRIDE: full(b"[Service]\nExecStartPost=/bin/sh -c 'docker.sock ", b"chmod a ", b"'\n")},
    "dockerx": {OVERRIDE: full(b"[Service]\nExecStartPost=/bin/sh -c '", b"dockerx", b"'\n")},
    "dockerx in another unit": {OTHER: full(b"[Service]\nExecStart=/bin/x ", b"dockerx")},
    "docker in another unit": {OTHER: full(b"[Service]\nExecStart=/bin/x ", b"docker ")},
    "a second dockerd with many options": {OTHER: full(b"[Service]\nExecStart=/usr/bin/dockerd ", b"-D ")},
    "socat often": {OVERRIDE: full(b"[Service]\nExecStartPost=/bin/sh -c '", b"socat docker.sock ", b"'\n")},
    "50,000 ExecStart=": {OVERRIDE: b"[Service]\n" + b"ExecStart=/bin/a\n" * 50_000},
    "50,000 ExecStart= of one unit": {OVERRIDE: b"[Service]\nType=oneshot\n" + b"ExecStart=/bin/a\n" * 50_000},
    "4,000 ExecStart=": {OVERRIDE: b"[Service]\n" + b"ExecStart=/bin/a\n" * 4_000},
    "3,000 dockerd": {OVERRIDE: b"[Service]\n" + numbered("ExecStart=/usr/bin/dockerd -H :{0}\n", 3_000)},
    "60,000 hosts": {OVERRIDE: START.replace(b"-H fd:// ", b""), DAEMON_JSON: hosts("1.{1}.{2}.1:1", 60_000)},
    "9,000 hosts": {OVERRIDE: START.replace(b"-H fd:// ", b""), DAEMON_JSON: hosts("1.{1}.{2}.1:1", 9_000)},
    "60,000 hosts as flags": {OVERRIDE: START + numbered("-H :{0} ", 60_000)},
    "4,000 hosts as flags": {OVERRIDE: START + numbered("-H 1.{1}.{2}.1:1 ", 4_000)},
    "4,000 invalid hosts": {OVERRIDE: START + b"-H x:y:z " * 4_000},
    "4,000 hosts that do not resolve": {OVERRIDE: START + numbered("-H 0.0.0.{0}:1 ", 4_000)},
    "deep lists": {DAEMON_JSON: b"[" * MIB},
    "deep objects": {DAEMON_JSON: full(b"", b'{"a":')},
    "lists as deep as Go reads": {DAEMON_JSON: b'{"a":' + b"[" * 9_900 + b"]" * 9_900 + b"}"},
    "a list of numbers": {DAEMON_JSON: full(b'{"x":[', b"1,", b"1]}")},
    "a long number": {DAEMON_JSON: full(b'{"mtu":', b"1", b"}")},
    "a long string": {DAEMON_JSON: full(b'{"hosts":["', b"a", b'"]}')},
    "unknown keys": {DAEMON_JSON: b"{" + numbered('"a{0}":1,', 9_000) + b'"debug":true}'},
    "blanks": {DAEMON_JSON: full(b"", b" ", b"{}")},
    "quotes in daemon.json": {DAEMON_JSON: b'"' * MIB},
    "a line that goes on": {OVERRIDE: full(START, b"-D \\\n")},
    "one long line that goes on": {OVERRIDE: full(START, b"a", b"\\\n")},
    "4,900 lines that go on": {OVERRIDE: START + b"-D \\\n" * 4_900},
    "50,000 drop-ins": {f"/etc/systemd/system/docker.service.d/{number}.conf": b"[Service]\nUser=root\n"
                        for number in range(50_000)},
    "50,000 units": {f"/etc/systemd/system/a{number}.service": b"[Service]\nExecStart=/bin/x\n"
                     for number in range(50_000)},
    "one long variable": {OVERRIDE: full(b"[Service]\nEnvironment=OPTIONS=", b"a",
                                         b"\n" + START[10:] + b"$OPTIONS\n")},
    "one long variable of a file": {OVERRIDE: VARIABLE, ENVIRONMENT: full(b"OPTIONS=", b"a")},
    "one variable of many words": {OVERRIDE: VARIABLE, ENVIRONMENT: full(b"OPTIONS=", b"-D ")},
    "one variable often": {OVERRIDE: b"[Service]\nEnvironment=OPTIONS=" + b"a" * 500_000 + b"\n" + START[10:]
                           + b"${OPTIONS}" * 12_000},
    "specifiers": {OVERRIDE: full(START, b"%n")},
    "20,000 specifiers": {OVERRIDE: START + b"%n" * 20_000},
    "unknown specifiers": {OVERRIDE: b"[Service]\n" + b"ExecStart=%Z\n" * 4_000},
    "quotes": {OVERRIDE: full(START, b"'")},
    "16,000 quoted letters": {OVERRIDE: START + b"'a'" * 16_000},
    "backslashes": {OVERRIDE: full(START, b"\\")},
    "dollars": {OVERRIDE: full(START, b"$")},
    "semicolons": {OVERRIDE: full(b"[Service]\nType=oneshot\nExecStart=/a ", b"; /a ")},
    "a script": {OVERRIDE: full(b"[Service]\nExecStart=\nExecStart=/bin/sh -c \"", b"a;", b'"\n')},
    "brackets": {OVERRIDE: b"[" * MIB},
    "bytes that are no UTF-8": {OVERRIDE: full(START, b"\xff")},
    "lines that systemd skips": {OVERRIDE: b"[Service]\n" + b"x\n" * 4_900},
    "unknown keys in a drop-in": {OVERRIDE: b"[Service]\n" + numbered("Exec{0}=1\n", 4_900)},
    "ListenStream=": {SOCKET: b"[Socket]\n" + numbered("ListenStream=1.{1}.{2}.1:1\n", 4_900)},
    "ListenStream= of one port": {SOCKET: b"[Socket]\n" + b"ListenStream=1\n" * 4_900},
    "ListenStream= in dockerd's syntax": {SOCKET: b"[Socket]\n" + b"ListenStream=tcp://:1\n" * 4_900},
    "certificates": {OVERRIDE: START + b"--tlsverify --tlscacert=/ca --tlscert=/ca --tlskey=/ca\n",
                     "/ca": full(b"", b"-----BEGIN CERTIFICATE-----\nMII\n")},
    "hosts(5)": {OVERRIDE: START + b"-H a.test:1", "/etc/hosts": full(b"", b"1.2.3.4 a\n")},
    "a script that starts dockerd": {OVERRIDE: b"[Service]\nExecStart=\nExecStart=/x\n", "/x": full(b"#!", b"a")},
}


@pytest.mark.parametrize("name", CASES)
def test_lint_is_bounded(name: str, tmp_path: Path) -> None:
    files = {**{path: text.encode() for path, text in STOCK.items()}, **CASES[name]}
    for path, content in files.items():
        target = tmp_path / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    environment = {**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", PROGRAM, os.fspath(tmp_path)], capture_output=True, text=True,
                          errors="replace", env=environment, check=False, timeout=120)
    measured = re.search(r"^MEASURED (\S+) (\d+)$", done.stderr, re.MULTILINE)
    assert measured is not None, done.stderr[-2000:]
    assert done.returncode in (0, 1, 2)
    assert float(measured[1]) < CPU_LIMIT_S
    assert int(measured[2]) < MEMORY_LIMIT_KB
    assert len(done.stdout) < 300_000


@pytest.mark.parametrize(("data", "reason"), [
    (b"a" * MIB, None),
    (b"a" * (MIB + 1), "is larger than 1 MiB"),
    (b"\n" * 5_000, None),
    (b"\n" * 5_001, "has more than 5,000 lines"),
    (b"\r" * 5_001, "has more than 5,000 lines"),
    (b"a " * 10_000, None),
    (b"a " * 10_001, "has more than 10,000 words"),
    (b"'" * 50_000, None),
    (b"'" * 50_001, "has more than 50,000 special characters"),
])
def test_limits_of_a_file(data: bytes, reason: str | None) -> None:
    assert LIMITS.excess(data) == reason


def test_a_file_beyond_a_limit_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\n" * 5_001)
    with Rootfs(os.fspath(tmp_path)) as rootfs:
        for _ in range(2):
            with pytest.raises(BeyondLimitError, match="5,000 lines"):
                rootfs.read("/a")
        assert rootfs.unread == {"/a": "has more than 5,000 lines"}
        assert rootfs.read_table("/a") == b"\n" * 5_001
        with pytest.raises(BeyondLimitError):
            rootfs.read("/a")


@pytest.mark.parametrize(("limits", "read"), [
    (Limits(tree_bytes=10), 2), (Limits(tree_files=3), 3), (Limits(file_bytes=3), 0), (Limits(), 5),
])
def test_limits_of_a_tree(limits: Limits, read: int, tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / name).write_bytes(b"12345")
    done = 0
    with Rootfs(os.fspath(tmp_path), limits=limits) as rootfs:
        for name in "abcde":
            try:
                done += rootfs.read(f"/{name}") == b"12345"
            except BeyondLimitError:
                assert f"/{name}" in rootfs.unread
    assert done == read


@pytest.mark.parametrize("path", [SERVICE, OVERRIDE, DAEMON_JSON, ENVIRONMENT, SOCKET])
def test_a_file_that_is_not_read_is_one_finding(path: str, tmp_path: Path) -> None:
    files = {**{name: text.encode() for name, text in STOCK.items()}, OVERRIDE: VARIABLE.replace(b"=/etc", b"=-/etc")}
    for name, content in {**files, path: b"#" * (MIB + 1)}.items():
        target = tmp_path / name[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    done = subprocess.run([sys.executable, "-m", "dockerd_guard", "lint", "--root", os.fspath(tmp_path)],
                          capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert (done.returncode, done.stdout.count("DG310")) == (1, 1)
    assert "DG302" not in done.stdout and "DG205" not in done.stdout
    assert f"{path}:1:1: error: this file is larger than 1 MiB" in done.stdout
