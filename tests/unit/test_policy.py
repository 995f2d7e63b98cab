"""The policy's grammar: what is taken, and what is said of what is not."""

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
    TlsFiles,
    Watch,
    declared_bindings,
)
from dockerd_guard.policy.nodes import MAX_PROBLEMS
from dockerd_guard.policy.reader import load_policy, parse_policy
from dockerd_guard.policy.values import parse_address, parse_duration, parse_listen_stream, parse_window

pytestmark = pytest.mark.libraries

FULL = """\
version: 1
mode: enforce
sockets:
  - fd://
  - address: tcp://127.0.0.1:2376
    tls: mutual
socket_unit:
  listen: [/run/docker.sock]
tls:
  ca: /etc/docker/ca.pem
  cert: /etc/docker/server-cert.pem
  key: /etc/docker/server-key.pem
correct:
  restart: live-restore
  window: Sat,Sun 02:00-05:00 Europe/Berlin
  budget: 3/1h
  foreign_files: true
  contain: true
watch:
  settle: 100ms
  resync: 5min
waive:
  - rule: DG103
    address: tcp://127.0.0.1:2375
    reason: CI runner, loopback only
    until: 2027-03-31
"""
HEAD = "version: 1\nsockets: [fd://]\n"


def policy(text: str) -> Policy:
    return parse_policy(text.encode(), "p.yaml")


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text if isinstance(text, bytes) else text.encode(), "p.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_the_whole_grammar() -> None:
    read = policy(FULL)
    assert read.mode is Mode.ENFORCE
    assert [(socket.address, socket.tls) for socket in read.sockets] == [
        ("fd://", Tls.NONE), ("tcp://127.0.0.1:2376", Tls.MUTUAL)]
    assert read.sockets[1].location == Location("p.yaml", 5, 14, 34)
    assert read.tls[:3] == TlsFiles()[:3]
    assert read.correct.window is not None
    assert read.correct._replace(window=None) == Correct(Restart.LIVE_RESTORE, None, Budget(3, 3600))
    assert read.watch == Watch(0.1, 300)
    assert read.waive[0][:4] == (
        "DG103", "tcp://127.0.0.1:2375", "CI runner, loopback only", date(2027, 3, 31))


def test_defaults() -> None:
    read = policy("version: 1\nsockets: [fd://]\n")
    assert read.mode is Mode.OBSERVE
    assert read.correct == Correct()
    assert read.watch == Watch()
    assert read.waive == ()
    assert [listen.value for listen in read.socket_unit.listen] == ["/run/docker.sock"]
    assert read.tcp_tls is None


@pytest.mark.parametrize(("text", "declared"), [
    ("sockets: [fd://]", ["unix:///run/docker.sock none 2:11"]),
    ("sockets: [tcp://10.0.0.5]", ["tcp://10.0.0.5:2375 mutual 2:11"]),
    ("sockets: [{address: tcp://10.0.0.5, tls: none}]", ["tcp://10.0.0.5:2375 none 2:21"]),
    ("sockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, 2376]}",
     ["unix:///run/docker.sock none 3:24", "tcp://[::]:2376 mutual 3:42"]),
    ("sockets: [{address: fd://, tls: server}]\nsocket_unit: {listen: ['[::1]:2376']}",
     ["tcp://[::1]:2376 server 3:24"]),
    ("sockets: [unix://]\nsocket_unit: {listen: [2375]}", ["unix:///var/run/docker.sock none 2:11"]),
])
def test_what_fd_stands_for(text: str, declared: list[str]) -> None:
    found = declared_bindings(policy(f"version: 1\n{text}\n"))
    assert [f"{one.address} {one.tls} {one.location.line}:{one.location.column}" for one in found] == declared


