"""Socket units: the addresses on which systemd listens on behalf of a service.

Implements config_parse_socket_listen() (src/core/load-fragment.c), socket_address_parse()
(src/shared/socket-netlink.c) and socket_verify() (src/core/socket.c).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple, cast

from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import PATH_MAX_BYTES, Rootfs, Unreadable
from dockerd_guard.systemd.loading import API_REFUSED_VERSION, Handler, Loader, Unit
from dockerd_guard.systemd.lookup import Fragment, is_unit_name, unit_files
from dockerd_guard.systemd.parse import (
    parse_boolean,
    parse_mode,
    parse_port,
    parse_unsigned,
    path_error,
    simplify,
)
from dockerd_guard.systemd.specifiers import IN_UNIT_NAMES, MAX_UNIT_NAME_BYTES, Expanded
from dockerd_guard.systemd.syntax import Setting, byte_length
from dockerd_guard.systemd.units import NEWEST_SYSTEMD, Service, load_service

_SUN_PATH_BYTES = 108
_PLAIN_SERVICE = re.compile(rb"^Service=([A-Za-z0-9:_.@-]+)$", re.MULTILINE)
"""The usual form of Service=. A file with another form (specifiers, blanks) is parsed completely."""
_VMADDR_ANY = 0xFFFFFFFF


class Listen(NamedTuple):
    """One address of a socket unit: `kind` and `address` as in the D-Bus property Listen.

    The location is that of the whole assignment. Not `certain` if it names a network interface that may
    not exist, or has a specifier whose value is unknown.
    """

    kind: str
    address: str
    location: Location
    certain: bool = True


class Socket(NamedTuple):
    """A socket unit."""

    unit: Unit
    listen: tuple[Listen, ...] = ()
    service: str | None = None
    accept: bool = False
    socket_mode: int = 0o666
    socket_user: str | None = None
    bind_ipv6_only: str = "default"


def sockets_for(rootfs: Rootfs, service: Service, version: int = NEWEST_SYSTEMD) -> tuple[Socket, ...]:
    """Return the socket units that pass their sockets to this service, sorted by name.

    These are the units whose Service= is this service (default: the service of the same name), and those in
    the service's Sockets=. Units that systemd refuses are included (see `unit.load_state`), masked ones are not.
    """
    files = unit_files(rootfs, version)
    named = {word.text for word in service.sockets}
    services = set(service.unit.names) | {service.unit.name}
    # An instance of a template has no file of its name.
    candidates = [name for name in sorted({*files.with_suffix(".socket"), *named})
                  if name in named or _may_serve(rootfs, files.fragment(name), services, version)]
    found: dict[str, Socket] = {}
    for name in candidates:
        socket = load_socket(rootfs, name, version)
        if socket.unit.load_state in ("masked", "not-found") or socket.unit.name in found:
            continue
        if socket.service in services or not named.isdisjoint(socket.unit.names):
            found[socket.unit.name] = _require_service(socket, services, rootfs, version)
    return tuple(found.values())


def _require_service(socket: Socket, services: set[str], rootfs: Rootfs, version: int) -> Socket:
    """Mark a socket as failed if its own service is not loaded, even if another service has it in Sockets=
    (socket_start() in src/core/socket.c)."""
    if socket.unit.load_state != "loaded" or socket.service is None or socket.service in services:
        return socket
    if load_service(rootfs, socket.service, version).unit.load_state == "loaded":
        return socket
    reason = f"Socket service {socket.service} not loaded, refusing."
    return socket._replace(unit=socket.unit._replace(load_state="error", reason=reason))


def _may_serve(rootfs: Rootfs, fragment: Fragment, services: set[str], version: int) -> bool:
    """Whether a socket unit has to be parsed completely. Most units of a host belong to other services."""
    if fragment.path is None or fragment.masked:
        return False
    if any(name.removesuffix(".socket") + ".service" in services for name in fragment.names):
        return True
    unit = fragment.path.rpartition("/")[2]
    for path in (fragment.path, *unit_files(rootfs, version).drop_ins(unit, fragment.names, [])):
        data = rootfs.read_if_possible(path) or b""
        plain = _PLAIN_SERVICE.findall(data)
        if len(plain) < data.count(b"Service") or not services.isdisjoint(name.decode() for name in plain):
            return True
    return False


def load_socket(rootfs: Rootfs, name: str, version: int = NEWEST_SYSTEMD) -> Socket:
    """Load a socket unit as systemd `version` does."""
    return _SocketLoader(rootfs, name, version).load()


class _SocketLoader(Loader):
    section = "Socket"
    exec_keys = frozenset(("ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost"))

    def __init__(self, rootfs: Rootfs, name: str, version: int) -> None:
        super().__init__(rootfs, name, version)
        self.listen: list[Listen] = []
        self.service: str | None = None
        self.mode = 0o666
        self.max_connections = 64
        self.symlinks = False
        self.lists = dict.fromkeys(_LISTEN, self.listen)

    def load(self) -> Socket:
        """Read and verify."""
        unit = self.read()
        if unit.load_state == "loaded":
            unit = self.verify(unit)
            if unit.load_state != "loaded":
                # The last address, if all are refused or removed, is where to look.
                last = None if self.listen else next(
                    (setting.location for setting in reversed(self.settings) if setting.key.startswith("Listen")), None)
                self.note(last or Location(unit.fragment or ""), unit.reason or "", "refused")
        accept = self.values.get("Accept") == "yes"
        service = self.service
        if service is None and not self.accepts_only():
            service = unit.name.removesuffix(".socket") + ".service"
        return Socket(
            self.finished(unit),
            tuple(self.listen),
            service,
            accept,
            self.mode,
            self.values.get("SocketUser"),
            self.values.get("BindIPv6Only", "default"),
        )

    def accepts_only(self) -> bool:
        """Whether only accepted connections are passed, no listening sockets (have_non_accept_socket())."""
        return self.values.get("Accept") == "yes" and all(
            item.kind in ("Stream", "SequentialPacket") for item in self.listen)

    def verify(self, unit: Unit) -> Unit:
        """socket_add_extras() and socket_verify(): checks of the unit as a whole."""
        for item in self.listen:
            if item.address.startswith("/") and ".." in item.address.split("/"):
                return unit._replace(load_state="error", reason=f"Path '{item.address}' is not normalized: Operation "
                                     "not permitted")
        accept = self.values.get("Accept") == "yes"
        if reason := self.verify_contexts():
            pass
        elif not self.listen:
            reason = "Unit has no Listen setting (ListenStream=, ListenDatagram=, ListenFIFO=, ...)."
        elif self.max_connections == 0 and self.version >= _CONNECTIONS_REFUSED_VERSION:
            reason = "MaxConnection= setting too small."
        elif accept and not self.accepts_only():
            reason = "Unit configured for accepting sockets, but sockets are non-accepting."
        elif accept and self.service:
            reason = "Explicit service configuration for accepting socket units not supported."
        elif self.values.get("PrivatePIDs") == "yes":
            reason = "PrivatePIDs= setting is only supported for service units."
        elif self.symlinks and sum(
                item.kind in _IN_FILE_SYSTEM and item.address.startswith("/") for item in self.listen) != 1:
            reason = "Unit has symlinks set but none or more than one node in the file system."
        return unit if reason is None else unit._replace(load_state="bad-setting", reason=f"{reason} Refusing.")

    def add_listen(self, setting: Setting) -> None:
        """ListenStream= and the other Listen*= settings, which are one list."""
        expanded = self.expand(setting.value, setting.location, max_bytes=PATH_MAX_BYTES - 1)
        if expanded is None:
            return
        kind = setting.key.removeprefix("Listen")
        if kind in ("Stream", "Datagram", "SequentialPacket"):
            found = self.address(setting, kind, expanded)
        elif kind == "Netlink":
            found = self.netlink(setting, expanded)
        else:
            found = self.special_path(setting, kind, expanded)
        if found is not None:
            self.listen.append(Listen(kind, found.text, setting.location, found.certain))

    def netlink(self, setting: Setting, expanded: Expanded) -> Expanded | None:
        """ListenNetlink=: a family and an optional group."""
        family, _, group_text = expanded.text.partition(" ")
        number = _NETLINK_NUMBERS.get(family, parse_unsigned(family) if family.isdecimal() else None)
        group = parse_unsigned(group_text) if group_text.strip() else 0
        if number is None or group is None:
            self.note(setting.location, "Failed to parse address value, ignoring: Invalid argument", "ignored")
            return None
        return expanded._replace(text=f"{_NETLINK.get(number, number)} {group}")

    def special_path(self, setting: Setting, kind: str, expanded: Expanded) -> Expanded | None:
        """ListenFIFO= and the other settings that are paths."""
        api = kind == "Special" or self.version < API_REFUSED_VERSION
        if error := path_error(expanded.text, below_api=api):
            self.note(setting.location, f"{setting.key}= {error}, ignoring", "ignored")
            return None
        path = simplify(expanded.text)
        return expanded._replace(text=self.patch_var_run(setting, path) if kind == "FIFO" else path)

    def address(self, setting: Setting, kind: str, expanded: Expanded) -> Expanded | None:
        """Parse the address of a stream, datagram or sequential packet socket."""
        text = self.patch_var_run(setting, expanded.text) if expanded.text.startswith("/") else expanded.text
        address = parse_address(text, self.version)
        why = "Invalid argument"
        if address is not None and address.startswith("["):
            address, certain = self.adapt_to_host(address, text)
            expanded = expanded._replace(certain=expanded.certain and certain)
            why = "No such device" if "%" in text else "Address family not supported by protocol"
        if address is None:
            self.note(setting.location, f"Failed to parse address value, ignoring: {why}", "ignored")
            return None
        if kind == "SequentialPacket" and not address.startswith(("/", "@")):
            self.note(setting.location, "Address family not supported, ignoring", "ignored")
            return None
        return expanded._replace(text=address)

    def adapt_to_host(self, address: str, text: str) -> tuple[str | None, bool]:
        """Adapt an IPv6 address to the running kernel, which may lack IPv6 or the interface. Returns the address
        (None: cannot be used) and whether this is certain."""
        try:
            live = self.rootfs.stat("/proc/sys/net/ipv4") is not None
            if live and self.rootfs.stat("/proc/sys/net/ipv6") is None:
                # Without IPv6 a port alone is an IPv4 address (socket_ipv6_is_supported()).
                port = parse_port(text)
                return f"0.0.0.0:{port}" if port else None, True
            address, percent, interface = address.partition("%")
            if not percent:
                return address, True
            if not self.rootfs.names("/sys/class/net"):
                return f"{address}%{interface}", interface == "lo"
            for name in self.rootfs.names("/sys/class/net"):
                if interface == name or (
                    interface.isdecimal() and self.rootfs.read(f"/sys/class/net/{name}/ifindex").strip() ==
                    interface.encode()
                ):
                    return f"{address}%{name}", True
        except (FileNotFoundError, Unreadable):
            return address, False
        return None, True

    def set_service(self, setting: Setting) -> None:
        expanded = self.expand(setting.value, setting.location, max_bytes=MAX_UNIT_NAME_BYTES, allowed=IN_UNIT_NAMES)
        if expanded is None:
            return
        name = expanded.text
        if not name.endswith(".service"):
            self.note(setting.location, "Unit must be of type service, ignoring", "ignored")
        elif not is_unit_name(name) or "@." in name:
            self.note(setting.location, "Failed to load unit, ignoring: Unit name is not valid.", "ignored")
        else:
            self.service = name

    def set_mode(self, setting: Setting) -> None:
        mode = parse_mode(setting.value)
        if mode is None:
            self.note_invalid(setting)
        else:
            self.mode = mode

    def set_max_connections(self, setting: Setting) -> None:
        number = parse_unsigned(setting.value)
        if number is None:
            self.note_invalid(setting)
        else:
            self.max_connections = number

    def set_bind_ipv6_only(self, setting: Setting) -> None:
        """BindIPv6Only=: `default`, `both`, `ipv6-only` or a boolean."""
        boolean = parse_boolean(setting.value)
        if boolean is not None:
            self.values[setting.key] = "ipv6-only" if boolean else "both"
        else:
            self.keep_choice(setting, ("default", "both", "ipv6-only"))

    def set_symlinks(self, setting: Setting) -> None:
        """Symlinks=: only whether there are any absolute paths."""
        self.symlinks = any(
            word.text.startswith("/") for word in self.words(setting, unescape=False, error="Failed to parse Symlinks"))


_CONNECTIONS_REFUSED_VERSION = 253
_VSOCK_TYPES_VERSION = 253
_VSOCK_NAMES_VERSION = 256
_VSOCK_ANY_VERSION = 258
_VSOCK_TYPES = ("vsock-stream", "vsock-dgram", "vsock-seqpacket")
_LISTEN = ("ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenNetlink", "ListenSpecial",
           "ListenMessageQueue", "ListenUSBFunction")
_IN_FILE_SYSTEM = ("Stream", "Datagram", "SequentialPacket", "FIFO")
_NETLINK = {
    0: "route", 3: "firewall", 4: "inet-diag", 5: "nflog", 6: "xfrm", 7: "selinux", 8: "iscsi", 9: "audit",
    10: "fib-lookup", 11: "connector", 12: "netfilter", 13: "ip6-fw", 14: "dnrtmsg", 15: "kobject-uevent",
    16: "generic", 18: "scsitransport", 19: "ecryptfs", 20: "rdma",
}
_NETLINK_NUMBERS = {name: number for number, name in _NETLINK.items()}
_SocketLoader.handlers = cast("dict[str, Handler]", {
    **dict.fromkeys(_LISTEN, _SocketLoader.add_listen),
    "Accept": _SocketLoader.keep_boolean,
    "BindIPv6Only": _SocketLoader.set_bind_ipv6_only,
    "MaxConnections": _SocketLoader.set_max_connections,
    "PrivatePIDs": _SocketLoader.keep_boolean,
    "Service": _SocketLoader.set_service,
    "SocketGroup": _SocketLoader.keep_user,
    "SocketMode": _SocketLoader.set_mode,
    "SocketUser": _SocketLoader.keep_user,
    "Symlinks": _SocketLoader.set_symlinks,
})

_TO_ESCAPE = re.compile("[^ !#-&(-\\[\\]-~]")
_INTERFACE = re.compile(r"[!-~]{1,127}")


def parse_address(text: str, version: int = NEWEST_SYSTEMD) -> str | None:
    """Parse an address as socket_address_parse() and format it as systemd does; None if it is refused.

    >>> parse_address("0x947"), parse_address("[::ffff:127.0.0.1]:80"), parse_address("localhost:80")
    ('[::]:2375', '[::ffff:127.0.0.1]:80', None)
    """
    if text[:1] in ("/", "@"):
        return _escape(text) if 1 < byte_length(text) < _SUN_PATH_BYTES else None
    if text.startswith("vsock") and (found := _parse_vsock(text, version)) is not False:
        return found
    port = parse_port(text)
    return _parse_ip(text) if port is None else f"[::]:{port}"


def _parse_ip(text: str) -> str | None:
    """Parse `IPv4:PORT` or `[IPv6]:PORT`, optionally followed by `%INTERFACE`."""
    text, percent, interface = text.partition("%")
    if percent and (not _INTERFACE.fullmatch(interface) or re.search(r"[:/%]", interface) or interface in (".", "..")):
        return None
    host, colon, digits = text.rpartition(":")
    port = parse_port(digits)
    if not colon or port is None:
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            return f"[{format_ipv6(ipaddress.IPv6Address(host[1:-1]))}]:{port}{percent}{interface}"
        return f"{ipaddress.IPv4Address(host)}:{port}"
    except ValueError:
        return None


def format_ipv6(address: ipaddress.IPv6Address) -> str:
    """inet_ntop(3): for IPv4-mapped and IPv4-compatible addresses the last 32 bits are dotted decimal."""
    number = int(address)
    upper, lower = number >> 32, number & 0xFFFFFFFF
    if upper == 0xFFFF or (upper == 0 and lower >> 16):
        prefix = "::ffff:" if upper else "::"
        return prefix + ".".join(str(lower >> shift & 0xFF) for shift in (24, 16, 8, 0))
    return str(address)


def _parse_vsock(text: str, version: int) -> str | Literal[False] | None:
    """Parse `vsock:CID:PORT`; None if it is refused, False if it is not a vsock address."""
    kind, _, rest = text.partition(":")
    if kind != "vsock" and (version < _VSOCK_TYPES_VERSION or kind not in _VSOCK_TYPES):
        return False
    cid_text, colon, port_text = rest.partition(":")
    port = parse_unsigned(port_text)
    if not colon or port is None or (port == _VMADDR_ANY and version >= _VSOCK_TYPES_VERSION):
        return None
    if not cid_text:
        return f"vsock::{port}"
    cid = _vsock_cid(cid_text, version)
    return None if cid is None else f"vsock::{port}" if cid == _VMADDR_ANY else f"vsock:{cid}:{port}"


def _vsock_cid(text: str, version: int) -> int | None:
    """vsock_parse_cid()."""
    if text in ("hypervisor", "local", "host") and version >= _VSOCK_NAMES_VERSION:
        return ("hypervisor", "local", "host").index(text)
    if text in ("any", "-1") and version >= _VSOCK_ANY_VERSION:
        return _VMADDR_ANY
    return parse_unsigned(text)


_ESCAPED = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\",
    '"': '\\"', "'": "\\'",
}


def _escape(text: str) -> str:
    """cescape(), as systemd shows an address: escape quotes and all but printable ASCII."""
    return _TO_ESCAPE.sub(_escape_one, text)


def _escape_one(found: re.Match[str]) -> str:
    character = found[0]
    if character in _ESCAPED:
        return _ESCAPED[character]
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
