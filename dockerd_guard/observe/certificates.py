"""As much of certificates and private keys as it takes to see whether they fit and are in date.

X.509 (RFC 5280), PKCS#1 (RFC 8017), PKCS#8 (RFC 5958) and EC keys (RFC 5915) in PEM (RFC 7468), by
their DER alone: no signature is checked, nothing is decrypted. Pure, from bytes, so that it works below any
root; Python's ssl reads from paths only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

_BOUNDARY = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")

_INTEGER, _BIT_STRING, _OCTET_STRING, _SEQUENCE = 0x02, 0x03, 0x04, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1


class Certificate(NamedTuple):
    """Its dates (aware), and what identifies its public key: an RSA modulus or the key's own bits."""

    not_before: datetime
    not_after: datetime
    public_key: bytes

    def out_of_date(self, now: datetime) -> str:
        """In words, why it is not valid at this moment; empty where it is."""
        if self.not_after < now:
            return f"expired on {self.not_after:%Y-%m-%d}"
        return f"is not valid before {self.not_before:%Y-%m-%d}" if self.not_before > now else ""


def certificates(pem: bytes) -> tuple[Certificate, ...]:
    """All certificates of a PEM file. Raises ValueError for none, or one that cannot be read."""
    found = tuple(_certificate(der) for label, der in _blocks(pem) if label == b"CERTIFICATE")
    if not found:
        raise ValueError("there is no PEM certificate in it")
    return found


def public_key_of(pem: bytes) -> bytes | None:
    """What identifies the public half of a private key, as in Certificate.public_key; None where that
    would take arithmetic (Ed25519, EC keys without it). Raises ValueError for no key, or an encrypted one."""
    for label, der in _blocks(pem):
        if label == b"RSA PRIVATE KEY":
            return _rsa_private(der)
        if label == b"EC PRIVATE KEY":
            return _ec_private(der)
        if label == b"PRIVATE KEY":
            return _pkcs8(der)
        if label == b"ENCRYPTED PRIVATE KEY":
            raise ValueError("the key is encrypted, and dockerd cannot ask for a passphrase")
    raise ValueError("there is no PEM private key in it")


def _blocks(pem: bytes) -> Iterator[tuple[bytes, bytes]]:
    begin: re.Match[bytes] | None = None
    for boundary in _BOUNDARY.finditer(pem):
        if boundary[1] == b"BEGIN":
            begin = boundary
            continue
        begun, begin = begin, None
        if begun is None or begun[2] != boundary[2]:
            continue  # no block, as in Go's encoding/pem
        body = pem[begun.end():boundary.start()]
        if b"Proc-Type: 4,ENCRYPTED" in body:
            raise ValueError("the key is encrypted, and dockerd cannot ask for a passphrase")
        try:
            yield boundary[2], base64.b64decode(b"".join(body.split()), validate=True)
        except binascii.Error:
            raise ValueError("its PEM is damaged") from None


class _Der:
    """Reads one constructed value, element by element. Raises ValueError where it does not hold."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def peek(self) -> int | None:
        return self._data[self._at] if self._at < len(self._data) else None

    def next(self, *tags: int) -> tuple[int, bytes]:
        data, at = self._data, self._at
        if at + 2 > len(data) or (tags and data[at] not in tags):
            raise ValueError("its DER is damaged")
        tag, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise ValueError("its DER is damaged")
            length = int.from_bytes(data[start:start + size], "big")
            start += size
        if start + length > len(data):
            raise ValueError("its DER is damaged")
        self._at = start + length
        return tag, data[start:start + length]

    def value(self, *tags: int) -> bytes:
        return self.next(*tags)[1]

    def inside(self, *tags: int) -> _Der:
        return _Der(self.value(*tags))


def _certificate(der: bytes) -> Certificate:
    tbs = _Der(der).inside(_SEQUENCE).inside(_SEQUENCE)
    if tbs.peek() == _CONTEXT_0:
        tbs.next()  # version
    for _ in range(3):
        tbs.next()  # serialNumber, signature, issuer
    validity = tbs.inside(_SEQUENCE)
    not_before, not_after = (_time(*validity.next(_UTC_TIME, _GENERALIZED_TIME)) for _ in range(2))
    tbs.next()  # subject
    key_info = tbs.inside(_SEQUENCE)
    key_info.next(_SEQUENCE)  # algorithm
    bits = key_info.value(_BIT_STRING)[1:]
    return Certificate(not_before, not_after, _modulus(bits) or bits)


def _modulus(bits: bytes) -> bytes | None:
    """The modulus of an RSAPublicKey; None for a key of another kind."""
    if bits[:1] != bytes([_SEQUENCE]):
        return None
    return _Der(bits).inside(_SEQUENCE).value(_INTEGER)


def _time(tag: int, value: bytes) -> datetime:
    """UTCTime or GeneralizedTime, which end in Z (RFC 5280, 4.1.2.5); 50 to 99 are of the last century."""
    text = value.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("its dates are damaged") from None


def _rsa_private(der: bytes) -> bytes:
    key = _Der(der).inside(_SEQUENCE)
    key.next(_INTEGER)  # version
    return key.value(_INTEGER)


def _ec_private(der: bytes) -> bytes | None:
    key = _Der(der).inside(_SEQUENCE)
    key.next(_INTEGER)  # version
    key.next(_OCTET_STRING)  # the private half
    while key.peek() is not None:
        tag, value = key.next()
        if tag == _CONTEXT_1:
            return _Der(value).value(_BIT_STRING)[1:]
    return None


def _pkcs8(der: bytes) -> bytes | None:
    key = _Der(der).inside(_SEQUENCE)
    key.next(_INTEGER)  # version
    key.next(_SEQUENCE)  # algorithm
    inner = key.value(_OCTET_STRING)
    if inner[:1] != bytes([_SEQUENCE]):
        return None
    fields = _Der(inner).inside(_SEQUENCE)
    fields.next(_INTEGER)
    return _ec_private(inner) if fields.peek() == _OCTET_STRING else _rsa_private(inner)
