"""What a dockerd was started with: its arguments and environment in /proc, and daemon.json then (I6)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import NamedTuple

from dockerd_guard.dockerd.daemon import Daemon, resolve_daemon
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Evidence, Tls
from dockerd_guard.observe.observation import Process
from dockerd_guard.rootfs import Rootfs, Unreadable

INVOCATION = "INVOCATION_ID"
"""Unique for each start of a unit (systemd.exec(5))."""

MOUNTS = "/proc/self/mountinfo"


class StartRecord(NamedTuple):
    """What is known of a start of dockerd: its invocation ID, daemon.json then (None: there was none), and the
    settings of docker.service then, as `Section.Key=value`. What had changed before it was recorded is unknown:
    `settings` is None, `knows_daemon_json` is False."""

    invocation: str
    daemon_json: bytes | None
    settings: tuple[str, ...] | None = None
    knows_daemon_json: bool = True

    def is_of(self, process: Process) -> bool:
        """Whether it is of the start of this process."""
        return bool(self.invocation) and self.invocation == process.environ.get(INVOCATION)


class Started(NamedTuple):
    """The configuration of a running dockerd, as far as it is known.

    `config` is what the content of daemon.json at the start rests on. If it is None, that content is unknown, and
    `daemon` is resolved from the arguments alone.
    """

    daemon: Daemon
    config: Evidence | None

    @property
    def knows_hosts(self) -> bool:
        """Whether `daemon.hosts` are all hosts. With -H daemon.json has none, or dockerd would not have started. The
        arguments of another program tell nothing."""
        is_read = self.config is not None and self.daemon.certain
        return self.daemon.program.certain and self.daemon.starts and (is_read or self._has_flag("host"))

    @property
    def tls(self) -> tuple[Tls, Evidence | None]:
        """The TLS of its TCP sockets, and what that rests on. With --tlsverify daemon.json cannot change it: the key
        tlsverify would conflict, and tls only turns TLS on (dockerd/tls.py)."""
        if not self.daemon.certain or not self.daemon.starts:
            return Tls.UNKNOWN, None
        if self._has_flag("tlsverify"):
            return self.daemon.tls.mode, Evidence.PROC
        return (Tls.UNKNOWN if self.config is None else self.daemon.tls.mode), self.config

    def _has_flag(self, name: str) -> bool:
        return any(flag.name == name for flag in self.daemon.flags)


def started(process: Process, rootfs: Rootfs, record: StartRecord | None, version: Version | None) -> Started:
    """Resolve what a process was started with. `record`: what is remembered of a start, perhaps of another one."""
    def resolve(read: Callable[[str], bytes]) -> Daemon:
        return resolve_daemon((process.program, *process.argv[1:]), process.environ, read, version)

    now = resolve(rootfs.read)
    path = now.config_file
    if record is not None and record.is_of(process) and record.knows_daemon_json:
        content, config = record.daemon_json, Evidence.START_RECORD
    elif is_unchanged(rootfs, path, process.started_ns):
        return Started(now, Evidence.UNCHANGED_FILES)
    else:
        content, config = b"{}", None  # dockerd 20.10 refuses an empty file

    def read(wanted: str) -> bytes:
        if wanted != path:
            return rootfs.read(wanted)
        if content is None:
            raise FileNotFoundError(wanted)
        return content

    # SIGHUP applies live-restore (moby daemon/reload.go). Whether containers survive is asked of the engine.
    return Started(resolve(read)._replace(live_restore=now.live_restore), config)


def is_newer(rootfs: Rootfs, path: str, started_ns: int) -> bool:
    """Whether a file, or the link to it, was changed or created since dockerd started."""
    try:
        entries = [rootfs.stat(path, follow=follow) for follow in (True, False)]
    except Unreadable:
        return True
    # cp -p and dpkg preserve the mtime; only the ctime shows when the file was created here.
    return any(max(entry.mtime_ns, entry.ctime_ns) > started_ns for entry in entries if entry)


def is_unchanged(rootfs: Rootfs, path: str, started_ns: int) -> bool:
    """Whether a file is the one, or is missing as it was, when dockerd started.

    A file that was removed shows in its directory alone. A mount over it shows in no time of a file.
    """
    if is_newer(rootfs, path, started_ns) or _is_mounted_over(rootfs, path):
        return False
    return rootfs.stat(path) is not None or not is_newer(rootfs, posixpath.dirname(path), started_ns)


def _is_mounted_over(rootfs: Rootfs, path: str) -> bool:
    """Whether the file, or its directory, is a mount point (proc_pid_mountinfo(5), field 5)."""
    places = {path.encode("utf-8", "surrogateescape"), posixpath.dirname(path).encode("utf-8", "surrogateescape")}
    lines = (rootfs.read_if_possible(MOUNTS) or b"").splitlines()
    return any(line.split(b" ", 5)[4] in places for line in lines if line.count(b" ") > 4)
