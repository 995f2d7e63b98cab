"""A tree below --root, judged: what systemd and dockerd read, and other files that lead to the Docker API.

The others are Compose files, containers of Podman, dockerds of other roots and accounts, scripts. What they are is
decided by stricter criteria than for `lint DIR`: most files of a host that mention Docker are not in effect.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import Look, observe_files
from dockerd_guard.commands._subjects import (
    Judged,
    annotated,
    combined,
    host_in_other_variables,
    incomplete,
    relocated,
    unit_files_of,
)
from dockerd_guard.observe import file_kinds, layouts, quadlets, stock_units, unread_hosts
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.file_kinds import SYSTEM_UNITS
from dockerd_guard.observe.observation import Observation
from dockerd_guard.observe.socket_mounts import names_socket
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.judge import judge

if TYPE_CHECKING:
    from types import SimpleNamespace

    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.observe.layouts import Domain

MAX_NAMES = 20_000
"""Names looked at, from the top of the tree downwards."""

MAX_BYTES, MAX_FILES = 32 * 1024 * 1024, 2_000
"""Bytes of the files that are looked into, and files that mention Docker."""

MAX_FILE_BYTES = 1024 * 1024

MAX_COMMANDS, MAX_SCRIPT_BYTES = 20, 64 * 1024
"""Commands of a unit that are looked at, and bytes of a script."""

_PASSED_OVER = (
    "/proc", "/sys", "/dev", "/tmp", "/run", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/snap",  # noqa: S108
    "/boot/grub", "/boot/efi", "/nix/store", "/gnu/store", "/ostree", "/sysroot", "/lost+found", "/etc/alternatives",
    "/etc/ssl", "/etc/pki", "/etc/apt", "/etc/dpkg", "/etc/selinux", "/etc/apparmor.d", "/etc/bash_completion.d",
    "/var/cache", "/var/log", "/var/tmp", "/var/run", "/var/lock", "/var/mail", "/var/backups", "/var/snap",  # noqa: S108
    *(f"/var/lib/{name}" for name in (
        "docker", "containerd", "containers", "buildkit", "kubelet/pods", "dpkg", "apt", "rpm", "dnf", "pacman", "ucf",
        "aptitude", "flatpak", "snapd", "mysql", "postgresql", "systemd", "cloud/instances", "cloud/instance")))
"""Directories that programs and packages fill."""

_LOOKED_INTO = (
    "/usr/local", "/usr/etc", "/usr/lib/systemd/system", "/usr/lib/systemd/user", "/usr/lib/systemd/system-generators",
    "/usr/lib/tmpfiles.d", "/usr/share/factory/etc", "/usr/lib/confexts", "/run/confexts", "/run/extensions",
    "/lib/systemd/system", "/usr/share/containers/systemd", "/run/systemd/system", "/run/containers/systemd")
"""Directories below those, with what runs containers or dockerd."""

_SKIPPED = re.compile(
    r"/(?:node_modules|__pycache__|(?:site|dist)-packages|\.(?!config/|local/|docker/|qpkg/)[^/]+|"
    r"\.qpkg/(?!container-station/)[^/]+|"
    r"\.config/(?!systemd/|containers/|docker/)[^/]+|\.local/(?!share/)[^/]+|\.local/share/(?!systemd/)[^/]+)/\Z")
"""Ends of directories with programs or the state of programs."""

MAX_CHECKOUTS = 10
"""Checkouts that are named."""

_CHECKOUT = frozenset((".git", ".hg", ".svn"))
"""What shows that a directory is a checkout. Only its own files are looked into, and not those below."""

_HOMES = re.compile(r"/(?:home/[^/]+|root)/")
_PROGRAM = r"\.(?:py|pl|rb|lua)\Z"
"""Ends of programs that may be relays."""

_NAMES = re.compile(
    r"docker|daemon\.json|user-?data|compose|/[^/.]+\Z|"
    r"\.(?:sh|bash|ya?ml|service|socket|conf|toml|cfg|ini|ign|bu|env|local|start|container|pod|kube|volume|network)\Z|"
    rf"\A/(?:usr/local/s?bin|opt|srv)/(?:[^/]+/){{0,2}}[^/]+{_PROGRAM}",
    re.IGNORECASE)
_NAMES_IN_HOMES = re.compile(
    r"/\.(?:config|local|docker)/|compose[^/]*\.ya?ml\Z|/[^/.]+\Z|\.(?:sh|bash|container|pod|kube|volume|network)\Z"
    r"|/\.(?:bashrc|bash_profile|bash_login|profile|zshrc|zprofile)\Z", re.IGNORECASE)
"""Guides for WSL start dockerd in a file that a login shell reads."""

_PATH_OF_PROGRAM = re.compile(rb"(?<=[ \t\"'])/[^\s;\"']{1,400}\.(?:py|pl|rb|lua)(?![^\s;\"'])")
"""Programs as arguments of their interpreter."""

_UNIT_DIRECTORIES = (SYSTEM_UNITS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")

_NOT_IN_EFFECT = re.compile(rf"{file_kinds.COPY}|\A/etc/docker/(?:daemon[^/]*|key\.json)\Z", re.IGNORECASE)
"""Names of copies and examples, and of what dockerd does not read."""

_NAMES_DOCKER = re.compile(
    r"docker|podman|balena|user-data|compose|[./](?:container|pod|kube|volume|network)\.d/|"
    r"\.(?:container|pod|kube|volume|network)\Z",
    re.IGNORECASE)
_MAY_MATTER = re.compile(
    rb"docker|podman|balena|237[56]|/[ \t]{0,8}:/|/run/?(?:[\s:,\"'}]|\Z)|^[ \t{\"]{0,8}services\"?[ \t]{0,8}:"
    rb"|write_files|ignition",
    re.IGNORECASE | re.MULTILINE)
_SERVICES = re.compile(r"^services[ \t]{0,8}:", re.MULTILINE)


def judge_root(look: Look, options: SimpleNamespace) -> Judged:
    """Judge every dockerd that the files below a root directory configure, and what else leads to the Docker API."""
    rootfs = look.seen.rootfs
    parts: list[Judged] = []
    read: set[str] = set()
    is_missing = layouts.is_missing(look.seen.configured)
    system = layouts.with_stock_unit(rootfs) if is_missing else None
    if system is not None:
        seen = observe_files(system.rootfs, options.docker_version)
        parts.append(_of_domain(look._replace(seen=seen), system))
        read |= _read_of(system)
    else:
        findings = annotated(look, judge(look.seen, look.policy))
        if is_missing:
            findings = tuple(finding for finding in findings if finding.code in _WITHOUT_DOCKERD)
        if findings or not is_missing:
            unanswered = () if is_missing else (*incomplete(look.seen, findings), *_commands_before(look.seen))
            parts.append(Judged(findings, unit_files_of(look.seen), (), unanswered))
    for domain in layouts.other_domains(rootfs):
        seen = _observe_domain(domain, options.docker_version)
        parts.append(_of_domain(Look(look.root, seen, None, False), domain))
        read |= _read_of(domain)
    whole = combined(parts)
    # A script that a unit runs was evaluated.
    read |= {*whole.files, *_other_than_units(rootfs.files_read)}
    known = whole.findings
    if look.policy is not None and look.policy.waive:
        known += judge(look.seen, None)
    rest = _judge_rest(look, read, known, options)
    unread = tuple(f"{path} starts dockerd by other means than systemd: what it passes to dockerd is not evaluated"
                   for path in layouts.unread_starters(rootfs, without_systemd=is_missing))
    whole = combined((whole, rest, Judged((), (), (), unread, judged=False)))
    if not whole.judged and not whole.unanswered:
        return Judged((), (), whole.notes, judged=False, empty=(
            f"no configuration of dockerd found below {look.root}: there is nothing to judge. Expected docker.service, "
            "a drop-in, docker.socket or daemon.json; `dockerd-guard lint DIR` finds such files in any directory",))
    return whole


_WITHOUT_DOCKERD = ("DG107", "DG110")
"""Rules that apply where no dockerd is configured."""


def _read_of(domain: Domain) -> set[str]:
    """The files of the tree that configure a dockerd, and those that it refers to."""
    return {*domain.moved.values(), *_other_than_units(domain.rootfs.files_read)} - domain.assumed


def _other_than_units(paths: Iterable[str]) -> Iterator[str]:
    """Those that are not of units: all units are read, to see which ones have to do with Docker."""
    return (path for path in paths if not path.endswith((".service", ".socket", ".conf")))


def _observe_domain(domain: Domain, dockerd: Version | None) -> Observation:
    return Observation(domain.rootfs, observe_configured(
        domain.rootfs, dockerd=dockerd, unit=domain.unit))


def _of_domain(look: Look, domain: Domain) -> Judged:
    findings = judge(look.seen, look.policy)
    if domain.unit is None:
        findings = annotated(look, findings)

    own = {*domain.moved.values()}
    found = relocated(findings, domain.place, domain.assumed)
    if domain.unit is not None:
        # The other rules' findings are about the system's dockerd, which is judged by itself.
        found = tuple(finding for finding in found
                      if finding.code != "DG107" and (finding.location is None or finding.location.file in own))
    files = tuple(domain.moved.get(file, file) for file in unit_files_of(look.seen) if file not in domain.assumed)
    if not found and not _has_effect(look.seen, domain):
        return Judged((), judged=False)
    return Judged(found, files, (domain.note,), (*incomplete(look.seen, found), *_commands_before(look.seen, domain),
                                                 *_of_another_unit(look.seen, domain)))


def _of_another_unit(seen: Observation, domain: Domain) -> Iterator[str]:
    """Where environment files that the assumed unit does not read name a TCP host: another package's unit does."""
    read = {file.path for file in seen.configured.service.environment_files}
    for path in domain.found:
        if path not in stock_units.ENVIRONMENT_FILES:
            continue
        text = unread_hosts.decoded(seen.rootfs.read_if_possible(path) or b"")
        if path not in read and (way := unread_hosts.first_way(path, text)) is not None:
            yield f"{path}:{way[0]}: {way[1]}, in a file that the assumed unit does not read"
        elif path in read and (way := host_in_other_variables(seen, path, text)) is not None:
            yield f"{path}:{way[0]}: {way[1]}, in a variable that the assumed unit does not use"


