"""Parser for daemon.json. Implements moby's daemon/config/config.go, by version."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dockerd_guard.dockerd.flags import Flag
from dockerd_guard.dockerd.gojson import InvalidJson, Lines, Node, after, scan
from dockerd_guard.dockerd.gotext import BLANKS
from dockerd_guard.dockerd.options import options_of
from dockerd_guard.dockerd.values import is_addr, is_ip, is_prefix, size
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, Version
from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Unreadable

FLAT = frozenset((
    "cluster-store-opts", "default-network-opts", "log-opts", "runtimes", "default-ulimits", "features",
    "builder",
))
"""Keys whose values are objects (flatOptions). Of any other object dockerd checks the inner keys, one level deep."""

UNCHECKED = frozenset(("features", "builder", "deprecated-key-path"))
"""Keys without a flag of the same name (skipValidateOptions)."""

SET_TWICE = "the following directives are specified both as a flag and in the configuration file"
"""dockerd's error, followed here by the names of the keys (moby: findConfigurationConflicts)."""


class Key(NamedTuple):
    """A key of the file with its location.

    `inside` is the outer key of a nested one. `effective` is false for a key that dockerd accepts and
    ignores: the name of a flag (`host`), or a nested key.
    """

    name: str
    location: Location
    value: Node
    inside: str | None = None
    effective: bool = True


class Text(NamedTuple):
    """A string in the file, and the location of its characters without the quotes."""

    text: str
    location: Location


class File(NamedTuple):
    """The content of daemon.json as dockerd decodes it.

    `error` is why dockerd refuses the file, `mismatch` why it refuses a value, `unreadable` why the file
    could not be read by us. `flat` are the keys that dockerd checks for conflicts, `values` those that it
    decodes; of duplicates the last one.
    """

    path: str
    missing: bool = False
    error: str | None = None
    mismatch: str | None = None
    unreadable: str | None = None
    keys: tuple[Key, ...] = ()
    flat: dict[str, Key] = {}  # noqa: RUF012
    values: dict[str, Key] = {}  # noqa: RUF012
    hosts: tuple[Text, ...] = ()
    error_at: Location | None = None
    """Location of a JSON syntax error."""

    def boolean(self, name: str) -> bool | None:
        """Return a boolean value, or None."""
        value = self.values[name].value.value if name in self.values else None
        return value if isinstance(value, bool) else None

    def text(self, name: str) -> str:
        """Return a string value, empty by default."""
        return self.values[name].value.text if name in self.values else ""

    def texts(self, name: str) -> list[str]:
        """Return a list of strings, empty by default."""
        return [node.text for node in self.values[name].value.items()] if name in self.values else []

    def number(self, name: str) -> int | None:
        """Return an integer value, or None."""
        value = self.values[name].value if name in self.values else None
        return int(value.value) if value is not None and value.kind == "number" and isinstance(
            value.value, str) else None


def load(path: str, read: Callable[[str], bytes], version: Version | None) -> File:
    """Read and parse the file. Never raises."""
    try:
        content = read(path)
    except FileNotFoundError:
        return File(path, missing=True)
    except Unreadable as error:
        if "directory" in error.reason:
            return File(path, error=f"read {path}: is a directory")
        return File(path, unreadable=error.reason)
    return parse(path, content, version)


def parse(path: str, content: bytes, version: Version | None) -> File:  # noqa: PLR0911
    """Parse the content of the file. Never raises."""
    text, message = _decode(content, version)
    if message is not None:
        return File(path, error=message)
    begin = 0
    if version is None or version >= Version(23):
        text = text.rstrip(BLANKS)
        begin = len(text) - len(text.lstrip(BLANKS))
        if begin == len(text):
            return File(path)
    elif not text.strip(" \t\r\n"):
        return File(path, error="EOF")
    lines = Lines(text)
    try:
        # Until 20.10 dockerd uses a json.Decoder, which ignores text after the first value.
        root = scan(text[begin:] if begin else text)
        if version is None or version >= Version(23):
            after(text[begin:] if begin else text, root)
    except InvalidJson as error:
        message = str(error)
        if version is not None and version < Version(23):
            message = message.replace("unexpected end of JSON input", "unexpected EOF")
        line, column = lines.place(begin + error.offset)
        return File(path, error=message, error_at=Location(path, line, column, column + 1))
    if root.kind == "null":
        return File(path)
    if root.kind != "object":
        return File(path, error=f"json: cannot unmarshal {root.kind} into Go value of type "
                                "map[string]interface {}")
    return _file(path, root, _Locator(path, lines, begin), version)


