"""Parsers for setting values: numbers, booleans, paths, user names.

Implements src/basic/parse-util.c, path-util.c and user-util.c.
"""

from __future__ import annotations

import re

from dockerd_guard.rootfs import PATH_MAX_BYTES
from dockerd_guard.systemd.syntax import byte_length, is_utf8

NAME_MAX_BYTES = 255

_TRUE = frozenset(("1", "yes", "y", "true", "t", "on"))
_FALSE = frozenset(("0", "no", "n", "false", "f", "off"))
_NUMBER = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))")
_PREFIXED = re.compile(r"0([bBoO])[ \t\n\v\f\r]*([+-]?)([0-7]+)")
_UINT32_MAX = 0xFFFFFFFF


def parse_boolean(text: str) -> bool | None:
    """parse_boolean(); None if invalid."""
    text = text.lower()
    return True if text in _TRUE else False if text in _FALSE else None


def parse_unsigned(text: str) -> int | None:
    """safe_atou(): the prefix selects the base: `0x947`, `0b11`, and octal `04507`. None if invalid."""
    text = text.lstrip(" \t\n\v\f\r")
    found = _PREFIXED.fullmatch(text)
    if found is not None:
        kind, sign, digits = found.groups()
        if kind in "bB" and digits.strip("01"):
            return None
        value = int(digits, 2 if kind in "bB" else 8)
    else:
        found = _NUMBER.fullmatch(text)
        if found is None or len(text) > 40:
            return None
        sign, hexadecimal, octal, decimal = found.groups()
        value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    return None if value > _UINT32_MAX or (sign == "-" and value) else value


def parse_port(text: str) -> int | None:
    """parse_ip_port(): as parse_unsigned() without leading blanks, from 1 to 65535. None if invalid."""
    port = None if text[:1] in (" ", "\t") else parse_unsigned(text)
    return port if port and port <= 65535 else None


def parse_mode(text: str) -> int | None:
    """parse_mode(): octal, up to 07777. None if invalid."""
    found = re.fullmatch(r"[ \t\n\r]*([0-7]{1,32})", text)
    value = int(found[1], 8) if found else None
    return value if value is not None and value <= 0o7777 else None


def simplify(path: str) -> str:
    """path_simplify(): remove double slashes, `.` components and trailing slashes.

    >>> simplify("//run/./docker//")
    '/run/docker'
    """
    if "//" not in path and "/." not in path and not path.endswith("/") and not path.startswith("./"):
        return path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def is_valid_path(path: str) -> bool:
    """path_is_valid(): not empty, and neither the path nor a component is too long."""
    if not path or byte_length(path) >= PATH_MAX_BYTES:
        return False
    return all(byte_length(part) <= NAME_MAX_BYTES for part in path.split("/"))


def is_valid_file_name(name: str) -> bool:
    """filename_is_valid(): whether a directory entry can have this name."""
    return bool(name) and name not in (".", "..") and "/" not in name and byte_length(name) <= NAME_MAX_BYTES


def path_error(path: str, *, below_api: bool = True) -> str | None:
    """path_simplify_and_warn() with PATH_CHECK_ABSOLUTE: the error message, or None. Without `below_api` paths
    below /proc, /sys and /dev are refused (PATH_CHECK_NON_API_VFS)."""
    if not is_utf8(path):
        return "String is not UTF-8 clean"
    if not path.startswith("/"):
        return "path is not absolute"
    path = simplify(path)
    if not is_valid_path(path):
        return f"path has invalid length ({byte_length(path)} bytes)"
    if ".." in path.split("/"):
        return "path is not normalized"
    if not below_api and re.match(r"/(proc|sys|dev)(/|\Z)", path):
        return "path is below API VFS"
    return None


def is_valid_user(name: str) -> bool:
    """valid_user_group_name() with ALLOW_NUMERIC and RELAX, as for User= and SocketGroup=."""
    if not name:
        return False
    if re.fullmatch(r"0|[1-9][0-9]*", name):
        return len(name) <= 10 and int(name) not in (0xFFFF, 0xFFFFFFFF) and int(name) <= _UINT32_MAX
    if name[0] == " " or name[-1] == " " or not is_utf8(name) or re.search(r"[\x00-\x1f\x7f:/]", name):
        return False
    return not re.fullmatch(r"-?[0-9]*|\.\.?", name)
