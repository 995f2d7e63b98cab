"""JSON parser compatible with Go's encoding/json, with the offsets of all values.

Python's json module returns no offsets and accepts what Go refuses (NaN, control characters in strings, other
rules for trailing text). Errors have Go's messages. Linear time, no recursion.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

MAX_DEPTH = 10_000
"""maxNestingDepth in encoding/json/scanner.go."""

_BLANK = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(r'\\(?:(["\\/bfnrt])|u([0-9a-fA-F]{4}))')
_SHORT = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SURROGATES = "[\ud800-\udfff]"
_PAIRS = "[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]"
_SHOWN = {"'": r"\'", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Node(NamedTuple):
    """A value and its span of characters, quotes included.

    `value` is a str for "string" (unescaped) and for "number" (as written), a bool for "bool", None
    for "null", a tuple of Nodes for "array" and a tuple of pairs (key, value) for "object".
    """

    kind: str
    value: str | bool | tuple[Node, ...] | tuple[tuple[Node, Node], ...] | None
    start: int
    end: int

    @property
    def text(self) -> str:
        """The value of a string, "" for anything else."""
        return self.value if self.kind == "string" and isinstance(self.value, str) else ""

    def members(self) -> Iterator[tuple[Node, Node]]:
        """The pairs of an object; nothing for anything else."""
        if self.kind == "object" and isinstance(self.value, tuple):
            for pair in self.value:
                yield pair[0], pair[1]

    def items(self) -> Iterator[Node]:
        """The elements of an array; nothing for anything else."""
        if self.kind == "array" and isinstance(self.value, tuple):
            yield from self.value  # type: ignore[misc]


class InvalidJson(Exception):
    """The text is not valid JSON: Go's message and the offset of the error."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Lines:
    """Converts offsets in a text into lines and columns, both counted from 1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in re.finditer("\n", text)), len(text) + 1]

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def end(self, line: int) -> int:
        """Return the column after the last character of a line."""
        return self._starts[line] - self._starts[line - 1]


def scan(text: str) -> Node:
    """Parse the first value in the text and ignore what follows. Raises InvalidJson.

    Invalid UTF-8 has to be decoded with "surrogateescape"; in strings it becomes U+FFFD, as in Go.
    """
    open_objects: list[tuple[int, list[Node], Node | None]] = []
    at = _skip(text, 0)
    while True:
        node: Node | None = None
        letter = text[at:at + 1]
        if letter in ("{", "["):
            if len(open_objects) >= MAX_DEPTH:
                raise InvalidJson("exceeded max depth", at)
            open_objects.append((at, [], None))
            at = _skip(text, at + 1)
            if text[at:at + 1] != ("}" if letter == "{" else "]"):
                if letter == "{":
                    at = _key(text, at, open_objects)
                continue
        else:
            node = _scalar(text, at, letter)
            at = node.end
        # A value is complete: close all arrays and objects that end here.
        while True:
            if node is not None:
                if not open_objects:
                    return node
                open_objects[-1][1].append(node)
                at = _skip(text, at)
                if text[at:at + 1] == ",":
                    break
            start, nodes, _ = open_objects[-1]
            is_object = text[start] == "{"
            if text[at:at + 1] != ("}" if is_object else "]"):
                raise _unexpected(text, at, "after object key:value pair" if is_object
                                  else "after array element")
            open_objects.pop()
            at += 1
            node = (Node("object", tuple(zip(nodes[::2], nodes[1::2], strict=True)), start, at) if is_object
                    else Node("array", tuple(nodes), start, at))
        at = _skip(text, at + 1)
        if text[open_objects[-1][0]] == "{":
            at = _key(text, at, open_objects)


def after(text: str, node: Node) -> None:
    """Raise InvalidJson if anything but blanks follows the value (json.Unmarshal)."""
    at = _skip(text, node.end)
    if at < len(text):
        raise _unexpected(text, at, "after top-level value")


def _skip(text: str, at: int) -> int:
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]


def _key(text: str, at: int, open_objects: list[tuple[int, list[Node], Node | None]]) -> int:
    if text[at:at + 1] != '"':
        raise _unexpected(text, at, "looking for beginning of object key string")
    key = _string(text, at)
    at = _skip(text, key.end)
    if text[at:at + 1] != ":":
        raise _unexpected(text, at, "after object key")
    open_objects[-1][1].append(key)
    return _skip(text, at + 1)


def _scalar(text: str, at: int, letter: str) -> Node:
    if letter == '"':
        return _string(text, at)
    for word, kind, value in (("true", "bool", True), ("false", "bool", False), ("null", "null", None)):
        if letter == word[0]:
            for place in range(1, len(word)):
                if text[at + place:at + place + 1] != word[place]:
                    raise _unexpected(text, at + place, f"in literal {word} (expecting {word[place]!r})")
            return Node(kind, value, at, at + len(word))
    found = _NUMBER.match(text, at)
    if found is not None:
        tail = text[found.end():found.end() + 1]
        if tail == "." and "." not in found[0] and "e" not in found[0].lower():
            raise _unexpected(text, found.end() + 1, "after decimal point in numeric literal")
        if tail in ("e", "E") and "e" not in found[0].lower():
            sign = text[found.end() + 1:found.end() + 2] in ("+", "-")
            raise _unexpected(text, found.end() + 1 + sign, "in exponent of numeric literal")
        return Node("number", found[0], at, found.end())
    if letter == "-":
        raise _unexpected(text, at + 1, "in numeric literal")
    raise _unexpected(text, at, "looking for beginning of value")


def _string(text: str, start: int) -> Node:
    at = start + 1
    escaped = False
    while True:
        at = _PLAIN.match(text, at).end()  # type: ignore[union-attr]
        letter = text[at:at + 1]
        if letter == '"':
            value = text[start + 1:at]
            if not value.isascii():
                value = re.sub(_SURROGATES, "\ufffd", value)
            if escaped:
                value = re.sub(_PAIRS, _pair, _ESCAPE.sub(_unescape, value))
            return Node("string", value, start, at + 1)
        if letter != "\\":
            raise _unexpected(text, at, "in string literal")
        found = _ESCAPE.match(text, at)
        if found is None:
            if text[at + 1:at + 2] != "u":
                raise _unexpected(text, at + 1, "in string escape code")
            place = at + 2
            while text[place:place + 1] in "0123456789abcdefABCDEF" and text[place:place + 1]:
                place += 1
            raise _unexpected(text, place, "in \\u hexadecimal character escape")
        escaped = True
        at = found.end()


def _unescape(found: re.Match[str]) -> str:
    return _SHORT[found[1]] if found[1] else chr(int(found[2], 16))


def _pair(found: re.Match[str]) -> str:
    if len(found[0]) == 1:
        return "\ufffd"
    high, low = ord(found[0][0]), ord(found[0][1])
    return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)


def _unexpected(text: str, at: int, where: str) -> InvalidJson:
    if at >= len(text):
        return InvalidJson("unexpected end of JSON input", at)
    # Go's message has the byte at which it stopped.
    letter = chr(text[at].encode("utf-8", "surrogateescape")[0])
    shown = letter if letter.isprintable() else f"\\x{ord(letter):02x}"
    return InvalidJson(f"invalid character '{_SHOWN.get(letter, shown)}' {where}", at)
