"""Texts within a text in an encoding: `data:` URLs (RFC 2397), base64, and gzip in these."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

MAX_BYTES = 1024 * 1024
"""Bytes of one value after decompression, and of all values of a text together."""

MAX_TEXTS = 200
"""Encoded texts in one text."""

# Compiled where it is first used (re caches it).
_ENCODED = (
    r"\bdata:(?P<url>[\w/;=+.-]{0,100},[^\s\"'<>]{8,}+)"
    r"|(?<![\w+/])(?P<base64>[A-Za-z0-9+/]{18,}+(?:\s{1,80}+[A-Za-z0-9+/]{4,}+)*+)={0,2}")
"""Lines of base64 may be followed by a word, which is decoded with them: what it adds is no text."""

_MAY_MATTER = rb"(?i:docker|podman|237[56]|hostPath)|[A-Za-z0-9+/]{18}"
_IS_TEXT = re.compile(rb"[\t\n\r -~]{12}|\x1f\x8b")


def encoded_texts(text: str) -> Iterator[tuple[int, str | None]]:
    """Yield the texts that are encoded in a text and may have to do with Docker, each with its offset; None where there
    are more than are read. Linear time."""
    room, count = MAX_BYTES, 0
    for found in re.finditer(_ENCODED, text):
        data = data_url(f"data:{found['url']}", "") if found["url"] else _data("".join(found["base64"].split()))
        if data is None or _IS_TEXT.match(data) is None:
            continue
        if data[:2] == b"\x1f\x8b":
            with contextlib.suppress(zlib.error):
                # As much as can be read: what follows may not belong to it.
                data = zlib.decompressobj(wbits=31).decompress(data, room + 1)
        may_matter = re.search(_MAY_MATTER, data) is not None
        room, count = room - len(data), count + may_matter
        if room < 0 or count > MAX_TEXTS:
            yield found.start(), None
            return
        if may_matter:
            yield found.start(), data.decode("utf-8", "surrogateescape")


def _data(digits: str) -> bytes:
    """Decode base64 without its padding. A single digit at the end is none of it."""
    digits = digits[:-1] if len(digits) % 4 == 1 else digits
    return base64.b64decode(digits + "=" * (-len(digits) % 4))


def data_url(url: str, compression: str) -> bytes | None:
    """The data of a `data:` URL; None if it is something else, or cannot be decoded."""
    head, comma, body = url.partition(",")
    if not comma:
        return None
    try:
        data = unquote_to_bytes(body)
        if head.endswith(";base64"):
            data = base64.b64decode(data, validate=True)
        return unzipped(data) if compression == "gzip" else data
    except (ValueError, OSError, zlib.error, EOFError):
        return None


def unzipped(data: bytes) -> bytes | None:
    """Decompress; None if the result is larger than is read of a file."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        content = file.read(MAX_BYTES + 1)
    return content if len(content) <= MAX_BYTES else None
