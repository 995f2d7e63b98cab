"""Functions of Go's strings and strconv packages that dockerd's parsers and messages use."""

from __future__ import annotations

import re

BLANKS = ("\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
          "\u2028\u2029\u202f\u205f\u3000")
"""The characters that strings.TrimSpace removes (unicode.IsSpace)."""

_SPECIAL = re.compile("[\x00-\x1f\"\\\\\x7f\ud800-\udfff]")
_SHORT = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v",
          '"': r"\"", "\\": r"\\"}


def trim(text: str) -> str:
    """strings.TrimSpace."""
    return text.strip(BLANKS)


def quote(text: str) -> str:
    """strconv.Quote, also used for %q."""
    return f'"{_SPECIAL.sub(_escape, text)}"' if _SPECIAL.search(text) else f'"{text}"'


def _escape(found: re.Match[str]) -> str:
    # Bytes that are not UTF-8 are surrogates (surrogateescape).
    return _SHORT.get(found[0]) or f"\\x{ord(found[0]) & 0xff:02x}"
