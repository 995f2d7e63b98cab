"""Reading the policy.

`parse_policy` makes a Policy of YAML text or raises PolicyError with every error in it: location, what was expected,
what was found, and a hint. The keys are those of `policy/keys.py`. `read_policy` reads the file of a host; with
`require_root_owned` under the same conditions as sudo reads sudoers.

Findings about the policy are not made here but in `rules/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from dockerd_guard.model.address import Scope, Tls, canonical, scope_of
from dockerd_guard.model.location import Location
from dockerd_guard.policy.keys import PolicyKey, Type, key_of, keys_in
from dockerd_guard.policy.model import (
    POLICY_FILE,
    Correct,
    DeclaredSocket,
    Fleet,
    FleetTls,
    ListenStream,
    LockKind,
    Mode,
    Policy,
    PolicyError,
    PolicyProblem,
    Restart,
    SocketUnit,
    TlsFiles,
    Unreachable,
    Waiver,
    Watch,
    declared_bindings,
)
from dockerd_guard.policy.nodes import (
    FALSE_WORDS,
    NULL_WORDS,
    TRUE_WORDS,
    ListNode,
    MappingNode,
    Node,
    Problems,
    ScalarNode,
    describe,
    read_document,
)
from dockerd_guard.policy.values import (
    parse_address,
    parse_budget,
    parse_count,
    parse_date,
    parse_duration,
    parse_endpoint,
    parse_group,
    parse_listen_stream,
    parse_path,
    parse_rule,
    parse_window,
    quoted,
)
from dockerd_guard.rootfs import Rootfs, Unreadable

MAX_ENDPOINTS = 10
"""Endpoints of a lock service: as many are asked within the deadline of one request."""

_PARSERS: Mapping[Type, Callable[[str], Any]] = {
    Type.ADDRESS: parse_address, Type.LISTEN_STREAM: parse_listen_stream, Type.PATH: parse_path,
    Type.DURATION: parse_duration, Type.BUDGET: parse_budget, Type.WINDOW: parse_window, Type.RULE: parse_rule,
    Type.TEXT: str, Type.DATE: parse_date, Type.URL: parse_endpoint, Type.GROUP: parse_group, Type.COUNT: parse_count,
}
"""Parsers of scalars. Each raises ValueError, with a message unless the expected text is enough."""


def load_policy(path: str, *, require_root_owned: bool) -> Policy:
    """Read a policy file of this host. Raises PolicyError, also if there is no file. See `read_policy`."""
    with Rootfs() as rootfs:
        return read_policy(rootfs, os.path.abspath(path), require_root_owned=require_root_owned)


def read_policy(rootfs: Rootfs, path: str = POLICY_FILE, *, require_root_owned: bool = False) -> Policy:
    """Read the policy at a path in a root directory. Raises PolicyError, also if there is no file.

    With `require_root_owned`, the file and every directory above it (also through symbolic links) must be owned by root
    and writable by root only.
    """
    try:
        before = frozenset(rootfs.consulted)
        data = rootfs.read(path)
        problems = ownership_problems(rootfs, rootfs.consulted - before) if require_root_owned else []
    except FileNotFoundError:
        problems = [PolicyProblem(Location(path), "no such file")]
    except Unreadable as error:
        problems = [PolicyProblem(Location(path), error.reason if error.path == path else str(error))]
    if problems:
        raise PolicyError(problems)
    return parse_policy(data, path)


def ownership_problems(rootfs: Rootfs, paths: Collection[str]) -> list[PolicyProblem]:
    """The files and directories that others than root can change. Symbolic links are as safe as their directories."""
    problems: list[PolicyProblem] = []
    for path in paths:
        entry = rootfs.stat(path, follow=False)
        if entry is None or entry.is_link:
            continue
        if entry.uid != 0:
            problems.append(PolicyProblem(Location(path), (
                f"owned by uid {entry.uid}, must be owned by root: whoever can write the policy controls this host; "
                f"run: chown root {path}")))
        if entry.mode & 0o022:
            who = "everyone" if entry.mode & 0o002 else f"group {entry.gid}"
            # Programs need /tmp as it is.
            step = ("move it to a directory that only root can write" if entry.is_directory and entry.mode & 0o1000
                    else f"run: chmod go-w {path}")
            problems.append(PolicyProblem(Location(path), (
                f"writable by {who} (mode {entry.mode & 0o7777:04o}), must be writable by root only: whoever can write "
                f"the policy controls this host; {step}")))
    return problems


def parse_policy(data: bytes, file: str = POLICY_FILE) -> Policy:
    """Parse a policy; `file` is the name used in locations. Raises PolicyError."""
    problems = Problems(file)
    reader = _Reader(problems)
    keys = reader.mapping(read_document(data, problems), "")
    top = reader.scalars(keys, "")
    listen = _listen(reader, keys.get("socket_unit"))
    tls, watch = (reader.section(keys, name) for name in ("tls", "watch"))
    limits = reader.mapping(keys["correct"], "correct") if "correct" in keys else {}
    correct = reader.scalars(limits, "correct")
    policy = Policy(
        file,
        Mode(top["mode"]),
        _sockets(reader, keys["sockets"], listen) if "sockets" in keys else (),
        SocketUnit(listen),
        TlsFiles(tls["ca"], tls["cert"], tls["key"], keys["tls"].location if "tls" in keys else None),
        Correct(Restart(correct["restart"]), correct["window"], correct["budget"], correct["foreign_files"],
                correct["contain"], correct["splay"], _fleet(reader, limits["fleet"]) if "fleet" in limits else None),
        Watch(watch["settle"], watch["resync"]),
        _waivers(reader, keys["waive"]) if "waive" in keys else (),
    )
    _check_together(problems, declared_bindings(policy))
    if problems.found:
        raise PolicyError(problems.found)
    return policy


class _Reader:
    """Reads nodes by the table of keys."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def mapping(self, node: Node, name: str) -> dict[str, Node]:
        """The values of a mapping: only known keys, each once. `name` as for `keys_in`."""
        keys = keys_in(name)
        title = _title(name)
        if not isinstance(node, MappingNode):
            self.problems.add(node.location, f"expected {title} to be a mapping with the keys {', '.join(keys)}; "
                                             f"found {describe(node)}")
            return {}
        values: dict[str, Node] = {}
        first: dict[str, Location] = {}
        for word, value in node.items:
            if not isinstance(word, ScalarNode):
                self.problems.add(word.location, f"expected the name of a key in {title}; found {describe(word)}")
            elif word.text not in keys:
                synonyms = {synonym.lower(): key.word for key in keys.values() for synonym in key.synonyms}
                hint = _hint(word.text, keys, synonyms) or f"; valid keys: {', '.join(keys)}"
                self.problems.add(word.location, f"unknown key {quoted(word.text)} in {title}{hint}")
            elif word.text in first:
                self.problems.add(word.location, f"duplicate key {word.text!r}, first used in line "
                                                 f"{first[word.text].line}")
            else:
                first[word.text] = word.location
                values[word.text] = value
        for key in keys.values():
            if key.is_required and key.word not in first:
                self.problems.add(node.location, f"missing key {key.word!r} in {title}")
        return values

    def section(self, keys: Mapping[str, Node], name: str) -> dict[str, Any]:
        """The values of a section of scalars, also if the file has none."""
        return self.scalars(self.mapping(keys[name], name) if name in keys else {}, name)

    def scalars(self, nodes: Mapping[str, Node], name: str) -> dict[str, Any]:
        """The value of each scalar in a mapping, the default where the file has no value."""
        return {word: self.scalar(nodes[word], key) if word in nodes else _default(key)
                for word, key in keys_in(name).items() if key.type not in (Type.MAPPING, Type.LIST)}

    def items(self, node: Node, key: PolicyKey) -> list[Node]:
        if isinstance(node, ListNode):
            return node.items
        self.problems.add(node.location, f"expected {key.word} to be a list; found {describe(node)}")
        return []

    def scalar(self, node: Node, key: PolicyKey) -> Any:
        """The value of a scalar, the default after an error."""
        if key.type in (Type.VERSION, Type.BOOLEAN):
            value = self.plain(node, key)
        else:
            value = self.choice(node, key) if key.type is Type.CHOICE else self.parsed(node, key, key.type)
        return _default(key) if value is None else value

    def plain(self, node: Node, key: PolicyKey) -> Any:
        """A version or a boolean, which must not be quoted. None after an error."""
        word = node.text.lower() if isinstance(node, ScalarNode) and not node.quoted else ""
        if key.type is Type.BOOLEAN and word in TRUE_WORDS | FALSE_WORDS:
            return word in TRUE_WORDS
        if key.type is Type.VERSION and word == "1":
            return 1
        self.problems.add(node.location, f"expected {key.expected}; found {describe(node)}")
        return None

    def word(self, node: Node, expected: str) -> str | None:
        """The text of a scalar that is neither empty nor a boolean; a number is text. None after an error."""
        if isinstance(node, ScalarNode) and node.text and (
            node.quoted or (node.text not in NULL_WORDS and node.text.lower() not in TRUE_WORDS | FALSE_WORDS)
        ):
            return node.text
        self.problems.add(node.location, f"expected {expected}; found {describe(node)}")
        return None

    def choice(self, node: Node, key: PolicyKey) -> Any:
        """One of the values of a key, None after an error."""
        text = self.word(node, key.expected)
        if text is None or text in key.values:
            return text
        hint = _hint(text, key.values if key.suggested is None else key.suggested, key.value_synonyms)
        self.problems.add(node.location, f"expected {key.expected}; found {describe(node)}{hint}")
        return None

    def parsed(self, node: Node, key: PolicyKey, of_type: Type) -> Any:
        """A scalar as parsed for the type of the key or of the items of a list. None after an error."""
        text = self.word(node, of_type)
        if text is None:
            return None
        try:
            value = _PARSERS[of_type](text)
            if key.within is not None:
                shortest, longest = key.within
                if not parse_duration(shortest) <= value <= parse_duration(longest):
                    raise ValueError(f"must be from {shortest} to {longest}")
        except ValueError as error:
            reason = f": {error}" if str(error) else ""
            self.problems.add(node.location, f"expected {of_type}; found {describe(node)}{reason}")
            return None
        return value


