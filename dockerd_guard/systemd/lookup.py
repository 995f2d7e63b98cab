"""The files of a unit: search path, aliases, symbolic links, masks, drop-ins.

Implements src/basic/unit-file.c (src/shared/ since 257), src/shared/dropin.c and src/basic/conf-files.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary, proxy

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import DEV_NULL, MAX_LINKS, Rootfs, Unreadable
from dockerd_guard.systemd.syntax import Problem

SEARCH_PATH = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
)
"""Unit directories of the system manager, by precedence (src/libsystemd/sd-path/path-lookup.c)."""

MANAGER_CONFIGURATION = tuple(f"{directory}/systemd/system.conf.d"
                              for directory in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
"""Drop-in directories of the manager's own configuration. A daemon-reload reads them and the `system.conf`
beside each (parse_configuration() in src/core/main.c)."""

SPLIT_USR = "/lib/systemd/system"
MERGED_USR_VERSION = 255
"""Since this version systemd requires a merged /usr and does not search SPLIT_USR."""

UNOPENABLE_SKIPPED_VERSION = 258
"""Since this version a drop-in that is a loop of links or a link to `FILE/x` shadows nothing. A dangling
link still does (tested on 257 and 262)."""

DEPENDENCY_DIRECTORIES = (".wants", ".requires", ".upholds")

MAX_ALIAS_HOPS = 8
"""FOLLOW_MAX in unit-file.c."""

_TYPES = "service|socket|device|mount|automount|swap|target|path|timer|slice|scope"
_UNIT_NAME = re.compile(rf"([A-Za-z0-9:_.\\-]+)(?:(@)([A-Za-z0-9:_.\\@-]*))?\.({_TYPES})")
_MAX_NAME_BYTES = 255
_LOOKS_LIKE_A_DROP_IN = re.compile(r"[^.].*\.(conf|cnf|config|service|socket)|(?!readme)[^.]+", re.IGNORECASE)


class Fragment(NamedTuple):
    """The unit's own file (None if there is none) and all names of the unit."""

    path: str | None
    names: tuple[str, ...]
    masked: bool = False


_cache: WeakKeyDictionary[Rootfs, dict[int, UnitFiles]] = WeakKeyDictionary()


def unit_files(rootfs: Rootfs, version: int) -> UnitFiles:
    """Return the unit files in the search path. They are listed once for each Rootfs and version."""
    versions = _cache.get(rootfs)
    if versions is None:
        versions = _cache[rootfs] = {}
    if version not in versions:
        versions[version] = UnitFiles(rootfs, version)
    return versions[version]


def is_unit_name(name: str) -> bool:
    """unit_name_is_valid() with UNIT_NAME_ANY."""
    return len(name) <= _MAX_NAME_BYTES and _UNIT_NAME.fullmatch(name) is not None


def not_read(path: str, reason: str) -> Problem:
    """Return the problem of a drop-in, or a directory of drop-ins, that has no effect."""
    return Problem(Location(path), f"'{path}' is not read: {reason}.", "file-ignored")


