"""The policy: where the Docker API is to listen, and what may be done about it when it does not.

`parse_policy` turns YAML text into a frozen Policy or raises PolicyError with every mistake in it,
each with line, column, what was expected and what was found. It reads YAML's events, not its values:
so each word has its place, nothing is made of it that was not written (`10:20` stays text), and a
document built to explode never does. The grammar is DESIGN.md's; anchors and tags are not part of it.

`load_policy` reads a host's file as sudo reads its own: it and each directory above must be root's.

Left out on purpose: judging the policy (that is `judge`), and any look at the host.
"""
from __future__ import annotations

import os
from collections.abc import Collection

from dockerd_guard.model.address import Scope, Tls, canonical, scope_of
from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import (
    POLICY_FILE,
    Correct,
    Declared,
    DeclaredListen,
    Mode,
    Policy,
    PolicyError,
    PolicyProblem,
    Restart,
    SocketUnit,
    TlsFiles,
    Waiver,
    Watch,
    declared_bindings,
)
from dockerd_guard.policy.nodes import ListNode, MappingNode, Node, NodeReader, ScalarNode, described
from dockerd_guard.policy.values import (
    _absolute,
    _rule,
    parse_address,
    parse_budget,
    parse_day,
    parse_listen_stream,
    parse_window,
)
from dockerd_guard.rootfs import Rootfs, Unreadable

SETTLE_RANGE_S = (0.001, 60.0)
RESYNC_RANGE_S = (1.0, 86400.0)

def load_policy(path: str, *, require_root_owned: bool) -> Policy:
    """Read and parse a policy file of this host; raises PolicyError, also for a file not there.

    With `require_root_owned`, the file and every directory on the way to it (also through symbolic
    links) must belong to root and be writable by root only, as sudo asks of sudoers.
    """
    with Rootfs() as rootfs:
        return read_policy(rootfs, os.path.abspath(path), require_root_owned=require_root_owned)


def read_policy(rootfs: Rootfs, path: str = POLICY_FILE, *, require_root_owned: bool = False) -> Policy:
    """Read and parse the policy at a path inside a tree; as `load_policy`."""
    try:
        before = frozenset(rootfs.consulted)
        data = rootfs.read(path)
        problems = _not_roots(rootfs, rootfs.consulted - before) if require_root_owned else []
    except FileNotFoundError:
        problems = [PolicyProblem(Location(path), "there is no such file")]
    except Unreadable as error:
        problems = [PolicyProblem(Location(path), error.reason if error.path == path else str(error))]
    if problems:
        raise PolicyError(problems)
    return parse_policy(data, path)


def _not_roots(rootfs: Rootfs, way: Collection[str]) -> list[PolicyProblem]:
    """What of the way to a file others than root could change. Links are as safe as where they lie."""
    problems: list[PolicyProblem] = []
    for path in way:
        entry = rootfs.stat(path, follow=False)
        if entry is None or entry.is_link:
            continue
        if entry.uid != 0:
            problems.append(PolicyProblem(Location(path), (
                f"belongs to uid {entry.uid}; who can write the policy owns this host, so the file and all "
                f"directories above it must be root's: chown root {path}")))
        if entry.mode & 0o022:
            who = "everyone" if entry.mode & 0o002 else f"group {entry.gid}"
            problems.append(PolicyProblem(Location(path), (
                f"is writable by {who} (mode {entry.mode & 0o7777:04o}); who can write the policy owns this "
                f"host, so only root may: chmod go-w {path}")))
    return problems


KEYS = ("mode", "socket_unit", "tls", "correct", "watch", "waive")
DEFAULT_LISTEN = "/run/docker.sock"


def parse_policy(data: bytes, file: str = POLICY_FILE) -> Policy:
    """Parse a policy; `file` is the name used in places. Raises PolicyError."""
    reader = NodeReader(file)
    root = reader.document(reader.text(data))
    keys = reader.mapping(root, "the policy", ("version", "sockets"), KEYS)
    if "version" in keys:
        _version(reader, keys["version"])
    listen = _socket_unit(reader, keys.get("socket_unit"))
    sockets = _sockets(reader, keys["sockets"], listen) if "sockets" in keys else ()
    policy = Policy(
        file,
        Mode(reader.one_of(keys["mode"], tuple(Mode), Mode.OBSERVE)) if "mode" in keys else Mode.OBSERVE,
        sockets,
        SocketUnit(listen),
        _tls_files(reader, keys["tls"]) if "tls" in keys else TlsFiles(),
        _correct(reader, keys["correct"]) if "correct" in keys else Correct(),
        _watch(reader, keys["watch"]) if "watch" in keys else Watch(),
        _waive(reader, keys["waive"]) if "waive" in keys else (),
    )
    _check_together(reader, declared_bindings(policy))
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


def _version(reader: NodeReader, node: Node) -> None:
    if not isinstance(node, ScalarNode) or node.quoted or node.text != "1":
        reader.wrong(node.location, f"expected 1, the only version of this format; found {described(node)}")


def _socket_unit(reader: NodeReader, node: Node | None) -> tuple[DeclaredListen, ...]:
    default = (DeclaredListen(DEFAULT_LISTEN, f"unix://{DEFAULT_LISTEN}"),)
    if node is None:
        return default
    keys = reader.mapping(node, "socket_unit", (), ("listen",))
    if "listen" not in keys:
        return default
    expected = "a ListenStream= address (an absolute path, @NAME, PORT, IPv4:PORT or [IPv6]:PORT)"
    found: list[DeclaredListen] = []
    for item in reader.list(keys["listen"], "ListenStream= addresses"):
        address = reader.parsed(item, expected, parse_listen_stream, "")
        if address and isinstance(item, ScalarNode):
            found.append(DeclaredListen(item.text, address, item.location))
    return tuple(found)


