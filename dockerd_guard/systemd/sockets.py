"""Socket units: where systemd listens on behalf of a service.

As config_parse_socket_listen (src/core/load-fragment.c), socket_address_parse
(src/shared/socket-netlink.c) and socket_verify (src/core/socket.c).
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from dockerd_guard.source import Location
from dockerd_guard.systemd.exec import simplify
from dockerd_guard.systemd.lookup import unit_files
from dockerd_guard.systemd.syntax import Setting
from dockerd_guard.systemd.units import NEWEST, Loader, Service, Unit
from dockerd_guard.tree import Tree

_SUN_PATH_BYTES = 108


class Listen(NamedTuple):
    """One place to listen at: `kind` and `address` as in the D-Bus property Listen."""

    kind: str
    address: str
    location: Location
    certain: bool = True


class Socket(NamedTuple):
    """A socket unit; `enabled` tells whether something on disk would start it."""

    unit: Unit
    listen: tuple[Listen, ...] = ()
    service: str | None = None
    accept: bool = False
    socket_mode: int = 0o666
    socket_user: str | None = None
    socket_group: str | None = None
    bind_ipv6_only: str = "default"
    enabled: bool = False


def sockets_for(tree: Tree, service: Service, version: int = NEWEST) -> tuple[Socket, ...]:
    """Every socket unit that would pass its sockets to this service, by name."""
    files = unit_files(tree, version)
    wanted = {word.text for word in service.sockets}
    found: dict[str, Socket] = {}
    for name in (*files.with_suffix(".socket"), *sorted(wanted)):
        socket = load_socket(tree, name, version)
        if socket.unit.load_state in ("masked", "not-found") or socket.unit.name in found:
            continue
        if socket.service in service.unit.names or wanted & {socket.unit.name, *socket.unit.names}:
            found[socket.unit.name] = socket
    return tuple(found.values())


def load_socket(tree: Tree, name: str, version: int = NEWEST) -> Socket:
    """Read a socket unit as systemd `version` would."""
    return _SocketLoader(tree, name, version).load()


class _SocketLoader(Loader):
    sections = ("Unit", "Socket", "Install")

    def __init__(self, tree: Tree, name: str, version: int) -> None:
        super().__init__(tree, name, version)
        self.listen: list[Listen] = []
        self.values: dict[str, str] = {}
        self.service: str | None = None

    def load(self) -> Socket:
        unit = self.read()
        if unit.load_state == "loaded" and (reason := self.verify()):
            unit = unit._replace(load_state="bad-setting", reason=reason)
        accept = _boolean(self.values.get("Accept", "no")) or False
        try:
            mode = int(self.values.get("SocketMode", "0666"), 8)
        except ValueError:
            mode = 0o666
        return Socket(
            unit._replace(settings=tuple(self.settings), problems=tuple(self.problems)),
            tuple(self.listen),
            self.service or (None if accept else unit.name.removesuffix(".socket") + ".service"),
            accept,
            mode,
            self.values.get("SocketUser") or None,
            self.values.get("SocketGroup") or None,
            self.values.get("BindIPv6Only", "default"),
        )

    def verify(self) -> str | None:
        """socket_verify(): why the unit as a whole is refused."""
        if not self.listen:
            return "Unit has no Listen setting (ListenStream=, ListenDatagram=, ListenFIFO=, ...). Refusing."
        if _boolean(self.values.get("Accept", "no")) and self.service:
            return "Explicit service configuration for accepting socket units not supported. Refusing."
        return None

    def apply(self, setting: Setting) -> None:
        if setting.section != "Socket":
            return
        key = setting.key
        if key.startswith("Listen"):
            self.add_listen(setting)
        elif key == "Service":
            expanded = self.expand(setting.value, setting.location)
            if expanded is None:
                return
            if expanded[0].endswith(".service"):
                self.service = expanded[0]
            else:
                self.note(setting.location, f"Unit must be of type service, ignoring: {setting.value}", "ignored")
        elif key in ("Accept", "SocketMode", "SocketUser", "SocketGroup", "BindIPv6Only"):
            self.values[key] = setting.value

    def add_listen(self, setting: Setting) -> None:
        if not setting.value:
            self.listen.clear()
            return
        expanded = self.expand(setting.value, setting.location)
        if expanded is None:
            return
        text, certain = expanded
        kind = setting.key.removeprefix("Listen")
        if text.startswith("/"):
            parts = simplify(text)
            if parts.startswith("/var/run/"):
                text = parts.removeprefix("/var")
                self.note(setting.location, f"{setting.key}= references a path below legacy directory /var/run/, "
                          f"updating {setting.value} → {text}; please update the unit file accordingly.", "ignored")
        address = parse_address(text) if kind in ("Stream", "Datagram", "SequentialPacket") else text
        if address is None:
            self.note(setting.location, f"Failed to parse address value in '{text}', ignoring: Invalid argument",
                      "ignored")
            return
        self.listen.append(Listen(kind, address, setting.location, certain))


_PORT = re.compile(r"[+]?[1-9][0-9]*")
_NUMBER = re.compile(r"[0-9]+")


def parse_address(text: str) -> str | None:
    """Read an address as socket_address_parse does, and write it as systemd does; None for what
    is refused."""
    if text[:1] in ("/", "@"):
        return text if len(text.encode("utf-8", "surrogateescape")) < _SUN_PATH_BYTES and len(text) > 1 else None
    if text.startswith("vsock"):
        return _parse_vsock(text)
    port = _parse_port(text)
    if port is not None:
        return f"[::]:{port}"
    text, percent, interface = text.partition("%")
    if percent and not interface:
        return None
    host, colon, digits = text.rpartition(":")
    port = _parse_port(digits)
    if not colon or port is None:
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(host[1:-1])
            return f"[{address}]:{port}{percent}{interface}"
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return None
    return f"{address}:{port}"


def _parse_port(text: str) -> int | None:
    return int(text) if _PORT.fullmatch(text) and len(text) < 9 and int(text) <= 65535 else None


def _parse_vsock(text: str) -> str | None:
    kind, _, rest = text.partition(":")
    cid, colon, port = rest.partition(":")
    if kind not in ("vsock", "vsock-stream", "vsock-dgram", "vsock-seqpacket") or not colon:
        return None
    if not _NUMBER.fullmatch(port) or (cid and not _NUMBER.fullmatch(cid)):
        return None
    return f"vsock:{cid}:{port}"


def _boolean(text: str) -> bool | None:
    if text.lower() in ("1", "yes", "y", "true", "t", "on"):
        return True
    return False if text.lower() in ("0", "no", "n", "false", "f", "off") else None