def _title(name: str) -> str:
    """A mapping in the words of an error message."""
    return f"an item of {name.removesuffix('[]')}" if name.endswith("[]") else name or "the policy"


def _default(key: PolicyKey) -> Any:
    """The default of a scalar, parsed; None if it has none."""
    parse = _PARSERS.get(key.type)
    return parse(key.default) if parse is not None and isinstance(key.default, str) else key.default


def _hint(word: str, names: Collection[str], synonyms: Mapping[str, str]) -> str:
    """`; did you mean 'NAME'?`, the empty string if no name is similar."""
    import difflib

    word = word[:40].lower()
    near = synonyms.get(word) or next(iter(difflib.get_close_matches(word, map(str, names), 1, 0.6)), None)
    return f"; did you mean {str(near)!r}?" if near else ""


def _listen(reader: _Reader, node: Node | None) -> tuple[ListenStream, ...]:
    key = key_of("socket_unit.listen")
    keys = reader.mapping(node, "socket_unit") if node is not None else {}
    if "listen" not in keys:
        return tuple(ListenStream(value, parse_listen_stream(value)) for value in key.default)  # type: ignore[union-attr]
    found: list[ListenStream] = []
    for item in reader.items(keys["listen"], key):
        address = reader.parsed(item, key, Type.LISTEN_STREAM)
        if address is not None and isinstance(item, ScalarNode):
            found.append(ListenStream(item.text, address, item.location))
    return tuple(found)


