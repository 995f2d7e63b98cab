"""Checks before anything is changed that cannot be made from files alone. None of them changes anything."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from dockerd_guard.apply.context import Context
from dockerd_guard.dockerd.options import options_of
from dockerd_guard.model.address import canonical
from dockerd_guard.model.names import SOCKET
from dockerd_guard.observe.observation import Process, Running
from dockerd_guard.plan.plan import Plan
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.lookup import UnitFiles

VALIDATE_TIMEOUT_S = 20.0

VALIDATE_SINCE = (23, 0, 0)
"""`dockerd --validate` came with 23.0. It binds nothing and changes no state."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""Of `--validate`. No variable of a unit file is passed on: LD_PRELOAD would run code as root (I4)."""

MAX_NAMES = 3


class Preflight(NamedTuple):
    """The checks of one planned correction."""

    plan: Plan
    policy: Policy
    ours: frozenset[str]
    """Canonical addresses that dockerd, or systemd for it, has already."""
    context: Context
    running: Running | None

    def problems(self, *, starts_dockerd: bool) -> tuple[str, ...]:
        """Return everything that is known to fail. `dockerd --validate` runs only before an allowed start (I4)."""
        return (*self.unreadable_units(), *self.unbindable(), *(self.refused() if starts_dockerd else ()))

    def unreadable_units(self) -> Iterator[str]:
        """Unit files at which PID 1 would block for ever during a reload."""
        with Rootfs(self.context.files.root) as rootfs:
            for path in UnitFiles(rootfs, self.plan.after.systemd_version).traps():
                yield f"{path} is not a regular file; systemd would hang reading it"

    def unbindable(self) -> Iterator[str]:
        """Declared addresses that dockerd could not bind: of no interface here, or in use."""
        yield from unbindable(self.policy, self.ours, self.context)
        for declared in declared_bindings(self.policy):
            path = declared.address.removeprefix("unix://")
            if path.startswith("/") and canonical(declared.address) not in self.ours and (
                    not self._is_held_by_now(declared.address)) and in_use(path, self.context.files.root):
                yield f"{declared.location}: {path} is the socket of another program, which listens there"

    def _is_held_by_now(self, address: str) -> bool:
        """Whether docker.socket listens there. It may have been started since the observation, and a connection would
        start docker.service."""
        unit = self.context.manager.unit(SOCKET)
        return unit.text("ActiveState") == "active" and canonical(address) in {
            canonical(f"unix://{row[1]}") for row in unit.tuples("Listen") if row[0] == "Stream"}

    def refused(self) -> Iterator[str]:
        """What the running dockerd's own binary refuses (`--validate`): the names of the options, no values (I11)."""
        after = self.plan.after
        command = after.service.exec_start[-1:]
        if self.running is None or after.dockerd_version < VALIDATE_SINCE or not command:
            return
        path = os.path.realpath(after.daemon.config_file)
        edited = next((change.after for change in self.plan.changes if change.path == path), None)
        text = self.context.validate(
            self.running.process, command[0].path, after.layer.argv[1:], edited if isinstance(edited, bytes) else None)
        if text is None:
            return
        known = sorted({option.key or option.name for option in options_of(after.known_dockerd).by_name.values()},
                       key=len, reverse=True)
        names = [name for name in known if len(name) > 3 and name in text][:MAX_NAMES]
        about = f" ({', '.join(names)})" if names else ""
        yield f"`dockerd --validate` refuses the configuration{about}; run it to see why"


def unbindable(policy: Policy, ours: Collection[str], context: Context) -> Iterator[str]:
    """Yield a message for each declared TCP address that dockerd could not bind now. `ours`: canonical addresses that
    it, or systemd for it, has already. Raises HelperUnavailable."""
    for declared in declared_bindings(policy):
        if declared.is_tcp and canonical(declared.address) not in ours and (
                reason := context.network.unbindable(declared.address)):
            yield f"{declared.location}: {reason}"


def in_use(path: str, root: str = "/") -> bool:
    """Whether a program serves the socket at a path below `root`. systemd and dockerd would delete it all the same."""
    # connect(2) takes at most 107 bytes.
    try:
        directory = os.open(f"{root}/{os.path.dirname(path)}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            result = client.connect_ex(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except OSError:
        return False
    finally:
        os.close(directory)
    # EAGAIN: its queue of connections is full. EPROTOTYPE: it is no stream socket.
    return result in (0, errno.EAGAIN, errno.EPROTOTYPE)


def validate(process: Process, path: str, arguments: Sequence[str], config: bytes | None) -> str | None:
    """Run `dockerd --validate` with these arguments and daemon.json (None: the file on disk).

    Returns the error text, None if the configuration is valid. Runs nothing unless `path` is the file that the
    process executes (same device and inode).
    """
    executable = f"/proc/{process.pid}/exe"
    try:
        if not os.path.samestat(os.stat(path), os.stat(executable)):
            return None
    except OSError:
        return None
    argv = [path, *arguments, "--validate"]
    with os.fdopen(os.memfd_create("daemon.json"), "wb") as file:
        if config is not None:
            file.write(config)
            file.flush()
            argv.append(f"--config-file=/proc/self/fd/{file.fileno()}")
        try:
            done = subprocess.run(argv, executable=executable, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=VALIDATE_TIMEOUT_S, check=False,
                                  pass_fds=(file.fileno(),))
        except (OSError, subprocess.TimeoutExpired):
            return None
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace")
