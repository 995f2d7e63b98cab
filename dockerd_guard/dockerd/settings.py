"""Merged settings from flags and daemon.json, and dockerd's validation of them.

moby: daemon/config (Validate), cmd/dockerd (loadDaemonCliConfig).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dockerd_guard.dockerd import values
from dockerd_guard.dockerd.config import File
from dockerd_guard.dockerd.flags import Flag
from dockerd_guard.dockerd.gojson import Node
from dockerd_guard.dockerd.gotext import trim
from dockerd_guard.dockerd.version import Version

_LEVELS = frozenset(("panic", "fatal", "error", "warn", "info", "debug", "trace"))


class Settings(NamedTuple):
    """Flags and file, merged as by mergo.Merge: the value of the file unless it is empty, else that of the flag."""

    flags: tuple[Flag, ...]
    file: File
    version: Version

    def text(self, name: str, default: str = "") -> str:
        """Return a string option."""
        return self.file.text(name) or next(
            (flag.value for flag in reversed(self.flags) if flag.name == name), default)

    def texts(self, flag_name: str, key: str) -> list[str]:
        """Return a list option."""
        return self.file.texts(key) or [flag.value for flag in self.flags if flag.name == flag_name]

    def pairs(self, flag_name: str, key: str) -> dict[str, str]:
        """Return a map option (`--log-opt max-size=10m`). Entries of the file override those of flags."""
        found = {name: value for name, _, value in (
            flag.value.partition("=") for flag in self.flags if flag.name == flag_name)}
        if key in self.file.values:
            found.update({name.text: node.text for name, node in self.file.values[key].value.members()})
        return found

    def number(self, name: str, default: int = 0) -> int:
        """Return an integer option."""
        given = [flag.value for flag in self.flags if flag.name == name]
        return self.file.number(name) or (values.parse_int(given[-1]) or 0 if given else default)

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return a bool option. A nested key in the file also counts, since it sets the flag itself (moby#20289)."""
        key = self.file.flat.get(name)
        if self.file.boolean(name):
            return True
        if key is not None:
            return _parse_bool(key.value)
        return next((flag.is_true for flag in reversed(self.flags) if flag.name == name), default)

    def origin(self, flag_name: str, key: str = "") -> str:
        """Return the name of what sets an option: its key in the file, or the flag."""
        key = key or flag_name
        value = self.file.values[key].value if key in self.file.values else None
        is_set = value is not None and (value.value or value.text or any(value.items()) or any(value.members()))
        return key if is_set else f"--{flag_name}"

    def refusal(self) -> str | None:
        """Return the error of loadDaemonCliConfig() for these settings without their values, or None."""
        message = _validate(self)
        found: dict[str, str] = {}
        for label in () if message else self.texts("label", "labels"):
            name, _, value = label.partition("=")
            if found.setdefault(name, value) != value:
                return f"{self.origin('label', 'labels')}: conflict labels for the same name"
        return message


def _parse_bool(value: Node) -> bool:
    if value.kind == "bool":
        return value.value is True
    return str(value.value) in values.TRUE if value.kind in ("string", "number") else False


