"""Words in a value: quotes and escapes, read and written.

As src/basic/extract-word.c (extract_first_word) and src/basic/escape.c (cunescape_one). Bytes
that are not UTF-8 are kept as surrogates (PEP 383).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dockerd_guard.source import Location
from dockerd_guard.systemd.syntax import NOT_UTF8, WHITESPACE


class Word(NamedTuple):
    """One word: `text` as it counts (unquoted, specifiers expanded), `raw` as it is written.

    `certain` is False where a specifier stands in it that the files do not tell (as `%v`, the
    running kernel's release); that specifier is left in the text.
    """

    text: str
    raw: str
    location: Location | None = None
    certain: bool = True


class Extracted(NamedTuple):
    """A word found in a text, where it stood (`start`, `end`) and where the next one begins."""

    text: str
    start: int
    end: int
    next: int


class WordError(ValueError):
    """An unbalanced quote, or an escape that means nothing; `position` is where it was found."""

    def __init__(self, position: int) -> None:
        super().__init__("Invalid argument")
        self.position = position


_BLANKS = re.compile(f"[{WHITESPACE}]*")
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


def extract_first_word(
    text: str,
    position: int = 0,
    *,
    unquote: bool = True,
    unescape: bool = True,
    relax: bool = False,
    keep_unknown_escapes: bool = False,
) -> Extracted | None:
    """Take the first word from `position` on; None where there is none.

    The options are EXTRACT_UNQUOTE, EXTRACT_CUNESCAPE, EXTRACT_RELAX (an open quote may end with
    the text) and EXTRACT_UNESCAPE_RELAX. Without `unescape` a backslash vanishes and makes the
    next character a plain one. Raises WordError.
    """
    length = len(text)
    here = _blanks(text, position)
    if here >= length:
        return None
    start = here
    quote = ""
    found: list[str] = []
    raw_bytes = False
    while True:
        plain = _PLAIN[quote or ("" if unquote else "bare")].match(text, here)
        if plain is not None:
            found.append(plain[0])
            here = plain.end()
        if here >= length:
            if quote and not relax:
                raise WordError(here)
            break
        character = text[here]
        if character == "\\":
            here += 1
            if here >= length:
                if keep_unknown_escapes and (not quote or relax):
                    found.append("\\")
                elif not relax:
                    raise WordError(here)
                break
            if not unescape:
                found.append(text[here])
                here += 1
            elif (escape := _ESCAPE.match(text, here)) and (value := _unescape(escape[0])) is not None:
                found.append(value)
                raw_bytes = raw_bytes or not value.isascii()
                here = escape.end()
            elif keep_unknown_escapes:
                found.append("\\" + text[here])
                here += 1
            else:
                raise WordError(here)
        elif quote:
            quote = ""
            here += 1
        elif unquote and character in "'\"":
            quote = character
            here += 1
        else:
            break
    word = "".join(found)
    if raw_bytes:
        word = word.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return Extracted(word, start, here, _blanks(text, here))


def _blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _unescape(escape: str) -> str | None:
    """The meaning of an escape, without its backslash; None for NUL and other impossible ones."""
    if escape in _ESCAPED:
        return _ESCAPED[escape]
    kind = escape[0]
    code = int(escape, 8) if kind in "01234567" else int(escape[1:], 16)
    if code == 0:
        return None
    if kind in "uU":
        if kind == "U" and (code > 0x10FFFF or 0xD800 <= code < 0xE000 or 0xFDD0 <= code <= 0xFDEF
                            or code & 0xFFFE == 0xFFFE):
            return None
        return chr(code).encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    if code > 255:
        return None
    return chr(code) if code < 0x80 else chr(0xDC00 + code)


_SAFE = re.compile(r"[A-Za-z0-9_@+=:,./~^*?!()\[\]{}<>|&%$-]+")
_SPECIAL = re.compile(r"[\\\"\x01-\x1f\x7f]|" + NOT_UTF8)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quote_word(text: str, *, env_expand: bool = True) -> str:
    """Write one argument so that ExecStart= gives it back as it is.

    With `env_expand=False` (a command with the `:` prefix) a `$` stays a `$`.
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