def _commands_before(seen: Observation, domain: Domain | None = None) -> Iterator[str]:
    """Where commands that run before dockerd name a TCP host for it: they may write its environment."""
    for setting in seen.configured.service.unit.settings:
        place = domain.place(setting.location) if domain is not None else setting.location
        if place is not None and setting.key in {"ExecStartPre", "ExecCondition"} and (
                way := unread_hosts.first_way(place.file, setting.value)) is not None:
            yield f"{place.file}:{place.line}: {way[1]}, in a form that is not evaluated"


def _has_effect(seen: Observation, domain: Domain) -> bool:
    """Whether a file of the tree configures this dockerd: docker.service.d may be empty, or have only a copy."""
    files = {*unit_files_of(seen), seen.configured.daemon.config_file} - domain.assumed
    directories = {posixpath.dirname(file) for file in files}
    return not domain.found or any(
        path in files or path in directories or path.endswith((".service", ".socket")) for path in domain.found)


def _judge_rest(look: Look, judged: Collection[str], findings: Collection[Finding], options: SimpleNamespace) -> Judged:
    """Judge what else is in the tree. `judged` are files that have been read, `findings` what is known about them."""
    files, notes, unread = _files_of(look.root, judged)
    if not files:
        return Judged((), (), tuple(notes), tuple(unread), judged=False)
    from dockerd_guard.commands import _arguments, _files, _origins

    arguments = _arguments.Arguments((), None, look.root)
    for path, data in files.items():
        text = data.decode("utf-8", "surrogateescape")
        kind = file_kinds.kind_of(path, text, is_named=False)
        if kind is not None and kind.place == path:
            # The tree has it where systemd or dockerd would read it, so it was judged, if it is dockerd's.
            if not _origins.Placed(kind, data, path, _origins.same).is_of_dockerd:
                arguments.scan(path, data)
        elif (kind is not None and file_kinds.has_place(path)) or _runs_containers(path, text):
            arguments.add(path, data)
        else:
            arguments.scan(path, data)
    known = {finding.location.file for finding in findings if finding.location is not None}
    tree = look if not layouts.is_missing(look.seen.configured) else None
    whole = _files.judge_placed(arguments, None, options, known, tree)
    return whole._replace(notes=(*whole.notes, *notes), unanswered=(*whole.unanswered, *unread))


