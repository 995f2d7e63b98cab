"""Errors that stop dockerd after its configuration was validated; `dockerd --validate` does not report them.

Observed on 20.10.24, 26.1.5 and 28.5.2. Errors that depend on the kernel, on other files or on plugins are not
included. The messages name options; they contain no values (I11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from dockerd_guard.dockerd import hosts, values
from dockerd_guard.dockerd.gotext import trim
from dockerd_guard.dockerd.hosts import HostEntry
from dockerd_guard.dockerd.settings import Settings
from dockerd_guard.dockerd.version import Version
from dockerd_guard.rootfs import Unreadable

STORAGE_DRIVERS = frozenset((
    "overlay2", "overlay", "fuse-overlayfs", "btrfs", "zfs", "vfs", "aufs", "devicemapper", "windowsfilter",
))
"""The storage drivers of all releases. A host may lack any of them."""

LOG_OPTIONS = {
    "json-file": frozenset(("max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag")),
    "local": frozenset(("max-file", "max-size", "compress")),
}
"""Options of the file drivers, in addition to those of all drivers."""

_ANY_DRIVER = frozenset((
    "mode", "max-buffer-size", "cache-disabled", "cache-max-file", "cache-max-size", "cache-compress",
))
_DOMAIN = (r"([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
                     r"(\.([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(:[0-9]+)?")
_BRACKETED = r"\[[a-fA-F0-9:]+\](:[0-9]+)?"


def refusal(settings: Settings, listening: Sequence[HostEntry], read: Callable[[str], bytes],
            rootless: bool) -> str | None:
    """Return dockerd's first error, or None."""
    return next(_refusals(settings, listening, read, rootless), None)


def _refusals(settings: Settings, listening: Sequence[HostEntry], read: Callable[[str], bytes],
              rootless: bool) -> Iterator[str]:
    if rootless and not settings.boolean("rootless", True):
        yield "rootless mode needs to be enabled for running with RootlessKit"
    yield from _listeners(settings, listening, read)
    for check in (_registries, _verify, _runtimes, _logs, _storage, _network):
        for message in check(settings):
            yield f"failed to start daemon: {message}"
    yield from _metrics(settings)


def _listeners(settings: Settings, listening: Sequence[HostEntry], read: Callable[[str], bytes]) -> Iterator[str]:
    """loadListeners()."""
    go_resolver = any(hosts.needs_resolver(entry.address) for entry in listening) and (
        hosts.uses_go_resolver(_content(read, "/etc/nsswitch.conf")))
    group = settings.text("group", "docker")
    passed = 0
    for entry in listening:
        if message := hosts.listen_error(entry.address, settings.version, go_resolver):
            yield message
        if entry.address.startswith("unix://") and group not in ("", "docker") and not _is_group(group, read):
            yield f"failed to load listeners: {settings.origin('group')}: group not found"
        passed += entry.address.startswith("fd://")
        if passed > 1:
            # go-systemd's activation package unsets LISTEN_FDS after reading it.
            yield hosts.NO_SOCKETS


def _content(read: Callable[[str], bytes], path: str) -> bytes:
    try:
        return read(path)
    except (FileNotFoundError, Unreadable):
        return b""


def _is_group(name: str, read: Callable[[str], bytes]) -> bool:
    """Whether a group is in /etc/group. True for a number, and if /etc/group does not exist."""
    groups = _content(read, "/etc/group")
    return not groups or re.fullmatch("[+-]?[0-9]+", name) is not None or (
        f"\n{name}:".encode("utf-8", "surrogateescape") in b"\n" + groups)


def _registries(settings: Settings) -> Iterator[str]:
    """registry.NewService()."""
    mirrors = settings.origin("registry-mirror", "registry-mirrors")
    insecure = settings.origin("insecure-registry", "insecure-registries")
    for mirror in settings.texts("registry-mirror", "registry-mirrors"):
        if message := values.mirror(mirror, settings.version):
            yield f"{mirrors}: {message}"
    for registry in settings.texts("insecure-registry", "insecure-registries"):
        if message := values.index(registry, settings.version):
            yield f"{insecure}: {message}"
        bare = re.sub("^https?://", "", registry, flags=re.IGNORECASE)
        if "://" in bare and bare == registry:
            yield f"{insecure}: insecure registry should not contain '://'"
        if values.is_prefix(bare):
            continue
        port = bare.rpartition(":")[2]
        host = bare.rpartition(":")[0].strip("[]")
        if not re.fullmatch(_DOMAIN, bare) and not re.fullmatch(_BRACKETED, bare) and not values.is_ip(bare) and (
                not values.is_ip(host)):
            yield f"{insecure}: insecure registry is not valid: invalid host"
        elif ":" in bare and port.isdigit() and int(port[:9]) > 65535:
            yield f"{insecure}: insecure registry is not valid: invalid port"


