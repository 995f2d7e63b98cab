"""The environment of a service: what is assigned where, and what holds in the end.

As config_parse_environ and its relatives (src/core/load-fragment.c), parse_env_file_internal
(src/basic/env-file.c) and what exec_invoke() (src/core/exec-invoke.c) puts together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.systemd.assignments import Environment, EnvironmentFile, Variable
from dockerd_guard.systemd.environment_file import FileAssignments, read_environment_file
from dockerd_guard.systemd.syntax import Problem

if TYPE_CHECKING:
    from dockerd_guard.rootfs import Rootfs
    from dockerd_guard.systemd.units import Service


EXPANSION_BEFORE_UNSET_VERSION = 262
"""From here on UnsetEnvironment= applies after `$X` was expanded (NEWS)."""

SET_AT_START = frozenset((
    "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "PATH", "SYSTEMD_EXEC_PID", "TRIGGER_PATH", "TRIGGER_UNIT"))
"""What systemd sets when it starts any service, to values that no file tells (systemd.exec(5))."""

_OF_PASSED = frozenset(("LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID"))
"""Likewise, where descriptors are passed; without any none of them is set, and LISTEN_FDS neither."""

_OF_MEMORY_PRESSURE = frozenset(("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"))
MEMORY_PRESSURE_VERSION = 254
"""From here on these are set where the kernel counts memory pressure (NEWS)."""

_OF_MANAGER = re.compile(r"LANG(UAGE)?|LC_[A-Z]+|TERM|PATH|HOME|SHELL|container(_[a-z]+)?|SYSTEMD_[A-Z_]+")
"""What PID 1 may have been given by the kernel, a container manager or its locale.conf. PassEnvironment= of
anything else passes nothing (systemd.exec(5)), unless DefaultEnvironment= has it."""


class _LoadError(Exception):
    """Why an environment file cannot be loaded."""


def resolve_environment(
    service: Service, rootfs: Rootfs, version: int, manager_environment: Mapping[str, Variable] | None = None,
    descriptors: int | None = None,
) -> Environment:
    """Merge all sources in the order of systemd.exec(5), later ones over earlier ones.

    `manager_environment` is what the running manager gives every service, as far as it is known;
    else DefaultEnvironment= of its files counts. `descriptors` is how many the service is passed,
    None where nobody knows.
    """
    problems: list[Problem] = []
    if manager_environment is None:
        from dockerd_guard.systemd.manager_conf import default_environment  # it needs this module

        manager_environment = default_environment(rootfs, version)
    merged: dict[str, Variable] = dict(manager_environment)
    if "LISTEN_FDS" in service.set_at_start:
        descriptors = None
    if descriptors:
        merged["LISTEN_FDS"] = Variable(str(descriptors))
    merged.update({assigned.name: assigned.variable for assigned in service.built_in})
    merged.update({assigned.name: assigned.variable for assigned in service.environment})
    failure = None
    # Each file once, where it was last named: what it assigned before is assigned again.
    files: dict[str, FileAssignments] = {}
    for file in service.environment_files:
        try:
            _load(rootfs, file, version, files, problems)
        except _LoadError as error:
            failure = f"Failed to load environment files: {error}"
            problems.append(Problem(file.location, f"{failure}: {file.path}", "refused"))
            break
    for found in files.values():
        merged.update({assigned.name: assigned.variable for assigned in found.assignments})
    kept = dict(merged)
    for unset in service.unset_environment:
        name, equals, value = unset.text.partition("=")
        if name in kept and (not equals or kept[name].value == value):
            del kept[name]
    unset_first = version < EXPANSION_BEFORE_UNSET_VERSION
    unknown = SET_AT_START.union(service.set_at_start, (
        word.text for word in service.pass_environment if _OF_MANAGER.fullmatch(word.text)))
    if version >= MEMORY_PRESSURE_VERSION:
        unknown |= _OF_MEMORY_PRESSURE
    if descriptors != 0:
        unknown |= _OF_PASSED if descriptors else {*_OF_PASSED, "LISTEN_FDS"}
    untold = unknown.difference(word.text for word in service.unset_environment)
    if unset_first:
        return Environment(kept, tuple(problems), failure, kept, untold, untold)
    return Environment(kept, tuple(problems), failure, merged, unknown, untold)


def _load(
    rootfs: Rootfs, file: EnvironmentFile, version: int, files: dict[str, FileAssignments], problems: list[Problem]
) -> None:
    """exec_context_load_environment(): one EnvironmentFile=, which may be many files."""
    paths = _matches(rootfs, file.path)
    if not paths and not file.optional:
        raise _LoadError("No such file or directory")
    for path in paths:
        if path in files:
            files[path] = files.pop(path)
            continue
        try:
            found = _read(rootfs, path, version)
        except _LoadError as error:
            if not file.optional:
                raise
            problems.append(Problem(Location(path), f"{error}; ignored for the '-' in EnvironmentFile=-{file.path}",
                                    "file-ignored"))
            continue
        problems += found.problems
        files[path] = found


def _read(rootfs: Rootfs, path: str, version: int) -> FileAssignments:
    if path == "/dev/null":
        return FileAssignments(())
    try:
        data = rootfs.read(path)
    except FileNotFoundError:
        raise _LoadError("No such file or directory") from None
    except Unreadable as error:
        entry = rootfs.stat(path)
        if entry is not None and entry.is_character_device:
            return FileAssignments(())
        raise _LoadError(str(error)) from None
    found = read_environment_file(data, path, version)
    if found.error:
        raise _LoadError(found.error)
    return found


MAX_MATCHES = 20_000
"""Paths of one pattern that are followed: with links in circles each `/*` multiplies them."""

_MAGIC = re.compile(r"[*?\[\\]")
_BRACKET = re.compile(r"([!^]?)(\]?(?:\[:[a-z]+:\]|[^\]])*)\]")
_CLASSES = {  # glob(7), as far as ASCII goes
    "[:alnum:]": "0-9A-Za-z", "[:alpha:]": "A-Za-z", "[:blank:]": " \\t", "[:cntrl:]": "\\x01-\\x1f\\x7f",
    "[:digit:]": "0-9", "[:graph:]": "!-~", "[:lower:]": "a-z", "[:print:]": " -~",
    "[:punct:]": "!-/:-@\\[-`{-~", "[:space:]": "\\t-\\r ", "[:upper:]": "A-Z", "[:xdigit:]": "0-9A-Fa-f",
}


def _matches(rootfs: Rootfs, pattern: str) -> list[str]:
    """glob(3) without flags: what is there, sorted; a pattern leads into no hidden name."""
    paths = [""]
    for part in pattern.split("/")[1:]:
        if not _MAGIC.search(part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        glob = _Glob(part)
        matches = (f"{path}/{name}" for path in paths for name in _names(rootfs, path or "/")
                   if glob.matches(name) and (name[0] != "." or part[0] == "." or part.startswith("\\.")))
        paths = list(islice(matches, MAX_MATCHES + 1))
        if len(paths) > MAX_MATCHES:
            raise _LoadError(f"more than {MAX_MATCHES} paths match")
    return sorted(path for path in paths if path == "/dev/null" or _exists(rootfs, path))


def _names(rootfs: Rootfs, path: str) -> tuple[str, ...]:
    try:
        return rootfs.names(path)
    except Unreadable:
        return ()


def _exists(rootfs: Rootfs, path: str) -> bool:
    try:
        return rootfs.stat(path or "/", follow=False) is not None
    except Unreadable:
        return False


class _Glob:
    """One part of a path with `*`, `?`, `[...]` and backslashes; never more than linear in a name
    for each star."""

    def __init__(self, pattern: str) -> None:
        pieces: list[str] = [""]
        position = 0
        while position < len(pattern):
            character = pattern[position]
            position += 1
            if character == "*":
                pieces.append("")
            elif character == "?":
                pieces[-1] += "."
            elif character == "[" and (found := _BRACKET.match(pattern, position)):
                parts = re.split(r"(\[:[a-z]+:\])", found[2])
                inner = "".join(_CLASSES.get(part) or re.sub(r"([\\\[&~|])", r"\\\1", part) for part in parts)
                pieces[-1] += f"[{'^' if found[1] else ''}{inner}]"
                position = found.end()
            else:
                if character == "\\" and position < len(pattern):
                    character = pattern[position]
                    position += 1
                pieces[-1] += re.escape(character)
        try:
            self._pieces = [re.compile(piece, re.DOTALL) for piece in pieces]
        except re.error:  # a range from high to low
            self._pieces = [re.compile(r"(?!)")]

    def matches(self, name: str) -> bool:
        """Whether a name fits, hidden names left aside."""
        first, *middle = self._pieces
        if not middle:
            return first.fullmatch(name) is not None
        found = first.match(name)
        for piece in middle[:-1]:
            if found is None:
                return False
            found = piece.search(name, found.end())
        if found is None:
            return False
        last = middle[-1]
        return any(last.fullmatch(name, start) for start in range(found.end(), len(name) + 1))


