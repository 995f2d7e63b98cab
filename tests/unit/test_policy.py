"""The policy reader: what it accepts, and its error messages."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dockerd_guard.model.address import Tls
from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import (
    Budget,
    Correct,
    Mode,
    Policy,
    PolicyError,
    Restart,
    Watch,
    declared_bindings,
)
from dockerd_guard.policy.nodes import MAX_PROBLEMS
from dockerd_guard.policy.reader import load_policy, parse_policy
from dockerd_guard.policy.values import parse_address, parse_duration, parse_listen_stream, parse_window
from tests.support.policy_cases import (
    ADDRESSES,
    DURATIONS,
    ERRORS,
    FD_SOCKETS,
    FULL,
    HEAD,
    INVALID_ADDRESSES,
    INVALID_WINDOWS,
    LISTEN_STREAMS,
)

pytestmark = pytest.mark.libraries


def policy(text: str) -> Policy:
    return parse_policy(text.encode(), "p.yaml")


def errors(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text if isinstance(text, bytes) else text.encode(), "p.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_the_whole_grammar() -> None:
    read = policy(FULL)
    assert read.mode is Mode.ENFORCE
    assert [(socket.address, socket.tls) for socket in read.sockets] == [
        ("fd://", Tls.NONE), ("tcp://127.0.0.1:2376", Tls.MUTUAL)]
    assert read.sockets[1].location == Location("p.yaml", 5, 14, 34)
    assert read.tls[:3] == ("/etc/docker/ca.pem", "/etc/docker/server-cert.pem", "/etc/docker/server-key.pem")
    assert read.correct.window is not None
    assert read.correct._replace(window=None) == Correct(
        Restart.LIVE_RESTORE, None, Budget(3, 3600), foreign_files=True, contain=True)
    assert read.watch == Watch(0.1, 300)
    assert read.waive[0][:4] == (
        "DG103", "tcp://127.0.0.1:2375", "CI runner, loopback only", date(2027, 3, 31))


def test_defaults() -> None:
    read = policy("version: 1\nsockets: [fd://]\n")
    assert read.mode is Mode.OBSERVE
    assert read.correct == policy(FULL).correct._replace(window=None)
    assert read.watch == policy(FULL).watch
    assert read.tls[:3] == policy(FULL).tls[:3]
    assert read.waive == ()
    assert [listen.value for listen in read.socket_unit.listen] == ["/run/docker.sock"]
    assert read.tcp_tls is None


@pytest.mark.parametrize(("text", "declared"), FD_SOCKETS)
def test_expansion_of_fd(text: str, declared: list[str]) -> None:
    found = declared_bindings(policy(f"version: 1\n{text}\n"))
    assert [f"{one.address} {one.tls} {one.location.line}:{one.location.column}" for one in found] == declared


@pytest.mark.parametrize(("text", "normal"), ADDRESSES)
def test_addresses(text: str, normal: str) -> None:
    assert parse_address(text) == normal


@pytest.mark.parametrize(("text", "why"), INVALID_ADDRESSES)
def test_invalid_addresses(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_address(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(("text", "address"), LISTEN_STREAMS)
def test_listen_stream(text: str, address: str | None) -> None:
    if address is not None:
        assert parse_listen_stream(text) == address
        return
    with pytest.raises(ValueError):
        parse_listen_stream(text)


@pytest.mark.parametrize(("text", "messages"), ERRORS,
                         ids=lambda value: repr(value[:40]) if isinstance(value, str | bytes) else "")
def test_errors(text: str | bytes, messages: list[str]) -> None:
    assert [line.removeprefix("p.yaml:") for line in errors(text)] == messages


@pytest.mark.parametrize("word", ["servr", "serve", "server!", "nonne", "non", "no-tls", "tls", "verify", "mutuall",
                                  "never!", "nevre", "alwys", "allways", "alwaysever", "yes!", "live"])
def test_no_hint_is_a_less_safe_value(word: str) -> None:
    for text in (f"version: 1\nsockets: [{{address: tcp://10.0.0.5, tls: {word}}}]",
                 f"{HEAD}correct: {{restart: {word}}}"):
        message, = errors(text)
        assert message.partition("did you mean ")[2] in ("", "'mutual'?", "'live-restore'?", "'never'?")


def test_all_errors_are_reported_up_to_a_limit() -> None:
    assert len(errors("version: 2\nmode: x\nwatch: 1\nsockets: [1, 2, 3]")) == 6
    assert len(errors("version: 1\nsockets: [" + "x," * 50_000 + "]")) == MAX_PROBLEMS


def test_a_damaged_policy_raises_policy_error_alone() -> None:
    dice = random.Random(1)
    pieces = [b"\0", b"\xff", b"\t", b"&a ", b"*a", b"!x ", b"- ", b"{", b"]", b"'", b": ", b"|\n", b"---\n", b"%"]
    for _ in range(1000):
        data = bytearray(FULL.encode())
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(data))
            data[at:at + dice.randrange(20)] = dice.choice(pieces)
        with contextlib.suppress(PolicyError):
            parse_policy(bytes(data), "p.yaml")


def test_the_example_is_a_policy() -> None:
    """It observes, and declares the sockets of a stock host."""
    read = load_policy(str(Path(__file__).parents[2] / "config.example.yaml"), require_root_owned=False)
    assert read.mode is Mode.OBSERVE


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text: str, seconds: float | None) -> None:
    if seconds is not None:
        assert parse_duration(text) == pytest.approx(seconds)
        return
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(("text", "why"), INVALID_WINDOWS)
def test_invalid_windows(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_window(text)
    assert why in str(caught.value)


BERLIN = "Europe/Berlin"
SAO_PAULO = "America/Sao_Paulo"


@pytest.mark.parametrize(("window", "zone", "moment", "is_open", "opens"), [
    # 2026-11-21 is a Saturday.
    ("Sat,Sun 02:00-05:00", BERLIN, "2026-11-21 02:00", True, "2026-11-21 02:00+01:00"),
    ("Sat,Sun 02:00-05:00", BERLIN, "2026-11-21 04:59", True, "2026-11-21 04:59+01:00"),
    ("Sat,Sun 02:00-05:00", BERLIN, "2026-11-21 05:00", False, "2026-11-22 02:00+01:00"),
    ("Sat,Sun 02:00-05:00", BERLIN, "2026-11-23 03:00", False, "2026-11-28 02:00+01:00"),
    ("Mon-Fri 02:00-05:00", BERLIN, "2026-11-21 03:00", False, "2026-11-23 02:00+01:00"),
    ("Sat-Mon 02:00-05:00", BERLIN, "2026-11-23 03:00", True, "2026-11-23 03:00+01:00"),
    ("00:00-24:00", BERLIN, "2026-11-21 23:59", True, "2026-11-21 23:59+01:00"),
    # Over midnight: Saturday's window lasts into Sunday.
    ("Sat 22:00-02:00", BERLIN, "2026-11-22 01:59", True, "2026-11-22 01:59+01:00"),
    ("Sat 22:00-02:00", BERLIN, "2026-11-21 01:59", False, "2026-11-21 22:00+01:00"),
    ("Sat 22:00-02:00", BERLIN, "2026-11-22 02:00", False, "2026-11-28 22:00+01:00"),
    # Spring: 02:00 becomes 03:00 on Sunday 2026-03-29.
    ("Sun 02:00-05:00", BERLIN, "2026-03-29 01:59", False, "2026-03-29 03:00+02:00"),
    ("Sun 02:30-05:00", BERLIN, "2026-03-29 01:00", False, "2026-03-29 03:00+02:00"),
    ("Sun 02:00-03:00", BERLIN, "2026-03-29 01:00", False, "2026-04-05 02:00+02:00"),
    # Autumn: 02:00-03:00 comes twice on Sunday 2026-10-25.
    ("Sun 02:30-02:45", BERLIN, "2026-10-25 01:00", False, "2026-10-25 02:30+02:00"),
    ("Sun 02:30-02:45", BERLIN, "2026-10-25 02:50", False, "2026-10-25 02:30+01:00"),
    ("Sun 02:30-02:45", BERLIN, "2026-10-25 03:00", False, "2026-11-01 02:30+01:00"),
    # A midnight that does not exist: 2018-11-04 began at 01:00 in Sao Paulo.
    ("Sun 00:00-02:00", SAO_PAULO, "2018-11-03 23:00", False, "2018-11-04 01:00-02:00"),
])
def test_windows(window: str, zone: str, moment: str, is_open: bool, opens: str) -> None:
    parsed = parse_window(f"{window} {zone}")
    when = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone))
    assert parsed.contains(when) is is_open
    assert parsed.next_opening(when.astimezone(UTC)).isoformat(" ", "minutes") == opens


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of several owners")
class TestOwnership:
    """With `require_root_owned`. tmp_path, and perhaps $HOME, are below a directory that
    everyone can write, so the file is in root's home directory of passwd(5)."""

    @pytest.fixture
    def home(self) -> Iterator[Path]:
        where = Path(tempfile.mkdtemp(dir=pwd.getpwuid(0).pw_dir))
        where.chmod(0o755)
        (where / "config.yaml").write_text(HEAD)
        yield where
        shutil.rmtree(where)

    def refusal(self, path: Path) -> str:
        with pytest.raises(PolicyError) as caught:
            load_policy(str(path), require_root_owned=True)
        return str(caught.value)

    def test_a_file_of_root(self, home: Path) -> None:
        assert load_policy(str(home / "config.yaml"), require_root_owned=True).mode is Mode.OBSERVE

    @pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
    def test_writable_file(self, home: Path, mode: int) -> None:
        (home / "config.yaml").chmod(mode)
        who = "group 0" if mode == 0o664 else "everyone"
        assert f"writable by {who}" in self.refusal(home / "config.yaml")
        assert load_policy(str(home / "config.yaml"), require_root_owned=False)

    def test_writable_directory(self, home: Path) -> None:
        home.chmod(0o777)
        assert f"{home}:1:1: writable by everyone (mode 0777)" in self.refusal(home / "config.yaml")
        assert f"run: chmod go-w {home}" in self.refusal(home / "config.yaml")
        home.chmod(0o1777)
        assert "move it to a directory that only root can write" in self.refusal(home / "config.yaml")
        assert f"chmod go-w {home}" not in self.refusal(home / "config.yaml"), "as /tmp"

    def test_foreign_owner(self, home: Path) -> None:
        os.chown(home / "config.yaml", 65534, 0)
        assert "owned by uid 65534, must be owned by root" in self.refusal(home / "config.yaml")

    def test_link_into_a_foreign_directory(self, home: Path) -> None:
        (home / "open").mkdir()
        (home / "open").chmod(0o777)
        (home / "open/real.yaml").write_text(HEAD)
        (home / "link.yaml").symlink_to("open/real.yaml")
        assert f"{home}/open:1:1: writable by everyone" in self.refusal(home / "link.yaml")


