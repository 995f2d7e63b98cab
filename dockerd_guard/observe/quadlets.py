"""Containers that systemd runs from files of Podman (podman-systemd.unit(5)): what they mount and publish."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from dockerd_guard.observe.compose import (
    HOST,
    OPEN_DRIVERS,
    SOCKET,
    Application,
    Mount,
    PublishedApi,
    Service,
    is_local,
)
from dockerd_guard.observe.socket_mounts import has_socket_path, is_socket_device, is_socket_mount, source_of
from dockerd_guard.systemd.syntax import BadFileError, Setting, settings
from dockerd_guard.systemd.units import NEWEST_SYSTEMD

_PATH = re.compile(
    r"(?P<whole>(?:.*/)?(?P<name>[^/]+\.(?:container|pod|kube|volume|network)|"
    r"(?:container|pod|kube|volume|network)(?=\.d/)))"
    r"(?P<drop_in>\.d/[^/]+\.conf)?", re.DOTALL)
_PODMAN_OPTION = re.compile(
    r"(?:^|\s)[\"']?(?:(?:-v[ =]?|--volume[ =]|--mount[ =])(?P<volumes>\S+)|(?:-p[ =]?|--publish[ =])(?P<ports>\S+)|"
    r"--net(?:work)?[ =](?P<networks>\S+))")
_VOLUME_OPTION = re.compile(r"(?:^|\s)(?:--opt|-o)[ =][\"']?(?P<key>device|o)=(?P<value>[^\s\"']+)")
PODS = "pods"
"""Key of what the pods of a .kube mount, which another file says (Yaml=)."""

_LISTS = {"Volume": {"volumes"}, "PublishPort": {"ports"}, "Network": {"networks", "network_mode"}}
"""Settings that are lists, and the keys of a service of Compose that they are."""


def quadlet_of(path: str) -> tuple[str, str] | None:
    """Return the path of a container, pod, volume or network, and its name, for its file or a drop-in; None for any
    other file. A drop-in of all containers has the name `container`."""
    found = _PATH.fullmatch(path)
    return (found["whole"], found["name"]) if found is not None else None


def is_drop_in(path: str) -> bool:
    """Whether a file is a drop-in of a container, pod, volume or network."""
    found = _PATH.fullmatch(path)
    return found is not None and found["drop_in"] is not None


def drop_in_names(name: str) -> Iterator[str]:
    """Yield the names whose drop-ins apply to a container, pod, volume or network, the most specific first: its own,
    those of its beginnings up to each dash, and that of its type (podman-systemd.unit(5), systemd.unit(5))."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in ("container", "pod", "kube", "volume", "network"):
        return
    yield name
    for dash in reversed([found.end() for found in re.finditer("-", stem)]):
        if dash < len(stem):
            yield f"{stem[:dash]}.{suffix}"
    template, at, instance = stem.partition("@")
    if at and instance:
        yield f"{template}@.{suffix}"
    yield suffix


def application_of(name: str, file: str, text: str) -> Application:
    """Return what a file says. What follows a syntax error is not read."""
    kind = name.rpartition(".")[2]
    if kind == "volume":
        return Application(resources=_volume(name, file, text))
    if kind == "network":
        return Application(resources=_network(name, file, text))
    return Application(((name, _service(file, text)),))