def _validate(settings: Settings) -> str | None:  # noqa: PLR0911, PLR0912
    """config.Validate."""
    version = settings.version
    level = settings.text("log-level")
    if level and version >= Version(25) and level.lower() not in _LEVELS:
        return f"{settings.origin('log-level')}: invalid logging level"
    if level and level.lower() not in _LEVELS | {"warning"}:
        return f"{settings.origin('log-level')}: unable to parse logging level"
    if settings.text("log-format", "text") not in ("text", "json"):
        return f"{settings.origin('log-format')}: invalid log format"
    for kind, check, flag, key in (("dns", values.dns, "dns", "dns"),
                                   ("", values.dns_search, "dns-search", "dns-search"),
                                   ("", values.label, "label", "labels")):
        if not kind or version < Version(25):
            for value in settings.texts(flag, key):
                if message := check(value, version):
                    return f"{settings.origin(flag, key)}: {message}"
    if message := _gateway_ips(settings.texts("host-gateway-ip", "host-gateway-ips")):
        return message
    for name, low in (("mtu", 0), ("max-concurrent-downloads", 0), ("max-concurrent-uploads", 0),
                      ("max-download-attempts", 0 if version >= Version(23) else 1)):
        if name == "mtu" and version < Version(23):
            continue
        # Until 20.10 the file is validated before the flag's default replaces 0.
        number = settings.file.number(name) if version < Version(23) else None
        number = settings.number(name, 1) if number is None else number
        if number < low:
            return f"{settings.origin(name)}: invalid {'default MTU' if name == 'mtu' else name.replace('-', ' ')}"
    port = settings.number("network-diagnostic-port")
    if version >= Version(28) and not 0 <= port <= 65535:
        return "invalid network-diagnostic-port: value must be between 0 and 65535"
    if message := _resources(settings.texts("node-generic-resource", "node-generic-resources")):
        return f"{settings.origin('node-generic-resource', 'node-generic-resources')}: {message}"
    if version >= Version(28):
        if settings.text("api-cors-header"):
            return ('DEPRECATED: The "api-cors-header" config parameter and the dockerd "--api-cors-header" '
                    "option have been removed; use a reverse proxy if you need CORS headers")
        for mirror in settings.texts("registry-mirror", "registry-mirrors"):
            if message := values.mirror(mirror, version):
                return f"{settings.origin('registry-mirror', 'registry-mirrors')}: {message}"
        if message := _exec_options(settings.texts("exec-opt", "exec-opts")):
            return f"{settings.origin('exec-opt', 'exec-opts')}: {message}"
    return _platform(settings)


def _platform(settings: Settings) -> str | None:
    """validatePlatformConfig."""
    version = settings.version
    proxy = settings.text("userland-proxy-path")
    if version >= Version(25) and settings.boolean("userland-proxy", True) and proxy and proxy[0] != "/":
        return "invalid userland-proxy-path: must be an absolute path"
    mode = settings.text("default-ipc-mode", "private")
    if mode not in ("private", "shareable", ""):
        return (f'{settings.origin("default-ipc-mode")}: default IPC mode setting is invalid; use "shareable" or '
                '"private"')
    prefix = settings.text("fixed-cidr-v6")
    if prefix and version >= Version(25) and (not values.is_prefix(prefix) or ":" not in prefix):
        return "invalid fixed-cidr-v6"
    namespace = settings.text("default-cgroupns-mode")
    if namespace not in ("", "private", "host"):
        return (f'{settings.origin("default-cgroupns-mode")}: default cgroup namespace mode is invalid; use "host" '
                'or "private"')
    return None


def _gateway_ips(addresses: list[str]) -> str | None:
    for family, four in (("IPv4", True), ("IPv6", False)):
        if sum((":" not in address) is four for address in addresses) > 1:
            return f"only one {family} host gateway IP address can be specified"
    return None


def _resources(terms: list[str]) -> str | None:
    """swarmkit's genericresource.Parse."""
    discrete: dict[str, bool] = {}
    for term in terms:
        if term.count("=") != 1:
            return "incorrect term, missing '=' or malformed expression"
        name, _, value = (trim(part) for part in term.partition("="))
        number = re.fullmatch("[+-]?[0-9]{1,19}", value)
        if number and int(value) < 0:
            return "cannot ask for negative resource"
        if discrete.setdefault(name, bool(number)) != bool(number):
            return "mixed discrete and named resources in expression"
    return None


def _exec_options(options: list[str]) -> str | None:
    for option in options:
        name, _, value = (trim(part) for part in option.partition("="))
        if not name or not value:
            return "invalid exec-opt: must be formatted 'opt=value'"
        if name.lower() != "native.cgroupdriver":
            return "invalid exec-opt: unknown option"
    return None
