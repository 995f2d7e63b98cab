"""Specifiers: `%n`, `%t` and the like, as src/shared/specifier.c and src/core/unit-printf.c.

Most are fixed for the system manager or stand in files. What is only known on the running host
(`%v`, and `%b`, the boot's ID) is read from /proc where the tree has one, else left as written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.tree import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from dockerd_guard.tree import Tree

_SPECIFIER = re.compile(r"%(.)", re.DOTALL)
_DIRECTORIES = {
    "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc", "D": "/usr/share",
    "T": "/tmp", "V": "/var/tmp",  # noqa: S108 -- what systemd puts there
}
_ROOT_USER = {"u": "root", "U": "0", "g": "root", "G": "0", "h": "/root"}
_OS_RELEASE = {"o": "ID", "w": "VERSION_ID", "B": "BUILD_ID", "W": "VARIANT_ID", "M": "IMAGE_ID", "A": "IMAGE_VERSION"}
_KERNEL = {"b": "/proc/sys/kernel/random/boot_id", "v": "/proc/sys/kernel/osrelease"}


class BadSpecifierError(ValueError):
    """A specifier that this version does not know, or that cannot be told; the text says which."""


class Expanded(NamedTuple):
    """A text with its specifiers put in; not `certain` where one had to stay."""

    text: str
    certain: bool = True


class Specifiers:
    """What the specifiers mean in one unit."""

    def __init__(self, tree: Tree, version: int, unit: str, fragment: str | None) -> None:
        self._tree = tree
        self._version = version
        self._unit = unit
        self._fragment = fragment
        self._known: dict[str, str | None] = {}

    def expand(self, text: str) -> Expanded:
        """Put the specifiers in. Raises BadSpecifierError."""
        if "%" not in text:
            return Expanded(text)
        certain = True

        def replace(found: re.Match[str]) -> str:
            nonlocal certain
            letter = found[1]
            if letter == "%":
                return "%"
            if not (letter.isascii() and letter.isalnum()):
                return found[0]
            value = self._value(letter)
            if value is None:
                certain = False
                return found[0]
            return value

        return Expanded(_SPECIFIER.sub(replace, text), certain)

    def _value(self, letter: str) -> str | None:
        if letter not in self._known:
            self._known[letter] = self._find(letter)
        return self._known[letter]

    def _find(self, letter: str) -> str | None:
        stem, _, _ = self._unit.rpartition(".")
        prefix, at, instance = stem.partition("@")
        if letter in _DIRECTORIES and not (letter == "D" and self._version < 256):
            return _DIRECTORIES[letter]
        if letter in _ROOT_USER:
            return _ROOT_USER[letter]
        if letter in _OS_RELEASE:
            return self._os_release(_OS_RELEASE[letter])
        if letter in _KERNEL:
            return self._line(_KERNEL[letter])
        simple: dict[str, Callable[[], str | None]] = {
            "n": lambda: self._unit,
            "N": lambda: stem,
            "p": lambda: prefix,
            "P": lambda: unescape_name(prefix),
            "i": lambda: instance,
            "I": lambda: unescape_name(instance),
            "j": lambda: prefix.rpartition("-")[2],
            "J": lambda: unescape_name(prefix.rpartition("-")[2]),
            "f": lambda: "/" + unescape_name(instance if at else prefix).lstrip("/"),
            "y": lambda: self._fragment and self._tree.resolve(self._fragment),
            "Y": lambda: self._fragment and (self._tree.resolve(self._fragment) or "").rpartition("/")[0],
            "d": lambda: f"/run/credentials/{self._unit}",
            "s": self._shell,
            "m": lambda: self._line("/etc/machine-id"),
            "H": self._host_name,
            "l": lambda: (name := self._host_name()) and name.partition(".")[0],
            "q": self._pretty_host_name,
            "a": lambda: None,
            "c": lambda: f"/system.slice/{self._unit}",
            "r": lambda: "/system.slice",
            "R": lambda: "",
        }
        if letter not in simple:
            raise BadSpecifierError(f"%{letter}")
        return simple[letter]()

    def _line(self, path: str) -> str | None:
        try:
            return self._tree.read(path).decode("utf-8", "surrogateescape").partition("\n")[0] or None
        except (FileNotFoundError, Unreadable):
            return None

    def _host_name(self) -> str | None:
        return self._line("/proc/sys/kernel/hostname") or self._line("/etc/hostname")

    def _pretty_host_name(self) -> str | None:
        return self._variable("/etc/machine-info", "PRETTY_HOSTNAME") or self._host_name()

    def _os_release(self, key: str) -> str | None:
        path = "/etc/os-release" if self._tree.stat("/etc/os-release") else "/usr/lib/os-release"
        return self._variable(path, key) or ""

    def _variable(self, path: str, key: str) -> str | None:
        from dockerd_guard.systemd.environment import read_environment_file  # noqa: PLC0415 -- rarely needed

        try:
            data = self._tree.read(path)
        except (FileNotFoundError, Unreadable):
            return None
        found = read_environment_file(data, path, self._version)
        return next((a.value for a in reversed(found.assignments) if a.name == key), None)

    def _shell(self) -> str:
        return "/bin/sh"


def unescape_name(text: str) -> str:
    r"""Undo the escapes of a unit name: `-` is `/`, `\x2d` is `-`."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text.replace("-", "/"))
