"""Certificates and keys for tests, made as DER by hand: well formed, signed by nobody, protecting nothing."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_SERIAL = itertools.count(1)


class Pair(NamedTuple):
    """A certificate and the key that belongs to it, in PEM."""

    certificate: bytes
    key: bytes


def make_pair(days: int = 365, *, since: int = -1, kind: str = "rsa") -> Pair:
    """A pair that is valid from `since` to `days` from now; no two are alike."""
    number = next(_SERIAL)
    now = datetime.now(UTC)
    modulus = (1 << 2047) + 2 * number + 1
    point = b"\x04" + number.to_bytes(64, "big")
    if kind == "rsa":
        bits = sequence(integer(modulus), integer(65537))
        key = sequence(integer(0), integer(modulus), integer(65537), *[integer(number)] * 6)
        label = "RSA PRIVATE KEY"
    else:
        bits = point
        key = sequence(integer(1), tlv(0x04, bytes(32)), tlv(0xA1, tlv(0x03, b"\0" + point)))
        label = "EC PRIVATE KEY"
    algorithm = sequence(tlv(0x06, b"\x2a\x03"), tlv(0x05, b""))
    name = sequence()
    validity = sequence(_time(now + timedelta(days=since)), _time(now + timedelta(days=days)))
    public = sequence(algorithm, tlv(0x03, b"\0" + bits))
    body = sequence(tlv(0xA0, integer(2)), integer(number), algorithm, name, validity, name, public)
    return Pair(_pem("CERTIFICATE", sequence(body, algorithm, tlv(0x03, b"\0"))), _pem(label, key))


def tlv(tag: int, value: bytes) -> bytes:
    """One DER element."""
    size = len(value)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + value


def sequence(*parts: bytes) -> bytes:
    """A DER sequence."""
    return tlv(0x30, b"".join(parts))


def integer(value: int) -> bytes:
    """A DER integer that is not negative."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _time(moment: datetime) -> bytes:
    if moment.year < 2050:
        return tlv(0x17, f"{moment:%y%m%d%H%M%S}Z".encode())
    return tlv(0x18, f"{moment:%Y%m%d%H%M%S}Z".encode())


def _pem(label: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()
