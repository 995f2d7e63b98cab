"""The dates of a certificate, and whether dockerd can use it with a private key."""

from __future__ import annotations

import contextlib
import random
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dockerd_guard.observe import certificates
from dockerd_guard.observe.certificates import Mismatch, check_pair, validity
from tests.support import pem

TLS = Path(__file__).parent.parent / "data" / "tls"
"""Made by tests/data/tls/make."""

EMPTY_KEY = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
EMPTY_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def data(name: str) -> bytes:
    return (TLS / name).read_bytes()


@pytest.fixture(params=["in this process", "in a child process"])
def process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenSSL checks the pair: the agent disables the import of ssl."""
    certificates._answers.clear()
    if request.param == "in a child process":
        monkeypatch.setitem(sys.modules, "ssl", None)


@pytest.mark.parametrize(("certificate", "key"), [
    ("rsa.crt", "rsa-pkcs1.key"),
    ("rsa.crt", "rsa-pkcs8.key"),
    ("rsa-1024.crt", "rsa-1024.key"),
    ("ec.crt", "ec-sec1.key"),
    ("ec.crt", "ec-pkcs8.key"),
    ("ed25519.crt", "ed25519.key"),
])
def test_a_pair_that_dockerd_can_use(certificate: str, key: str, process: None) -> None:
    check_pair(data(certificate), data(key))
    check_pair(data(certificate) + data("rsa.crt"), data(key))


@pytest.mark.parametrize(("certificate", "key"), [
    ("rsa.crt", "rsa-1024.key"),
    ("rsa.crt", "ec-sec1.key"),
    ("rsa.crt", "ed25519.key"),
    ("ec.crt", "rsa-pkcs8.key"),
    ("ed25519.crt", "ec-pkcs8.key"),
])
def test_a_key_of_another_certificate(certificate: str, key: str, process: None) -> None:
    with pytest.raises(Mismatch):
        check_pair(data(certificate), data(key))


@pytest.mark.parametrize(("certificate", "key", "why"), [
    ("rsa.crt", data("encrypted-pkcs1.key"), "encrypted"),
    ("rsa.crt", data("encrypted-pkcs8.key"), "encrypted"),
    ("ec.crt", data("encrypted-sec1.key"), "encrypted"),
    ("rsa.crt", b"", "no PEM private key"),
    ("rsa.crt", EMPTY_KEY, "no PEM private key in it, or it is damaged"),
    ("rsa.crt", data("rsa.crt"), "no PEM private key"),
    ("rsa.crt", data("rsa-pkcs8.key")[:200] + b"!!", "damaged"),
])
def test_a_key_that_dockerd_cannot_use(certificate: str, key: bytes, why: str, process: None) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        check_pair(data(certificate), key)
    assert not isinstance(raised.value, Mismatch)


def test_a_child_process_checks_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ssl", None)
    certificates._answers.clear()
    asked: list[list[str]] = []
    ask = certificates._ask_child

    def count_and_ask(paths: list[str], fds: tuple[int, int]) -> str:
        asked.append(paths)
        return ask(paths, fds)

    monkeypatch.setattr(certificates, "_ask_child", count_and_ask)
    for key, count in (("rsa-pkcs8.key", 1), ("rsa-pkcs8.key", 1), ("ec-sec1.key", 2), ("ec-sec1.key", 2)):
        with pytest.raises(Mismatch) if key == "ec-sec1.key" else contextlib.nullcontext():
            check_pair(data("rsa.crt"), data(key))
        assert len(asked) == count


def test_a_child_process_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ssl", None)
    certificates._answers.clear()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="/bin/false failed with status 1"):
        check_pair(data("rsa.crt"), data("rsa-pkcs8.key"))


@pytest.mark.parametrize("days", [1, 365, 365 * 100])
def test_dates(days: int) -> None:
    dates = validity(pem.make_pair(days).certificate)
    assert abs(dates.not_after - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=1)
    assert dates.not_before < datetime.now(UTC)


@pytest.mark.parametrize("name", ["rsa.crt", "ec.crt", "ed25519.crt"])
def test_the_dates_are_those_that_openssl_prints(name: str) -> None:
    printed = subprocess.run(["openssl", "x509", "-in", TLS / name, "-noout", "-dates"],
                             capture_output=True, text=True, check=True).stdout
    dates = [f"{moment:%b} {moment.day:2} {moment:%H:%M:%S %Y} GMT" for moment in validity(data(name))]
    assert printed == f"notBefore={dates[0]}\nnotAfter={dates[1]}\n"


@pytest.mark.parametrize(("since", "days", "problem"), [
    (-1, 1, ""), (-9, -1, "expired on "), (3, 9, "is not valid before "),
])
def test_out_of_date(since: int, days: int, problem: str) -> None:
    found = validity(pem.make_pair(days, since=since).certificate).problem(datetime.now(UTC))
    assert found.startswith(problem) and bool(found) is bool(problem)


@pytest.mark.parametrize("date", [
    b"261301000000Z", b"260230000000Z", b"260101000000+", b"26W011000000Z", b"2026-01-01T0Z", b"260101T00000Z",
    b"26010100000,5",
])
def test_a_damaged_date(date: bytes) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(data("rsa.crt").decode()))
    at = der.index(b"\x17\x0d") + 2
    der[at:at + 13] = date
    with pytest.raises(ValueError, match="dates are damaged"):
        validity(pem.block("CERTIFICATE", bytes(der)))


@pytest.mark.parametrize(("text", "why"), [
    (b"", "no PEM"),
    (data("rsa-pkcs8.key"), "no PEM"),
    (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "PEM is damaged"),
    (EMPTY_CERTIFICATE, "DER is damaged"),
    (pem.block("CERTIFICATE", ssl.PEM_cert_to_DER_cert(data("rsa.crt").decode())[:-1]), "DER is damaged"),
])
def test_a_damaged_certificate(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        validity(text)


def test_damage_is_never_more_than_an_error() -> None:
    dice = random.Random(1)
    for certificate, key in (("rsa.crt", "rsa-pkcs1.key"), ("ec.crt", "ec-sec1.key")):
        for _ in range(200):
            damaged = []
            for original in (data(certificate), data(key)):
                text = bytearray(original)
                for _ in range(3):
                    text[dice.randrange(len(text))] = dice.randrange(256)
                damaged.append(bytes(text))
            with contextlib.suppress(ValueError):
                validity(damaged[0])
            with contextlib.suppress(ValueError):
                check_pair(data(certificate), damaged[1])
            with contextlib.suppress(ValueError):
                check_pair(*damaged)


@pytest.mark.parametrize(("flags", "loaded"), [
    ("-H fd://", False),
    ("-H tcp://10.0.0.5:2376", False),
    ("-H tcp://10.0.0.5:2376 --tlsverify --tlscacert=/ca --tlscert=/cert --tlskey=/missing", False),
    ("-H tcp://10.0.0.5:2376 --tlsverify --tlscacert=/ca --tlscert=/cert --tlskey=/key", True),
])
def test_lint_loads_openssl_only_for_a_pair(flags: str, loaded: bool, tmp_path: Path) -> None:
    """It costs 12 ms and 6 MB."""
    pair = pem.make_pair()
    unit = f"[Service]\nExecStart=/usr/bin/dockerd {flags}\n".encode()
    for path, content in {"usr/lib/systemd/system/docker.service": unit, "ca": pair.certificate,
                          "cert": pair.certificate, "key": pair.key}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    program = (f"import sys; from dockerd_guard.cli import main; main(['lint', '--root', '{tmp_path}'])\n"
               "print('_ssl' in sys.modules, file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == str(loaded)
    assert "does not belong" not in done.stdout and "tlskey /key cannot" not in done.stdout
