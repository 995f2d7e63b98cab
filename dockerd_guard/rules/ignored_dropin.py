"""DG301: a drop-in that systemd ignores, masks or shadows; a directory or file that is never read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.model.names import SAVED_SUFFIX, SERVICE, SOCKET
from dockerd_guard.observe.misnamed import is_near_daemon_json
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.lookup import SEARCH_PATH, unit_files

CODE = "DG301"
TITLE = (
    "a drop-in that systemd ignores, masks or shadows; a directory or file that looks like one and is never read"
)

_DISABLED_SUFFIXES = (
    "~",
    ".bak",
    ".orig",
    ".old",
    ".save",
    ".disabled",
    ".dpkg-new",
    ".dpkg-old",
    ".dpkg-dist",
    ".rpmnew",
    ".rpmsave",
)
"""Suffixes of files that are disabled on purpose, or that a package manager or an editor has left."""


_DIRECTORIES = frozenset((
    "docker", "dockerd", "dockerservice", "dockerdservice", "dockerservices", "dockersocket", "dockerdsocket",
    "dockerconf", "dockerserviceconf", "dockerceservice", "dockerioservice", "dockerengineservice",
))
"""Names of directories that are taken for drop-in directories, without `.d` and punctuation, in lower case."""

_NEAR_DAEMON_JSON = frozenset((
    "daemonconf", "daemonyaml", "daemonyml", "daemonconfig", "dockerjson", "dockerdjson", "dockerconf", "dockerdconf",
    "daemon", "daemonjsonconf",
))
"""Names of files in /etc/docker that are taken for daemon.json, without punctuation, in lower case, and are not near
its name."""

_ELSEWHERE = (
    "/etc/daemon.json", "/etc/default/daemon.json", "/etc/sysconfig/daemon.json", "/etc/dockerd/daemon.json",
    "/etc/systemd/system/daemon.json", "/var/lib/docker/daemon.json",
)
"""Paths of a daemon.json that dockerd does not read."""

_ABOVE = ("/etc/systemd", "/run/systemd", "/usr/lib/systemd", "/lib/systemd")
"""Parents of unit directories. systemd reads no unit files in them."""

_MARKER = re.compile(rb"^[ \t]*### (?:Edits|Lines) below this comment will be discarded", re.MULTILINE)
"""The line below which systemctl edit removes all text (EDIT_MARKER_END in src/shared/edit-util.c)."""


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each file without effect: drop-ins, files in place of links to units, daemon.json."""
    units = (seen.configured.service.unit, *(socket.unit for socket in seen.configured.sockets))
    reported = set(seen.rootfs.unread)
    for unit in units:
        for problem in unit.problems:
            if problem.effect == "file-ignored" and problem.location.file not in reported:
                reported.add(problem.location.file)
                yield _finding(f"this file has no effect: {problem.text}", problem.location)
        for path, why in _misnamed(seen.rootfs, unit):
            if path not in reported:
                reported.add(path)
                yield _finding(f"this file has no effect: systemd reads {why}", Location(path))
        yield from _below_marker(seen.rootfs, unit)
    yield from _not_linked(seen, tuple(unit.name for unit in units))
    config_file = seen.configured.daemon.config_file
    # In a snapshot of its own, so that the agent does not watch these: /run/systemd gets a directory at each start of a
    # service with a sandbox, as the agent causes them itself.
    with seen.rootfs.changed({}) as rootfs:
        yield from _misplaced(seen, rootfs, units[0].name)
        for path in _misplaced_daemon_json(rootfs):
            if path != config_file:
                yield _finding(f"this file has no effect: dockerd reads {config_file}", Location(path))


def _finding(message: str, location: Location) -> Finding:
    return Finding(CODE, "warning", message, CONFIGURED, location)


