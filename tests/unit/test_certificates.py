"""Certificates and keys, read by their DER."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dockerd_guard.observe.certificates import certificates, public_key_of
from tests.support import pem


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_key_belongs_to_its_certificate_and_to_no_other(kind: str) -> None:
    one, other = pem.make_pair(kind=kind), pem.make_pair(kind=kind)
    assert public_key_of(one.key) == certificates(one.certificate)[0].public_key
    assert public_key_of(one.key) != certificates(other.certificate)[0].public_key


@pytest.mark.parametrize("days", [1, 365, 365 * 100])
def test_dates(days: int) -> None:
    certificate = certificates(pem.make_pair(days).certificate)[0]
    assert abs(certificate.not_after - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=1)
    assert certificate.not_before < datetime.now(UTC)


@pytest.mark.parametrize(("text", "why"), [
    (b"", "no PEM"),
    (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "damaged"),
    (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "damaged"),
    (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n", "encrypted"),
    (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END RSA PRIVATE KEY-----\n",
     "encrypted"),
])
def test_what_cannot_be_read(text: bytes, why: str) -> None:
    read = public_key_of if b"KEY" in text else certificates
    with pytest.raises(ValueError, match=why):
        read(text)


def test_damage_is_never_more_than_an_error() -> None:
    dice = random.Random(1)
    for original in (*pem.make_pair(), *pem.make_pair(kind="ec")):
        for _ in range(500):
            text = bytearray(original)
            for _ in range(3):
                text[dice.randrange(len(text))] = dice.randrange(256)
            for read in (certificates, public_key_of):
                with contextlib.suppress(ValueError):
                    read(bytes(text))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl(1) is not installed")
@pytest.mark.parametrize("algorithm", ["rsa:2048", "ec", "ed25519"])
def test_what_openssl_makes(algorithm: str, tmp_path: Path) -> None:
    """The real thing, in PKCS#8. What an Ed25519 key's public half is takes arithmetic: not told."""
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"] if algorithm == "ec" else []
    subprocess.run(["openssl", "req", "-x509", "-newkey", algorithm, *curve, "-nodes", "-keyout", "key.pem",
                    "-out", "cert.pem", "-days", "10", "-subj", "/CN=test"],
                   cwd=tmp_path, check=True, capture_output=True)
    certificate, = certificates((tmp_path / "cert.pem").read_bytes())
    key = public_key_of((tmp_path / "key.pem").read_bytes())
    assert key == (None if algorithm == "ed25519" else certificate.public_key)
    assert timedelta(days=9) < certificate.not_after - datetime.now(UTC) < timedelta(days=11)
