"""Sockets: made as the recorder described them, and found in /proc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import ssl
import struct
from pathlib import Path
from typing import IO, Any

from tests.differential.judge.machine import libc, remove
from tests.differential.judge.units import text


def make_socket(line: str) -> socket.socket | IO[bytes]:
    """Return a socket as the recorder described it."""
    _, family_, kind_, listening, only, address_ = line.split()
    family, kind = int(family_), int(kind_)
    if family < 0:
        # ListenFIFO= and similar: any pipe will do, since it is not a socket.
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
            # If two units have the same path, both get a socket, and the later one gets the name.
            remove(text(path))
    buffer = ctypes.create_string_buffer(address, len(address))
    if libc.bind(made.fileno(), buffer, len(address)):
        raise OSError(ctypes.get_errno(), f"bind {line}")
    if int(listening):
        made.listen()
    return made


def held_by(pid: int, given: dict[int, int]) -> list[list[Any]]:
    """Return the listening sockets of a process, without passed ones that it does not use."""
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
    """Return everything that listens in this network namespace, by inode."""
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
    """Request /_ping from an address, first without TLS, then by TLS without a certificate. Return the TLS mode."""
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
