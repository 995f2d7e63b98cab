"""Environment assignments as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.syntax import Problem, is_utf8
from dockerd_guard.systemd.words import Word

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name of a variable, as env_name_is_valid() has it."""


class Variable(NamedTuple):
    """A value and where it is written; `location` is None for what systemd itself sets."""

    value: str
    location: Location | None = None
    certain: bool = True
    verbatim: bool = False
    """Whether the value stands in the file as it is, from `location` on, on one line."""

    def at(self, start: int, end: int) -> Location | None:
        """Where a part of the value stands; all of it where that cannot be told."""
        if self.location is None or not self.verbatim:
            return self.location
        file, line, column, _ = self.location
        return Location(file, line, column + start, column + end)


class Assigned(NamedTuple):
    """One variable given a value by Environment= or by a file."""

    name: str
    variable: Variable

    @property
    def value(self) -> str:
        """The value alone."""
        return self.variable.value


class EnvironmentFile(NamedTuple):
    """One EnvironmentFile=: the path or pattern, and whether it may be missing (`-`)."""

    path: str
    optional: bool
    location: Location


class Environment(NamedTuple):
    """What a service is started with; `failure` says why the start fails before anything runs.

    `expansion` is what `$X` in a command line stands for: up to 261 the same. `unknown` are names
    whose values only the running manager knows, `untold` those of them that the process has as well.
    """

    variables: Mapping[str, Variable]
    problems: tuple[Problem, ...]
    failure: str | None
    expansion: Mapping[str, Variable]
    unknown: frozenset[str]
    untold: frozenset[str] = frozenset()


def assignment(word: Word) -> Assigned | None:
    """`NAME=VALUE`, with the place of the value; None where it is no assignment."""
    name, equals, value = word.text.partition("=")
    if not equals or not NAME.fullmatch(name) or not is_utf8(value):
        return None
    where = word.location
    start = word.raw.find(value, len(name) + 1)
    verbatim = where is not None and start > 0 and where.end_column - where.column == len(word.raw)
    if where is not None and verbatim:
        column = where.column + start
        where = where._replace(column=column, end_column=column + len(value))
    return Assigned(name, Variable(value, where, word.certain, verbatim))
