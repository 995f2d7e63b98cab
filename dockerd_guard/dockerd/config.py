"""daemon.json as dockerd reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from dockerd_guard.dockerd import flags
from dockerd_guard.dockerd.version import Version
from dockerd_guard.source import Location
from dockerd_guard.tree import Unreadable


class Key(NamedTuple):
    """A key of the file's outermost object, and where it stands."""

    name: str
    location: Location


class Text(NamedTuple):
    """A string in the file, and where its characters stand."""

    text: str
    location: Location


class File(NamedTuple):
    """What dockerd takes from the file."""

    path: str
    missing: bool = False
    error: str | None = None
    values: dict[str, Any] = {}  # noqa: RUF012
    hosts: tuple[Text, ...] = ()
    keys: tuple[Key, ...] = ()

    def boolean(self, key: str) -> bool | None:
        value = self.values.get(key)
        return value if isinstance(value, bool) else None

    def is_true(self, key: str) -> bool:
        return self.values.get(key) is True

    def text(self, key: str) -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


def load(path: str, read: Callable[[str], bytes], version: Version) -> File:
    """Read the file; never raises."""
    try:
        content = read(path)
    except FileNotFoundError:
        return File(path, missing=True)
    except Unreadable as error:
        return File(path, error=error.reason)
    text = content.decode("utf-8", "replace").strip("\ufeff \t\r\n")
    if not text:
        return File(path) if version >= Version(23) else File(path, error="EOF")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return File(path, error=str(error))
    if not isinstance(values, dict):
        return File(path, error="json: cannot unmarshal into Go value of type map[string]interface {}")
    written = values.get("hosts")
    if written is not None and not (isinstance(written, list) and all(isinstance(x, str) for x in written)):
        return File(path, error="json: cannot unmarshal into Go struct field Config.hosts of type []string")
    return File(path, False, None, values, tuple(Text(x, Location(path)) for x in written or ()),
                tuple(Key(name, Location(path)) for name in values))


_SKIPPED = frozenset(("features", "builder", "deprecated-key-path", "allow-nondistributable-artifacts"))


def conflict(file: File, given: tuple[flags.Flag, ...], version: Version) -> str | None:
    """Why the file and the flags do not go together, in dockerd's words, or None."""
    known = flags.options_of(version)
    names = {option.name for option in known.values()} | {option.key for option in known.values()} | _SKIPPED
    unknown = [key for key in file.values if key not in names]
    if unknown:
        return f"the following directives don't match any configuration option: {', '.join(unknown)}"
    values: dict[str, list[str]] = {}
    for flag in given:
        values.setdefault(flag.name, []).append(flag.value)
    both = []
    for name in sorted(values):
        key = known[name].key or name
        if key in file.values and key != "runtimes":
            shown = f"[{' '.join(values[name])}]" if known[name].key else values[name][-1]
            both.append(f"{key}: (from flag: {shown}, from file: {_go(file.values[key])})")
    if both:
        return ("the following directives are specified both as a flag and in the configuration file: "
                + ", ".join(both))
    return None


def _go(value: Any) -> str:
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)