def _sockets(reader: NodeReader, node: Node, listen: tuple[DeclaredListen, ...]) -> tuple[Declared, ...]:
    items = reader.list(node, "addresses")
    if isinstance(node, ListNode) and not items:
        reader.wrong(node.location, "expected at least one address: without any, dockerd takes its default")
    expected = "an address: fd://, unix:///PATH or tcp://IP:PORT"
    found: list[Declared] = []
    for item in items:
        tls_node: Node | None = None
        address_node: Node = item
        if isinstance(item, MappingNode):
            keys = reader.mapping(item, "a socket", ("address",), ("tls",))
            if "address" not in keys:
                continue
            address_node, tls_node = keys["address"], keys.get("tls")
        address = reader.parsed(address_node, expected, parse_address, "")
        brings_tcp = address.startswith("tcp://") or (
            address == "fd://" and any(one.address.startswith("tcp://") for one in listen))
        tls = Tls.MUTUAL if brings_tcp else Tls.NONE
        if tls_node is not None:
            tls = Tls(reader.one_of(tls_node, tuple(Tls), tls))
            if tls is not Tls.NONE and address and not brings_tcp:
                why = "no TCP address stands in socket_unit.listen" if address == "fd://" else \
                    "a UNIX socket is guarded by its file mode"
                reader.wrong(tls_node.location, f"dockerd speaks TLS on TCP only, and {why}; leave tls out")
                tls = Tls.NONE
        if address == "fd://" and not listen:
            reader.wrong(address_node.location, "fd:// stands for socket_unit.listen, which is empty")
        if address:
            found.append(Declared(address, tls, address_node.location))
    return tuple(found)


def _check_together(reader: NodeReader, declared: tuple[Declared, ...]) -> None:
    """What dockerd could not do at once: bind a place twice, or serve TCP sockets with unlike TLS."""
    seen: dict[str, Declared] = {}
    wildcards: dict[str, Declared] = {}
    one_tls: Declared | None = None
    for socket in declared:
        place = canonical(socket.address)
        if place in seen:
            reader.wrong(socket.location, f"{socket.address} is already declared in line "
                                          f"{seen[place].location.line}")
        seen.setdefault(place, socket)
        if not socket.is_tcp:
            continue
        if scope_of(socket.address) is Scope.WILDCARD:
            wildcards[place.rpartition(":")[2]] = socket
        if one_tls is not None and one_tls.tls is not socket.tls:
            reader.wrong(socket.location, f"tls {socket.tls} here and {one_tls.tls} for {one_tls.address} in "
                                          f"line {one_tls.location.line}: dockerd has one TLS setting for "
                                          "all its TCP sockets")
        one_tls = one_tls or socket
    for place, socket in seen.items():
        wide = wildcards.get(place.rpartition(":")[2]) if socket.is_tcp else None
        if wide is not None and canonical(wide.address) != place:
            reader.wrong(socket.location, f"{wide.address} in line {wide.location.line} already takes this "
                                          "port on every address")


def _tls_files(reader: NodeReader, node: Node) -> TlsFiles:
    keys = reader.mapping(node, "tls", (), ("ca", "cert", "key"))
    default = TlsFiles()

    def path(name: str, fallback: str) -> str:
        if name not in keys:
            return fallback
        return reader.parsed(keys[name], "an absolute path", _absolute, fallback)

    return TlsFiles(path("ca", default.ca), path("cert", default.cert), path("key", default.key),
                    node.location)


def _correct(reader: NodeReader, node: Node) -> Correct:
    keys = reader.mapping(node, "correct", (), Correct._fields)
    value = Correct()
    if "restart" in keys:
        value = value._replace(restart=Restart(reader.one_of(keys["restart"], tuple(Restart), value.restart)))
    if "window" in keys:
        value = value._replace(window=reader.parsed(
            keys["window"], "a window such as Sat,Sun 02:00-05:00 Europe/Berlin", parse_window, None))
    if "budget" in keys:
        value = value._replace(budget=reader.parsed(
            keys["budget"], "a budget such as 3/1h, three restarts an hour", parse_budget, value.budget))
    if "foreign_files" in keys:
        value = value._replace(foreign_files=reader.boolean(keys["foreign_files"], value.foreign_files))
    if "contain" in keys:
        value = value._replace(contain=reader.boolean(keys["contain"], value.contain))
    return value


def _watch(reader: NodeReader, node: Node) -> Watch:
    keys = reader.mapping(node, "watch", (), ("settle", "resync"))
    value = Watch()
    if "settle" in keys:
        value = value._replace(settle_s=reader.duration(keys["settle"], SETTLE_RANGE_S, value.settle_s))
    if "resync" in keys:
        value = value._replace(resync_s=reader.duration(keys["resync"], RESYNC_RANGE_S, value.resync_s))
    return value


def _waive(reader: NodeReader, node: Node) -> tuple[Waiver, ...]:
    found: list[Waiver] = []
    for item in reader.list(node, "waivers"):
        keys = reader.mapping(item, "a waiver", ("rule", "reason"), ("address", "until"))
        rule = reader.parsed(keys["rule"], "a rule such as DG103", _rule, "") if "rule" in keys else ""
        reason = (reader.word(keys["reason"], "the reason, in words") or "") if "reason" in keys else ""
        address = reader.parsed(keys["address"], "an address such as tcp://127.0.0.1:2375", parse_address,
                                "") if "address" in keys else None
        until = reader.parsed(keys["until"], "a date such as 2027-03-31", parse_day,
                              None) if "until" in keys else None
        found.append(Waiver(rule, address, reason, until, keys.get("rule", item).location))
    return tuple(found)


# -- words ----------------------------------------------------------------------------------------