class UnitFiles:
    """The unit files in the search path of one Rootfs. `problems` are directories that could not be listed."""

    def __init__(self, rootfs: Rootfs, version: int) -> None:
        self.problems: list[Problem] = []
        # A strong reference would keep the Rootfs, which is the key of the cache, alive.
        self._rootfs: Rootfs = proxy(rootfs)
        self._version = version
        self._kinds: dict[str, dict[str, str]] = {}
        inside: set[str] = set()
        for directory in SEARCH_PATH:
            if directory == SPLIT_USR and version >= MERGED_USR_VERSION and _is_link(rootfs, "/lib"):
                continue
            inside.add(directory)
            resolved = rootfs.resolve(directory)
            if resolved is not None and (kinds := self._list(resolved)):
                self._kinds[directory] = kinds
                inside.add(resolved)
        self._inside = tuple(inside)
        self._below = tuple(path + "/" for path in inside)
        self._targets: dict[str, str | None] = {}

    def _list(self, directory: str) -> dict[str, str]:
        try:
            return self._rootfs.kinds(directory)
        except Unreadable as error:
            self.problems.append(Problem(Location(directory), error.reason, "file-ignored"))
            return {}

    def with_suffix(self, suffix: str) -> tuple[str, ...]:
        """Return all unit names with this suffix, sorted."""
        found = {
            name for kinds in self._kinds.values() for name, kind in kinds.items()
            if kind in "fl" and name.endswith(suffix) and is_unit_name(name)
        }
        return tuple(sorted(found))

    def beginning_with(self, text: str) -> Iterator[str]:
        """Yield the paths of all entries of the unit directories whose names begin with a text in any case."""
        for directory, kinds in self._kinds.items():
            yield from (f"{directory}/{name}" for name in kinds if name[:len(text)].lower() == text)

    def files_among_links(self) -> Iterator[str]:
        """Yield the regular files in all `.wants`, `.requires` and `.upholds` directories, which systemd ignores."""
        for directory, kinds in self._kinds.items():
            for entry, kind in kinds.items():
                if kind in "dl" and entry.endswith(DEPENDENCY_DIRECTORIES):
                    for name, what in self._list(f"{directory}/{entry}").items():
                        if what == "f":
                            yield f"{directory}/{entry}/{name}"

    def dependency_links(self, name: str, names: tuple[str, ...]) -> Iterator[str]:
        """Yield the paths of the entries of all `.wants`, `.requires` and `.upholds` directories of a unit, also of
        those that systemd ignores."""
        for suffix in DEPENDENCY_DIRECTORIES:
            for directory in self._directories_of(name, names, suffix, []):
                for file in filter(is_unit_name, self._list(directory)):
                    if not self.is_mask(f"{directory}/{file}"):
                        yield f"{directory}/{file}"

    def requirements(self, name: str, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the paths of the links in all `.requires` directories of a unit.

        They are found and masked like drop-ins (process_deps() in src/core/load-dropin.c).
        """
        found: dict[str, str] = {}
        for directory in self._directories_of(name, names, ".requires", []):
            for file, kind in self._list(directory).items():
                path = f"{directory}/{file}"
                if file not in found and is_unit_name(file) and not (kind == "l" and self._is_skipped(path)):
                    found[file] = path if kind == "l" and not self.is_mask(path) else ""
        return tuple(found[file] for file in sorted(found) if found[file])

    def fragment(self, name: str) -> Fragment:
        """Return the fragment of a unit, given its name or an alias."""
        path = self._resolve(name)
        if path is None and "@" in name:
            path = self._resolve(_template(name))
        if path is None:
            return Fragment(None, (name,))
        names = {name}
        base = path.rpartition("/")[2]
        if "@" not in base:
            names.add(base)
        masked = self.is_mask(path)
        if not masked:
            names.update(self._aliases.get(path, ()))
        return Fragment(path, (name, *sorted(names - {name})), masked)

    def is_mask(self, path: str) -> bool:
        """Whether a file is a mask: empty, a character device, or a link to /dev/null, which need not exist
        below the root directory (null_or_empty_path_with_root)."""
        entry = self._rootfs.stat_if_possible(path)
        if entry is not None:
            return entry.is_character_device or (entry.is_file and entry.size == 0)
        return self._final_target(path) == "/dev/null"

    def traps(self) -> Iterator[str]:
        """Yield the files of any unit, or of the manager itself, that make a daemon-reload hang: a FIFO blocks
        until there is a writer, /dev/zero has no end. Observed on 252, 257 and 262: only a reboot ends it."""
        links = [f"{directory}/{name}" for directory, kinds in self._kinds.items() for name, kind in kinds.items()
                 if kind == "l" and is_unit_name(name)]
        directories = [f"{directory}/{name}" for directory, kinds in self._kinds.items()
                       for name, kind in kinds.items() if kind in "dl" and name.endswith(".d")]
        links += [directory.removesuffix(".d") for directory in MANAGER_CONFIGURATION]
        for directory in (*directories, *MANAGER_CONFIGURATION):
            links += [f"{directory}/{name}" for name, kind in self._list(directory).items()
                      if kind in "l?" and name.endswith(".conf")]
        for path in sorted(links):
            entry = self._rootfs.stat_if_possible(path)
            if entry is not None and (entry.kind == "FIFO" or (
                    entry.is_character_device and self._rootfs.resolve(path) != DEV_NULL)):
                yield path

    def _final_target(self, path: str) -> str | None:
        """Return the end of a chain of links, by their targets alone; None for a loop."""
        for _ in range(MAX_LINKS):
            target = self._rootfs.readlink(path)
            if target is None:
                return path
            path = os.path.normpath(os.path.join(path.rpartition("/")[0], target))
        return None

    @cached_property
    def _aliases(self) -> dict[str, list[str]]:
        """The names that are links, by the file they resolve to."""
        found: dict[str, list[str]] = {}
        for name in {name for kinds in self._kinds.values() for name, kind in kinds.items() if kind == "l"}:
            if "@" not in name and (path := self._resolve(name)) is not None:
                found.setdefault(path, []).append(name)
        return found

    def _resolve(self, name: str) -> str | None:
        """unit_ids_map_get(): resolve aliases by name."""
        for hop in range(MAX_ALIAS_HOPS):
            target = self._target(name)
            if target is None and hop and "@" in name:
                target = self._target(_template(name))
            if target is None or target.startswith("/"):
                return target
            name = target
        return None

    def _target(self, name: str) -> str | None:
        """Return what a name refers to in the first directory that has it: a path, or another name."""
        if name not in self._targets:
            self._targets[name] = self._find_target(name) if is_unit_name(name) else None
        return self._targets[name]

    def _find_target(self, name: str) -> str | None:
        for directory, kinds in self._kinds.items():
            kind = kinds.get(name)
            path = f"{directory}/{name}"
            if kind == "f":
                return path
            if kind == "l" and (target := self._link(directory, path, name)) is not None:
                return target
        return None

    def _link(self, directory: str, path: str, name: str) -> str | None:
        """unit_file_resolve_symlink(): the name that a link is an alias of, the link's own path if its target
        is outside of the search path, None if the link is refused."""
        text = self._rootfs.readlink(path)
        simplified = None if text is None else self._chase(os.path.join(directory, text))
        if simplified is None:
            return None
        if simplified not in self._inside and not simplified.startswith(self._below):
            return path
        base = simplified.rpartition("/")[2]
        return base if _is_valid_alias(name, base) else None

    def _chase(self, path: str) -> str | None:
        """chase() with NOFOLLOW and NONEXISTENT: resolve links except in the last component, and keep components
        that do not exist; None if a component is not a directory."""
        resolved = self._rootfs.resolve(path, follow=False)
        if resolved is not None:
            return resolved
        parts = [part for part in path.split("/") if part not in ("", ".")]
        current = "/"
        for index, part in enumerate(parts):
            entry = self._rootfs.stat_if_possible(os.path.join(current, part))
            if entry is None:
                return os.path.normpath(os.path.join(current, *parts[index:]))
            if not entry.is_directory:
                return None
            current = entry.path
        return current

    def drop_ins(self, name: str, names: tuple[str, ...], problems: list[Problem]) -> tuple[str, ...]:
        """Return all drop-ins of a unit in the order applied. Ignored files are added to `problems`."""
        found: dict[str, str] = {}
        for directory in self._directories_of(name, names, ".d", problems):
            for file, kind in self._list(directory).items():
                path = f"{directory}/{file}"
                if file.startswith(".") or not file.endswith(".conf"):
                    if kind in "fl" and _LOOKS_LIKE_A_DROP_IN.fullmatch(file):
                        problems.append(not_read(path, "its name does not end in '.conf'"))
                    continue
                if file in found:
                    how = "masks it" if self.is_mask(found[file]) else "has the same name and takes precedence"
                    problems.append(not_read(path, f"'{found[file]}' {how}"))
                elif kind == "l" and self._is_skipped(path):
                    problems.append(not_read(path, "it is an unresolvable symbolic link"))
                else:
                    found[file] = path
        return tuple(found[file] for file in sorted(found, key=os.fsencode))

    def ambiguous_drop_ins(self, name: str, names: tuple[str, ...]) -> str | None:
        """Return why the drop-ins of a unit are ambiguous, or None: two of its aliases have one of the same name.

        The order of aliases depends on a hash key that the manager generates at start (u->aliases in
        src/core/unit.c is a Set). The result was observed to differ from boot to boot.
        """
        aliases = tuple(other for other in names if other != name)
        if len(aliases) > 1:
            orders = (self.drop_ins(name, order, []) for order in (aliases, aliases[::-1]))
            for one, other in zip(*orders, strict=False):
                if one != other:
                    return (f"{one} and {other} are drop-ins of the same name for two aliases of {name}: which one "
                            "systemd reads may differ from boot to boot")
        return None

    def _directories_of(
        self, name: str, names: tuple[str, ...], suffix: str, problems: list[Problem]
    ) -> list[str]:
        """unit_file_find_dropin_paths(): the directories of each name, then those of the unit type."""
        found: list[str] = []
        for unit in (name, *(other for other in names if other != name)):
            stems = [stem + suffix for stem in _drop_in_stems(unit)]
            for directory in self._kinds:
                for stem in stems:
                    self._add_directory(directory, stem, found, problems)
        for directory in self._kinds:
            self._add_directory(directory, name.rpartition(".")[2] + suffix, found, problems)
        return found

    def _is_skipped(self, path: str) -> bool:
        if self._version < UNOPENABLE_SKIPPED_VERSION or self._rootfs.stat_if_possible(path) is not None:
            return False
        target = self._final_target(path)
        return target is None or self._chase(target) is None

    def _add_directory(self, directory: str, name: str, found: list[str], problems: list[Problem]) -> None:
        kind = self._kinds[directory].get(name)
        if kind is None:
            return
        path = f"{directory}/{name}"
        resolved = self._rootfs.resolve(path)
        if kind == "l":
            # A relative target is resolved against `/`, the manager's working directory:
            # is_dir(target) in unit_file_build_name_map(), 252 to 262.
            entry = self._rootfs.stat_if_possible(os.path.join("/", self._rootfs.readlink(path) or ""))
            if entry is None or not entry.is_directory:
                there = None if resolved is None else self._rootfs.stat_if_possible(resolved)
                if there is not None and there.is_directory:
                    problems.append(not_read(path, "systemd does not follow a relative symbolic link here"))
                return
        elif kind != "d":
            return
        if resolved is not None and resolved not in found:
            found.append(resolved)


def _is_link(rootfs: Rootfs, path: str) -> bool:
    entry = rootfs.stat(path, follow=False)
    return entry is not None and entry.is_link


def _template(name: str) -> str:
    prefix, _, rest = name.partition("@")
    return f"{prefix}@.{rest.rpartition('.')[2]}"


def _is_valid_alias(name: str, target: str) -> bool:
    """unit_validate_alias_symlink_or_warn()."""
    source = _UNIT_NAME.fullmatch(name)
    destination = _UNIT_NAME.fullmatch(target)
    if source is None or destination is None or name == target or source[4] != destination[4]:
        return False
    if bool(source[2]) != bool(destination[2]):
        return False
    return not destination[3] or source[3] == destination[3]


def _drop_in_stems(name: str) -> list[str]:
    """unit_file_find_dirs(): the names whose `.d` directories a unit reads, most specific first:
    `a-b.service`, `a-.service`; for an instance also those of the template."""
    found = [name]
    stem, _, suffix = name.rpartition(".")
    prefix, at, instance = stem.partition("@")
    if at and instance:
        found.append(f"{prefix}@.{suffix}")
    while True:
        prefix = prefix.removesuffix("-")
        dash = prefix.rfind("-")
        if dash <= 0:
            return found
        prefix = prefix[:dash + 1]
        found.append(f"{prefix}{at}{instance}.{suffix}")
        if at and instance:
            found.append(f"{prefix}@.{suffix}")
