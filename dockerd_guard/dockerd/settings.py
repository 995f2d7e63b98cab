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

    def refusal(self) -> str | None:
        """Return the error of loadDaemonCliConfig() for these settings, or None."""
        message = _validate(self)
        found: dict[str, str] = {}
        for label in () if message else self.texts("label", "labels"):
            name, _, value = label.partition("=")
            if found.setdefault(name, value) != value:
                return f"conflict labels for {name}={value} and {name}={found[name]}"
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
        return f"invalid logging level: {level}"
    if level and level.lower() not in _LEVELS | {"warning"}:
        return f"unable to parse logging level: {level}"
    if settings.text("log-format", "text") not in ("text", "json"):
        return f"invalid log format: {settings.text('log-format')}"
    for kind, check, flag, key in (("dns", values.dns, "dns", "dns"),
                                   ("", values.dns_search, "dns-search", "dns-search"),
                                   ("", values.label, "label", "labels")):
        if not kind or version < Version(25):
            for value in settings.texts(flag, key):
                if message := check(value, version):
                    return message
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
            return f"invalid {'default MTU' if name == 'mtu' else name.replace('-', ' ')}: {number}"
    port = settings.number("network-diagnostic-port")
    if version >= Version(28) and not 0 <= port <= 65535:
        return f"invalid network-diagnostic-port ({port}): value must be between 0 and 65535"
    if message := _resources(settings.texts("node-generic-resource", "node-generic-resources")):
        return message
    if version >= Version(28):
        if settings.text("api-cors-header"):
            return ('DEPRECATED: The "api-cors-header" config parameter and the dockerd "--api-cors-header" '
                    "option have been removed; use a reverse proxy if you need CORS headers")
        message = next((message for mirror in settings.texts("registry-mirror", "registry-mirrors")
                        if (message := values.mirror(mirror, version))), None)
        message = message or _exec_options(settings.texts("exec-opt", "exec-opts"))
        if message:
            return message
    return _platform(settings)


def _platform(settings: Settings) -> str | None:
    """validatePlatformConfig."""
    version = settings.version
    proxy = settings.text("userland-proxy-path")
    if version >= Version(25) and settings.boolean("userland-proxy", True) and proxy and proxy[0] != "/":
        return f"invalid userland-proxy-path: must be an absolute path: {proxy}"
    mode = settings.text("default-ipc-mode", "private")
    if mode not in ("private", "shareable", ""):
        return f'default IPC mode setting ({mode}) is invalid; use "shareable" or "private"'
    prefix = settings.text("fixed-cidr-v6")
    if prefix and version >= Version(25) and (not values.is_prefix(prefix) or ":" not in prefix):
        return f"invalid fixed-cidr-v6: {prefix}"
    namespace = settings.text("default-cgroupns-mode")
    if namespace not in ("", "private", "host"):
        return f'default cgroup namespace mode ({namespace}) is invalid; use "host" or "private"'
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
            return f"incorrect term {term}, missing '=' or malformed expression"
        name, _, value = (trim(part) for part in term.partition("="))
        number = re.fullmatch("[+-]?[0-9]{1,19}", value)
        if number and int(value) < 0:
            return f"cannot ask for negative resource {name}"
        if discrete.setdefault(name, bool(number)) != bool(number):
            return f"mixed discrete and named resources in expression '{terms}'"
    return None


def _exec_options(options: list[str]) -> str | None:
    for option in options:
        name, _, value = (trim(part) for part in option.partition("="))
        if not name or not value:
            return f"invalid exec-opt ({option}): must be formatted 'opt=value'"
        if name.lower() != "native.cgroupdriver":
            return f"invalid exec-opt ({option}): unknown option: '{name.lower()}'"
    return None
