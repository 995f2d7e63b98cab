"""TLS certificates and private keys: the dates of a certificate, and whether dockerd can use a pair.

OpenSSL checks the pair, through `ssl`. It does not give the dates of a server certificate: SSLContext.get_ca_certs()
lists CA certificates only. So the dates are read here, from the DER (RFC 5280, 4.1). Signatures are not checked.

dockerd loads the pair with Go's tls.LoadX509KeyPair (docker/go-connections, tlsconfig/config.go, Server). It accepts
RSA, ECDSA and Ed25519 keys in PKCS#1, SEC 1 or PKCS#8, and refuses an encrypted key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import sys
from datetime import datetime
from typing import NamedTuple, NoReturn

_BOUNDARY = re.compile(rb"-----(BEGIN|END) ([A-Z0-9 ]+)-----")

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0

_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""ssl.SSLError.reason for a key that does not belong to the certificate. The last one: a key of another type."""


_answers: dict[int, str] = {}
"""The answer of the child process for the last pair, by its hash: each pass of the agent checks the pair repeatedly."""


class Validity(NamedTuple):
    """The period in which a certificate is valid (aware)."""

    not_before: datetime
    not_after: datetime

    def problem(self, now: datetime) -> str:
        """Return why the certificate is not valid at `now`; empty if it is."""
        if self.not_after < now:
            return f"expired on {self.not_after:%Y-%m-%d}"
        return f"is not valid before {self.not_before:%Y-%m-%d}" if self.not_before > now else ""


class Mismatch(ValueError):
    """The private key does not belong to the certificate."""

    def __str__(self) -> str:
        return "the key does not belong to the certificate"


def fingerprint(pem: bytes) -> str:
    """Return the SHA-256 of the first certificate of a PEM file. Raises ValueError if there is none."""
    return hashlib.sha256(_first_certificate(pem)).hexdigest()


def validity(pem: bytes) -> Validity:
    """Return the dates of the first certificate of a PEM file. Raises ValueError if there is none, or a damaged one."""
    der = _first_certificate(pem)
    _, at, _ = _element(der, 0, _SEQUENCE)  # Certificate
    _, at, _ = _element(der, at, _SEQUENCE)  # tbsCertificate
    tag, _, end = _element(der, at)
    at = end if tag == _VERSION else at
    for _ in range(3):  # serialNumber, signature, issuer
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at, _SEQUENCE)  # validity
    not_before, at = _time(der, at)
    not_after, _ = _time(der, at)
    return Validity(not_before, not_after)


def check_pair(certificate: bytes, key: bytes) -> None:
    """Check that dockerd can use a certificate and a private key, both PEM.

    Raises Mismatch, ValueError if one of them cannot be used, and OSError if that cannot be checked, as without /proc.
    Where the import of ssl is disabled, a child process uses OpenSSL: the agent would keep its 7 MB.
    """
    # ssl loads a pair from paths only, and a private key must not get into a file that others can open.
    with (os.fdopen(os.memfd_create("certificate"), "wb", buffering=0) as certificate_file,
          os.fdopen(os.memfd_create("key"), "wb", buffering=0) as key_file):
        certificate_file.write(certificate)
        key_file.write(key)
        fds = certificate_file.fileno(), key_file.fileno()
        paths = [f"/proc/self/fd/{fd}" for fd in fds]
        try:
            _check_files(*paths)
        except ImportError:
            pair = hash((certificate, key))
            if pair not in _answers:
                _answers.clear()
                _answers[pair] = _ask_child(paths, fds)
            if problem := _answers[pair]:
                raise (Mismatch if problem == str(Mismatch()) else ValueError)(problem) from None


def _ask_child(paths: list[str], fds: tuple[int, int]) -> str:
    import subprocess

    done = subprocess.run([sys.executable, "-I", __file__, *paths], pass_fds=fds, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{sys.executable} failed with status {done.returncode}")
    return done.stdout


def _check_files(certificate: str, key: str) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Debian's level 2 refuses RSA keys below 2048 bits, which Go accepts (SSL_CTX_set_security_level(3)).
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        # Without a callback OpenSSL asks for the passphrase on the terminal, and waits.
        context.load_cert_chain(certificate, key, _refuse_encrypted)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise Mismatch from None
        if error.reason is None:  # OpenSSL found no PEM block that it can read
            raise ValueError("there is no PEM private key in it, or it is damaged") from None
        raise ValueError(error.reason.replace("_", " ").lower()) from None


def _refuse_encrypted() -> NoReturn:
    raise ValueError("the key is encrypted, and dockerd cannot ask for a passphrase")


def _first_certificate(pem: bytes) -> bytes:
    """Return the DER of the first certificate. A block ends at the next boundary, as in Go's encoding/pem."""
    begin: re.Match[bytes] | None = None
    for boundary in _BOUNDARY.finditer(pem):
        if boundary[1] == b"BEGIN":
            begin = boundary
        elif begin is not None and begin[2] == boundary[2] == b"CERTIFICATE":
            try:
                return base64.b64decode(b"".join(pem[begin.end():boundary.start()].split()), validate=True)
            except binascii.Error:
                raise ValueError("its PEM is damaged") from None
        else:
            begin = None
    raise ValueError("there is no PEM certificate in it")


def _element(der: bytes, at: int, *tags: int) -> tuple[int, int, int]:
    """Return tag, start and end of the value of the DER element at `at`. Raises ValueError for damage."""
    header = der[at:at + 2]
    if len(header) < 2 or (tags and header[0] not in tags):
        raise ValueError("its DER is damaged")
    length, start = header[1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start:start + size], "big"), start + size
    if start + length > len(der):
        raise ValueError("its DER is damaged")
    return header[0], start, start + length


def _time(der: bytes, at: int) -> tuple[datetime, int]:
    """Return the UTCTime or GeneralizedTime at `at`, and where it ends (RFC 5280, 4.1.2.5)."""
    tag, start, end = _element(der, at, _UTC_TIME, _GENERALIZED_TIME)
    text = der[start:end].decode("ascii", "replace")
    if tag == _UTC_TIME:  # years 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    date, zone = text[:14], text[14:]
    try:
        # datetime.strptime would load _strptime and calendar. Other forms of ISO 8601 are no dates in a certificate.
        if len(date) != 14 or not date.isdecimal() or zone != "Z":
            raise ValueError
        return datetime.fromisoformat(f"{date[:8]}T{date[8:]}+00:00"), end
    except ValueError:
        raise ValueError("its dates are damaged") from None


if __name__ == "__main__":
    # The child process of check_pair: prints the problem.
    try:
        _check_files(*sys.argv[1:])
    except ValueError as error:
        print(error, end="")
