"""Loading of service units.

Implements service_load() and service_verify() (src/core/service.c) and parsers of src/core/load-fragment.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import PATH_MAX_BYTES, Rootfs
from dockerd_guard.systemd.assignments import NAME, Assigned, EnvironmentFile, Variable, assignment
from dockerd_guard.systemd.exec import Command, commands
from dockerd_guard.systemd.loading import API_REFUSED_VERSION, Handler, Loader, Unit, choice
from dockerd_guard.systemd.parse import parse_unsigned, path_error, simplify
from dockerd_guard.systemd.specifiers import Specifiers, root_shell
from dockerd_guard.systemd.syntax import BadFileError, Problem, Setting, is_utf8, written_settings
from dockerd_guard.systemd.words import Word

NEWEST_SYSTEMD = 262
"""The newest systemd version that is implemented here."""

USER_ALWAYS_SET_VERSION = 255
"""Since this version $USER is set even without User= (NEWS)."""

RELOAD_POST_VERSION = 259
"""Introduced ExecReloadPost= (NEWS)."""

NOTIFY_SOCKET = "/run/systemd/notify"
"""$NOTIFY_SOCKET of the system manager (manager_setup_notify() in src/core/manager.c)."""

_NOTIFY_RELOAD_VERSION = 253
_LIBRARY = re.compile(r"libsystemd-shared-(\d+)\S*\.so")


class Service(NamedTuple):
    """A service unit.

    If it is not loaded, `written` are the commands of ExecStart= as far as they can be parsed, without those
    that a later empty assignment clears; otherwise it equals `exec_start`. `built_in` are the variables
    that systemd derives from other settings ($USER, $STATE_DIRECTORY), `set_at_start` the names of those with
    values that are not in any file. `requires` are the units without which the service does not start.
    """

    unit: Unit
    type: str = "simple"
    exec_start: tuple[Command, ...] = ()
    environment: tuple[Assigned, ...] = ()
    environment_files: tuple[EnvironmentFile, ...] = ()
    pass_environment: tuple[Word, ...] = ()
    unset_environment: tuple[Word, ...] = ()
    sockets: tuple[Word, ...] = ()
    requires: tuple[Word, ...] = ()
    built_in: tuple[Assigned, ...] = ()
    written: tuple[Command, ...] = ()
    set_at_start: frozenset[str] = frozenset()
    working_directory: str = "/"


def detect_version(rootfs: Rootfs) -> int | None:
    """Return the major version of the installed systemd, from the name of libsystemd-shared; None if not found."""
    directories = ["/usr/lib/systemd", "/lib/systemd", "/usr/lib64/systemd"]
    directories += [f"/usr/lib/{name}/systemd" for name in rootfs.names_if_possible("/usr/lib") if "-linux-" in name]
    for directory in directories:
        found = [int(match[1]) for name in rootfs.names_if_possible(directory) if (match := _LIBRARY.fullmatch(name))]
        if found:
            return max(found)
    return None


def load_service(rootfs: Rootfs, name: str = "docker.service", version: int = NEWEST_SYSTEMD) -> Service:
    """Load a service unit as systemd `version` does."""
    return _ServiceLoader(rootfs, name, version).load()


class _ServiceLoader(Loader):
    section = "Service"
    exec_keys = frozenset((
        "ExecStart", "ExecStartPre", "ExecStartPost", "ExecCondition", "ExecReload", "ExecStop", "ExecStopPost",
    ))

    def __init__(self, rootfs: Rootfs, name: str, version: int) -> None:
        super().__init__(rootfs, name, version)
        if version >= RELOAD_POST_VERSION:
            self.exec_keys = self.exec_keys | {"ExecReloadPost"}
        self.environment: dict[str, Variable] = {}
        self.environment_files: list[EnvironmentFile] = []
        self.pass_environment: dict[str, Word] = {}
        self.unset_environment: dict[str, Word] = {}
        self.sockets: list[Word] = []
        self.directories: dict[str, list[str]] = {key: [] for key in _DIRECTORIES}
        self.has_credentials = False
        self.lists = {
            "Environment": self.environment, "EnvironmentFile": self.environment_files,
            "PassEnvironment": self.pass_environment, "UnsetEnvironment": self.unset_environment, **self.directories}

    def load(self) -> Service:
        """Read and verify."""
        unit = self.read()
        if unit.load_state == "loaded" and (refusal := self.verify()):
            reason, location = f"{refusal[0]} Refusing.", refusal[1]
            if location is None and not self.commands.get("ExecStart"):
                # The one that removes those before it.
                location = next((setting.location for setting in reversed(self.settings) if setting.key == "ExecStart"),
                                None)
            self.note(location or Location(unit.fragment or ""), reason, "refused")
            unit = unit._replace(load_state="bad-setting", reason=reason)
        # A `|` command is executed by the shell of User=.
        starts = tuple(command._replace(shell=self.account()[2]) if "|" in command.prefixes else command
                       for command in self.commands.get("ExecStart", ()))
        refused = unit.load_state in ("bad-setting", "error")
        return Service(
            self.finished(unit),
            self.type(),
            starts,
            tuple(Assigned(name, variable) for name, variable in self.environment.items()),
            tuple(self.environment_files),
            tuple(self.pass_environment.values()),
            tuple(self.unset_environment.values()),
            tuple(self.sockets),
            tuple(word for words in self.requirements.values() for word in words),
            tuple(Assigned(name, Variable(value)) for name, value in self.built_in().items()),
            tuple(self.written(unit)) if refused else starts,
            frozenset(self.set_at_start()),
            self.working_directory(),
        )

    def working_directory(self) -> str:
        """Where relative paths begin (systemd.exec(5), WorkingDirectory=)."""
        path = self.values.get("WorkingDirectory")
        return self.account()[1] if path == "~" else path or "/"

    def written(self, unit: Unit) -> list[Command]:
        """Return the commands of all ExecStart=, even if they or the files are invalid."""
        found: list[Command] = []
        if unit.fragment is None:
            return found
        specifiers = Specifiers(self.rootfs, self.version, unit.name, unit.fragment)
        drop_ins = unit.dropins or self.files.drop_ins(unit.name, unit.names, [])
        ignored: list[Problem] = []
        for path in (unit.fragment, *drop_ins):
            for setting in written_settings(self.rootfs.read_if_possible(path) or b"", path, "ExecStart"):
                if setting.value:
                    found.extend(commands(setting, specifiers, self.version, ignored, lenient=True))
                else:
                    found.clear()
        return found

    def type(self) -> str:
        """Return Type= or its default (service_add_extras())."""
        if "Type" in self.values:
            return self.values["Type"]
        if "BusName" in self.values:
            return "dbus"
        if self.has_credentials and self.version >= _CREDENTIALS_EXEC_VERSION:
            return "exec"
        return "simple" if self.commands.get("ExecStart") else "oneshot"

    def verify(self) -> tuple[str, Location | None] | None:  # noqa: PLR0911 -- one per check of service_verify()
        """service_verify(): why the unit as a whole is refused, and the location if there is one; or None."""
        starts = self.commands.get("ExecStart", [])
        values = self.values
        oneshot = self.type() == "oneshot"
        no_action = values.get("SuccessAction", "none") == "none"
        if (refusal := self.verify_contexts()) is not None:
            return refusal, None
        if not starts and not self.commands.get("ExecStop") and no_action:
            return "Service has no ExecStart=, ExecStop=, or SuccessAction=.", None
        if not starts and not oneshot:
            return "Service has no ExecStart= setting, which is only allowed for Type=oneshot services.", None
        if not starts and values.get("RemainAfterExit") != "yes" and no_action:
            return ("Service has no ExecStart= and no SuccessAction= settings and does not have RemainAfterExit=yes "
                    "set."), None
        if len(starts) > 1 and not oneshot:
            return ("Service has more than one ExecStart= setting, which is only allowed for Type=oneshot services.",
                    starts[1].location)
        if oneshot and values.get("Restart") in ("always", "on-success"):
            return ("Service has Restart= set to either always or on-success, which isn't allowed for Type=oneshot "
                    "services."), None
        if oneshot and "RestartForceExitStatus" in values and self.version < _FORCE_EXIT_ALLOWED_VERSION:
            return "Service has RestartForceExitStatus= set, which isn't allowed for Type=oneshot services.", None
        if oneshot and values.get("ExitType") == "cgroup":
            return "Service has ExitType=cgroup set, which isn't allowed for Type=oneshot services.", None
        if self.type() == "dbus" and "BusName" not in values:
            return "Service is of type D-Bus but no D-Bus service name has been specified.", None
        if self.type() == "forking" and values.get("PrivatePIDs") == "yes":
            return "Service of Type=forking does not support PrivatePIDs=yes.", None
        return None

    def built_in(self) -> dict[str, str]:
        """build_environment(): the variables derived from User=, StateDirectory= and so on."""
        found: dict[str, str] = {}
        user, home, shell = self.account()
        explicit = bool(self.values.get("User")) or self.values.get("DynamicUser") == "yes"
        if user and (explicit or self.version >= USER_ALWAYS_SET_VERSION):
            found["USER"] = user
        login = self.values.get("SetLoginEnvironment")
        if login == "yes" or (login is None and (explicit or bool(self.values.get("PAMName")))):
            found.update({"HOME": home, "LOGNAME": user, "SHELL": shell})
        elif self.values.get("WorkingDirectory") == "~" and self.version < USER_ALWAYS_SET_VERSION:
            found["HOME"] = home
        # Placeholder values are not set (USER_CREDS_CLEAN, later USER_CREDS_SUPPRESS_PLACEHOLDER).
        found = {name: value for name, value in found.items() if value not in _PLACEHOLDERS.get(name, ())}
        for key, (variable, prefix) in _DIRECTORIES.items():
            if paths := self.directories[key]:
                found[variable] = ":".join(f"{prefix}/{path}" for path in sorted(paths, key=lambda p: p.split("/")))
        if "PIDFile" in self.values:
            found["PIDFILE"] = self.values["PIDFile"]
        if self.has_credentials:
            found["CREDENTIALS_DIRECTORY"] = f"/run/credentials/{self.name}"
        stored = self.values.get("FileDescriptorStoreMax", "0")
        if self.type() in ("notify", "notify-reload") or self.values.get("NotifyAccess", "none") != "none" or (
                stored != "0" or self.has_watchdog()):
            found["NOTIFY_SOCKET"] = NOTIFY_SOCKET
            if stored != "0" and self.version >= _FDSTORE_VERSION:
                found["FDSTORE"] = stored
        return found

    def has_watchdog(self) -> bool:
        """Whether WatchdogSec= is not zero."""
        return re.search("[1-9]|infinity", self.values.get("WatchdogSec", "")) is not None

    def set_at_start(self) -> Iterator[str]:
        """Yield the variables that settings of the unit enable, with values that are not in any file."""
        if self.has_watchdog():
            yield from ("WATCHDOG_PID", "WATCHDOG_USEC")
        if self.values.get("OpenFile"):
            yield "LISTEN_FDS"

    def account(self) -> tuple[str, str, str]:
        """Return name, home and shell of User=. Those of root are fixed (synthesize_user_creds())."""
        name = self.values.get("User", "root")
        if name in ("root", "0"):
            return "root", "/root", root_shell(self.rootfs)
        accounts = self.rootfs.read_if_possible("/etc/passwd", is_table=True) or b""
        for line in accounts.decode("utf-8", "surrogateescape").split("\n"):
            fields = line.split(":")
            if len(fields) == 7 and name in (fields[0], fields[2]):
                return fields[0], simplify(fields[5]), simplify(fields[6])
        return name, "/", "/usr/sbin/nologin"

    def set_type(self, setting: Setting) -> None:
        newer = ("notify-reload",) if self.version >= _NOTIFY_RELOAD_VERSION else ()
        self.keep_choice(setting, ("simple", "exec", "forking", "oneshot", "dbus", "notify", "idle", *newer))

    def set_fd_store_max(self, setting: Setting) -> None:
        if (number := parse_unsigned(setting.value)) is not None:
            self.values[setting.key] = str(number)

    def keep_raw(self, setting: Setting) -> None:
        """Keep the raw value of a setting."""
        self.values[setting.key] = setting.value

    def set_bus_name(self, setting: Setting) -> None:
        """BusName=: a well-known name."""
        expanded = self.expand(setting.value, setting.location, max_bytes=_BUS_NAME_MAX_BYTES)
        if expanded is None:
            return
        if _BUS_NAME.fullmatch(expanded.text):
            self.values["BusName"] = expanded.text
        else:
            self.note(setting.location, "Invalid bus name, ignoring", "ignored")

    def set_force_exit_status(self, setting: Setting) -> None:
        """RestartForceExitStatus=: only whether it is set."""
        if any(_EXIT_STATUS.fullmatch(word) for word in setting.value.split()):
            self.values[setting.key] = setting.value

    def check_pid_file(self, setting: Setting) -> None:
        """PIDFile=: an invalid path refuses the unit."""
        expanded = self.expand(setting.value, setting.location, max_bytes=PATH_MAX_BYTES - 1)
        if expanded is None:
            return
        path = expanded.text if expanded.text.startswith("/") else f"/run/{expanded.text}"
        if error := path_error(path, below_api=self.version < API_REFUSED_VERSION):
            raise BadFileError(setting.location, f"PIDFile= {error}, ignoring")
        self.values["PIDFile"] = self.patch_var_run(setting, simplify(path))

    def note_credentials(self, setting: Setting) -> None:
        """LoadCredential= and so on: only whether there is one."""
        self.has_credentials = bool(setting.value)

    def add_directories(self, setting: Setting) -> None:
        """RuntimeDirectory= and so on: relative paths, optionally with `:LINK`."""
        kept = self.directories[setting.key]
        for word in self.words(setting, unescape=False, error=f"Invalid syntax {setting.key}="):
            path = simplify(word.text.partition(":")[0])
            first = path.partition("/")[0]
            if path and not path.startswith("/") and ".." not in path.split("/") and first != "private" \
                    and path not in kept:
                kept.append(path)

    def add_environment(self, setting: Setting) -> None:
        for word in self.words(setting, unescape=True, error="Invalid syntax"):
            assigned = assignment(word)
            if assigned is not None:
                self.environment[assigned.name] = assigned.variable
            else:
                self.note(cast(Location, word.location), "Invalid environment assignment, ignoring", "ignored")

    def add_environment_file(self, setting: Setting) -> None:
        """EnvironmentFile=: one path, without unquoting."""
        expanded = self.expand(setting.value, setting.location, max_bytes=PATH_MAX_BYTES - 1)
        if expanded is None:
            return
        path = expanded.text.removeprefix("-")
        if error := path_error(path):
            self.note(setting.location, f"EnvironmentFile= {error}, ignoring", "ignored")
        else:
            self.environment_files.append(
                EnvironmentFile(simplify(path), expanded.text.startswith("-"), setting.location))

    def add_pass_environment(self, setting: Setting) -> None:
        """PassEnvironment=: names."""
        for word in self.words(setting, unescape=False, error="Trailing garbage in PassEnvironment"):
            if NAME.fullmatch(word.text):
                self.pass_environment.setdefault(word.text, word)
            else:
                self.note(cast(Location, word.location),
                          "Invalid environment name for PassEnvironment, ignoring", "ignored")

    def add_unset_environment(self, setting: Setting) -> None:
        """UnsetEnvironment=: names or assignments."""
        for word in self.words(setting, unescape=True, error="Trailing garbage in UnsetEnvironment"):
            name, _, value = word.text.partition("=")
            if NAME.fullmatch(name) and is_utf8(value):
                self.unset_environment.setdefault(word.text, word)
            else:
                self.note(cast(Location, word.location),
                          "Invalid environment name or assignment UnsetEnvironment, ignoring", "ignored")

    def add_sockets(self, setting: Setting) -> None:
        """Sockets=: units that trigger this service."""
        for word in self.unit_names(setting):
            if word.text.endswith(".socket"):
                self.sockets.append(word)
            else:
                self.note(cast(Location, word.location), "Unit must be of type socket, ignoring", "ignored")


_PLACEHOLDERS = {
    "HOME": ("", "/"),
    "SHELL": ("", "/bin/nologin", "/sbin/nologin", "/usr/bin/nologin", "/usr/sbin/nologin",
              "/bin/false", "/usr/bin/false", "/bin/true", "/usr/bin/true"),
}
"""empty_or_root() in src/basic/path-util.h, is_nologin_shell() in src/basic/user-util.c."""

_CREDENTIALS_EXEC_VERSION = 257
_FDSTORE_VERSION = 254
_FORCE_EXIT_ALLOWED_VERSION = 253
_BUS_NAME_MAX_BYTES = 255
_BUS_NAME = re.compile(r"(?=.{1,255}\Z)[A-Za-z_-][A-Za-z0-9_-]*(\.[A-Za-z_-][A-Za-z0-9_-]*)+")
_EXIT_STATUS = re.compile(r"[0-9]{1,3}|[A-Z_0-9]+")
_DIRECTORIES = {
    "RuntimeDirectory": ("RUNTIME_DIRECTORY", "/run"),
    "StateDirectory": ("STATE_DIRECTORY", "/var/lib"),
    "CacheDirectory": ("CACHE_DIRECTORY", "/var/cache"),
    "LogsDirectory": ("LOGS_DIRECTORY", "/var/log"),
    "ConfigurationDirectory": ("CONFIGURATION_DIRECTORY", "/etc"),
}
_ServiceLoader.handlers = cast("dict[str, Handler]", {
    "BusName": _ServiceLoader.set_bus_name,
    "Environment": _ServiceLoader.add_environment,
    "EnvironmentFile": _ServiceLoader.add_environment_file,
    "ExitType": choice("main", "cgroup"),
    "FileDescriptorStoreMax": _ServiceLoader.set_fd_store_max,
    "ImportCredential": _ServiceLoader.note_credentials,
    "LoadCredential": _ServiceLoader.note_credentials,
    "LoadCredentialEncrypted": _ServiceLoader.note_credentials,
    "NotifyAccess": choice("none", "main", "exec", "all"),
    "OpenFile": _ServiceLoader.keep_raw,
    "PIDFile": _ServiceLoader.check_pid_file,
    "PassEnvironment": _ServiceLoader.add_pass_environment,
    "PrivatePIDs": _ServiceLoader.keep_boolean,
    "RemainAfterExit": _ServiceLoader.keep_boolean,
    "Restart": choice("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"),
    "RestartForceExitStatus": _ServiceLoader.set_force_exit_status,
    "SetCredential": _ServiceLoader.note_credentials,
    "SetCredentialEncrypted": _ServiceLoader.note_credentials,
    "SetLoginEnvironment": _ServiceLoader.keep_boolean,
    "Sockets": _ServiceLoader.add_sockets,
    "Type": _ServiceLoader.set_type,
    "UnsetEnvironment": _ServiceLoader.add_unset_environment,
    "WatchdogSec": _ServiceLoader.keep_raw,
    **dict.fromkeys(_DIRECTORIES, _ServiceLoader.add_directories),
})
