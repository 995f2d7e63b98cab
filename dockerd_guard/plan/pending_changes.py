"""Changes other than where Docker listens that a restart would apply.

A restart by us must change only where Docker listens. Other options that were changed since dockerd started
may keep it from starting again, and a rollback would not help, because the files before ours contain them too.
`dockerd --validate` (23.0) finds only some of these: it accepts a storage driver that is not available.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator

from dockerd_guard.dockerd.command import is_dockerd
from dockerd_guard.dockerd.daemon import Daemon
from dockerd_guard.dockerd.options import Options, options_of
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.observe.configured import main_command
from dockerd_guard.observe.loaded_files import CONTROL, is_loaded
from dockerd_guard.observe.observation import Configured, Observation, Running
from dockerd_guard.observe.started import INVOCATION, StartRecord, is_newer, is_unchanged
from dockerd_guard.plan.plan import TLS_FLAGS
from dockerd_guard.plan.unrun_commands import dependency_links, new_dependencies
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.syntax import Setting

HARMLESS = frozenset((
    "debug", "insecure-registries", "labels", "live-restore", "log-level", "max-concurrent-downloads",
    "max-concurrent-uploads", "max-download-attempts", "registry-mirrors", "shutdown-timeout",
))
"""Keys of options that cannot keep dockerd from starting if our own parser accepts their values. SIGHUP applies all
but log-level (moby daemon/reload.go), so a changed file may be in force already."""

OURS = frozenset(("hosts", *TLS_FLAGS))
"""Keys that a correction sets."""

ENVIRONMENT = ("DOCKER_DRIVER", "DOCKER_RAMDISK", "DOCKER_TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR")
"""Variables that affect the start of dockerd."""

SEEN_OTHERWISE = frozenset((
    "Description", "Documentation", "Environment", "EnvironmentFile", "ExecStart", "PassEnvironment",
    "UnsetEnvironment",
))
"""Settings of docker.service without effect on the start, or whose result is compared directly."""

PROGRAM = "program="
"""Begins what is recorded of the command that started dockerd."""

LINK = "link="
"""The same of links that make units start with docker.service."""

MAX_LINKS = 40
"""Linux follows as many (path_resolution(7))."""


def start_record(seen: Observation, known: StartRecord | None) -> StartRecord | None:
    """The record to store for the running dockerd; None if one is stored, or nothing is known of this start.

    Where systemd had not loaded the files that are there, it started dockerd with what it had loaded before: the
    settings of the previous record. A file that was only touched is then no change. Where systemd has loaded them again
    since, whether it had loaded a command before the start is not known of a file that came after the boot.
    """
    running, loaded = seen.running, seen.loaded
    if running is None or loaded is None or not loaded.invocation:
        return None
    if running.process.environ.get(INVOCATION) != loaded.invocation:
        # The files may have been loaded between that answer of systemd and the start.
        return None
    if known is not None and known.invocation == loaded.invocation:
        return None
    path, started_ns, unit = running.daemon.config_file, running.process.started_ns, seen.configured.service.unit
    knows_daemon_json = is_unchanged(seen.rootfs, path, started_ns)
    files = {setting.location.file for setting in unit.settings} | set(unit.dropins)
    newer = frozenset(file for file in files if CONTROL not in file and is_newer(seen.rootfs, file, started_ns))
    settings: tuple[str, ...] | None = None
    if is_loaded(seen):
        settings = _recorded(seen, newer, _known_ns(seen, running))
    elif not newer:
        settings = (known.settings if known is not None else None) or ()
    if settings is None and not knows_daemon_json:
        return None
    content = seen.rootfs.read_if_possible(path) if knows_daemon_json else None
    return StartRecord(loaded.invocation, content, settings, knows_daemon_json)


def _recorded(seen: Observation, newer: frozenset[str], known_ns: int) -> tuple[str, ...]:
    """The settings, without those of newer files. What a changed or removed file had contained is unknown: it may have
    named another program. `known_ns`: what was there then was loaded when dockerd started."""
    unit = seen.configured.service.unit
    command = main_command(seen.configured.service)
    files = {*unit.dropins, *(setting.location.file for setting in unit.settings)}
    places = {*files, *(posixpath.dirname(file) for file in unit.dropins)}
    is_certain = not any(is_newer(seen.rootfs, place, known_ns) for place in places if CONTROL not in place)
    programs = (f"{PROGRAM}{command.path}",) if command is not None and is_certain else ()
    compared = (text for setting, text in _compared(seen.configured) if setting.location.file not in newer
                and not _is_command_newer(seen.rootfs, setting, known_ns))
    links = set(dependency_links(seen, unit)) - set(new_dependencies(seen, unit, known_ns))
    return (*compared, *programs, *(f"{LINK}{path}" for path in sorted(links)))


def _known_ns(seen: Observation, running: Running) -> int:
    """What was there then was loaded when dockerd started: at its start, or at the boot where systemd has loaded the
    files of units again since."""
    started_ns, loaded = running.process.started_ns, seen.loaded
    return loaded.booted_ns if loaded is not None and loaded.units_loaded_ns > started_ns else started_ns


def _is_command_newer(rootfs: Rootfs, setting: Setting, known_ns: int) -> bool:
    """Whether a setting names a program that root runs at a start, in a file that is newer."""
    return setting.key.startswith("Exec") and is_newer(rootfs, setting.location.file, known_ns)


def pending_changes(
    seen: Observation, base: Configured, known: StartRecord | None, *, in_swarm: bool
) -> tuple[str, ...]:
    """Messages with their locations. `base`: the configuration without our own files."""
    if seen.running is None:
        return ()
    # moby daemon/cluster: "--live-restore daemon configuration is incompatible with swarm mode" ends dockerd.
    passed_over = OURS | (HARMLESS - {"live-restore"} if in_swarm else HARMLESS)
    return (*_flags(seen.running.daemon, base, passed_over),
            *_keys(seen.rootfs, seen.running, base, known, passed_over),
            *_variables(seen.running, base),
            *_settings(seen, seen.running, base, known),
            *_programs(seen, seen.running, base, known),
            *_dependencies(seen, seen.running, base, known))


def _flags(running: Daemon, base: Configured, passed_over: frozenset[str]) -> Iterator[str]:
    options = options_of(base.known_dockerd)
    before, after = _by_key(running, options), _by_key(base.daemon, options)
    places = {flag.name: base.arguments[flag.argument].location for flag in base.daemon.flags}
    for key in sorted((before.keys() | after.keys()) - passed_over):
        if before.get(key) == after.get(key):
            continue
        name = (after.get(key) or before[key])[0][0]
        place = places.get(name)
        where = f" ({place.file}:{place.line})" if place is not None else ""
        yield f"--{name}{where if key in after else ' removed'}"


def _by_key(daemon: Daemon, options: Options) -> dict[str, tuple[tuple[str, str], ...]]:
    """The flags by daemon.json key, each with its name and value, in order."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for flag in daemon.flags:
        key = options.by_name[flag.name].key or flag.name
        found[key] = (*found.get(key, ()), (flag.name, flag.value))
    return found