def _sockets(reader: _Reader, node: Node, listen: tuple[ListenStream, ...]) -> tuple[DeclaredSocket, ...]:
    problems = reader.problems
    items = reader.items(node, key_of("sockets"))
    if isinstance(node, ListNode) and not items:
        problems.add(node.location, "expected at least one address: with an empty list dockerd uses its default")
    found: list[DeclaredSocket] = []
    for item in items:
        tls_node: Node | None = None
        address_node: Node = item
        if isinstance(item, MappingNode):
            keys = reader.mapping(item, "sockets[]")
            if "address" not in keys:
                continue
            address_node, tls_node = keys["address"], keys.get("tls")
        address = reader.scalar(address_node, key_of("sockets[].address")) or ""
        has_tcp = address.startswith("tcp://") or (
            address == "fd://" and any(stream.address.startswith("tcp://") for stream in listen))
        tls = Tls(_default(key_of("sockets[].tls"))) if has_tcp else Tls.NONE
        if tls_node is not None:
            tls = Tls(reader.choice(tls_node, key_of("sockets[].tls")) or tls)
            if tls is not Tls.NONE and address and not has_tcp:
                why = "socket_unit.listen has no TCP address" if address == "fd://" else \
                    "access to a UNIX socket is controlled by its file mode"
                problems.add(tls_node.location, f"tls applies to TCP only, and {why}; remove tls")
                tls = Tls.NONE
        if address == "fd://" and not listen:
            problems.add(address_node.location, "fd:// stands for socket_unit.listen, which is empty")
        if address:
            found.append(DeclaredSocket(address, tls, address_node.location))
    return tuple(found)


