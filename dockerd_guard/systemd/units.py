"""A unit and a service as systemd has them after loading: everything put together.

As unit_load_fragment, unit_load_dropin (src/core/) and service_verify (src/core/service.c).
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from dockerd_guard.source import Location
from dockerd_guard.systemd.environment import NAME, Assigned, EnvironmentFile, Variable
from dockerd_guard.systemd.exec import Command, commands, simplify
from dockerd_guard.systemd.lookup import UnitFiles, unit_files
from dockerd_guard.systemd.specifiers import BadSpecifierError, Specifiers
from dockerd_guard.systemd.syntax import BadFileError, Effect, Problem, Setting, is_utf8, settings
from dockerd_guard.systemd.words import Word, WordError, extract_first_word
from dockerd_guard.tree import Tree, Unreadable

NEWEST = 262
"""The newest systemd whose reading is known here."""

LoadState = Literal["loaded", "not-found", "masked", "bad-setting", "error"]

_SHARED = re.compile(r"libsystemd-shared-(\d+)\S*\.so")


class Unit(NamedTuple):
    """What is common to all units: where it came from and whether systemd takes it."""

    name: str
    load_state: LoadState
    reason: str | None = None
    fragment: str | None = None
    dropins: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    problems: tuple[Problem, ...] = ()


class Service(NamedTuple):
    """A service unit. Where it does not load, what was written as far as it was read."""

    unit: Unit
    type: str = "simple"
    exec_start: tuple[Command, ...] = ()
    environment: tuple[Assigned, ...] = ()
    environment_files: tuple[EnvironmentFile, ...] = ()
    pass_environment: tuple[Word, ...] = ()
    unset_environment: tuple[Word, ...] = ()
    sockets: tuple[Word, ...] = ()


def detect_version(tree: Tree) -> int | None:
    """The major version of the systemd that is installed, by its private library's name."""
    for directory in ("/usr/lib/systemd", "/lib/systemd", "/usr/lib64/systemd"):
        if (found := _library_version(tree, directory)) is not None:
            return found
    for name in tree.names("/usr/lib"):
        if "-linux-" in name and (found := _library_version(tree, f"/usr/lib/{name}/systemd")) is not None:
            return found
    return None


def _library_version(tree: Tree, directory: str) -> int | None:
    found = [int(match[1]) for name in tree.names(directory) if (match := _SHARED.fullmatch(name))]
    return max(found, default=None)


def load_service(tree: Tree, name: str = "docker.service", version: int = NEWEST) -> Service:
    """Read a service unit as systemd `version` would."""
    return _ServiceLoader(tree, name, version).load()


