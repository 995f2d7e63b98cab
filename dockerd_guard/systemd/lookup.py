"""Which files make up a unit: search path, aliases, links, masks, drop-ins.

As src/basic/unit-file.c (src/shared/ since 257), src/shared/dropin.c and src/basic/conf-files.c.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from weakref import WeakKeyDictionary

from dockerd_guard.tree import Tree

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
"""Where the system manager looks, first wins. `/lib` is only in the list where it is not a link
to `usr/lib`, or up to 254, which still could be built for a split /usr (Debian 12 is)."""

MAX_ALIAS_HOPS = 8
"""FOLLOW_MAX in unit-file.c."""

_TYPES = "service|socket|device|mount|automount|swap|target|path|timer|slice|scope"
_UNIT_NAME = re.compile(rf"(?=.{{1,255}}\Z)([A-Za-z0-9:_.\\-]+)(?:(@)([A-Za-z0-9:_.\\@-]*))?\.({_TYPES})")


class Fragment(NamedTuple):
    """The unit's own file (None where there is none) and all names the unit goes by."""

    path: str | None
    names: tuple[str, ...]
    masked: bool = False


class DropIn(NamedTuple):
    """A drop-in that counts by name; `shadows` are files of the same name that therefore do not."""

    path: str
    shadows: tuple[str, ...] = ()


_known: WeakKeyDictionary[Tree, dict[int, UnitFiles]] = WeakKeyDictionary()


def unit_files(tree: Tree, version: int) -> UnitFiles:
    """Look once for each tree."""
    versions = _known.setdefault(tree, {})
    if version not in versions:
        versions[version] = UnitFiles(tree, version)
    return versions[version]


class UnitFiles:
    """What lies in the directories of the search path."""

    def __init__(self, tree: Tree, version: int) -> None:
        self._tree = tree
        self._version = version
        self.directories = tuple(
            directory for directory in SEARCH_PATH
            if directory != "/lib/systemd/system" or version < 255 or not _is_link(tree, "/lib")
        )
        self._kinds: dict[str, dict[str, str]] = {d: tree.kinds(d) for d in self.directories}
        resolved = {r for d in self.directories if (r := tree.resolve(d)) is not None}
        self._inside = tuple(path + "/" for path in resolved | set(self.directories))
        self._ids: dict[str, str | None] = {}
        self._links: list[str] | None = None

    def with_suffix(self, suffix: str) -> tuple[str, ...]:
        """All names with this ending that stand for something in the search path."""
        found = {
            name for kinds in self._kinds.values() for name, kind in kinds.items()
            if kind in "fl" and name.endswith(suffix) and _UNIT_NAME.fullmatch(name)
        }
        return tuple(sorted(found))

    def fragment(self, name: str) -> Fragment:
        """Find the file a unit is read from, by its name or an alias."""
        path = self._resolve(name)
        if path is None and "@" in name:
            path = self._resolve(_template(name))
        names = {name}
        if path is not None:
            base = path.rpartition("/")[2]
            if "@" not in base:
                names.add(base)
            masked = self.is_mask(path)
            if not masked:
                names.update(other for other in self._aliases() if self._resolve(other) == path)
            return Fragment(path, (name, *sorted(names - {name})), masked)
        return Fragment(None, (name,))

    def is_mask(self, path: str) -> bool:
        """Whether a file stands for nothing: empty, a character device, or a link to /dev/null
        even where the root has no /dev (null_or_empty_path_with_root)."""
        entry = self._tree.stat(path)
        if entry is not None:
            return entry.is_character_device or (entry.is_file and entry.size == 0)
        return self._final_target(path) == "/dev/null"

    def _final_target(self, path: str) -> str:
        for _ in range(40):
            target = self._tree.readlink(path)
            if target is None:
                break
            path = os.path.normpath(os.path.join(path.rpartition("/")[0], target))
        return path

    def _aliases(self) -> list[str]:
        if self._links is None:
            self._links = sorted({
                name for kinds in self._kinds.values() for name, kind in kinds.items()
                if kind == "l" and _UNIT_NAME.fullmatch(name)
            })
        return self._links

    def _resolve(self, name: str) -> str | None:
        """unit_ids_map_get(): follow aliases by name."""
        for hop in range(MAX_ALIAS_HOPS):
            target = self._target(name)
            if target is None and hop and "@" in name:
                target = self._target(_template(name))
            if target is None:
                return None
            if target.startswith("/"):
                return target
            name = target
        return None

    def _target(self, name: str) -> str | None:
        """What the first directory that has a name makes of it: a path, or another name."""
        if name not in self._ids:
            self._ids[name] = self._find_target(name)
        return self._ids[name]

    def _find_target(self, name: str) -> str | None:
        if not _UNIT_NAME.fullmatch(name):
            return None
        for directory, kinds in self._kinds.items():
            kind = kinds.get(name)
            path = f"{directory}/{name}"
            if kind == "f":
                return path
            if kind == "l":
                target = self._link(directory, path, name)
                if target is not None:
                    return target
        return None

    def _link(self, directory: str, path: str, name: str) -> str | None:
        """The name a link makes this an alias of, its own path for a link that leads elsewhere,
        None for an alias that systemd refuses."""
        text = self._tree.readlink(path)
        if text is None:
            return None
        absolute = os.path.normpath(os.path.join(directory, text))
        simplified = self._tree.resolve(os.path.join(directory, text), follow=False) or absolute
        if not simplified.startswith(self._inside):
            return path
        base = simplified.rpartition("/")[2]
        return base if _is_valid_alias(name, base) else None

    def drop_ins(self, name: str, names: tuple[str, ...]) -> tuple[DropIn, ...]:
        """All drop-ins of a unit in the order they are applied."""
        directories: list[str] = []
        for unit in (name, *(n for n in names if n != name)):
            for directory in self.directories:
                for stem in _drop_in_stems(unit):
                    self._add_directory(directory, stem + ".d", directories)
        suffix = name.rpartition(".")[2]
        for directory in self.directories:
            self._add_directory(directory, suffix + ".d", directories)
        found: dict[str, str] = {}
        shadows: dict[str, list[str]] = {}
        for directory in directories:
            for file in self._tree.names(directory):
                if file.startswith(".") or not file.endswith(".conf"):
                    continue
                path = f"{directory}/{file}"
                first = found.setdefault(file, path)
                if first != path:
                    shadows.setdefault(file, []).append(path)
        return tuple(DropIn(found[file], tuple(shadows.get(file, ()))) for file in sorted(found, key=os.fsencode))

    def _add_directory(self, directory: str, name: str, found: list[str]) -> None:
        kind = self._kinds[directory].get(name)
        if kind is None:
            return
        path = f"{directory}/{name}"
        if kind == "l":
            # Up to 257 a relative link is followed from the manager's working directory, `/`.
            target = self._tree.readlink(path) or ""
            entry = self._tree.stat("/" + target)
            if entry is None or not entry.is_directory:
                return
        elif kind != "d":
            return
        resolved = self._tree.resolve(path)
        if resolved is not None and resolved not in found:
            found.append(resolved)


def _is_link(tree: Tree, path: str) -> bool:
    entry = tree.stat(path, follow=False)
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
    """The names whose `.d` directories a unit reads, most specific first: `a-b.service`,
    `a-.service`; for an instance the template as well."""
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