@pytest.mark.parametrize(("make", "said"), [
    (lambda path: None, "no such file"),
    (lambda path: path.mkdir(), "is a directory, not a regular file"),
    (os.mkfifo, "is a FIFO, not a regular file"),
    (lambda path: path.symlink_to("nowhere"), "no such file"),
    (lambda path: path.symlink_to(path.name), "no such file"),
])
def test_no_file_to_read(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "config.yaml"
    make(path)
    with pytest.raises(PolicyError) as caught:
        load_policy(str(path), require_root_owned=False)
    assert str(caught.value) == f"{path}:1:1: {said}"


@pytest.mark.parametrize("word", [
    "server", "sever", "servr", "serve", "none", "non", "nome", "no", "off", "always", "alway", "allways", "restart",
])
def test_a_hint_is_never_the_less_safe_choice(word: str) -> None:
    """A mistyped value must not be replaced by one that opens more than its author may have meant."""
    for key, unsafe in (("sockets: [{address: tcp://10.0.0.5, tls: %s}]", ("'server'", "'none'")),
                        ("sockets: [fd://]\ncorrect: {restart: %s}", ("'always'",))):
        try:
            parse_policy(f"version: 1\n{key % (word + 'x')}\n".encode(), "/p.yaml")
        except PolicyError as error:
            hint = str(error).partition("did you mean ")[2]
            assert not any(value in hint for value in unsafe), str(error)
