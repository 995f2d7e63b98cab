"""The files of a tree, the random choices, and the directories that systemd searches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from tests.differential.layout import Layout

T = TypeVar("T")
ETC, RUN, LIB, LOCAL = (
    "/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system")
CONTROL, RUN_CONTROL = "/etc/systemd/system.control", "/run/systemd/system.control"
GENERATED, EARLY, LATE = "/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late"
ATTACHED = "/etc/systemd/system.attached"
OVERRIDE_NAMES = ("override.conf", "docker.conf", "hosts.conf", "10-hosts.conf", "http-proxy.conf", "10-docker.conf",
                  "99-local.conf", "tcp.conf", "startup_options.conf", "options.conf", "zz.conf", "90-a.conf", "9.conf",
                  "Foo.conf", "_x.conf", "~i.conf", "sp ace.conf", "10-machine.conf", "20-listen.conf", "é.conf",
                  "x.rpmnew.conf", "#a.conf", "a#.conf")
IGNORED_NAMES = (".hidden.conf", "override.conf.bak", "override.conf~", "override.CONF", "override.conf.dpkg-old",
                 "override", "override.conf.swp", ".override.conf.swp", "override.conf.rpmsave", "override.txt",
                 "#override.conf#", "x.conf.orig", "override.conf.disabled", "override.conf ")


class Tree:
    """A tree that is being generated. All random choices come from `random`."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(f"dockerd-guard differential {seed} {number}")
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.directories: list[str] = []
        self.full = False
        self.service = "docker.service"
        self.executable = "/usr/bin/dockerd"

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, choices: Sequence[T]) -> T:
        return self.random.choice(choices)

    def weighted(self, choices: dict[str, float]) -> str:
        return self.random.choices(list(choices), list(choices.values()))[0]

    def put(self, path: str, text: str | bytes) -> None:
        self.take_away(path)
        self.files[path] = text.encode() if isinstance(text, str) else text

    def link(self, path: str, target: str) -> None:
        self.take_away(path)
        self.links[path] = target

    def take_away(self, path: str) -> None:
        self.files.pop(path, None)
        self.links.pop(path, None)

    def layout(self) -> Layout:
        """Return the tree, without paths below something that is not a directory, and without duplicates."""
        taken = set(self.files) | set(self.links)
        beneath = {path for path in taken | set(self.directories)
                   if any(path[:at] in taken for at in range(1, len(path)) if path[at] == "/")}
        taken_names = {path for path in taken - beneath
                       if any(other.startswith(path + "/") for other in [*taken, *self.directories])}
        return Layout({path: content for path, content in self.files.items() if path not in beneath | taken_names},
                      {path: to for path, to in self.links.items() if path not in beneath | taken_names},
                      tuple(path for path in dict.fromkeys(self.directories) if path not in beneath | taken),
                      self.full)

    def search_directory(self) -> str:
        return self.weighted({ETC: 50, LIB: 18, RUN: 10, LOCAL: 5, CONTROL: 3, RUN_CONTROL: 2, GENERATED: 3, LATE: 2,
                              EARLY: 2, ATTACHED: 1})

    def drop_in_directory(self, unit: str) -> str:
        suffix = unit.rpartition(".")[2]
        stem = self.weighted({unit: 90, suffix: 5, "docker-." + suffix: 1, "docker@." + suffix: 0.5, unit.upper(): 0.3,
                              "alias-of." + suffix: 2})
        return f"{self.search_directory()}/{stem}.d"

    def drop_in_name(self) -> str:
        return self.one(OVERRIDE_NAMES if self.chance(0.93) else IGNORED_NAMES)