class _Locator(NamedTuple):
    path: str
    lines: Lines
    begin: int

    def of(self, node: Node) -> Location:
        """Return the location of a node, truncated at the end of its first line; of a string without its quotes."""
        inner = 1 if node.kind == "string" else 0
        line, column = self.lines.place(self.begin + node.start + inner)
        end = column + node.end - node.start - 2 * inner
        return Location(self.path, line, column, min(end, self.lines.end(line)))


def _decode(content: bytes, version: Version | None) -> tuple[str, str | None]:
    if version is not None and version < Version(23):
        # encoding/json replaces invalid UTF-8 by U+FFFD.
        return content.decode("utf-8", "surrogateescape"), None
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content[2:].decode("utf-16-le" if content[:1] == b"\xff" else "utf-16-be", "replace"), None
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode(), None
    except UnicodeDecodeError as error:
        return "", f"failed to decode configuration JSON at offset {error.start}: encoding: invalid UTF-8"


def _file(path: str, root: Node, place: _Locator, version: Version | None) -> File:
    options = options_of(version)
    folded: dict[str, str] = {}
    keys: list[Key] = []
    flat: dict[str, Key] = {}
    values: dict[str, Key] = {}
    last: dict[str, Key] = {}
    hosts: list[Text] = []
    message: str | None = None
    for name_node, value in root.members():
        name = name_node.text
        field = name
        if name not in options.fields:
            # encoding/json matches field names case-insensitively.
            folded = folded or {field.casefold(): field for field in options.fields}
            field = folded.get(name.casefold(), "")
        key = Key(name, place.of(name_node), value, None, bool(field))
        keys.append(key)
        last[name] = key
        if field:
            message = message or _mismatch(field, options.fields[field], value, version or NEWEST_DOCKERD)
            # null keeps the value of an earlier duplicate, except for lists, maps and pointers.
            if value.kind != "null" or field in ("tls", "tlsverify"):
                values[field] = key
            if field == "hosts":
                hosts = _hosts(hosts, value, place)
        if (overflow := _float_overflow(value)) is not None:
            return File(path, error=overflow)
    for key in last.values():
        if key.value.kind == "object" and key.name not in FLAT:
            for name_node, value in key.value.members():
                inner = Key(name_node.text, place.of(name_node), value, key.name,
                            options.fields.get(key.name) == "proxies")
                keys.append(inner)
                flat[inner.name] = inner
        else:
            flat[key.name] = key
    return File(path, mismatch=message, keys=tuple(keys), flat=flat, values=values, hosts=tuple(hosts))


def _hosts(before: list[Text], value: Node, place: _Locator) -> list[Text]:
    """Decode `hosts` into the list of an earlier duplicate: null keeps the element at its index."""
    found: list[Text] = []
    for index, node in enumerate(value.items()):
        if node.kind == "null" and index < len(before):
            found.append(before[index])
        else:
            found.append(Text(node.text, place.of(node)))
    return found


def conflict(file: File, given: tuple[Flag, ...], version: Version | None) -> str | None:
    """findConfigurationConflicts(): dockerd's error for unknown keys or conflicts with flags, or None.

    It names the keys; dockerd also shows both values, which may be secret (I11).
    """
    options = options_of(version)
    unchecked = UNCHECKED
    if version is None or version >= Version(28):
        unchecked |= {"allow-nondistributable-artifacts"}
    if version is None or version >= Version(29):
        # It has no flag (moby#51371).
        unchecked |= {"min-api-version"}
    unknown = [name for name in file.flat
               if name not in options.by_name and name not in options.keys and name not in unchecked]
    if unknown:
        return f"the following directives don't match any configuration option: {', '.join(unknown)}"
    names = sorted({flag.name for flag in given})
    both: list[str] = []
    for name in names:
        option = options.by_name[name]
        both += [key for key in ((option.key,) if option.key else (name, option.short))
                 if key in file.flat and key != "runtimes"][:1]
    if both:
        return f"{SET_TWICE}: {', '.join(both)}"
    if "host-gateway-ips" in options.keys and "host-gateway-ip" in file.flat:
        if "host-gateway-ips" in file.flat:
            return "host-gateway-ip and host-gateway-ips must not both be specified in the config file"
        if "host-gateway-ip" in names:
            return f"{SET_TWICE}: host-gateway-ip"
    return None


