"""Validation of flag values, with dockerd's error messages without the values (I11); those of hosts have them.

Sources: spf13/pflag (bool.go, int.go, ip.go, ip_slice.go), moby opts/*.go and registry/config.go,
docker/go-units (size.go, ulimit.go). Each check returns the error message or None.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from dockerd_guard.dockerd import hosts
from dockerd_guard.dockerd.gotext import trim
from dockerd_guard.dockerd.version import Version

TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))

_INT = r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)"
_DECIMAL = r"[+-]?[0-9]+"
_FLOAT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_OLD_SIZE = r"([0-9]+(\.[0-9]+)*) ?([kKmMgGtTpP])?[iI]?[bB]?"
_DOMAIN = (r":?(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))"
                     r"(:?\.(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])))*")
_SCHEME = "([a-z][a-z0-9+.-]*)?"
_ULIMITS = frozenset((
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
))
_RESERVED = ("com.docker.", "io.docker.", "org.dockerproject.")


def is_ip(text: str) -> bool:
    """Whether net.ParseIP accepts the text: no zone, no leading zeros (Go 1.17)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_addr(text: str) -> bool:
    """Whether netip.ParseAddr accepts the text: as net.ParseIP, but an IPv6 address may have a zone."""
    address, percent, zone = text.partition("%")
    return is_ip(address) and (not percent or (":" in address and zone != ""))


def _bool(value: str, _: Version) -> str | None:
    if value in TRUE or value in FALSE:
        return None
    return "strconv.ParseBool: invalid syntax"


def _int(value: str, _: Version) -> str | None:
    if re.fullmatch(_INT, value) is None:
        return "strconv.ParseInt: invalid syntax"
    return None if parse_int(value) is not None else "strconv.ParseInt: value out of range"


def parse_int(value: str) -> int | None:
    """Return the value of an int flag (the prefix selects the base); None if it is not an int64."""
    digits = value.replace("_", "")
    if re.fullmatch(_INT, value) is None or len(digits) > 70:
        return None
    number = int(digits, 8 if re.fullmatch(r"[+-]?0[0-7]+", digits) else 0)
    return number if -2**63 <= number < 2**63 else None


def _host(value: str, version: Version) -> str | None:
    try:
        hosts.validate(value, version)
    except hosts.InvalidHost as error:
        return str(error)
    return None


def mirror(value: str, version: Version) -> str | None:
    """registry.ValidateMirror."""
    scheme, separator, rest = value.partition("://")
    if version >= Version(28) and not (separator and scheme):
        return "invalid mirror: no scheme specified: must use either 'https://' or 'http://'"
    scheme = scheme.lower() if separator else value.partition(":")[0].lower() if ":" in value else ""
    if not re.fullmatch(_SCHEME, scheme) or any(letter < " " or letter == "\x7f" for letter in value) or (
            separator and not _is_valid_url(rest)):
        return "invalid mirror: not a valid URI"
    if scheme not in ("http", "https"):
        return "invalid mirror: unsupported scheme"
    path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")[2]
    query = re.search(r"\?[^#]|#.", rest)
    if query or (path and version < Version(23)):
        return "invalid mirror: path, query, or fragment at end of the URI"
    if "@" in re.split(r"[/?#]", rest, maxsplit=1)[0]:
        return "invalid mirror: username/password not allowed in URI"
    return None


def _is_valid_url(rest: str) -> bool:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    try:
        hosts.parse_authority(authority, strict=False)
    except hosts.InvalidHost:
        return False
    return re.search(r"%(?![0-9a-fA-F]{2})", re.split(r"\?", rest, maxsplit=1)[0]) is None


def index(value: str, _: Version) -> str | None:
    """registry.ValidateIndexName."""
    if value.startswith("-") or value.endswith("-"):
        return "invalid index name. Cannot begin or end with a hyphen"
    return None


def label(value: str, _: Version) -> str | None:
    """opts.ValidateLabel."""
    if "=" not in value:
        return "bad attribute format"
    if value.lower().startswith(_RESERVED):
        return ("label is not allowed: the namespaces com.docker.*, io.docker.*, and org.dockerproject.* are "
                "reserved for internal use")
    return None


def dns(value: str, version: Version) -> str | None:
    """opts.ValidateIPAddress."""
    if is_ip(trim(value)):
        return None
    return "not an ip address" if version < Version(23) else "IP address is not correctly formatted"


def dns_search(value: str, _: Version) -> str | None:
    """opts.ValidateDNSSearch."""
    value = value.strip(" ")
    if value == ".":
        return None
    found = re.fullmatch(rf"({_DOMAIN})\.?[\t\n\f\r ]*", value)
    if re.search("[a-zA-Z]", value) is None or found is None or len(found[1]) >= 255:
        return "not a valid domain"
    return None


