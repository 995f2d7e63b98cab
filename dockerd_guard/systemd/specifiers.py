"""Specifiers (`%n`, `%t` and so on). Implements src/shared/specifier.c and src/core/unit-printf.c.

Most are constant for the system manager or come from files. Those of the running host (`%v`, the kernel
release; `%b`, the boot ID) are read from /proc below the root directory. Without it they are not
expanded and the result is not `certain`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dockerd_guard.rootfs import Rootfs

_SPECIFIER = re.compile(r"%(.)", re.DOTALL)
_DIRECTORIES = {
    "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "E": "/etc", "D": "/usr/share",
}
_TEMPORARY = {"T": "/tmp", "V": "/var/tmp"}  # noqa: S108 -- systemd's values
_MANAGER = {"u": "root", "U": "0", "g": "root", "G": "0"}
_OS_RELEASE = {
    "o": "ID", "w": "VERSION_ID", "B": "BUILD_ID", "W": "VARIANT_ID", "M": "IMAGE_ID", "A": "IMAGE_VERSION",
}
IN_UNIT_NAMES = frozenset("ijnNp" "aAbBHlmMoqvwW" "uUgG")
"""The specifiers available in unit names (Service=, Sockets=, Requires=; unit_name_printf())."""

IN_SYSTEM_CONF = frozenset("aAbBHlmMoqvwW" "TV" "uUgG" "hs")
"""The specifiers available in DefaultEnvironment=, the last two groups since 257 (config_parse_environ())."""

SHARED_DATA_VERSION = 256
"""Introduced %D."""

MAX_UNIT_NAME_BYTES = 255

_DEFAULT_SHELL = "/bin/bash"
_ELF_MACHINES = {
    3: "x86", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86-64", 183: "arm64", 243: "riscv64",
    258: "loongarch64",
}


class BadSpecifierError(ValueError):
    """A specifier that this version does not support. The message is systemd's."""


class Expanded(NamedTuple):
    """A text with specifiers expanded. Not `certain` if the value of one is unknown; it is then left in the text."""

    text: str
    certain: bool = True


class Specifiers:
    """Expands specifiers for one unit."""

    def __init__(self, rootfs: Rootfs, version: int, unit: str, fragment: str) -> None:
        self._rootfs = rootfs
        self._version = version
        self._unit = unit
        self._fragment = fragment
        self._cached: dict[str, str | None] = {}

    def expand(self, text: str, allowed: frozenset[str] | None = None) -> Expanded:
        """Expand all specifiers. Raises BadSpecifierError for one that is unknown or not `allowed` (None: all are)."""
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
            if allowed is not None and letter not in allowed:
                raise BadSpecifierError("Invalid slot")
            value = self._value(letter)
            if value is None:
                certain = False
                return found[0]
            return value

        return Expanded(_SPECIFIER.sub(replace, text), certain)

    def _value(self, letter: str) -> str | None:
        if letter not in self._cached:
            self._cached[letter] = self._find(letter)
        return self._cached[letter]

    def _find(self, letter: str) -> str | None:
        stem, _, _ = self._unit.rpartition(".")
        prefix, _, instance = stem.partition("@")
        if letter == "D" and self._version < SHARED_DATA_VERSION:
            raise BadSpecifierError("Invalid slot")
        for fixed in (_DIRECTORIES, _TEMPORARY, _MANAGER):
            if letter in fixed:
                return fixed[letter]
        if letter in _OS_RELEASE:
            return self._os_release(_OS_RELEASE[letter])
        others: dict[str, Callable[[], str | None]] = {
            "n": lambda: self._unit,
            "N": lambda: stem,
            "p": lambda: prefix,
            "P": lambda: unescape_name(prefix),
            "i": lambda: instance,
            "I": lambda: unescape_name(instance),
            "j": lambda: prefix.rpartition("-")[2],
            "J": lambda: unescape_name(prefix.rpartition("-")[2]),
            "f": lambda: "/" + unescape_name(instance or prefix).lstrip("/"),
            "y": lambda: self._rootfs.resolve(self._fragment),
            "Y": lambda: (self._rootfs.resolve(self._fragment) or "").rpartition("/")[0],
            "d": lambda: f"/run/credentials/{self._unit}",
            "h": lambda: "/root",
            "s": lambda: root_shell(self._rootfs),
            "m": lambda: self._line("/etc/machine-id"),
            "b": lambda: (boot := self._line("/proc/sys/kernel/random/boot_id")) and boot.replace("-", ""),
            "v": lambda: self._line("/proc/sys/kernel/osrelease"),
            "H": self._host_name,
            "l": lambda: (name := self._host_name()) and name.partition(".")[0],
            "q": lambda: self._variable("/etc/machine-info", "PRETTY_HOSTNAME") or self._host_name(),
            "a": self._architecture,
            # The slice is unknown when the files are read, so these are relative to the root slice.
            "c": lambda: f"/{self._unit}",
            "r": lambda: "",
            "R": lambda: "",
        }
        if letter not in others:
            raise BadSpecifierError("Invalid slot")
        return others[letter]()

    def _line(self, path: str) -> str | None:
        data = self._rootfs.read_if_possible(path) or b""
        return data.partition(b"\n")[0].decode("utf-8", "surrogateescape") or None

    def _host_name(self) -> str | None:
        return self._line("/proc/sys/kernel/hostname") or self._line("/etc/hostname")

    def _os_release(self, key: str) -> str | None:
        path = "/etc/os-release" if self._rootfs.stat("/etc/os-release") else "/usr/lib/os-release"
        return self._variable(path, key) or ""

    def _variable(self, path: str, key: str) -> str | None:
        from dockerd_guard.systemd.environment_file import read_environment_file

        found = read_environment_file(self._rootfs.read_if_possible(path) or b"", path, self._version)
        return next((a.value for a in reversed(found.assignments) if a.name == key), None)

    def _architecture(self) -> str | None:
        """Return the architecture, from the ELF header of PID 1's executable; None if unknown."""
        for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/sh"):
            head = (self._rootfs.read_if_possible(path) or b"")[:20]
            if head.startswith(b"\x7fELF"):
                is_little = head[5] == 1
                machine = int.from_bytes(head[18:20], "little" if is_little else "big")
                return "ppc64-le" if machine == 21 and is_little else _ELF_MACHINES.get(machine)
        return None


def root_shell(rootfs: Rootfs) -> str:
    """default_root_shell(): systemd's compiled-in shell if it exists, else /bin/sh."""
    return _DEFAULT_SHELL if rootfs.stat(_DEFAULT_SHELL) is not None else "/bin/sh"


def unescape_name(text: str) -> str:
    r"""unit_name_unescape(): `-` becomes `/`, `\x2d` becomes `-`."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text.replace("-", "/"))
