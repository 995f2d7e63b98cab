"""The environment that systemd starts a service with, merged from all sources.

Implements exec_invoke() (src/core/exec-invoke.c), exec_context_load_environment() (src/core/execute.c)
and glob(3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import BeyondLimitError, Unreadable
from dockerd_guard.systemd.assignments import Environment, EnvironmentFile, Variable
from dockerd_guard.systemd.environment_file import FileAssignments, read_environment_file
from dockerd_guard.systemd.manager_conf import default_environment
from dockerd_guard.systemd.syntax import Problem

if TYPE_CHECKING:
    from dockerd_guard.rootfs import Rootfs
    from dockerd_guard.systemd.units import Service


EXPANSION_BEFORE_UNSET_VERSION = 262
"""Since this version UnsetEnvironment= is applied after `$X` is expanded (NEWS)."""

SET_AT_START = frozenset((
    "INVOCATION_ID", "JOURNAL_STREAM", "LANG", "PATH", "SYSTEMD_EXEC_PID", "TRIGGER_PATH", "TRIGGER_UNIT"))
"""Variables that systemd sets for every service, with values that are not in any file (systemd.exec(5))."""

_SET_WITH_DESCRIPTORS = frozenset(("LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID"))
"""The same, if descriptors are passed. Without descriptors neither these nor LISTEN_FDS are set."""

_SET_FOR_MEMORY_PRESSURE = frozenset(("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE"))
MEMORY_PRESSURE_VERSION = 254
"""Since this version they are set if the kernel supports memory pressure (NEWS)."""

_MANAGER_VARIABLES = re.compile(r"LANG(UAGE)?|LC_[A-Z]+|TERM|PATH|HOME|SHELL|container(_[a-z]+)?|SYSTEMD_[A-Z_]+")
"""Variables that PID 1 may have from the kernel, a container manager or locale.conf. PassEnvironment= passes
no others (systemd.exec(5)), except those of DefaultEnvironment=."""


class _LoadError(Exception):
    """An environment file cannot be loaded; the message is the reason."""


def resolve_environment(
    service: Service, rootfs: Rootfs, version: int, manager_environment: Mapping[str, Variable] | None = None,
    descriptors: int | None = None,
) -> Environment:
    """Merge all sources in the order of systemd.exec(5); later ones override earlier ones.

    `manager_environment` is the environment block of the running manager. If it is None,
    DefaultEnvironment= of the manager's configuration files is used. `descriptors` is the number of file
    descriptors passed to the service, None if unknown.
    """
    problems: list[Problem] = []
    if manager_environment is None:
        manager_environment = default_environment(rootfs, version)
    merged: dict[str, Variable] = dict(manager_environment)
    if "LISTEN_FDS" in service.set_at_start:
        descriptors = None
    if descriptors:
        merged["LISTEN_FDS"] = Variable(str(descriptors))
    merged.update({assigned.name: assigned.variable for assigned in service.built_in})
    merged.update({assigned.name: assigned.variable for assigned in service.environment})
    failure = None
    # Each file is read once and applied at its last position: later assignments win.
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
    unknown = SET_AT_START.union(service.set_at_start, (
        word.text for word in service.pass_environment if _MANAGER_VARIABLES.fullmatch(word.text)))
    if version >= MEMORY_PRESSURE_VERSION:
        unknown |= _SET_FOR_MEMORY_PRESSURE
    if descriptors != 0:
        unknown |= _SET_WITH_DESCRIPTORS if descriptors else {*_SET_WITH_DESCRIPTORS, "LISTEN_FDS"}
    unknown_variables = unknown.difference(word.text for word in service.unset_environment)
    expansion = (kept, unknown_variables) if version < EXPANSION_BEFORE_UNSET_VERSION else (merged, unknown)
    return Environment(kept, tuple(problems), failure, *expansion, unknown_variables)


def _load(
    rootfs: Rootfs, file: EnvironmentFile, version: int, files: dict[str, FileAssignments], problems: list[Problem]
) -> None:
    """Load one EnvironmentFile=, which may match several files (exec_context_load_environment())."""
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
            problems.append(Problem(Location(path), f"{error}; ignored, EnvironmentFile=-{file.path} is optional",
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
    except BeyondLimitError:
        return FileAssignments(())  # systemd reads it: its variables are unknown here
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
"""Maximum number of paths matched by one pattern. With circular links each `/*` multiplies them."""

MAGIC = re.compile(r"[*?\[\\]")
_BRACKET = re.compile(r"([!^]?)(\]?(?:\[:[a-z]+:\]|[^\]])*)\]")
_CLASSES = {  # glob(7), ASCII only
    "[:alnum:]": "0-9A-Za-z", "[:alpha:]": "A-Za-z", "[:blank:]": " \\t", "[:cntrl:]": "\\x01-\\x1f\\x7f",
    "[:digit:]": "0-9", "[:graph:]": "!-~", "[:lower:]": "a-z", "[:print:]": " -~",
    "[:punct:]": "!-/:-@\\[-`{-~", "[:space:]": "\\t-\\r ", "[:upper:]": "A-Z", "[:xdigit:]": "0-9A-Fa-f",
}


def _matches(rootfs: Rootfs, pattern: str) -> list[str]:
    """Return the existing paths that match, sorted, as glob(3) without flags; `*` does not match hidden names."""
    paths = [""]
    for part in pattern.split("/")[1:]:
        if not MAGIC.search(part):
            paths = [f"{path}/{part}" for path in paths]
            continue
        glob = name_pattern(part)
        matches = (f"{path}/{name}" for path in paths for name in rootfs.names_if_possible(path or "/")
                   if glob.fullmatch(name) and (name[0] != "." or part[0] == "." or part.startswith("\\.")))
        paths = list(islice(matches, MAX_MATCHES + 1))
        if len(paths) > MAX_MATCHES:
            raise _LoadError(f"more than {MAX_MATCHES} paths match")
    return sorted(path for path in paths if path == "/dev/null" or rootfs.stat_if_possible(path or "/", follow=False))


def name_pattern(pattern: str) -> re.Pattern[str]:
    """Return a regular expression for one path component. Hidden names are not treated specially.

    Matching takes at most linear time for each `*`: a part between two of them is matched where it occurs first.
    """
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
    middle = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1])
    last = f".*{pieces[-1]}" if len(pieces) > 1 else ""
    try:
        return re.compile(f"{pieces[0]}{middle}{last}", re.DOTALL)
    except re.error:  # a range from high to low
        return re.compile(r"(?!)")