def _ip(value: str, version: Version) -> str | None:
    # opts.IPOpt until 20.10, then pflag's type, which accepts "" since 1.0.6 (in Debian's 26.1).
    if version < Version(23):
        return None if is_ip(value) else "not an ip address"
    if is_ip(trim(value)) or (not value and version >= Version(26)):
        return None
    return "failed to parse IP"


def _ips(value: str, _: Version) -> str | None:
    plain = value.translate({ord("\""): None, ord("'"): None, ord("`"): None})
    for part in plain.splitlines()[0].split(",") if plain.strip("\r\n") else ():
        if not is_ip(trim(part)):
            return "invalid string being converted to IP address"
    return None


def _addr(value: str, _: Version) -> str | None:
    return None if is_addr(value) else "ParseAddr: unable to parse IP"


def _resource(value: str, _: Version) -> str | None:
    return None if "=" in value else "invalid node-generic-resource format, expected `name=value`"


def _feature(value: str, version: Version) -> str | None:
    name, equals, state = value.partition("=")
    if not name:
        return "invalid option name"
    return _bool(state, version) if equals else None


def _mapmap(value: str, _: Version) -> str | None:
    return None if value.count("=") >= 2 else "invalid value for map option, should be root-key=key=value"


def _runtime(value: str, _: Version) -> str | None:
    name, _equals, path = (trim(part) for part in value.partition("="))
    if not name or not path:
        return "invalid runtime argument"
    return "runtime name 'runc' is reserved" if name.lower() == "runc" else None


def _ulimit(value: str, _: Version) -> str | None:  # noqa: PLR0911
    name, equals, limits = value.partition("=")
    if not equals:
        return "invalid ulimit argument"
    if name not in _ULIMITS:
        return "invalid ulimit type"
    parts = limits.split(":")
    if len(parts) > 2:
        return "too many limit value arguments, can only have up to two, `soft[:hard]`"
    for part in reversed(parts):
        if re.fullmatch(_DECIMAL, part) is None:
            return "strconv.ParseInt: invalid syntax"
        if len(part) > 70 or not -2**63 <= int(part) < 2**63:
            return "strconv.ParseInt: value out of range"
    soft, hard = int(parts[0]), int(parts[-1])
    if hard != -1 and (soft == -1 or soft > hard):
        return "ulimit soft limit must be less than or equal to hard limit"
    return None


def size(value: str, version: Version) -> str | None:
    """units.RAMInBytes. Upstream uses go-units 0.5 since 23.0, Debian 0.4 until 26.1; they differ in `1e3`."""
    message = "invalid size"
    if version < Version(28):
        found = re.fullmatch(_OLD_SIZE, value)
        return None if found is not None and re.fullmatch(_FLOAT, found[1]) else message
    place = max((value.rfind(letter) for letter in "0123456789. "), default=-1)
    if place < 0:
        return message
    number, suffix = (value[:place], value[place + 1:]) if value[place] == " " else (
        value[:place + 1], value[place + 1:])
    if re.fullmatch(_FLOAT, number) is None:
        return "strconv.ParseFloat: invalid syntax"
    if number.startswith("-") and float(number) < 0:
        return message
    suffix = suffix.lower()
    return None if suffix in ("", "b") or re.fullmatch(r"[kmgtp](b|ib)?", suffix) else "invalid suffix"


def _pools(value: str, version: Version) -> str | None:
    if not value or value.count('"') % 2:
        return "EOF"
    for field in value.split(","):
        name, equals, rest = field.partition("=")
        name = name.lower()
        if not equals:
            return "invalid field, must be a key=value pair"
        if name == "size":
            if re.fullmatch(_DECIMAL, rest) is None:
                return "invalid size value (must be integer)"
        elif name != "base":
            return "unexpected key"
        elif version >= Version(28) and not is_prefix(rest.lower()):
            return "invalid base prefix"
    return None


def is_prefix(text: str) -> bool:
    """Whether netip.ParsePrefix accepts the text."""
    address, slash, bits = text.rpartition("/")
    return bool(slash) and is_ip(address) and re.fullmatch("0|[1-9][0-9]{0,2}", bits) is not None and (
        int(bits) <= (128 if ":" in address else 32))


def _quoted(value: str, _: Version) -> str | None:
    # opts.QuotedString (until 20.10) indexes the first and the last byte without checking the length.
    if not value:
        return "panic: runtime error: index out of range [0] with length 0"
    return "panic: runtime error: slice bounds out of range [1:0]" if value in ("'", '"') else None


CHECKS: dict[str, Callable[[str, Version], str | None]] = {
    "bool": _bool, "int": _int, "host": _host, "mirror": mirror, "index": index, "label": label, "dns": dns,
    "dns-search": dns_search, "ip": _ip, "ips": _ips, "addr": _addr, "resource": _resource,
    "feature": _feature, "mapmap": _mapmap, "runtime": _runtime, "ulimit": _ulimit, "bytes": size,
    "pools": _pools, "quoted": _quoted,
}
"""Checks by Option.kind. Kinds that are not listed accept any value."""