class Loader:
    """Reads the files of one unit in order; subclasses say what the settings mean."""

    sections: tuple[str, ...] = ("Unit", "Install")

    def __init__(self, tree: Tree, name: str, version: int) -> None:
        self.tree = tree
        self.name = name
        self.version = version
        self.files: UnitFiles = unit_files(tree, version)
        self.problems: list[Problem] = []
        self.settings: list[Setting] = []
        self.specifiers = Specifiers(tree, version, name, None)

    def read(self) -> Unit:
        """Find and read everything."""
        fragment = self.files.fragment(self.name)
        if fragment.path is None:
            return Unit(self.name, "not-found", f"Unit {self.name} not found.", names=fragment.names)
        name = fragment.path.rpartition("/")[2]
        if "@" in name:
            name = self.name
        unit = Unit(name, "loaded", None, fragment.path, names=fragment.names)
        if fragment.masked:
            return unit._replace(load_state="masked", reason=f"Unit {name} is masked.")
        self.specifiers = Specifiers(self.tree, self.version, self.name, fragment.path)
        try:
            data = self.tree.read(fragment.path)
        except FileNotFoundError:
            return unit._replace(load_state="not-found", reason=f"Unit {name} not found.", fragment=None)
        except Unreadable as error:
            return unit._replace(load_state="error", reason=str(error))
        state: LoadState = "loaded"
        reason = None
        try:
            self.read_file(data, fragment.path)
        except BadFileError as error:
            self.problems.append(Problem(error.location, error.text, "refused"))
            state = "bad-setting" if error.fatal_setting else "error"
            reason = error.text
        drop_ins = self.files.drop_ins(name, fragment.names)
        self.specifiers = Specifiers(self.tree, self.version, name, fragment.path)
        for drop_in in drop_ins:
            for shadow in drop_in.shadows:
                self.note(Location(shadow), f"Skipping overridden file '{shadow}': {drop_in.path} has its name.",
                          "file-ignored")
            self.read_drop_in(drop_in.path, bool(drop_in.shadows))
        return unit._replace(load_state=state, reason=reason, dropins=tuple(d.path for d in drop_ins))

    def note(self, where: Location, text: str, effect: Effect) -> None:
        """Keep a problem."""
        self.problems.append(Problem(where, text, effect))

    def read_drop_in(self, path: str, shadows: bool) -> None:
        """Read one drop-in: an error in it costs the rest of it, and nothing else."""
        if self.files.is_mask(path):
            if not shadows:
                self.note(Location(path), f"'{path}' is empty and masks nothing.", "file-ignored")
            return
        try:
            self.read_file(self.tree.read(path), path)
        except FileNotFoundError:
            self.note(Location(path), f"'{path}' is a link to nothing.", "file-ignored")
        except Unreadable as error:
            self.note(Location(path), str(error), "file-ignored")
        except BadFileError as error:
            self.note(error.location, error.text, "rest-dropped")

    def read_file(self, data: bytes, path: str) -> None:
        """Apply all of a file; raises BadFileError where systemd would stop."""
        for setting in settings(data, path, self.sections, self.problems):
            self.settings.append(setting)
            self.apply(setting)

    def apply(self, setting: Setting) -> None:
        """Take a setting in."""
        raise NotImplementedError

    def expand(self, text: str, where: Location) -> tuple[str, bool] | None:
        """Put specifiers in; None, and a problem, where one means nothing."""
        try:
            return self.specifiers.expand(text)
        except BadSpecifierError as error:
            self.note(where, f"Failed to resolve unit specifiers in '{text}', ignoring: Invalid slot ({error})",
                      "ignored")
            return None

    def words(self, setting: Setting, *, unescape: bool, said: str) -> list[Word]:
        """Split a list of words, specifiers expanded; an error ends it, what was read stays."""
        found: list[Word] = []
        position = 0
        while True:
            try:
                raw = extract_first_word(setting.value, position, unescape=unescape)
            except WordError as error:
                self.note(setting.at(error.position - 1, error.position), f"{said}, ignoring: {setting.value}",
                          "ignored")
                return found
            if raw is None:
                return found
            position = raw.next
            where = setting.at(raw.start, raw.end)
            expanded = self.expand(raw.text, where)
            if expanded is not None:
                found.append(Word(expanded[0], setting.value[raw.start:raw.end], where, expanded[1]))