def _keys(rootfs: Rootfs, running: Running, base: Configured, known: StartRecord | None,
          passed_over: frozenset[str]) -> Iterator[str]:
    """Keys of daemon.json that differ from the start of dockerd; all keys if that content is unknown."""
    path = base.daemon.config_file
    before: dict[str, object] = {}
    if known is not None and known.is_of(running.process) and known.knows_daemon_json:
        before = _read(known.daemon_json)
    elif not is_newer(rootfs, path, running.process.started_ns):
        return
    after = _read(rootfs.read_if_possible(path))
    lines = {key.name: key.location.line for key in base.daemon.keys if key.inside is None}
    for name in sorted((before.keys() | after.keys()) - passed_over):
        if before.get(name) != after.get(name):
            yield f'"{name}" ({path}:{lines[name]})' if name in lines else f'"{name}" removed ({path})'


def _variables(running: Running, base: Configured) -> Iterator[str]:
    """Variables that are set. A removed one cannot be distinguished from those that systemd sets."""
    environ = base.daemon.program.environ
    yield from (f"{name} in the environment" for name in ENVIRONMENT
                if name in environ and environ[name] != running.process.environ.get(name))


def _settings(seen: Observation, running: Running, base: Configured, known: StartRecord | None) -> Iterator[str]:
    """Settings of docker.service that differ from those that dockerd was started with.

    Where these are not recorded, those of the administrator's files that are newer than the start, under any name: a
    copy of a drop-in that we set aside is in force like any other file.
    """
    recorded = known.settings if known is not None and known.is_of(running.process) else None
    if recorded is not None:
        before = Counter(text for text in recorded if not text.startswith((PROGRAM, LINK)))
        now = Counter(text for _, text in _compared(base))
        for setting, text in _compared(base):
            if now[text] > before[text]:
                now[text] -= 1
                yield f"{setting.key}= ({setting.location.file}:{setting.location.line})"
        yield from (f"{text.partition('=')[0].partition('.')[2]}= no more" for text in (before - now))
        return
    known_ns = _known_ns(seen, running)
    for setting, _ in _compared(base):
        if is_newer(seen.rootfs, setting.location.file, running.process.started_ns) or (
                _is_command_newer(seen.rootfs, setting, known_ns)):
            yield f"{setting.key}= ({setting.location.file}:{setting.location.line})"


