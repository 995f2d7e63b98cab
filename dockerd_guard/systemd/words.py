"""Words of a value: unquoting and quoting.

Implements src/basic/extract-word.c (extract_first_word) and src/basic/escape.c (cunescape_one). Bytes
that are not UTF-8 are represented as surrogates (PEP 383).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_guard.model.location import Location
from dockerd_guard.systemd.syntax import NOT_UTF8, WHITESPACE, is_utf8


class Word(NamedTuple):
    """One word: `text` is unquoted with specifiers expanded, `raw` is as written.

    Not `certain` if it contains a specifier whose value is not in the files (such as `%v`, the running
    kernel's release); that specifier is left in the text.
    """

    text: str
    raw: str
    location: Location | None = None
    certain: bool = True


class Extracted(NamedTuple):
    """A word, its offsets `start` and `end` in the text, and the offset of the next word."""

    text: str
    start: int
    end: int
    next: int


class WordError(ValueError):
    """An unbalanced quote or an unknown escape at offset `position`."""

    def __init__(self, position: int) -> None:
        super().__init__("Invalid argument")
        self.position = position


class Rules(NamedTuple):
    """Flags of extract_first_word(): EXTRACT_UNQUOTE, EXTRACT_CUNESCAPE, EXTRACT_RELAX (a quote may be
    unbalanced) and EXTRACT_UNESCAPE_RELAX (unknown escapes are kept). Without `unescape` a backslash is
    removed and the next character is literal. `strict` is the treatment of `\\uXXXX` since 258.
    """

    unquote: bool = True
    unescape: bool = True
    relax: bool = False
    keep_unknown_escapes: bool = False
    strict: bool = True


STRICT_ESCAPE_VERSION = 258
"""Since this version `\\uXXXX` must not be a surrogate; before, only `\\UXXXXXXXX` must not (tested on 257
and 262)."""

STRICT = Rules()
LOOSE = Rules(strict=False)
UNQUOTED = Rules(unescape=False)
SPLIT_VARIABLE = Rules(unescape=False, relax=True)


def rules_of(version: int) -> Rules:
    """Return the rules for unquoting and unescaping in a systemd version."""
    return STRICT if version >= STRICT_ESCAPE_VERSION else LOOSE


_BLANKS = re.compile(f"[{WHITESPACE}]*")
_PLAIN_WORD = re.compile(rf"([^{WHITESPACE}\\\\'\"]+)(?:[{WHITESPACE}]+|\Z)")
_PLAIN = {
    "": re.compile(f"[^{WHITESPACE}\\\\'\"]+"),
    "bare": re.compile(f"[^{WHITESPACE}\\\\]+"),
    "'": re.compile(r"[^\\']+"),
    '"': re.compile(r'[^\\"]+'),
}
_ESCAPE = re.compile(r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|[abfnrtvs\\\"']")
_ESCAPED = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " ",
    "\\": "\\", '"': '"', "'": "'",
}


def extract_first_word(text: str, position: int = 0, rules: Rules = STRICT) -> Extracted | None:
    """Return the first word at or after `position`; None if there is none. Raises WordError."""
    start = skip_blanks(text, position)
    if start >= len(text):
        return None
    plain = _PLAIN_WORD.match(text, start)
    if plain is not None:
        return Extracted(plain[1], start, plain.end(1), plain.end())
    offset = start
    quote = ""
    found: list[str] = []
    while offset < len(text):
        part = _PLAIN[quote or ("" if rules.unquote else "bare")].match(text, offset)
        if part is not None:
            found.append(part[0])
            offset = part.end()
            continue
        character = text[offset]
        if character == "\\":
            offset = _escape_at(text, offset + 1, rules, quote, found)
        elif quote:
            quote = ""
            offset += 1
        elif character in WHITESPACE:
            break
        else:
            quote = character
            offset += 1
    if quote and offset >= len(text) and not rules.relax:
        raise WordError(offset)
    word = "".join(found)
    if not word.isascii():
        # Bytes that were escaped individually may form characters.
        word = word.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return Extracted(word, start, offset, skip_blanks(text, offset))


def split_words(text: str, rules: Rules) -> Iterator[Extracted]:
    """Yield all words. Raises WordError at the first one that is invalid."""
    position = 0
    while (word := extract_first_word(text, position, rules)) is not None:
        yield word
        position = word.next


def skip_blanks(text: str, position: int) -> int:
    """Return the offset of the first character at or after `position` that is not a blank."""
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _escape_at(text: str, offset: int, rules: Rules, quote: str, found: list[str]) -> int:
    """Handle the escape after a backslash. Returns the next position."""
    if offset >= len(text):
        if rules.keep_unknown_escapes and (not quote or rules.relax):
            found.append("\\")
        elif not rules.relax:
            raise WordError(offset)
        return offset
    if not rules.unescape:
        found.append(text[offset])
        return offset + 1
    escape = _ESCAPE.match(text, offset)
    value = None if escape is None else _unescape(escape[0], rules.strict)
    if escape is not None and value is not None:
        found.append(value)
        return escape.end()
    if not rules.keep_unknown_escapes:
        raise WordError(offset)
    found.append("\\" + text[offset])
    return offset + 1


def _unescape(escape: str, strict: bool) -> str | None:
    """Return the value of an escape, given without its backslash; None for NUL and invalid code points."""
    if escape in _ESCAPED:
        return _ESCAPED[escape]
    kind = escape[0]
    code = int(escape, 8) if kind in "01234567" else int(escape[1:], 16)
    if kind not in "uU":
        return None if not 0 < code <= 0xFF else chr(code) if code < 0x80 else chr(0xDC00 + code)
    if code == 0 or code > 0x10FFFF:
        return None
    if 0xD800 <= code < 0xE000:
        surrogate = chr(code).encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
        return surrogate if kind == "u" and not strict else None
    return chr(code) if kind == "u" or is_utf8(chr(code)) else None


_SAFE = re.compile(r"[A-Za-z0-9_@+=:,./~^*?!()\[\]{}<>|&%$-]+")
_SPECIAL = re.compile(r"[\\\"\x01-\x1f\x7f]|" + NOT_UTF8)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quote_word(text: str, *, env_expand: bool = True) -> str:
    """Quote one argument for ExecStart=.

    With `env_expand=False` (for commands with the `:` prefix) `$` is not escaped.
    """
    text = text.replace("%", "%%")
    if env_expand:
        text = text.replace("$", "$$")
    if _SAFE.fullmatch(text):
        return text
    return '"' + _SPECIAL.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in _ESCAPES:
        return _ESCAPES[character]
    data = character.encode("utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in data)
