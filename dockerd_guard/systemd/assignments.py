"""Value types for environment assignments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.syntax import Problem, is_utf8
from dockerd_guard.systemd.words import Word

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A valid variable name (env_name_is_valid())."""


class Variable(NamedTuple):
    """The value of a variable. `location` is None if systemd itself sets it."""

    value: str
    location: Location | None = None
    certain: bool = True
    verbatim: bool = False
    """Whether the text at `location` is the value itself, unquoted and on one line."""

    def at(self, start: int, end: int) -> Location | None:
        """Return the location of value[start:end], or that of the whole value if it is not verbatim."""
        if self.location is None or not self.verbatim:
            return self.location
        file, line, column, _ = self.location
        return Location(file, line, column + start, column + end)


class Assigned(NamedTuple):
    """One assignment from Environment= or from an environment file."""

    name: str
    variable: Variable

    @property
    def value(self) -> str:
        """The value without its location."""
        return self.variable.value


class EnvironmentFile(NamedTuple):
    """One EnvironmentFile=: a path or glob pattern. `optional` is the `-` prefix: the file may be missing."""

    path: str
    optional: bool
    location: Location


class Environment(NamedTuple):
    """The environment of a service. `failure` is why the start fails before anything is executed.

    `variables` are those of the process, `expansion` those that `$X` in a command line refers to; up to
    systemd 261 they are the same. `unknown_variables` and `unknown_expansion` are the names in each
    whose values only the running manager has.
    """

    variables: Mapping[str, Variable]
    problems: tuple[Problem, ...]
    failure: str | None
    expansion: Mapping[str, Variable]
    unknown_expansion: frozenset[str]
    unknown_variables: frozenset[str] = frozenset()

    @property
    def assigned(self) -> dict[str, str]:
        """The values that units and environment files assign, also files that a pattern matches."""
        return {name: variable.value for name, variable in self.expansion.items() if variable.location is not None}


def assignment(word: Word) -> Assigned | None:
    """Parse `NAME=VALUE` and locate the value; None if the word is not an assignment."""
    name, equals, value = word.text.partition("=")
    if not equals or not NAME.fullmatch(name) or not is_utf8(value):
        return None
    location = word.location
    start = word.raw.find(value, len(name) + 1)
    verbatim = location is not None and start > 0 and location.end_column - location.column == len(word.raw)
    if location is not None and verbatim:
        column = location.column + start
        location = location._replace(column=column, end_column=column + len(value))
    return Assigned(name, Variable(value, location, word.certain, verbatim))