@pytest.mark.parametrize(("text", "normal"), [
    ("fd://", "fd://"),
    ("fd://*", "fd://"),
    ("unix://", "unix:///var/run/docker.sock"),
    ("unix:///run//x/../docker.sock", "unix:///run/docker.sock"),
    ("unix://@docker", "unix://@docker"),
    ("tcp://", "tcp://localhost:2375"),
    ("tcp://:2376", "tcp://localhost:2376"),
    ("tcp://localhost", "tcp://localhost:2375"),
    ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
    ("tcp://10.1.2.3:4243", "tcp://10.1.2.3:4243"),
    ("tcp://[::1]", "tcp://[::1]:2375"),
    ("tcp://[2001:DB8::0:1]:2376", "tcp://[2001:db8::1]:2376"),
])
def test_addresses(text: str, normal: str) -> None:
    assert parse_address(text) == normal


@pytest.mark.parametrize(("text", "why"), [
    ("0.0.0.0:2375", "scheme is missing"),
    ("/run/docker.sock", "scheme is missing"),
    ("TCP://1.2.3.4:1", "dockerd knows no 'TCP'"),
    ("http://1.2.3.4", "dockerd knows no 'http'"),
    ("fd://3", "fd://NUMBER"),
    ("unix://run/docker.sock", "does not begin with /"),
    ("unix:///run/docker sock", "no blank"),
    ("unix:///" + "x" * 107, "at most 107 bytes"),
    ("unix://@", "no name"),
    ("tcp://1.2.3.4:0", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:65536", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:02375", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:٢", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:2375/", "no '/'"),
    ("tcp://user@1.2.3.4:2375", "no '@'"),
    ("tcp://::1:2375", "[ADDRESS]:PORT"),
    ("tcp://[::1%eth0]:2375", "zone"),
    ("tcp://[::ffff:0.0.0.0]:2375", "the IPv4 address itself, 0.0.0.0"),
    ("tcp://docker.example.org:2376", "no IP address"),
    ("tcp://127.1:2375", "no IP address"),
])
def test_addresses_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_address(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(("text", "address"), [
    ("/run/docker.sock", "unix:///run/docker.sock"),
    ("/var/run/docker.sock", "unix:///run/docker.sock"),
    ("@docker", "unix://@docker"),
    ("2375", "tcp://[::]:2375"),
    ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
    ("[::1]:2375", "tcp://[::1]:2375"),
    ("tcp://127.0.0.1:2375", None),
    ("localhost:2375", None),
    ("127.0.0.1", None),
    ("*:2375", None),
    ("02375", None),
    ("%t/docker.sock", None),
    ("/run/%n.sock", None),
    ("run/docker.sock", None),
])
def test_listen_stream(text: str, address: str | None) -> None:
    if address is not None:
        assert parse_listen_stream(text) == address
        return
    with pytest.raises(ValueError):
        parse_listen_stream(text)


@pytest.mark.parametrize(("text", "said"), [
    ("", ["1:1: is empty; expected a mapping that begins with 'version: 1'"]),
    ("- fd://", ["1:1: expected the policy, a mapping with version, sockets, mode, socket_unit, tls, "
                 "correct, watch, waive; found a list"]),
    ("sockets: [fd://]", ["1:1: the key 'version' is missing in the policy"]),
    ("version: '1'\nsockets: [fd://]",
     ["1:10: expected 1, the only version of this format; found '1'"]),
    (HEAD + "sokets: []",
     ["3:1: unknown key 'sokets' in the policy; did you mean 'sockets'?"]),
    (HEAD + "mode: enforce\nmode: observe",
     ["4:1: duplicate key 'mode', already given in line 3"]),
    (HEAD + "mode: enforced",
     ["3:7: expected one of observe, enforce; found 'enforced'; did you mean 'enforce'?"]),
    (HEAD + "mode: [enforce]", ["3:7: expected one of observe, enforce; found a list"]),
    (HEAD + "mode:", ["3:6: expected one of observe, enforce; found nothing"]),
    (HEAD + "watch: {settle: 5, resync: 100ms}",
     ["3:17: expected a duration such as 100ms, 5min or 1h; found the number 5: a number without a unit",
      "3:28: expected a duration such as 100ms, 5min or 1h; found '100ms': it must be from 1s to 86400s"]),
    (HEAD + "correct: {budget: 0/1h}",
     ["3:19: expected a budget such as 3/1h, three restarts an hour; found '0/1h': at least 1; to forbid "
      "restarts say 'restart: never'"]),
    (HEAD + "correct:\n  contain: maybe", ["4:12: expected true or false; found 'maybe'"]),
    (HEAD + "tls: {key: key.pem}",
     ["3:12: expected an absolute path; found 'key.pem': it does not begin with /"]),
    (HEAD + "waive:\n  - rule: DG1\n    until: soon",
     ["4:5: the key 'reason' is missing in a waiver",
      "4:11: expected a rule such as DG103; found 'DG1'",
      "5:12: expected a date such as 2027-03-31; found 'soon': it is written YYYY-MM-DD"]),
    ("version: 1\nsockets: fd://", ["2:10: expected a list of addresses; found 'fd://'"]),
    ("version: 1\nsockets: []",
     ["2:10: expected at least one address: without any, dockerd takes its default"]),
    ("version: 1\nsockets: [fd://, unix:///var/run/docker.sock]",
     ["2:18: unix:///var/run/docker.sock is already declared in line 2"]),
    ("version: 1\nsockets: [fd://]\nsocket_unit: {listen: []}",
     ["2:11: fd:// stands for socket_unit.listen, which is empty"]),
    ("version: 1\nsockets: [tcp://0.0.0.0:2376, 'tcp://[::1]:2376']",
     ["2:31: tcp://0.0.0.0:2376 in line 2 already takes this port on every address"]),
    ("version: 1\nsockets:\n- tcp://10.0.0.1:2376\n- {address: tcp://127.0.0.1:2375, tls: none}",
     ["4:13: tls none here and mutual for tcp://10.0.0.1:2376 in line 3: dockerd has one TLS setting for all "
      "its TCP sockets"]),
    ("version: 1\nsockets:\n- {address: fd://, tls: none}\n- tcp://10.0.0.1:2376\n"
     "socket_unit: {listen: [2375]}",
     ["4:3: tls mutual here and none for tcp://[::]:2375 in line 5: dockerd has one TLS setting for all "
      "its TCP sockets"]),
    ("version: 1\nsockets: [{address: unix://, tls: mutual}]",
     ["2:35: dockerd speaks TLS on TCP only, and a UNIX socket is guarded by its file mode; leave tls out"]),
    ("version: 1\nsockets: [{address: fd://, tls: mutual}]",
     ["2:33: dockerd speaks TLS on TCP only, and no TCP address stands in socket_unit.listen; leave tls "
      "out"]),
    (b"version: 1\n# \xff", ["2:3: not UTF-8: byte 0xff"]),
    (HEAD + "mode: \0", ["3:7: YAML allows no control character '\\x00'"]),
    (HEAD + "---\nversion: 1", ["3:1: a second document begins here; a policy is one document"]),
    (HEAD + "tls:\n\tkey: /x",
     ["4:1: not YAML: found character that cannot start any token; YAML indents by spaces, this line has a "
      "tab"]),
    ("a: &a [x]\nb: *a",
     ["1:4: anchors and aliases (&name, *name) have no place in a policy; write the value itself"]),
    ("a: !!python/object:os.system x",
     ["1:4: tags (!name) have no place in a policy; write the plain value"]),
    ("[" * 50_000, ["1:7: nested deeper than any policy is"]),
    ("{" * 50_000, ["1:7: nested deeper than any policy is"]),
    ("- " * 5_000, ["1:13: nested deeper than any policy is"]),
    ("a: [x,\n" + "[" * 5_000 + "\n]", ["2:5: nested deeper than any policy is"]),
    ("a: &a " + "[" * 5_000,
     ["1:4: anchors and aliases (&name, *name) have no place in a policy; write the value itself"]),
    ("a:\n" + "[" * 1_500, ["2:1026: not YAML: could not find expected ':'"]),
    ("a:\n" + "[" * 1_010 + "\n", ["3:1: not YAML: could not find expected ':'"]),
    ("#" * 300_000, ["1:1: is larger than 256 KiB"]),
], ids=lambda value: repr(value[:40]) if isinstance(value, str | bytes) else "")
def test_mistakes(text: str | bytes, said: list[str]) -> None:
    assert [line.removeprefix("p.yaml:") for line in mistakes(text)] == said


def test_all_mistakes_are_told_but_not_endlessly() -> None:
    assert len(mistakes("version: 2\nmode: x\nwatch: 1\nsockets: [1, 2, 3]")) == 6
    assert len(mistakes("version: 1\nsockets: [" + "x," * 50_000 + "]")) == MAX_PROBLEMS


def test_damage_is_never_more_than_an_error() -> None:
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
    """What the package installs: it observes, and declares what a stock host has."""
    read = load_policy(str(Path(__file__).parents[2] / "config.example.yaml"), require_root_owned=False)
    assert read.mode is Mode.OBSERVE


@pytest.mark.parametrize(("text", "seconds"), [
    ("100ms", 0.1), ("5min", 300), ("1h", 3600), ("1h 30min", 5400), ("1h30m", 5400), ("1.5s", 1.5),
    ("2 d", 172800), ("5", None), ("", None), ("ms", None), ("5 parsecs", None), ("-5s", None),
    ("5s x", None),
])
def test_durations(text: str, seconds: float | None) -> None:
    if seconds is not None:
        assert parse_duration(text) == pytest.approx(seconds)
        return
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(("text", "why"), [
    ("Sat", "HH:MM-HH:MM"),
    ("Sat 2:00-5:00 UTC", "HH:MM-HH:MM"),
    ("Sa 02:00-05:00 UTC", "unknown day"),
    ("02:00-05:00", "time zone"),
    ("02:00-25:00 UTC", "no such time"),
    ("02:60-05:00 UTC", "no such time"),
    ("02:00-02:00 UTC", "ends when it starts"),
    ("02:00-05:00 Europe/Berln", "knows no time zone 'Europe/Berln'"),
    ("02:00-05:00 ../../etc/passwd", "knows no time zone"),
])
def test_windows_refused(text: str, why: str) -> None:
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
    """What the agent asks of the policy's file. tmp_path lies below a directory open to all, and $HOME may, so the
    file is put into root's home directory of passwd(5)."""

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

    def test_roots_own_is_taken(self, home: Path) -> None:
        assert load_policy(str(home / "config.yaml"), require_root_owned=True).mode is Mode.OBSERVE

    @pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
    def test_writable_file(self, home: Path, mode: int) -> None:
        (home / "config.yaml").chmod(mode)
        who = "group 0" if mode == 0o664 else "everyone"
        assert f"is writable by {who}" in self.refusal(home / "config.yaml")
        assert load_policy(str(home / "config.yaml"), require_root_owned=False)

    def test_writable_directory(self, home: Path) -> None:
        home.chmod(0o777)
        assert f"{home}:1:1: is writable by everyone (mode 0777)" in self.refusal(home / "config.yaml")

    def test_foreign_owner(self, home: Path) -> None:
        os.chown(home / "config.yaml", 65534, 0)
        assert "belongs to uid 65534" in self.refusal(home / "config.yaml")

    def test_link_into_a_foreign_directory(self, home: Path) -> None:
        (home / "open").mkdir()
        (home / "open").chmod(0o777)
        (home / "open/real.yaml").write_text(HEAD)
        (home / "link.yaml").symlink_to("open/real.yaml")
        assert f"{home}/open:1:1: is writable by everyone" in self.refusal(home / "link.yaml")


@pytest.mark.parametrize(("make", "said"), [
    (lambda path: None, "there is no such file"),
    (lambda path: path.mkdir(), "is a directory, not a regular file"),
    (os.mkfifo, "is a FIFO, not a regular file"),
    (lambda path: path.symlink_to("nowhere"), "there is no such file"),
    (lambda path: path.symlink_to(path.name), "there is no such file"),
])
def test_no_file_to_read(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "config.yaml"
    make(path)
    with pytest.raises(PolicyError) as caught:
        load_policy(str(path), require_root_owned=False)
    assert str(caught.value) == f"{path}:1:1: {said}"
