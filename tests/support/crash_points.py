"""Crash points: installed in a machine, this kills or holds the agent at one of its steps.

A step is a system call that changes the disk, a D-Bus call that changes units, its answer, the wait for a job, or a
request to dockerd. The shipped code contains none of this. A .pth file loads this module into every Python of the
machine; it acts only in the agent.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

ORDER_FILE = "/root/crash-at"
"""Contains `kill STEP` or `hold STEP`, with the number of a step or the beginning of its text; `kill 0` only reports
steps. Without this file, nothing is patched. When the file is removed, a held agent continues."""

ACTING = (b"Reload", b"StartUnit", b"StopUnit", b"RestartUnit", b"ResetFailedUnit")


class Steps:
    """Counts the steps of this process, and ends or holds the process at one of them."""

    def __init__(self, end: str, last: str) -> None:
        self.end = end
        self.last = last
        self.count = 0
        self.awaits_job = False

    def take(self, what: str) -> None:
        """Begin a step. Everything before it has happened; the step itself has not."""
        self.count += 1
        os.write(2, f"<7>step {self.count}: {what}\n".encode())
        if self.last not in {str(self.count), what[:len(self.last)]}:
            return
        if self.end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.last = ""
        while os.path.exists(ORDER_FILE):
            time.sleep(0.02)


def install(steps: Steps) -> None:
    """Patch the functions that are steps."""
    def place(path: Any, fd: int | None = None) -> str:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        return path if fd is None else f"{os.readlink(f'/proc/self/fd/{fd}')}/{path}"

    def on_path(name: str, fd_argument: str = "dir_fd") -> None:
        real = getattr(os, name)

        def step(path: Any, *rest: Any, **named: Any) -> Any:
            where = place(path, named.get(fd_argument))
            if name != "mkdir" or not os.path.isdir(where):
                steps.take(f"{name} {where}")
            return real(path, *rest, **named)

        setattr(os, name, step)

    real_open = os.open

    def step_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            steps.take(f"create {place(path, named.get('dir_fd'))}")
        return real_open(path, flags, *rest, **named)

    real_replace = os.replace

    def step_replace(old: Any, new: Any, **named: Any) -> None:
        steps.take(f"rename {place(old, named.get('src_dir_fd'))} {place(new, named.get('dst_dir_fd'))}")
        real_replace(old, new, **named)

    patched: Any = os
    patched.open, patched.replace = step_open, step_replace
    for name in ("mkdir", "fchmod", "fchown", "fsync", "unlink", "rmdir"):
        on_path(name)
    _on_bus(steps)
    _on_waits(steps)


def _on_bus(steps: Steps) -> None:
    from pystemd import dbuslib

    class DBus(dbuslib.DBus):  # type: ignore[misc]
        def call_method(self, *arguments: Any) -> Any:
            method = arguments[3]
            if method not in ACTING:
                return super().call_method(*arguments)
            steps.take(f"call {method.decode()}")
            answer = super().call_method(*arguments)
            steps.take(f"answer to {method.decode()}")
            steps.awaits_job = method in ACTING[1:4]
            return answer

    dbuslib.DBus = DBus


def _on_waits(steps: Steps) -> None:
    import select
    import socket

    def counted(real: Callable[..., Any], what: str) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if steps.awaits_job:
                steps.awaits_job = False
                steps.take(what)
            return real(*arguments, **named)
        return step

    select.select = counted(select.select, "wait for the job")

    class Socket(socket.socket):
        def sendall(self, data: Any, *rest: Any) -> None:
            # The agent itself on a UNIX socket; the network helper over TCP.
            if b"/_ping" in bytes(data) or b'"verb": "ping"' in bytes(data):
                steps.take("ask dockerd")
            super().sendall(data, *rest)

    socket.socket = Socket  # type: ignore[misc]


def begin() -> None:
    """Read the order, if this process is the agent and there is one."""
    if sys.orig_argv[-1:] != ["run"]:
        return
    try:
        with open(ORDER_FILE) as file:
            end, _, last = file.read().strip().partition(" ")
    except OSError:
        return
    install(Steps(end, last))


begin()
