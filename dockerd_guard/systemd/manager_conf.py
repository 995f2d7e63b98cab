"""DefaultEnvironment= of system.conf, the environment that the manager gives every service.

Implements parse_config_file() (src/core/main.c) and config_parse_many() (src/shared/conf-parser.c).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dockerd_guard.rootfs import Unreadable
from dockerd_guard.systemd.assignments import Variable, assignment
from dockerd_guard.systemd.specifiers import IN_SYSTEM_CONF, BadSpecifierError, Specifiers
from dockerd_guard.systemd.syntax import BadFileError, Setting, settings
from dockerd_guard.systemd.words import Word, WordError, rules_of, split_words

if TYPE_CHECKING:
    from dockerd_guard.rootfs import Rootfs

DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
"""Directories of system.conf and system.conf.d/, by precedence (CONF_PATHS)."""

MAIN_FILE_ANYWHERE_VERSION = 254
"""Before this version system.conf itself was read from /etc only."""

MORE_SPECIFIERS_VERSION = 257


def default_environment(rootfs: Rootfs, version: int) -> dict[str, Variable]:
    """Return the variables of DefaultEnvironment= with their locations."""
    found: dict[str, Variable] = {}
    for path in _files(rootfs, version):
        try:
            for setting in settings(rootfs.read(path), path, ("Manager",), [], version):
                if setting.key != "DefaultEnvironment":
                    continue
                if not setting.value:
                    found.clear()
                for word in _split_words(setting, rootfs, version):
                    if (assigned := assignment(word)) is not None:
                        found[assigned.name] = assigned.variable
        except FileNotFoundError:
            continue
        except (BadFileError, Unreadable):
            # An error in one file stops reading; the remaining files are ignored.
            break
    return found


def _files(rootfs: Rootfs, version: int) -> list[str]:
    """Return the main file, then the drop-ins sorted by name; the first directory with a name wins."""
    drop_ins: dict[str, str] = {}
    main: list[str] = []
    for directory in DIRECTORIES:
        try:
            for name, kind in rootfs.kinds(f"{directory}/system.conf.d").items():
                if kind in "fl" and name.endswith(".conf") and not name.startswith("."):
                    drop_ins.setdefault(name, f"{directory}/system.conf.d/{name}")
            path = f"{directory}/system.conf"
            if not main and (directory == "/etc/systemd" or version >= MAIN_FILE_ANYWHERE_VERSION) \
                    and rootfs.stat(path) is not None:
                main.append(path)
        except Unreadable:
            continue
    return main + [drop_ins[name] for name in sorted(drop_ins, key=os.fsencode)]


def _split_words(setting: Setting, rootfs: Rootfs, version: int) -> Iterator[Word]:
    known = IN_SYSTEM_CONF if version >= MORE_SPECIFIERS_VERSION else IN_SYSTEM_CONF.difference("uUgGhs")
    specifiers = Specifiers(rootfs, version, "", "")
    with contextlib.suppress(WordError):
        for raw in split_words(setting.value, rules_of(version)):
            with contextlib.suppress(BadSpecifierError):
                text, certain = specifiers.expand(raw.text, known)
                yield Word(text, setting.value[raw.start:raw.end], setting.at(raw.start, raw.end), certain)