def _runs_containers(path: str, text: str) -> bool:
    """Whether a file runs containers, or writes files at the first boot."""
    return quadlets.quadlet_of(path) is not None or file_kinds.is_of_first_boot(path) or (
        path.endswith((".yml", ".yaml")) and (
            "compose" in path.rpartition("/")[2] or _SERVICES.search(text) is not None))


def _files_of(root: str, judged: Collection[str]) -> tuple[dict[str, bytes], list[str], list[str]]:
    """Return the files that may matter, notes about what is not looked into, and what is not read."""
    found: dict[str, bytes] = {}
    unread: list[str] = []
    checkouts: list[str] = []
    todo, names, size = deque([""]), 0, 0
    while todo:
        directory = todo.popleft()
        # A Rootfs keeps what it has read, so each directory has its own.
        with Rootfs(root) as rootfs:
            try:
                kinds = rootfs.kinds(directory or "/")
            except Unreadable as error:
                return found, [str(error)], unread
            names += len(kinds)
            if names > MAX_NAMES or size > MAX_BYTES or len(found) > MAX_FILES:
                return found, [f"{directory or '/'} and other directories are not looked into for Compose files and "
                               f"scripts: above them are {MAX_NAMES:,} names, {MAX_FILES:,} files that mention Docker, "
                               f"or {MAX_BYTES >> 20} MiB"], unread
            # The tree itself may be in a repository.
            is_top = directory != "" and not _CHECKOUT.isdisjoint(kinds)
            if is_top:
                checkouts.append(directory)
            programs = file_kinds.PROGRAMS if "pyvenv.cfg" in kinds else ()
            links = (f"{directory}/{name}" for name in sorted(kinds) if kinds[name] == "l")
            unread += [f"{path}: a link to the API socket; what mounts it is not evaluated" for path in links
                       if not _is_passed_over(path) and names_socket(rootfs.readlink(path) or "")]
            for name in sorted(kinds):
                path = f"{directory}/{name}"
                if kinds[name] == "d":
                    if not is_top and name not in programs and _SKIPPED.search(f"{path}/") is None and (
                            not _is_passed_over(path) or _leads_to(path)):
                        todo.append(path)
                elif kinds[name] in "fl" and path not in judged and not _is_passed_over(path) and (
                        data := _content(rootfs, path, judged, is_link=kinds[name] == "l")):
                    size += len(data)
                    if len(data) > MAX_FILE_BYTES:
                        if _MAY_MATTER.search(data) is not None:
                            unread.append(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; not read")
                    elif _NAMES_DOCKER.search(path) is not None or _MAY_MATTER.search(data) is not None:
                        found[path] = data
                    if directory in _UNIT_DIRECTORIES:
                        found |= _scripts_of(rootfs, data, judged)
    notes = [f"{', '.join(checkouts[:MAX_CHECKOUTS])}: a checkout, of which only the files at the top are looked into"
             ] if checkouts else []
    return found, notes, unread


def _scripts_of(rootfs: Rootfs, unit: bytes, judged: Collection[str]) -> dict[str, bytes]:
    """The scripts of packages that a unit runs, and programs of other languages."""
    found: dict[str, bytes] = {}
    commands = re.finditer(
        rb"^Exec[A-Za-z]{1,20}[ \t]{0,8}=[ \t]{0,8}[-@:+!|]{0,4}(/[^\s;]{1,400})([^\n]{0,400})", unit, re.MULTILINE)
    words = (word for command in commands for word in (command[1], *_PATH_OF_PROGRAM.findall(command[2])))
    for word in islice(words, MAX_COMMANDS):
        path = os.fsdecode(word)
        is_program = re.search(_PROGRAM, path) is not None
        if path not in judged and (is_program or _is_passed_over(path)):
            with contextlib.suppress(Unreadable, FileNotFoundError):
                entry = rootfs.stat(path)
                if entry is not None and entry.is_file and entry.size <= MAX_SCRIPT_BYTES:
                    data = rootfs.read_table(path)
                    is_script = is_program or data[:2] == b"#!"
                    found |= {path: data} if is_script and _MAY_MATTER.search(data) is not None else {}
    return found


def _content(rootfs: Rootfs, path: str, judged: Collection[str], *, is_link: bool) -> bytes:
    """The content of a file that may matter by its name; empty for any other."""
    wanted = _NAMES_IN_HOMES if _HOMES.match(path) is not None else _NAMES
    if not (path.startswith("/etc/") or wanted.search(path) is not None) or _NOT_IN_EFFECT.search(path) is not None or (
            not unread_hosts.may_set_a_host(path)):
        return b""
    try:
        target = rootfs.resolve(path) if is_link else path
        # What a link leads to is looked into under its own name, if it is not in a directory that is passed over.
        if target is None or (is_link and (target in judged or not _is_passed_over(target))):
            return b""
        entry = rootfs.stat(path)
        if entry is None or not entry.is_file:
            return b""
        data = rootfs.read_table(path)
    except (Unreadable, FileNotFoundError):
        return b""
    return b"" if b"\0" in data[:1024] and data[:2] not in (b"#!", *unread_hosts.UTF_16) else data


def _is_passed_over(path: str) -> bool:
    """Whether a path is below one of _PASSED_OVER, and not of _LOOKED_INTO."""
    return _is_below(path, _PASSED_OVER) and not _is_below(path, _LOOKED_INTO)


def _is_below(path: str, directories: tuple[str, ...]) -> bool:
    return f"{path}/".startswith(tuple(f"{directory}/" for directory in directories))


def _leads_to(path: str) -> bool:
    return any(directory.startswith(f"{path}/") for directory in _LOOKED_INTO)
