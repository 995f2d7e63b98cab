"""What dockerd refuses in its settings as a whole, once flags and daemon.json are merged.

moby: daemon/config (Validate), cmd/dockerd (loadDaemonCliConfig), and of what comes later while
starting only what text alone decides: registry.NewService, daemon.verifyDaemonSettings.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dockerd_guard.dockerd import hosts, values
from dockerd_guard.dockerd.config import File
from dockerd_guard.dockerd.flags import Flag
from dockerd_guard.dockerd.gojson import Node
from dockerd_guard.dockerd.version import Version

_LEVELS = frozenset(("panic", "fatal", "error", "warn", "info", "debug", "trace"))


class Settings(NamedTuple):
    """Flags and file merged as mergo.Merge does: the file's value unless it is empty, else the flag's."""

    flags: tuple[Flag, ...]
    file: File
    version: Version

    def text(self, name: str, default: str = "") -> str:
        """A string option."""
        return self.file.text(name) or next(
            (flag.value for flag in reversed(self.flags) if flag.name == name), default)

    def texts(self, flag_name: str, key: str) -> list[str]:
        """A list option."""
        return self.file.texts(key) or [flag.value for flag in self.flags if flag.name == flag_name]

    def number(self, name: str, default: int = 0) -> int:
        """A whole number."""
        given = [flag.value for flag in self.flags if flag.name == name]
        return self.file.number(name) or (values.whole(given[-1]) or 0 if given else default)

    def boolean(self, name: str, default: bool = False) -> bool:
        """A bool option. Of the file even a nested key counts: it sets the flag itself (moby#20289)."""
        key = self.file.flat.get(name)
        if self.file.boolean(name):
            return True
        if key is not None:
            return _parse_bool(key.value)
        return next((flag.is_true for flag in reversed(self.flags) if flag.name == name), default)


def _parse_bool(value: Node) -> bool:
    if value.kind == "bool":
        return value.value is True
    return str(value.value) in values.TRUE if value.kind in ("string", "number") else False


def refusal(settings: Settings, rootless: bool) -> str | None:
    """Why dockerd does not start with these settings, in its own words, or None."""
    version = settings.version
    wrong = _validate(settings)
    if wrong is not None:
        return wrong
    found: dict[str, str] = {}
    for label in settings.texts("label", "labels"):
        name, _, value = label.partition("=")
        if found.setdefault(name, value) != value:
            return f"conflict labels for {name}={value} and {name}={found[name]}"
    if rootless and not settings.boolean("rootless", True):
        return "rootless mode needs to be enabled for running with RootlessKit"
    for mirror in settings.texts("registry-mirror", "registry-mirrors"):
        wrong = values.mirror(mirror, version)
        if wrong:
            return f"failed to start daemon: {wrong}" if version < Version(28) else wrong
    return _verify(settings)


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
                wrong = check(value, version)
                if wrong:
                    return wrong
    wrong = _gateway_ips(settings.texts("host-gateway-ip", "host-gateway-ips"))
    if wrong:
        return wrong
    for name, low in (("mtu", 0), ("max-concurrent-downloads", 0), ("max-concurrent-uploads", 0),
                      ("max-download-attempts", 0 if version >= Version(23) else 1)):
        if name == "mtu" and version < Version(23):
            continue
        # Until 20.10 the file is judged before the flags' default fills in for 0.
        number = settings.file.number(name) if version < Version(23) else None
        number = settings.number(name, 1) if number is None else number
        if number < low:
            return f"invalid {'default MTU' if name == 'mtu' else name.replace('-', ' ')}: {number}"
    port = settings.number("network-diagnostic-port")
    if version >= Version(28) and not 0 <= port <= 65535:
        return f"invalid network-diagnostic-port ({port}): value must be between 0 and 65535"
    wrong = _resources(settings.texts("node-generic-resource", "node-generic-resources"))
    if wrong:
        return wrong
    if version >= Version(28):
        if settings.text("api-cors-header"):
            return ('DEPRECATED: The "api-cors-header" config parameter and the dockerd "--api-cors-header" '
                    "option have been removed; use a reverse proxy if you need CORS headers")
        wrong = _exec_options(settings.texts("exec-opt", "exec-opts"))
        if wrong:
            return wrong
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
        name, _, value = (part.strip(hosts.BLANKS) for part in term.partition("="))
        number = re.fullmatch("[+-]?[0-9]{1,19}", value)
        if number and int(value) < 0:
            return f"cannot ask for negative resource {name}"
        if discrete.setdefault(name, bool(number)) != bool(number):
            return f"mixed discrete and named resources in expression '{terms}'"
    return None


def _exec_options(options: list[str]) -> str | None:
    for option in options:
        name, _, value = (part.strip(hosts.BLANKS) for part in option.partition("="))
        if not name or not value:
            return f"invalid exec-opt ({option}): must be formatted 'opt=value'"
        if name.lower() != "native.cgroupdriver":
            return f"invalid exec-opt ({option}): unknown option: '{name.lower()}'"
    return None


def _verify(settings: Settings) -> str | None:
    """daemon.verifyDaemonSettings, and the runtimes."""
    version = settings.version
    bridge = settings.text("bridge")
    for name in ("bip", "bip6"):
        if bridge and settings.text(name):
            return (f"failed to start daemon: You specified -b & --{name}, mutually exclusive options. "
                    "Please specify only one")
    if not settings.boolean("icc", True) and not settings.boolean("iptables", True):
        return ("failed to start daemon: You specified --iptables=false with --icc=false. ICC=false uses "
                "iptables to function. Please set --icc or --iptables to true")
    if Version(20, 10) <= version < Version(27) and settings.boolean("ip6tables") and (
            not settings.boolean("experimental")):
        return ("failed to start daemon: ip6tables rules are only available if experimental features are "
                "enabled")
    for option in settings.texts("exec-opt", "exec-opts"):
        name, _, value = (part.strip(hosts.BLANKS) for part in option.partition("="))
        if name.lower() == "native.cgroupdriver" and value not in ("cgroupfs", "systemd"):
            return f"failed to start daemon: native.cgroupdriver option {value} not supported"
    return _runtimes(settings)


def _runtimes(settings: Settings) -> str | None:
    """The default runtime has to be one that is configured: daemon/runtime_unix.go."""
    configured = {flag.value.partition("=")[0].strip(hosts.BLANKS).lower()
                  for flag in settings.flags if flag.name == "add-runtime"}
    if "runtimes" in settings.file.values:
        configured |= {name.text for name, _ in settings.file.values["runtimes"].value.members()}
    if "runc" in configured:
        return "runtime name 'runc' is reserved"
    default = settings.text("default-runtime", "runc")
    if default in configured | {"runc", "io.containerd.runc.v2"} or _is_shim(default, settings.version):
        return None
    return f"specified default runtime '{default}' does not exist"


def _is_shim(name: str, version: Version) -> bool:
    if version < Version(23):
        return name == "io.containerd.runtime.v1.linux"
    # isPermissibleC8dRuntimeName: as containerd names its shims, but no path.
    return "/" not in name and "." in name and not name.startswith(".")