def _fleet(reader: _Reader, node: Node) -> Fleet | None:
    """The lock of a fleet, None after an error that was reported."""
    keys = reader.mapping(node, "correct.fleet")
    values = reader.scalars(keys, "correct.fleet")
    tls_keys = reader.mapping(keys["tls"], "correct.fleet.tls") if "tls" in keys else {}
    tls = {word: path or "" for word, path in reader.scalars(tls_keys, "correct.fleet.tls").items()}
    endpoints: list[str] = []
    if "endpoints" in keys:
        items = reader.items(keys["endpoints"], key_of("correct.fleet.endpoints"))
        found = [reader.parsed(item, key_of("correct.fleet.endpoints"), Type.URL) for item in items]
        endpoints = [each for each in found if each is not None]
        if not 1 <= len(found) <= MAX_ENDPOINTS:
            reader.problems.add(keys["endpoints"].location, f"expected 1 to {MAX_ENDPOINTS} URLs; found {len(found)}")
    for word, other in (("cert", "key"), ("key", "cert")):
        if word in tls_keys and other not in tls_keys:
            reader.problems.add(tls_keys[word].location, f"{word} needs {other} in correct.fleet.tls")
    if values["lock"] == LockKind.FLEETLOCK:
        for word in ("slots", "lease"):
            if word in keys:
                reader.problems.add(keys[word].location, f"{word} has no effect with lock: fleetlock, where the lock "
                                                         f"service decides; remove {word}")
    if values["lock"] is None or values["group"] is None:
        return None
    return Fleet(LockKind(values["lock"]), tuple(endpoints), values["group"], values["slots"], FleetTls(**tls),
                 values["lease"], values["timeout"], Unreachable(values["unreachable"]))


def _waivers(reader: _Reader, node: Node) -> tuple[Waiver, ...]:
    found: list[Waiver] = []
    for item in reader.items(node, key_of("waive")):
        keys = reader.mapping(item, "waive[]")
        values = reader.scalars(keys, "waive[]")
        found.append(Waiver(values["rule"], values["address"], values["reason"], values["until"],
                            keys.get("rule", item).location, values["unit"], values["container"], values["image"]))
    return tuple(found)


def _check_together(problems: Problems, declared: tuple[DeclaredSocket, ...]) -> None:
    """Report what dockerd cannot do at once: bind one address twice, or serve TCP sockets with different TLS."""
    seen: dict[str, DeclaredSocket] = {}
    wildcards: dict[str, DeclaredSocket] = {}
    first_tcp: DeclaredSocket | None = None
    for socket in declared:
        place = canonical(socket.address)
        if place in seen:
            problems.add(socket.location, f"{socket.address} is already declared in line {seen[place].location.line}")
        seen.setdefault(place, socket)
        if not socket.is_tcp:
            continue
        if scope_of(socket.address) is Scope.WILDCARD:
            wildcards[place.rpartition(":")[2]] = socket
        if first_tcp is not None and first_tcp.tls is not socket.tls:
            problems.add(socket.location, f"tls is {socket.tls} here and {first_tcp.tls} for {first_tcp.address} in "
                                          f"line {first_tcp.location.line}: dockerd has a single TLS setting for all "
                                          "TCP sockets")
        first_tcp = first_tcp or socket
    for place, socket in seen.items():
        wildcard = wildcards.get(place.rpartition(":")[2]) if socket.is_tcp else None
        if wildcard is not None and canonical(wildcard.address) != place:
            problems.add(socket.location, f"{wildcard.address} in line {wildcard.location.line} already binds this "
                                          "port on every address")