def _service(file: str, text: str) -> Service:
    mounts, published, others = list[Mount](), list[PublishedApi](), list[str]()
    reset, mode = set[str](), ""
    for setting in _settings(file, text, "Container", "Pod", "Kube"):
        if not setting.value and setting.key in _LISTS:
            # An empty assignment resets a list.
            keys = _LISTS[setting.key]
            reset |= keys
            mounts = [mount for mount in mounts if mount.key not in keys]
            published = [api for api in published if api.key not in keys]
            mode = "" if "network_mode" in keys else mode
        at = setting.at(0, len(setting.value))
        for key, value in _parts(setting):
            if key == "ports" and not value.endswith("/udp"):
                published.append(PublishedApi(value, at.line, at.column, at.end_column, is_local=is_local(value)))
            elif key == "volumes":
                # %t is /run, or the runtime directory of an account, in which Podman has its socket too.
                is_socket = is_socket_mount(value.replace("%t", "/run"))
                mounts.append(Mount(key) if is_socket else Mount(key, f"volumes/{source_of(value)}"))
            elif key == PODS:
                mounts.append(Mount(PODS, f"{PODS}/{value}"))
            elif value.startswith("container:") or value.endswith((".container", ".pod")):
                others.append(value.removeprefix("container:"))
            elif value in (HOST, "none"):
                mode = value
                if mode == HOST:
                    published.append(PublishedApi("", at.line, at.column, at.end_column, "network_mode", HOST))
            elif key == "networks":
                published.append(PublishedApi("", at.line, at.column, at.end_column, key,
                                              f"networks/{value.partition(':')[0]}"))
    return Service(tuple(mounts), tuple(published), tuple(others), mode=mode, reset=frozenset(reset))


def with_pods(application: Application, read: Callable[[str], str | None]) -> Application:
    """Add what the pods of a .kube mount. `read` returns the text of the file that Yaml= names; None if there is none,
    and what they mount is not known."""
    services, resources = [], {**application.resources}
    for name, service in application.services:
        mounts = list(service.mounts)
        for index, mount in enumerate(mounts):
            if mount.key == PODS:
                file = mount.resource.partition("/")[2]
                text = read(file)
                resources[mount.resource] = SOCKET if text is not None and has_socket_path(text) else ""
                mounts[index] = mount._replace(variable="" if text is not None else f"a mount of {file[:80]}")
        services.append((name, service._replace(mounts=tuple(mounts))))
    return application._replace(services=tuple(services), resources=resources)


def _volume(name: str, file: str, text: str) -> dict[str, str]:
    device = options = own = ""
    for setting in _settings(file, text, "Volume"):
        if setting.key == "Device":
            device = setting.value
        elif setting.key == "Options":
            options = setting.value
        elif setting.key == "VolumeName":
            own = setting.value
        elif setting.key == "PodmanArgs":
            for found in _VOLUME_OPTION.finditer(setting.value):
                device, options = (found["value"], options) if found["key"] == "device" else (device, found["value"])
    return _resource("volumes", name, own, SOCKET if is_socket_device(device, options) else "")


def _network(name: str, file: str, text: str) -> dict[str, str]:
    driver = own = ""
    for setting in _settings(file, text, "Network"):
        if setting.key == "Driver":
            driver = setting.value
        elif setting.key == "NetworkName":
            own = setting.value
    return _resource("networks", name, own, driver if driver in OPEN_DRIVERS else "")


def _resource(kind: str, name: str, own: str, value: str) -> dict[str, str]:
    """A volume or network under the name of its file and of what Podman creates."""
    return {f"{kind}/{name}": value, f"{kind}/{own or 'systemd-' + name.rpartition('.')[0]}": value}


def _settings(file: str, text: str, *sections: str) -> Iterator[Setting]:
    try:
        yield from settings(text.encode("utf-8", "surrogateescape"), file, sections, [], NEWEST_SYSTEMD)
    except BadFileError:
        return


def _parts(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yield what a setting mounts, publishes, and uses the network of, each with what a service of Compose calls it."""
    key, value = setting.key, setting.value.strip("\"'")
    if value and key in ("Volume", "Mount"):
        yield "volumes", value
    elif value and key == "PublishPort":
        yield "ports", value
    elif value and key in ("Network", "Pod"):
        yield "networks", value
    elif value and key == "Yaml":
        yield PODS, value
    elif key == "PodmanArgs":
        for found in _PODMAN_OPTION.finditer(setting.value):
            yield from ((kind, found[kind].strip("\"'")) for kind in ("volumes", "ports", "networks") if found[kind])
