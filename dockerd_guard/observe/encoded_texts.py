"""Texts within a text in an encoding: `data:` URLs (RFC 2397), base64, base32, hexadecimal and octal digits; and what
gzip, xz, bzip2 or zlib have compressed before that.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

MAX_BYTES = 1024 * 1024
"""Bytes of one value after decompression, and of all values of a text together."""

MAX_TEXTS = 200
"""Encoded texts in one text, and those of them that are compressed."""

MAX_XZ_BYTES = 24 * 1024 * 1024
"""Memory for xz(1), whose default takes 9 MiB, and whose -8 takes 33 MiB."""

STEP = 16
"""Bytes that are decompressed at once. Those of the step in which an error is found are lost."""

_BYTE = r"(?:\\{1,2}x|0x|%)?[0-9a-fA-F]{2}"
_BYTES = rf"(?=(?:{_BYTE})++(?![\w+/]))"
_HEX = rf"(?<![\w+/%\\]){_BYTES}(?P<hex>{_BYTE}(?:{_BYTE}|[\s,]{{1,4}}{_BYTES}{_BYTE}){{11,}}+)"
"""The digits of xxd(1), hexdump(1), printf(1), and of numbers in a list. Each word is looked at as a whole before."""

_OCTAL = r"(?P<octal>(?:\\{1,2}0?[0-7]{3}){12,}+)"

# Compiled where it is first used (re caches it).
_ENCODED = (
    r"\bdata:(?P<url>[\w/;=+.-]{0,100},[^\s\"'<>]{8,}+)"
    rf"|{_HEX}|{_OCTAL}"
    r"|(?<![\w+/])(?P<base64>[A-Za-z0-9+/]{18,}+(?:\s{1,80}+[A-Za-z0-9+/]{4,}+)*+)={0,2}")
"""Lines of base64 may be followed by a word, which is decoded with them: what it adds is no text."""

_MAY_MATTER = rb"(?i:docker|podman|\bbalena|237[56]|hostPath|\btcp:)|[A-Za-z0-9+/]{18}"
_IS_TEXT = re.compile(rb"[\t\n\r -~]{12}")
_IS_PACKED = re.compile(rb"\x1f\x8b\x08|\xfd7zXZ\0|BZh[1-9]1AY|\x78[\x01\x5e\x9c\xda]")
"""What gzip, xz, bzip2 and zlib begin with (RFC 1952, the .xz file format, bzip2(1), RFC 1950)."""


def encoded_texts(text: str) -> Iterator[tuple[int, str | None]]:
    """Yield the texts that are encoded in a text and may have to do with Docker, each with its offset; None where there
    are more than are read. Linear time."""
    room, count, packed = MAX_BYTES, 0, 0
    for found in re.finditer(_ENCODED, text):
        data = _decoded(found)
        if data is not None and _IS_PACKED.match(data) is not None:
            packed += 1
            data = _unpacked(data, room + 1) if packed <= MAX_TEXTS else None
            if data is None:
                yield found.start(), None
                return
        elif data is None or _IS_TEXT.match(data) is None:
            continue
        may_matter = re.search(_MAY_MATTER, data) is not None
        room, count = room - len(data), count + may_matter
        if room < 0 or count > MAX_TEXTS:
            yield found.start(), None
            return
        if may_matter:
            yield found.start(), data.decode("utf-8", "surrogateescape")


def _decoded(found: re.Match[str]) -> bytes | None:
    if found["url"]:
        return data_url(f"data:{found['url']}", "")
    if found["hex"]:
        return bytes.fromhex("".join(re.findall(r"[0-9a-fA-F]{2}", re.sub(r"\\x|0x", "", found["hex"]))))
    if found["octal"]:
        return bytes(int(digits, 8) & 0xFF for digits in re.findall(r"[0-7]{3}(?=\\|\Z)", found["octal"]))
    return _data("".join(found["base64"].split()))


def _of_base32(digits: str) -> bytes | None:
    """Decode base32 (RFC 4648), whose digits are some of base64's. None if it is no text and nothing compressed."""
    if re.fullmatch(r"[A-Z2-7]+", digits) is None or len(digits) % 8 in (1, 3, 6):
        return None
    data = base64.b32decode(digits + "=" * (-len(digits) % 8))
    return data if _IS_TEXT.match(data) is not None or _IS_PACKED.match(data) is not None else None


def _unpacked(data: bytes, size: int) -> bytes | None:
    """Decompress as much as can be read, as gzip(1) and the others do: what follows may not belong to it, or its
    checksum may be wrong. None if that takes more memory than is given to it."""
    found = bytearray()
    try:
        for part in _parts(data):
            found += part
            if len(found) >= size:
                break
    except lzma.LZMAError as error:
        if "limit" in str(error):
            return None
    except (OSError, zlib.error):
        pass
    return bytes(found)


def _parts(data: bytes) -> Iterator[bytes]:
    if data[:1] in (b"\x1f", b"\x78"):
        deflated = zlib.decompressobj(wbits=47)
        while part := deflated.decompress(data, STEP):
            yield part
            data = deflated.unconsumed_tail
        return
    packed = bz2.BZ2Decompressor() if data[:1] == b"B" else lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_BYTES)
    while part := packed.decompress(data, STEP):
        yield part
        if packed.eof:
            return
        data = b""


def _data(digits: str) -> bytes:
    """Decode base64 without its padding, or base32. A single digit at the end is none of it."""
    if (found := _of_base32(digits)) is not None:
        return found
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
