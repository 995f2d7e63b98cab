"""Loading of a unit: its fragment and its drop-ins, and the settings that refuse a unit of any type.

Implements unit_load_fragment() and unit_load_dropin() (src/core/load-fragment.c, load-dropin.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.systemd.exec import Command, commands
from dockerd_guard.systemd.keys import KEYS
from dockerd_guard.systemd.lookup import is_unit_name, not_read, unit_files
from dockerd_guard.systemd.parse import is_valid_user, parse_boolean, path_error
from dockerd_guard.systemd.specifiers import IN_UNIT_NAMES, MAX_UNIT_NAME_BYTES, BadSpecifierError, Expanded, Specifiers
from dockerd_guard.systemd.syntax import (
    WHITESPACE,
    BadFileError,
    Effect,
    Problem,
    Setting,
    byte_length,
    printable,
    settings,
)
from dockerd_guard.systemd.words import UNQUOTED, Word, WordError, rules_of, split_words

LoadState = Literal["loaded", "not-found", "masked", "bad-setting", "error"]

REQUIREMENTS = ("Requires", "BindsTo", "BindTo", "Requisite")
_WORD = re.compile(f"[^{WHITESPACE}]+")
_RESET_BY_EMPTY = frozenset((
    "BusName", "Group", "PIDFile", "RestartForceExitStatus", "SocketGroup", "SocketUser", "User"))
_VAR_RUN = re.compile(r"/+(?:\./+)*var/+(?:\./+)*run(?:|/+(?:\./+)*(.*))", re.DOTALL)
_NO_DYNAMIC_HOME_VERSION = 253

API_REFUSED_VERSION = 256
"""Since this version PIDFile= and most Listen...= settings must not be below /proc, /sys or /dev."""


class Unit(NamedTuple):
    """The part that all unit types have: files, load state and assignments.

    `reason` is why the unit is not loaded, `fragment` the unit's own file, `dropins` the drop-ins in the
    order applied, `settings` all assignments in that order, `problems` what systemd warns about. `ambiguity`
    is why systemd may read other drop-ins than these.
    """

    name: str
    load_state: LoadState
    reason: str | None = None
    fragment: str | None = None
    dropins: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    problems: tuple[Problem, ...] = ()
    ambiguity: str | None = None


Handler = Callable[["Loader", Setting], None]
"""Applies one assignment."""


class Loader:
    """Reads the files of one unit in order. A subclass defines the settings of its section by `handlers` and
    `exec_keys`, and adds to `lists` those that an empty assignment clears."""

    section = ""
    exec_keys: frozenset[str] = frozenset()
    handlers: dict[str, Handler] = {}  # noqa: RUF012 -- constant, set by subclasses

    def __init__(self, rootfs: Rootfs, name: str, version: int) -> None:
        self.rootfs = rootfs
        self.name = name
        self.version = version
        self.files = unit_files(rootfs, version)
        self.problems: list[Problem] = list(self.files.problems)
        self.settings: list[Setting] = []
        self.specifiers = Specifiers(rootfs, version, name, "")
        self.commands: dict[str, list[Command]] = {}
        self.requirements: dict[str, list[Word]] = {key: [] for key in REQUIREMENTS}
        self.values: dict[str, str] = {}
        """Valid values of enumerations, booleans and other simple settings."""
        self.lists: Mapping[str, dict[str, Any] | list[Any]] = {}

    def read(self) -> Unit:  # noqa: PLR0911 -- one per load state
        """Find and read all files. Checks of the unit as a whole are not included."""
        fragment = self.files.fragment(self.name)
        if fragment.path is None:
            return Unit(self.name, "not-found", f"Unit {self.name} not found.", names=fragment.names)
        base = fragment.path.rpartition("/")[2]
        unit = Unit(self.name if "@" in base else base, "loaded", None, fragment.path, names=fragment.names)
        if fragment.masked:
            return unit._replace(load_state="masked", reason=f"Unit {unit.name} is masked.")
        self.specifiers = Specifiers(self.rootfs, self.version, self.name, fragment.path)
        try:
            self.read_file(self.rootfs.read(fragment.path), fragment.path)
        except FileNotFoundError:
            return unit._replace(load_state="not-found", reason=f"Unit {unit.name} not found.", fragment=None)
        except Unreadable as error:
            self.note(Location(fragment.path), error.reason, "refused")
            return unit._replace(load_state="error", reason=str(error))
        except BadFileError as error:
            self.note(error.location, error.text, "refused")
            state: LoadState = "bad-setting" if error.fatal_setting else "error"
            return unit._replace(load_state=state, reason=error.text)
        # From here on the unit has the name of its file (merge_by_names).
        self.specifiers = Specifiers(self.rootfs, self.version, unit.name, fragment.path)
        for path in self.files.requirements(unit.name, fragment.names):
            name = path.rpartition("/")[2]
            self.requirements["Requires"].append(Word(name, name, Location(path)))
        drop_ins = self.files.drop_ins(unit.name, fragment.names, self.problems)
        unit = unit._replace(dropins=drop_ins, ambiguity=self.files.ambiguous_drop_ins(unit.name, fragment.names))
        for number, path in enumerate(drop_ins):
            if self.rootfs.is_exhausted:
                return unit._replace(dropins=drop_ins[:number])
            try:
                self.read_drop_in(path)
            except BadFileError as error:
                self.note(error.location, error.text, "refused")
                return unit._replace(load_state="error", reason=error.text)
        return unit

    def finished(self, unit: Unit) -> Unit:
        """Return the unit with the collected settings and problems."""
        problems = tuple(problem._replace(text=printable(problem.text)) for problem in self.problems)
        reason = None if unit.reason is None else printable(unit.reason)
        return unit._replace(reason=reason, settings=tuple(self.settings), problems=problems)

    def verify_contexts(self) -> str | None:
        """unit_verify_contexts(): why the unit is refused, or None."""
        values = self.values
        if (values.get("DynamicUser") == "yes" and values.get("WorkingDirectory") == "~"
                and self.version >= _NO_DYNAMIC_HOME_VERSION):
            return "WorkingDirectory=~ is not allowed under DynamicUser=yes."
        if values.get("PAMName") and values.get("KillMode", "control-group") not in ("control-group", "mixed"):
            return "Unit has PAM enabled. Kill mode must be set to 'control-group' or 'mixed'."
        return None

    def note(self, location: Location, text: str, effect: Effect) -> None:
        self.problems.append(Problem(location, text, effect))

    def note_invalid(self, setting: Setting) -> None:
        """Record that an assignment is ignored because its value is invalid."""
        self.note(setting.location, f"Failed to parse {setting.key}=, ignoring: Invalid argument", "ignored")

    def read_drop_in(self, path: str) -> None:
        """Read one drop-in. An error in it drops the rest of the file only.

        Raises BadFileError for a FIFO: the manager blocks in open(2) until there is a writer. Observed on
        252, 257 and 262: only a writer or a reboot ends this.
        """
        try:
            self.read_file(self.rootfs.read(path), path)
        except FileNotFoundError:
            if not self.files.is_mask(path):
                self.problems.append(not_read(path, "it is a dangling symbolic link"))
        except Unreadable as error:
            if (entry := self.rootfs.stat_if_possible(path)) is not None and entry.kind == "FIFO":
                raise BadFileError(Location(path), f"{path} is a FIFO: systemd hangs when it reads it") from None
            if not self.files.is_mask(path):
                self.problems.append(not_read(path, f"it {error.reason}"))
        except BadFileError as error:
            self.note(error.location, error.text, "rest-dropped")

    def read_file(self, data: bytes, path: str) -> None:
        """Apply all assignments of a file. Raises BadFileError where systemd stops."""
        for setting in settings(data, path, ("Unit", self.section, "Install"), self.problems, self.version):
            self.settings.append(setting)
            self.apply(setting)

    def apply(self, setting: Setting) -> None:
        key = setting.key
        if setting.section == self.section:
            if key in self.exec_keys:
                kept = self.commands.setdefault(key, [])
                if setting.value:
                    kept.extend(commands(setting, self.specifiers, self.version, self.problems))
                else:
                    kept.clear()
                return
            handler = self.handlers.get(key) or _REFUSING.get(key)
        elif setting.section == "Unit":
            if key in REQUIREMENTS:
                self.requirements[key].extend(self.unit_names(setting))
                return
            handler = _set_success_action if key == "SuccessAction" else None
        else:
            handler = None
        # Keys that this version does not know are ignored.
        since = KEYS.get(f"{setting.section}.{key}")
        if since is None or self.version < since:
            if not key.startswith("X-"):
                self.note(setting.location, f"Unknown key '{key}' in section [{setting.section}], ignoring.", "ignored")
        elif not setting.value and key in self.lists:
            self.lists[key].clear()
        elif not setting.value and key in _RESET_BY_EMPTY:
            self.values.pop(key, None)
        elif handler is not None:
            handler(self, setting)

    def expand(
        self, text: str, location: Location, *, max_bytes: int = 0, allowed: frozenset[str] | None = None
    ) -> Expanded | None:
        """Expand specifiers. Records a problem and returns None if one is unknown or the result is too long."""
        try:
            expanded = self.specifiers.expand(text, allowed)
        except BadSpecifierError as error:
            why = str(error)
        else:
            if not max_bytes or byte_length(expanded.text) <= max_bytes:
                return expanded
            why = "File name too long"
        self.note(location, f"Failed to resolve unit specifiers, ignoring: {why}", "ignored")
        return None

    def words(self, setting: Setting, *, unescape: bool, error: str) -> Iterator[Word]:
        """Yield the words of a list with specifiers expanded. A syntax error ends the list."""
        position = 0
        try:
            for raw in split_words(setting.value, rules_of(self.version) if unescape else UNQUOTED):
                position = raw.next
                location = setting.at(raw.start, raw.end)
                expanded = self.expand(raw.text, location)
                if expanded is not None:
                    yield Word(expanded.text, setting.value[raw.start:raw.end], location, expanded.certain)
        except WordError:
            self.note(setting.at(position, len(setting.value)), f"{error}, ignoring", "ignored")

    def unit_names(self, setting: Setting) -> Iterator[Word]:
        """Yield unit names separated by blanks, without unquoting (config_parse_unit_deps)."""
        for found in _WORD.finditer(setting.value):
            location = setting.at(found.start(), found.end())
            expanded = self.expand(found[0], location, max_bytes=MAX_UNIT_NAME_BYTES, allowed=IN_UNIT_NAMES)
            if expanded is None:
                continue
            if is_unit_name(expanded.text):
                yield Word(expanded.text, found[0], location, expanded.certain)
            else:
                self.note(location, f"Failed to add dependency of {setting.key}=, ignoring", "ignored")

    def patch_var_run(self, setting: Setting, path: str) -> str:
        """patch_var_run(): replace /var/run by /run."""
        found = _VAR_RUN.fullmatch(path)
        if found is None:
            return path
        patched = "/run/" + (found[1] or "")
        self.note(setting.location, f"{setting.key}= references a path below legacy directory /var/run/, updating "
                  f"{path} → {patched}; please update the unit file accordingly.", "noted")
        return patched

    def keep_choice(self, setting: Setting, choices: tuple[str, ...]) -> None:
        """Keep the value if it is one of `choices`; otherwise ignore the assignment."""
        if setting.value in choices:
            self.values[setting.key] = setting.value
        else:
            self.note_invalid(setting)

    def keep_boolean(self, setting: Setting) -> None:
        """Keep a boolean as `yes` or `no`."""
        value = parse_boolean(setting.value)
        if value is None:
            self.note_invalid(setting)
        else:
            self.values[setting.key] = "yes" if value else "no"

    def keep_user(self, setting: Setting) -> None:
        """User=, Group= and so on: an invalid name refuses the unit."""
        self.values[setting.key] = self.user_name(setting, setting.value)

    def user_name(self, setting: Setting, text: str) -> str:
        """Return the name of a user or group; an invalid one refuses the unit."""
        name = self.expand_or_refuse(setting, text)
        if not is_valid_user(name):
            raise BadFileError(setting.location, f"Invalid user/group name or numeric ID in {setting.key}=",
                               fatal_setting=True)
        return name

    def expand_or_refuse(self, setting: Setting, text: str) -> str:
        """Expand specifiers; an unknown one refuses the unit."""
        try:
            return self.specifiers.expand(text).text
        except BadSpecifierError as error:
            raise BadFileError(setting.location, f"Failed to resolve unit specifiers in {setting.key}=: {error}",
                               fatal_setting=True) from None


def choice(*choices: str) -> Handler:
    """Return a handler that keeps a value if it is one of these."""
    return lambda loader, setting: loader.keep_choice(setting, choices)


_set_success_action = choice("none", "exit", "exit-force", *(
    action + suffix for action in ("reboot", "poweroff", "soft-reboot", "kexec", "halt")
    for suffix in ("", "-force", "-immediate")))


def _set_pam_name(loader: Loader, setting: Setting) -> None:
    expanded = loader.expand(setting.value, setting.location)
    if expanded is not None:
        loader.values["PAMName"] = expanded.text


def _check_groups(loader: Loader, setting: Setting) -> None:
    for found in _WORD.finditer(setting.value):
        loader.user_name(setting, found[0])


def _check_dynamic_user(loader: Loader, setting: Setting) -> None:
    if parse_boolean(setting.value) is None:
        raise BadFileError(setting.location, f"Failed to parse boolean value of {setting.key}=", fatal_setting=True)
    loader.keep_boolean(setting)


def _check_working_directory(loader: Loader, setting: Setting) -> None:
    missing_ok = setting.value.startswith("-")
    path = setting.value.removeprefix("-")
    if path not in ("", "~"):
        try:
            path = loader.expand_or_refuse(setting, path)
            if error := path_error(path):
                raise BadFileError(setting.location, f"WorkingDirectory= {error}", fatal_setting=True)
        except BadFileError as error:
            if not missing_ok:
                raise
            loader.note(error.location, f"{error.text}, ignoring", "ignored")
            return
    loader.values["WorkingDirectory"] = path


def _check_root(loader: Loader, setting: Setting) -> None:
    if setting.value:
        path = loader.expand_or_refuse(setting, setting.value)
        if error := path_error(path):
            raise BadFileError(setting.location, f"{setting.key}= {error}", fatal_setting=True)


def _check_label(loader: Loader, setting: Setting) -> None:
    if setting.value and not setting.value.startswith("-"):
        loader.expand_or_refuse(setting, setting.value)


_PARTITIONS = frozenset((
    "root", "usr", "home", "srv", "esp", "xbootldr", "swap", "root-verity", "usr-verity", "root-verity-sig",
    "usr-verity-sig", "tmp", "var",
))
_PARTITION_FLAGS = frozenset((
    "verity", "signed", "encrypted", "unprotected", "unused", "absent", "open", "ignore", "read-only-on",
    "read-only-off", "growfs-on", "growfs-off",
))


def _check_image_policy(_: Loader, setting: Setting) -> None:
    """image_policy_from_string(): an error refuses the unit, with LoadState=error."""
    if setting.value in ("", "-", "*", "~"):
        return
    seen: set[str] = set()
    for rule in setting.value.split(":"):
        partition, equals, flags = (part.strip(WHITESPACE) for part in rule.partition("="))
        known = (partition in _PARTITIONS or not partition) and partition not in seen
        seen.add(partition)
        if not equals or not known or (
            flags not in ("", "-") and {flag.strip(WHITESPACE) for flag in flags.split("+")} - _PARTITION_FLAGS
        ):
            raise BadFileError(setting.location, f"Failed to parse image policy of {setting.key}=, refusing")


_REFUSING: dict[str, Handler] = {
    "AppArmorProfile": _check_label,
    "DynamicUser": _check_dynamic_user,
    "ExtensionImagePolicy": _check_image_policy,
    "Group": Loader.keep_user,
    "KillMode": choice("control-group", "process", "mixed", "none"),
    "MountImagePolicy": _check_image_policy,
    "PAMName": _set_pam_name,
    "RootDirectory": _check_root,
    "RootImage": _check_root,
    "RootImagePolicy": _check_image_policy,
    "RootMStack": _check_root,
    "RootVerity": _check_root,
    "SELinuxContext": _check_label,
    "SmackProcessLabel": _check_label,
    "SupplementaryGroups": _check_groups,
    "User": Loader.keep_user,
    "WorkingDirectory": _check_working_directory,
}
"""Settings of both sections whose errors refuse the unit, found by giving every key of 252, 257 and 262
invalid values; and the settings that verify_contexts() needs."""