def _misnamed(rootfs: Rootfs, unit: Unit) -> Iterator[tuple[str, str]]:
    """Yield files in drop-in directories that are no drop-ins, and what is read there instead."""
    for directory in SEARCH_PATH:
        for name in rootfs.names_if_possible(f"{directory}/{unit.name}.d"):
            path = f"{directory}/{unit.name}.d/{name}"
            if name.endswith((".conf", *_DISABLED_SUFFIXES)) or name.startswith(".") or SAVED_SUFFIX in name:
                continue
            content = rootfs.read_if_possible(path) or b""
            if b"[Service]" in content or b"[Socket]" in content:
                yield path, "only drop-ins named *.conf"
            elif not content:
                yield from ((f"{path}/{file}", "no drop-ins in directories below this one")
                            for file in rootfs.names_if_possible(path) if file.endswith(".conf"))


def _below_marker(rootfs: Rootfs, unit: Unit) -> Iterator[Finding]:
    """Yield a finding for each drop-in that holds the marker of systemctl edit and has settings only below it."""
    first: dict[str, int] = {}
    for setting in unit.settings:
        first.setdefault(setting.location.file, setting.location.line)
    for path in unit.dropins:
        content = rootfs.read_if_possible(path) or b""
        if b"below this comment" not in content or (marker := _MARKER.search(content)) is None:
            continue
        line = content.count(b"\n", 0, marker.start()) + 1
        if path not in first:
            yield _finding("this file sets nothing: systemctl edit discards what is written below this line, and "
                           "comments are no settings", Location(path, line))
        elif first[path] > line:
            yield _finding("the settings below this line are in effect only until the next systemctl edit, which "
                           "discards them", Location(path, line))


def _misplaced(seen: Observation, rootfs: Rootfs, service: str) -> Iterator[Finding]:
    """Yield a finding for each drop-in and unit file in a directory that systemd does not read, but looks like one."""
    files = unit_files(seen.rootfs, seen.configured.systemd_version)
    read = {service, SERVICE, SOCKET}
    paths = [(path, True) for path in files.beginning_with("docker")]
    paths += [(f"{directory}/{name}", False) for directory in _ABOVE for name in rootfs.names_if_possible(directory)
              if name.lower().startswith("docker")]
    for path, is_searched in paths:
        name = path.rpartition("/")[2]
        bare = name.removesuffix(".d")
        if not is_searched and name in read:
            status = rootfs.stat_if_possible(path)
            if status is not None and status.is_file:
                yield _finding(f"this file has no effect: systemd reads units in {SEARCH_PATH[4]}", Location(path))
        elif re.sub(r"[^a-z]", "", bare.lower()) in _DIRECTORIES and not (
                is_searched and (bare in read or files.fragment(bare).path is not None)):
            target = SOCKET if "socket" in name else service
            for file in rootfs.names_if_possible(path):
                if file.endswith(".conf"):
                    yield _finding(f"this file has no effect: systemd reads drop-ins of {target} in "
                                   f"{SEARCH_PATH[4]}/{target}.d", Location(f"{path}/{file}"))


def _not_linked(seen: Observation, units: tuple[str, ...]) -> Iterator[Finding]:
    """Yield a finding for each file in place of a link in a `.wants` directory (src/core/load-dropin.c)."""
    for path in unit_files(seen.rootfs, seen.configured.systemd_version).files_among_links():
        name = path.rpartition("/")[2]
        if name in units or name in (SERVICE, SOCKET):
            yield _finding(f"this file has no effect: systemd reads only symbolic links here; {name} is not enabled by "
                           "it, and its settings are not read", Location(path))


def _misplaced_daemon_json(rootfs: Rootfs) -> Iterator[str]:
    for name in rootfs.names_if_possible("/etc/docker"):
        if name == "daemon.json" or name.endswith(_DISABLED_SUFFIXES) or name.startswith("."):
            continue
        path = f"/etc/docker/{name}"
        status = rootfs.stat_if_possible(path)
        if status is not None and status.is_directory:
            if name in ("daemon.json.d", "daemon.d", "daemon.conf.d"):
                yield from (f"{path}/{file}" for file in rootfs.names_if_possible(path) if file.endswith(".json"))
        elif is_near_daemon_json(name) or re.sub(r"[^a-z]", "", name.lower()) in _NEAR_DAEMON_JSON:
            yield path
    for path in _ELSEWHERE:
        status = rootfs.stat_if_possible(path)
        if status is not None and status.is_file:
            yield path
