"""What a restart would put in force besides where Docker listens, and dockerd has not started with yet.

A restart by us changes where Docker listens, and nothing else: other options that were changed since dockerd
started may keep it from coming up again. Going back would not help then, for the files before ours say the
same. `dockerd --validate` (23.0) sees some of that only: a storage driver that is not to be had passes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_guard.dockerd.daemon import Daemon
from dockerd_guard.dockerd.options import Options, options_of
from dockerd_guard.model.names import BEFORE_OURS, DROPIN_NAME
from dockerd_guard.observe.configured import main_command
from dockerd_guard.observe.observation import Configured, Observation, Running
from dockerd_guard.plan.plan import TLS_FLAGS
from dockerd_guard.rootfs import Rootfs, Unreadable

HARMLESS = frozenset((
    "debug", "insecure-registries", "labels", "live-restore", "log-level", "max-concurrent-downloads",
    "max-concurrent-uploads", "max-download-attempts", "registry-mirrors", "shutdown-timeout",
))
"""Options by their keys that do not keep dockerd from starting once our own reading takes their values; all but
log-level are taken in by a SIGHUP too (moby daemon/reload.go), so that a changed file is in force already."""

OURS = frozenset(("hosts", *TLS_FLAGS))
"""What a correction is about."""

ENVIRONMENT = ("DOCKER_DRIVER", "DOCKER_RAMDISK", "DOCKER_TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR")
"""Variables that decide whether dockerd starts, and with what."""

SEEN_OTHERWISE = frozenset((
    "Description", "Documentation", "Environment", "EnvironmentFile", "ExecStart", "PassEnvironment",
    "UnsetEnvironment",
))
"""Settings of docker.service that say nothing, or whose outcome is compared itself."""

INVOCATION = "INVOCATION_ID"
"""Another one for each start of a unit (systemd.exec(5))."""


class StartRecord(NamedTuple):
    """What daemon.json said when a dockerd was started (None: there was none), and which start that was."""

    invocation: str
    daemon_json: bytes | None


def start_record(seen: Observation, known: StartRecord | None) -> StartRecord | None:
    """What is to be remembered of the dockerd that runs; None where it is known already or cannot be told any more."""
    running = seen.running
    invocation = running.process.environ.get(INVOCATION, "") if running is not None else ""
    if running is None or not invocation or (known is not None and known.invocation == invocation):
        return None
    path = running.daemon.config_file
    return None if _is_newer(seen.rootfs, path, running) else StartRecord(invocation, _content(seen.rootfs, path))


def pending_changes(
    seen: Observation, base: Configured, known: StartRecord | None, *, in_swarm: bool
) -> tuple[str, ...]:
    """In words, each with its place where there is one; `base` is the host without our own files."""
    if seen.running is None:
        return ()
    # moby daemon/cluster: "--live-restore daemon configuration is incompatible with swarm mode" ends dockerd.
    passed_over = OURS | (HARMLESS - {"live-restore"} if in_swarm else HARMLESS)
    return (*_flags(seen.running.daemon, base, passed_over),
            *_keys(seen, base, known, passed_over),
            *_variables(seen.running, base),
            *_settings(seen.rootfs, seen.running, base),
            *_programs(seen.rootfs, seen.running, base))


def _flags(running: Daemon, base: Configured, passed_over: frozenset[str]) -> Iterator[str]:
    options = options_of(base.known_dockerd)
    before, after = _by_key(running, options), _by_key(base.daemon, options)
    places = {flag.name: base.arguments[flag.argument].location for flag in base.daemon.flags
              if flag.argument < len(base.arguments)}
    for key in sorted((before.keys() | after.keys()) - passed_over):
        if before.get(key) == after.get(key):
            continue
        name = (after.get(key) or before[key])[0][0]
        place = places.get(name)
        yield f"--{name}" + (" no more" if key not in after else f" ({place.file}:{place.line})" if place else "")


def _by_key(daemon: Daemon, options: Options) -> dict[str, tuple[tuple[str, str], ...]]:
    """The flags by the keys they have in daemon.json, each with its name and value, in their order."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for flag in daemon.flags:
        option = options.by_name.get(flag.name)
        key = option.key if option is not None and option.key else flag.name
        found[key] = (*found.get(key, ()), (flag.name, flag.value))
    return found


def _keys(seen: Observation, base: Configured, known: StartRecord | None, passed_over: frozenset[str]) -> Iterator[str]:
    """Keys of daemon.json that say something else than when dockerd started; all, where nobody knows what it said."""
    running = seen.running
    if running is None:
        return
    path = base.daemon.config_file
    before: dict[str, object] = {}
    if known is not None and known.invocation == running.process.environ.get(INVOCATION):
        before = _read(known.daemon_json)
    elif not _is_newer(seen.rootfs, path, running):
        return
    after = _read(_content(seen.rootfs, path))
    lines = {key.name: key.location.line for key in base.daemon.keys if key.inside is None}
    for name in sorted((before.keys() | after.keys()) - passed_over):
        if before.get(name) != after.get(name):
            yield f'"{name}" ({path}:{lines[name]})' if name in lines else f'"{name}" no more ({path})'


def _variables(running: Running, base: Configured) -> Iterator[str]:
    """Those that are set; that one is gone cannot be told from systemd's own."""
    environ = base.daemon.program.environ
    yield from (f"{name} in the environment" for name in ENVIRONMENT
                if name in environ and environ[name] != running.process.environ.get(name))


def _settings(rootfs: Rootfs, running: Running, base: Configured) -> Iterator[str]:
    """What the administrator's unit files that are newer than dockerd say of its start."""
    for setting in base.service.unit.settings:
        place = setting.location
        directory, _, name = place.file.rpartition("/")
        # What `systemctl set-property` puts into system.control is in force at once; containment uses it, too.
        if (directory.startswith(("/etc/", "/run/")) and "/system.control/" not in directory
                and name != DROPIN_NAME and not name.startswith(BEFORE_OURS) and setting.section != "Install"
                and setting.key not in SEEN_OTHERWISE and _is_newer(rootfs, place.file, running)):
            yield f"{setting.key}= ({place.file}:{place.line})"


def _programs(rootfs: Rootfs, running: Running, base: Configured) -> Iterator[str]:
    """A program that goes for dockerd, or runs it in the end, and has not done so yet as it is now."""
    command = main_command(base.service)
    path = rootfs.resolve(command.path) if command is not None else None
    if command is None or path == running.process.executable:
        return
    # What systemd ran in the first place nobody can tell any more.
    if any(_is_newer(rootfs, file, running) for file in (path or command.path, command.location.file)):
        yield f"{command.path} ({command.location.file}:{command.location.line})"


def _is_newer(rootfs: Rootfs, path: str, running: Running) -> bool:
    """Whether a file, or a link to it, was changed or put there since dockerd started."""
    try:
        entries = [rootfs.stat(path, follow=follow) for follow in (True, False)]
    except Unreadable:
        return True
    # A copy or a package keeps the mtime of where it came from; only the ctime tells when it came here.
    return any(max(entry.mtime_ns, entry.ctime_ns) > running.process.started_ns for entry in entries if entry)


def _content(rootfs: Rootfs, path: str) -> bytes | None:
    try:
        return rootfs.read(path)
    except (FileNotFoundError, Unreadable):
        return None


def _read(content: bytes | None) -> dict[str, object]:
    """The outermost keys; none of what dockerd refuses, which is no plan's outcome."""
    try:
        data = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