def without_key(text: bytes, key: str) -> bytes:
    """Return the text without a key of the outermost object, duplicates included. All other bytes are unchanged.

    Raises ValueError if the text is not a JSON object.
    """
    begin, encoding = (3, "utf-8") if text.startswith(b"\xef\xbb\xbf") else (
        (2, "utf-16-le") if text.startswith(b"\xff\xfe") else
        (2, "utf-16-be") if text.startswith(b"\xfe\xff") else (0, "utf-8"))
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    content = text[begin:].decode(encoding, errors)
    try:
        root = scan(content)
    except InvalidJson as error:
        raise ValueError(str(error)) from None
    if root.kind != "object":
        raise ValueError("not a JSON object")
    members = list(root.members())
    kept = [place for place, (name, _) in enumerate(members) if name.text != key]
    if len(kept) == len(members):
        return text
    pieces: list[str] = []
    at = 0
    for place, (name, value) in enumerate(members):
        if name.text != key:
            continue
        if kept and kept[-1] > place:
            start, end = name.start, members[place + 1][0].start
        else:
            # No member is kept after it: remove the comma before it.
            start, end = (members[kept[-1]][1].end if kept else root.start + 1), value.end
        pieces.append(content[at:max(at, start)])
        at = max(at, end)
    pieces.append(content[at:])
    return text[:begin] + "".join(pieces).encode(encoding, errors)


_KINDS = {
    "bool": ("bool", "bool"), "string": ("string", "string"), "strings": ("array", "[]string"),
    "map of string": ("object", "map[string]string"), "map of bool": ("object", "map[string]bool"),
    "map of map": ("object", "map[string]map[string]string"),
    "map of ulimit": ("object", "map[string]*units.Ulimit"),
    "map of runtime": ("object", "map[string]types.Runtime"),
    "builder": ("object", "config.BuilderConfig"), "proxies": ("object", "config.Proxies"),
    "nri": ("object", "opts.NRIOpts"), "int": ("number", "int"), "uint32": ("number", "uint32"),
    "ips": ("array", "[]net.IP"), "addrs": ("array", "[]netip.Addr"),
}
_ELEMENT_KINDS = {
    "map of string": ("string", "string"), "map of bool": ("bool", "bool"),
    "map of map": ("object", "map[string]string"), "map of ulimit": ("object", "units.Ulimit"),
    "map of runtime": ("object", "types.Runtime"), "proxies": ("string", "string"),
    "strings": ("string", "string"),
}
_PROXIES = frozenset(("http-proxy", "https-proxy", "no-proxy"))
_INTEGER = r"-?[0-9]+"


def _mismatch(field: str, kind: str, value: Node, version: Version) -> str | None:  # noqa: PLR0911
    """Return the error of encoding/json for decoding the value into the field, or None."""
    if kind == "bytes":
        # MemBytes.UnmarshalJSON gets the raw text, even null.
        is_valid = value.kind == "string" and value.text and size(value.text, version) is None
        return None if is_valid else f"{field}: invalid size"
    if value.kind == "null":
        return None
    if kind in ("ip", "addr"):
        return _ip_error(field, value, is_ip if kind == "ip" else is_addr)
    if kind == "pools":
        return _pools_error(field, value, version)
    wanted, name = _KINDS[kind]
    if value.kind != wanted:
        return _unmarshal_error(value, field, name)
    if wanted == "number":
        return _integer_error(field, value, name)
    if kind in ("ips", "addrs"):
        return next((message for node in value.items() if node.kind != "null"
                     if (message := _ip_error(field, node, is_ip if kind == "ips" else is_addr))), None)
    for node in (value,) if kind == "builder" else _inner(kind, value):
        if kind in _ELEMENT_KINDS and node.kind not in (_ELEMENT_KINDS[kind][0], "null"):
            return _unmarshal_error(node, field, _ELEMENT_KINDS[kind][1])
        inner_message = _inner_mismatch(kind, field, node)
        if inner_message:
            return inner_message
    return None


