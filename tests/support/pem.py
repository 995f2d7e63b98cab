"""Certificates and RSA keys for tests, encoded here: OpenSSL reads them, their signatures and keys are worthless."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_RSA = bytes.fromhex("2a864886f70d010101")
_RSA_SHA256 = bytes.fromhex("2a864886f70d01010b")
"""Object identifiers (RFC 8017, appendix A)."""

_SERIAL = itertools.count(1)


class Pair(NamedTuple):
    """A certificate and the key that belongs to it, in PEM."""

    certificate: bytes
    key: bytes


def make_pair(days: int = 365, *, since: int = -1) -> Pair:
    """A pair that is valid from `since` to `days` from now; no two are alike."""
    number = next(_SERIAL)
    now = datetime.now(UTC)
    modulus = (1 << 2047) + 2 * number + 1
    public = sequence(_algorithm(_RSA), tlv(0x03, b"\0" + sequence(integer(modulus), integer(65537))))
    key = sequence(integer(0), integer(modulus), integer(65537), *[integer(number)] * 6)
    name = sequence()
    validity = sequence(_time(now + timedelta(days=since)), _time(now + timedelta(days=days)))
    body = sequence(tlv(0xA0, integer(2)), integer(number), _algorithm(_RSA_SHA256), name, validity, name, public)
    certificate = sequence(body, _algorithm(_RSA_SHA256), tlv(0x03, b"\0"))
    return Pair(block("CERTIFICATE", certificate), block("RSA PRIVATE KEY", key))


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


def _algorithm(identifier: bytes) -> bytes:
    return sequence(tlv(0x06, identifier), tlv(0x05, b""))


def _time(moment: datetime) -> bytes:
    if moment.year < 2050:
        return tlv(0x17, f"{moment:%y%m%d%H%M%S}Z".encode())
    return tlv(0x18, f"{moment:%Y%m%d%H%M%S}Z".encode())


def block(label: str, der: bytes) -> bytes:
    """A PEM block."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()