def _compared(configured: Configured) -> Iterator[tuple[Setting, str]]:
    """The settings that affect a start, with their text.

    `systemctl set-property` writes to system.control and applies at once; containment uses it too.
    """
    for setting in configured.service.unit.settings:
        if (setting.location.file.startswith(("/etc/", "/run/")) and CONTROL not in setting.location.file
                and not setting.location.file.endswith(f"/{DROPIN_NAME}")
                and setting.section != "Install" and setting.key not in SEEN_OTHERWISE):
            yield setting, f"{setting.section}.{setting.key}={setting.value}"


def _programs(seen: Observation, running: Running, base: Configured, known: StartRecord | None) -> Iterator[str]:
    """A replacement or wrapper of dockerd that has changed since dockerd started, or a link on the way to it, as
    update-alternatives(1) does; or one that it was not started by. And dockerd itself, of which a package upgrade has
    installed another version."""
    command, rootfs = main_command(base.service), seen.rootfs
    path = rootfs.resolve(command.path) if command is not None else None
    is_started_directly = path == running.process.executable
    if running.process.is_replaced and (is_started_directly or is_dockerd(running.process.executable)):
        yield f"{running.process.executable}, which was replaced"
    if command is None or is_started_directly:
        return
    recorded = known.settings if known is not None and known.is_of(running.process) else None
    is_other = recorded is not None and f"{PROGRAM}{command.path}" not in recorded
    is_other |= recorded is None and is_newer(rootfs, command.location.file, _known_ns(seen, running))
    if is_other or any(is_newer(rootfs, file, running.process.started_ns)
                       for file in (*_links(rootfs, command.path), command.location.file)):
        yield f"{command.path} ({command.location.file}:{command.location.line})"


def _dependencies(seen: Observation, running: Running, base: Configured, known: StartRecord | None) -> Iterator[str]:
    """Links that make other units start with docker.service."""
    recorded = (known.settings if known is not None and known.is_of(running.process) else None) or ()
    yield from (path for path in new_dependencies(seen, base.service.unit, _known_ns(seen, running))
                if f"{LINK}{path}" not in recorded)


def _links(rootfs: Rootfs, path: str) -> Iterator[str]:
    """A path, and where each link leads that it is."""
    for _ in range(MAX_LINKS):
        yield path
        target = rootfs.readlink(path)
        if target is None:
            return
        path = posixpath.join(posixpath.dirname(path), target)


def _read(content: bytes | None) -> dict[str, object]:
    """The top-level keys; {} for content that dockerd would refuse, which no plan produces."""
    try:
        data = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