class _ServiceLoader(Loader):
    sections = ("Unit", "Service", "Install")

    def __init__(self, tree: Tree, name: str, version: int) -> None:
        super().__init__(tree, name, version)
        self.type = ""
        self.values: dict[str, str] = {}
        self.commands: dict[str, list[Command]] = {}
        self.environment: dict[str, Variable] = {}
        self.environment_files: list[EnvironmentFile] = []
        self.pass_environment: list[Word] = []
        self.unset_environment: list[Word] = []
        self.sockets: list[Word] = []

    def load(self) -> Service:
        unit = self.read()
        if unit.load_state == "loaded" and (reason := self.verify()):
            unit = unit._replace(load_state="bad-setting", reason=reason)
        starts = tuple(self.commands.get("ExecStart", ()))
        return Service(
            unit._replace(settings=tuple(self.settings), problems=tuple(self.problems)),
            self.effective_type(),
            starts,
            tuple(Assigned(name, variable) for name, variable in self.environment.items()),
            tuple(self.environment_files),
            tuple(self.pass_environment),
            tuple(self.unset_environment),
            tuple(self.sockets),
        )

    def effective_type(self) -> str:
        if self.type:
            return self.type
        if "BusName" in self.values:
            return "dbus"
        return "simple" if self.commands.get("ExecStart") else "oneshot"

    def verify(self) -> str | None:
        """service_verify(): why the unit as a whole is refused."""
        starts = self.commands.get("ExecStart", [])
        kind = self.effective_type()
        if not starts:
            if not self.commands.get("ExecStop") and "SuccessAction" not in self.values:
                return "Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing."
            if kind != "oneshot":
                return ("Service has no ExecStart= setting, which is only allowed for Type=oneshot services. "
                        "Refusing.")
        elif kind != "oneshot" and len(starts) > 1:
            reason = ("Service has more than one ExecStart= setting, which is only allowed for Type=oneshot "
                      "services. Refusing.")
            self.note(starts[1].location, reason, "refused")
            return reason
        elif kind == "oneshot" and self.values.get("Restart") in ("always", "on-success"):
            return ("Service has Restart= set to either always or on-success, which isn't allowed for "
                    "Type=oneshot services. Refusing.")
        return None

    def apply(self, setting: Setting) -> None:
        section, key = setting.section, setting.key
        if section == "Unit":
            if key == "SuccessAction":
                self.values[key] = setting.value
            return
        if section != "Service":
            return
        if key.startswith("Exec") and key in _EXEC:
            kept = self.commands.setdefault(key, [])
            if not setting.value:
                kept.clear()
            else:
                kept.extend(commands(setting, self.specifiers, self.version, self.problems))
        elif (handler := _HANDLERS.get(key)) is not None:
            handler(self, setting)
        elif key in ("Restart", "BusName", "RemainAfterExit"):
            self.values[key] = setting.value

    def set_type(self, setting: Setting) -> None:
        known = ("simple", "exec", "forking", "oneshot", "dbus", "notify", "idle")
        if setting.value in known or (setting.value == "notify-reload" and self.version >= 253):
            self.type = setting.value
        else:
            self.note(setting.location, f"Failed to parse service type, ignoring: {setting.value}", "ignored")

    def add_environment(self, setting: Setting) -> None:
        if not setting.value:
            self.environment.clear()
            return
        for word in self.words(setting, unescape=True, said="Invalid syntax"):
            name, equals, value = word.text.partition("=")
            if not equals or not NAME.fullmatch(name) or not is_utf8(value):
                assert word.location is not None
                self.note(word.location, f"Invalid environment assignment, ignoring: {word.text}", "ignored")
                continue
            where = word.location
            verbatim = word.raw == word.text
            if where is not None and verbatim:
                where = where._replace(column=min(where.column + len(name) + 1, where.end_column))
            self.environment.pop(name, None)
            self.environment[name] = Variable(value, where, word.certain, verbatim)

    def add_environment_file(self, setting: Setting) -> None:
        if not setting.value:
            self.environment_files.clear()
            return
        expanded = self.expand(setting.value, setting.location)
        if expanded is None:
            return
        optional = expanded[0].startswith("-")
        path = expanded[0].removeprefix("-")
        if not path.startswith("/"):
            self.note(setting.location, f"EnvironmentFile= path is not absolute, ignoring: {path}", "ignored")
        elif ".." in path.split("/"):
            self.note(setting.location, f"EnvironmentFile= path is not normalized, ignoring: {path}", "ignored")
        else:
            self.environment_files.append(EnvironmentFile(simplify(path), optional, setting.location))

    def add_pass_environment(self, setting: Setting) -> None:
        if not setting.value:
            self.pass_environment.clear()
            return
        for word in self.words(setting, unescape=False, said="Trailing garbage in PassEnvironment"):
            if NAME.fullmatch(word.text):
                self.pass_environment.append(word)
            elif word.location is not None:
                self.note(word.location, f"Invalid environment name for PassEnvironment, ignoring: {word.text}",
                          "ignored")

    def add_unset_environment(self, setting: Setting) -> None:
        if not setting.value:
            self.unset_environment.clear()
            return
        self.unset_environment += self.words(setting, unescape=True, said="Invalid syntax")

    def add_sockets(self, setting: Setting) -> None:
        for word in self.words(setting, unescape=False, said="Trailing garbage in sockets"):
            if word.text.endswith(".socket"):
                self.sockets.append(word)
            elif word.location is not None:
                self.note(word.location, f"Unit name {word.text} not a socket, ignoring.", "ignored")


_EXEC = frozenset((
    "ExecStart", "ExecStartPre", "ExecStartPost", "ExecCondition", "ExecReload", "ExecReloadPost", "ExecStop",
    "ExecStopPost",
))
_HANDLERS = {
    "Type": _ServiceLoader.set_type,
    "Environment": _ServiceLoader.add_environment,
    "EnvironmentFile": _ServiceLoader.add_environment_file,
    "PassEnvironment": _ServiceLoader.add_pass_environment,
    "UnsetEnvironment": _ServiceLoader.add_unset_environment,
    "Sockets": _ServiceLoader.add_sockets,
}