def _inner(kind: str, value: Node) -> Iterator[Node]:
    yield from value.items()
    for name, node in value.members():
        if kind != "proxies" or name.text.casefold() in _PROXIES:
            yield node


def _inner_mismatch(kind: str, field: str, node: Node) -> str | None:
    if kind == "builder":
        return next((_unmarshal_error(deep, "builder.gc", "config.BuilderGCConfig") for name, deep in node.members()
                     if name.text.casefold() == "gc" and deep.kind not in ("object", "null")), None)
    if kind == "map of map":
        return next((_unmarshal_error(deep, field, "string") for _, deep in node.members()
                     if deep.kind not in ("string", "null")), None)
    wanted = {"map of ulimit": {"name": "string", "hard": "number", "soft": "number"},
              "map of runtime": {"path": "string", "runtimeargs": "array", "runtimetype": "string",
                                 "options": "object"}}.get(kind, {})
    for name, deep in node.members():
        kind_wanted = wanted.get(name.text.casefold())
        if kind_wanted is None or deep.kind == "null":
            continue
        if deep.kind != kind_wanted:
            return _unmarshal_error(deep, f"{field}.{name.text}", kind_wanted)
        if deep.kind == "number" and _integer_error(field, deep, "int64"):
            return _integer_error(field, deep, "int64")
        if deep.kind == "array" and any(item.kind not in ("string", "null") for item in deep.items()):
            return _unmarshal_error(deep, f"{field}.{name.text}", "string")
    return None


def _pools_error(field: str, value: Node, version: Version) -> str | None:
    if value.kind != "array":
        return _unmarshal_error(value, field, "[]*ipamutils.NetworkToSplit")
    for pool in value.items():
        if pool.kind == "null":
            continue
        if pool.kind != "object":
            return _unmarshal_error(pool, field, "ipamutils.NetworkToSplit")
        for name, node in pool.members():
            if name.text.casefold() == "size" and node.kind != "null" and (
                    node.kind != "number" or _integer_error(field, node, "int")):
                return _unmarshal_error(node, f"{field}.size", "int")
            if name.text.casefold() == "base" and node.kind != "null":
                if node.kind != "string":
                    return _unmarshal_error(node, f"{field}.base", "string")
                if version >= Version(28) and node.text and not is_prefix(node.text):
                    return f"{field}: netip.ParsePrefix: no prefix"
    return None


def _ip_error(field: str, value: Node, is_valid: Callable[[str], bool]) -> str | None:
    if value.kind != "string":
        return _unmarshal_error(value, field, "*net.IP")
    return None if not value.text or is_valid(value.text) else f"{field}: invalid IP address"


def _integer_error(field: str, value: Node, name: str) -> str | None:
    written = str(value.value)
    low, high = (0, 2**32) if name == "uint32" else (-2**63, 2**63)
    if re.fullmatch(_INTEGER, written) and len(written) < 25 and low <= int(written) < high:
        return None
    return f"json: cannot unmarshal number into Go struct field Config.{field} of type {name}"


def _unmarshal_error(value: Node, field: str, name: str) -> str:
    return f"json: cannot unmarshal {value.kind} into Go struct field Config.{field} of type {name}"


def _float_overflow(value: Node) -> str | None:
    """Return the error for a number that overflows float64, which fails even in ignored keys
    (map[string]interface{}), or None."""
    todo = [value]
    while todo:
        node = todo.pop()
        if node.kind == "number" and float(str(node.value)) in (float("inf"), float("-inf")):
            return "json: cannot unmarshal number into Go value of type float64"
        todo += node.items()
        todo += [inner for _, inner in node.members()]
    return None