def _verify(settings: Settings) -> Iterator[str]:
    """verifyDaemonSettings()."""
    version = settings.version
    if version >= Version(20, 10) and settings.text("containerd-namespace", "moby") == settings.text(
            "containerd-plugins-namespace", "plugins.moby"):
        yield "containers namespace and plugins namespace cannot be the same"
    for name in ("bip", "bip6"):
        if settings.text("bridge") and settings.text(name):
            yield f"You specified -b & --{name}, mutually exclusive options. Please specify only one"
    if not settings.boolean("icc", True) and not settings.boolean("iptables", True):
        yield ("You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set "
               "--icc or --iptables to true")
    if Version(20, 10) <= version < Version(27) and settings.boolean("ip6tables") and (
            not settings.boolean("experimental")):
        yield "ip6tables rules are only available if experimental features are enabled"
    for option in settings.texts("exec-opt", "exec-opts"):
        name, _, value = (trim(part) for part in option.partition("="))
        if name.lower() == "native.cgroupdriver" and value not in ("cgroupfs", "systemd"):
            yield f"{settings.origin('exec-opt', 'exec-opts')}: native.cgroupdriver option not supported"
    if version < Version(23) and settings.text("cluster-advertise") and not settings.text("cluster-store"):
        yield ("invalid cluster configuration. --cluster-advertise must be accompanied by --cluster-store "
               "configuration")


def _runtimes(settings: Settings) -> Iterator[str]:
    """The default runtime must be configured (daemon/runtime_unix.go)."""
    configured = {trim(flag.value.partition("=")[0]).lower()
                  for flag in settings.flags if flag.name == "add-runtime"}
    if "runtimes" in settings.file.values:
        configured |= {name.text for name, _ in settings.file.values["runtimes"].value.members()}
    if "runc" in configured:
        yield "runtime name 'runc' is reserved"
    default = settings.text("default-runtime", "runc")
    if default not in configured | {"runc", "io.containerd.runc.v2"} and not _is_shim(default, settings.version):
        yield f"{settings.origin('default-runtime')}: specified default runtime does not exist"


def _is_shim(name: str, version: Version) -> bool:
    if version < Version(23):
        return name == "io.containerd.runtime.v1.linux"
    # isPermissibleC8dRuntimeName(): the name of a containerd shim, not a path.
    return "/" not in name and "." in name and not name.startswith(".")


def _logs(settings: Settings) -> Iterator[str]:
    """logger.ValidateLogOpts(). The driver is checked only if there are options."""
    driver = settings.text("log-driver", "json-file")
    options = settings.pairs("log-opt", "log-opts")
    if not options or driver == "none":
        return
    origin = settings.origin("log-opt", "log-opts")
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        yield f"{origin}: failed to set log opts: logger: logging mode not supported"
    if "max-buffer-size" in options and mode != "non-blocking":
        yield (f"{origin}: failed to set log opts: logger: max-buffer-size option is only supported with "
               "'mode=non-blocking'")
    for option in options:
        if driver in LOG_OPTIONS and option not in LOG_OPTIONS[driver] | _ANY_DRIVER:
            # A flag without `=` may be a value whose name was forgotten.
            is_name = origin == "log-opts" or any(flag.value.startswith(f"{option}=") for flag in settings.flags)
            shown = f" '{option}'" if is_name else ""
            yield f"{origin}: failed to set log opts: unknown log opt{shown} for this log driver"


def _storage(settings: Settings) -> Iterator[str]:
    """graphdriver.New(). A containerd snapshotter, the default since 29, may have any name."""
    driver = settings.text("storage-driver")
    features = settings.file.values.get("features")
    snapshotter = settings.version >= Version(29) or any(
        flag.name == "feature" and flag.value.startswith("containerd-snapshotter") for flag in settings.flags) or (
        features is not None and any(name.text == "containerd-snapshotter" for name, _ in features.value.members()))
    if driver and driver not in STORAGE_DRIVERS and not snapshotter and ":" not in driver:
        yield f"{settings.origin('storage-driver')}: error initializing graphdriver: driver not supported"


def _network(settings: Settings) -> Iterator[str]:
    """The addresses of the default bridge network must be valid prefixes."""
    if settings.text("bridge") == "none":
        return
    for name in ("bip", "fixed-cidr"):
        prefix = settings.text(name)
        if prefix and not values.is_prefix(prefix):
            yield f"{settings.origin(name)}: Error initializing network controller: invalid CIDR address"


def _metrics(settings: Settings) -> Iterator[str]:
    """startMetricsServer()."""
    address = settings.text("metrics-addr")
    if not address:
        return
    host, colon, port = address.rpartition(":")
    message: str | None = None
    if not colon or address.endswith("]"):
        message = "missing port in address"
    elif ":" in host and not (host.startswith("[") and host.endswith("]")):
        message = "too many colons in address"
    elif not re.fullmatch("[+-]?[0-9]+", port):
        message = "strconv.Atoi: invalid syntax"
    elif not host:
        message = "failed to lookup  address in host specification"
    else:
        message = hosts.tcp_listen_error(address, Version(23))
    if message:
        yield f"failed to start metrics server: {settings.origin('metrics-addr')}: {message}"
