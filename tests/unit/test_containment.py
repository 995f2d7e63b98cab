"""What is cut off from the network, and by which rules: from what was seen, by the policy."""

from __future__ import annotations

import errno
import struct
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from dockerd_guard.containment import containment, nftables
from dockerd_guard.containment.containment import Containment, ContainmentResult, Method
from dockerd_guard.containment.nftables import NftablesTable, ruleset
from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.observe.observation import (
    LISTENING,
    LOADED,
    RUNNING,
    Layer,
    Listening,
    Loaded,
    Observation,
    Running,
)
from dockerd_guard.plan.exposures import Exposure, exposures
from dockerd_guard.plan.memory import Contained
from dockerd_guard.policy.reader import parse_policy
from tests.support import golden


class Layers(NamedTuple):
    """As much of an Observation as containment looks at."""

    listening: Listening | None
    loaded: Loaded | None
    running: Running | None = None


class Case(NamedTuple):
    """What listens (with TLS), what PID 1 holds, what is declared; and what comes of it, rule by rule."""

    name: str
    listens: tuple[str, ...]
    declared: str
    found: tuple[str, ...]
    tls: Tls = Tls.NONE
    held: tuple[str, ...] = ()


MUTUAL = "{address: 'tcp://10.0.0.5:2376', tls: mutual}"

CASES = (
    Case("loopback and UNIX sockets need none",
         ("unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"), "fd://", ()),
    Case("everywhere, both families", ("tcp://[::]:2375",), "fd://", ("DG101: tcp dport 2375",)),
    Case("everywhere, one family", ("tcp://0.0.0.0:2375",), "fd://", ("DG101: meta nfproto ipv4 tcp dport 2375",)),
    Case("both wildcards, each by its own", ("tcp://0.0.0.0:2375", "tcp://[::]:2375"), "fd://",
         ("DG101: meta nfproto ipv4 tcp dport 2375", "DG101: tcp dport 2375")),
    Case("one address", ("tcp://10.0.0.5:2375",), "fd://", ("DG101: ip daddr 10.0.0.5 tcp dport 2375",)),
    Case("one address of IPv6", ("tcp://[fd77::2]:2375",), "fd://", ("DG101: ip6 daddr fd77::2 tcp dport 2375",)),
    Case("declared", ("tcp://10.0.0.5:2376",), MUTUAL, (), Tls.MUTUAL),
    Case("declared, but weaker than that", ("tcp://10.0.0.5:2376",), MUTUAL,
         ("DG105: ip daddr 10.0.0.5 tcp dport 2376",), Tls.SERVER),
    Case("the declared address of a port that is open everywhere is spared", ("tcp://[::]:2376",), MUTUAL,
         ("accept: ip daddr 10.0.0.5 tcp dport 2376", "DG101: tcp dport 2376"), Tls.MUTUAL),
    Case("unless it has not got its TLS", ("tcp://[::]:2376",), MUTUAL, ("DG101: tcp dport 2376",), Tls.NONE),
    Case("held by systemd, where a connection would start dockerd", (), "fd://",
         ("DG101: ip daddr 10.0.0.5 tcp dport 2375",), held=("unix:///run/docker.sock", "tcp://10.0.0.5:2375")),
)


def layer(name: str, addresses: tuple[str, ...], tls: Tls = Tls.NONE) -> Layer:
    bindings = tuple(Binding(address, scope_of(address), tls, Via.FLAG) for address in addresses)
    return Layer(name, True, None, None, (), addresses, bindings)


def seen(listens: tuple[str, ...], tls: Tls = Tls.NONE, held: tuple[str, ...] = (),
         loaded: tuple[str, ...] = ()) -> Observation:
    started_with = Running(layer(RUNNING, ("fd://", *listens)), *[None] * 2)  # type: ignore[arg-type]
    in_memory = Loaded(layer(LOADED, loaded), *[None] * 9)  # type: ignore[arg-type]
    return cast(Observation, Layers(Listening(layer(LISTENING, listens, tls), held), in_memory, started_with))


def rules(found: tuple[Exposure, ...]) -> list[str]:
    """The rules between the head of the table and its end, each with what it does."""
    by_address = {exposure.address: exposure.rule for exposure in found}
    lines = [line.strip() for line in ruleset(exposure.rejection for exposure in found).splitlines()[6:-2]]
    return [f"accept: {line.removesuffix(' accept')}" if line.endswith(" accept") else
            f"{by_address[line.split(chr(34))[1]]}: {line.partition(' reject with tcp reset')[0]}" for line in lines]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exposures_and_their_rules(case: Case) -> None:
    policy = parse_policy(f"version: 1\nsockets: [{case.declared}]\n".encode(), "/policy.yaml")
    assert rules(exposures(seen(case.listens, case.tls, case.held), policy)) == list(case.found)


def test_the_table_replaces_the_one_before_and_lets_loopback_pass() -> None:
    golden.check(ruleset([Rejection("tcp://[::]:2375")]), "report/ruleset.nft")


@pytest.mark.parametrize(("loaded", "stays"), [
    (("tcp://0.0.0.0:2375",), ["tcp://[::]:2375"]),
    (("unix:///run/docker.sock",), []),
], ids=["would be open again", "is corrected"])
def test_a_restart_of_dockerd_releases_only_what_it_will_not_open_again(
        loaded: tuple[str, ...], stays: list[str]) -> None:
    policy = parse_policy(b"version: 1\nsockets: ['fd://']\n", "/policy.yaml")
    found = exposures(seen((), loaded=loaded), policy, ("tcp://[::]:2375",))
    assert [exposure.address for exposure in found] == stays


def test_a_socket_that_systemd_opened_is_known_for_that_after_a_reload_too() -> None:
    policy = parse_policy(b"version: 1\nsockets: ['fd://']\n", "/policy.yaml")
    open_now = Listening(layer(LISTENING, ("tcp://[::]:2375", "tcp://0.0.0.0:4243")))
    started_with = Running(layer(RUNNING, ("fd://", "tcp://0.0.0.0:2375")), *[None] * 2)  # type: ignore[arg-type]
    found = exposures(cast(Observation, Layers(open_now, None, started_with)), policy)
    assert {exposure.address: exposure.via for exposure in found} == {
        "tcp://[::]:2375": Via.FLAG, "tcp://0.0.0.0:4243": Via.SOCKET_UNIT}


# --- blocking and releasing -----------------------------------------------------------------------


class Filter:
    """systemd's IP filter of docker.service, and what is asked of it."""

    def __init__(self) -> None:
        self.current: tuple[Any, Any] = ((), ())
        self.calls: list[str] = []

    def ip_filter(self, unit: str) -> tuple[Any, Any]:
        return self.current

    def set_ip_filter(self, unit: str, allow: Any, deny: Any) -> None:
        self.calls.append("set")
        self.current = (tuple(allow), tuple(deny))

    def reload(self) -> None:
        self.calls.append("reload")
        self.current = ((), ())


class Nftables:
    """The network helper's part for nftables."""

    def __init__(self) -> None:
        self.is_gone = False
        self.blocked: tuple[Rejection, ...] = ()
        self.writes = 0
        self.releases = 0

    def shown(self) -> str:
        if self.is_gone:
            raise Unsupported("python3-nftables is not installed")
        return f"{self.writes} {self.blocked}" if self.blocked else ""

    def reject(self, wanted: tuple[Rejection, ...]) -> str:
        self.blocked, self.writes = wanted, self.writes + 1
        return self.shown()

    def release(self) -> None:
        self.blocked, self.releases = (), self.releases + 1


BY_FLAG = Exposure("tcp://[::]:2375", "DG101", Via.FLAG)
BY_SOCKET = Exposure("tcp://[::]:2376", "DG101", Via.SOCKET_UNIT)


class Blocking:
    """A Containment with stand-ins; `stored` is what it recorded."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, contained: Contained | None = None) -> None:
        self.nftables, self.filter = Nftables(), Filter()
        self.stored: list[Contained] = []
        self.files = [directory / name for name in ("allow", "deny")]
        (directory / "cgroup").touch()
        monkeypatch.setattr(containment, "CONTROL_FILES", tuple(map(str, self.files)))
        monkeypatch.setattr(containment, "CGROUP_V2_FILE", str(directory / "cgroup"))
        self.containment = Containment(contained or Contained(), cast(Any, self.nftables), self.stored.append)

    def keep(self, *wanted: Exposure) -> ContainmentResult:
        result = self.containment.keep(wanted, cast(Any, self.filter))
        if self.filter.current != ((), ()):
            for file in self.files:
                file.touch()
        return result


@pytest.fixture
def blocking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blocking:
    return Blocking(tmp_path, monkeypatch)


def test_it_is_blocked_once_and_released_once(blocking: Blocking) -> None:
    assert blocking.keep() == ContainmentResult()
    assert blocking.nftables.releases == 1, "a table whose record was lost"
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES, (BY_FLAG,))
    assert blocking.containment.is_by_nftables
    assert blocking.containment.addresses == (BY_FLAG.address,)
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES)
    assert blocking.nftables.writes == 1
    assert blocking.keep() == ContainmentResult(released=(BY_FLAG.address,))
    assert blocking.nftables.blocked == ()
    assert not blocking.containment.is_by_nftables
    assert blocking.stored == [Contained(("nftables",), (BY_FLAG.address,)), Contained()]
    assert blocking.keep() == ContainmentResult()
    assert blocking.nftables.releases == 2


def test_one_more_and_one_less(blocking: Blocking) -> None:
    blocking.keep(BY_FLAG)
    assert blocking.keep(BY_FLAG, BY_SOCKET) == ContainmentResult(Method.NFTABLES, (BY_SOCKET,))
    assert blocking.keep(BY_SOCKET) == ContainmentResult(Method.NFTABLES, released=(BY_FLAG.address,))
    assert blocking.nftables.blocked == (BY_SOCKET.rejection,)


def test_a_table_that_somebody_removed_is_put_back(blocking: Blocking) -> None:
    blocking.keep(BY_FLAG)
    blocking.nftables.blocked = ()
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES, put_back=(BY_FLAG,))
    blocking.nftables.blocked = ()
    blocking.containment.restore()
    assert list(blocking.nftables.blocked) == [BY_FLAG.rejection]
    assert blocking.keep(BY_FLAG).put_back == (BY_FLAG,)
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES)
    blocking.keep()
    blocking.containment.restore()
    assert not blocking.nftables.blocked


def test_it_is_blocked_at_once_and_reported_once(blocking: Blocking) -> None:
    assert blocking.containment.block_at_once(()) == ContainmentResult()
    assert blocking.stored == []
    assert blocking.containment.block_at_once((BY_FLAG,)) == ContainmentResult(Method.NFTABLES, (BY_FLAG,))
    assert blocking.nftables.blocked == (BY_FLAG.rejection,)
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES)
    blocking.nftables.is_gone = True
    assert blocking.containment.block_at_once((BY_FLAG,)) == ContainmentResult()
    blocking.containment.restore()


def test_what_is_in_another_network_namespace_is_not_blocked(blocking: Blocking) -> None:
    elsewhere = BY_FLAG._replace(namespace="/run/netns/vpn")
    assert blocking.containment.block_at_once((elsewhere,)) == ContainmentResult()
    assert blocking.keep(elsewhere) == ContainmentResult(left_open=(elsewhere,))
    assert blocking.keep(elsewhere) == ContainmentResult()
    assert blocking.nftables.writes == 0
    assert blocking.keep() == ContainmentResult()
    assert blocking.keep(elsewhere, BY_SOCKET) == ContainmentResult(Method.NFTABLES, (BY_SOCKET,),
                                                                    left_open=(elsewhere,))
    assert blocking.nftables.blocked == (BY_SOCKET.rejection,)


def test_without_nftables_systemd_filters(blocking: Blocking) -> None:
    blocking.nftables.is_gone = True
    reason = "python3-nftables is not installed"
    result = blocking.keep(BY_FLAG, BY_SOCKET)
    assert result == ContainmentResult(Method.IP_ADDRESS_DENY, (BY_FLAG,), (), (), (BY_SOCKET,), reason)
    assert blocking.filter.current == (containment.LOCALHOST, containment.ANY)
    assert blocking.stored[-1] == Contained(("IPAddressDeny=",), (BY_FLAG.address,))
    assert blocking.keep(BY_FLAG, BY_SOCKET) == ContainmentResult(Method.IP_ADDRESS_DENY, reason=reason)
    assert blocking.filter.calls == ["set"]
    blocking.filter.current = ((), ())
    assert blocking.keep(BY_FLAG, BY_SOCKET).put_back == (BY_FLAG, BY_SOCKET)
    assert blocking.keep().released == (BY_FLAG.address,)
    assert blocking.filter.calls == ["set", "set", "reload", "set"]
    assert not any(file.exists() for file in blocking.files)
    assert blocking.stored[-1] == Contained()


def test_nothing_is_recorded_where_systemd_cannot_filter(blocking: Blocking) -> None:
    blocking.nftables.is_gone = True
    Path(containment.CGROUP_V2_FILE).unlink()
    assert blocking.keep(BY_FLAG).left_open == (BY_FLAG,)
    assert blocking.stored == []
    assert blocking.filter.calls == []
    assert blocking.keep(BY_SOCKET).left_open == (BY_SOCKET,)


def test_nftables_that_comes_back_takes_over(blocking: Blocking) -> None:
    blocking.nftables.is_gone = True
    blocking.keep(BY_FLAG)
    blocking.nftables.is_gone = False
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES, (BY_FLAG,))
    assert blocking.stored[-1].methods == ("nftables",)
    assert blocking.filter.calls == ["set", "reload", "set"]


def test_nftables_that_goes_away_is_released_once_systemd_filters(blocking: Blocking) -> None:
    """Issue 12, "Contained for ever"."""
    blocking.keep(BY_FLAG)
    blocking.nftables.is_gone = True
    assert blocking.keep(BY_FLAG).way is Method.IP_ADDRESS_DENY
    assert blocking.stored[-1].methods == ("IPAddressDeny=",)
    assert blocking.nftables.releases == 1
    assert blocking.keep() == ContainmentResult(released=(BY_FLAG.address,))
    assert blocking.stored[-1] == Contained()


def test_a_table_that_covers_more_than_the_filter_stays(blocking: Blocking) -> None:
    blocking.keep(BY_FLAG, BY_SOCKET)
    blocking.nftables.is_gone = True
    blocking.keep(BY_FLAG, BY_SOCKET)
    assert blocking.nftables.blocked
    assert blocking.nftables.releases == 0


def test_what_an_earlier_process_blocked_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocking = Blocking(tmp_path, monkeypatch, Contained(("nftables", "IPAddressDeny="), ("tcp://[::]:2375",)))
    assert blocking.keep() == ContainmentResult(released=("tcp://[::]:2375",))
    assert blocking.nftables.releases == 1
    assert blocking.filter.calls == ["reload", "set"]
    assert blocking.stored[-1] == Contained()


# --- nftables -------------------------------------------------------------------------------------


class Library:
    """libnftables."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.answers: list[tuple[int, str, str]] = []

    def set_stateless_output(self, value: bool) -> None:
        assert value

    def cmd(self, command: str) -> tuple[int, str, str]:
        self.commands.append(command)
        return self.answers.pop(0)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    module = types.ModuleType("nftables")
    module.Nftables = lambda: library  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nftables", module)
    return library


def test_the_table_is_written_and_listed(library: Library) -> None:
    table = NftablesTable()
    library.answers = [(0, "", ""), (0, LISTED, "")]
    assert table.put([Rejection("tcp://[::]:2375")]) == LISTED
    assert library.commands == [ruleset([Rejection("tcp://[::]:2375")]), "list table inet dockerd_guard"]
    library.answers = [(1, "", "Error: No such file or directory\n")]
    assert table.shown() == ""
    library.answers = [(1, "", "Error: Operation\n not permitted")]
    with pytest.raises(Unsupported, match="nftables failed: Error: Operation not permitted"):
        table.shown()
    library.answers = [(1, "", "No such file or directory")]
    with pytest.raises(Unsupported):
        table.put([])


LISTED = """\
table inet dockerd_guard {
	chain input {
		type filter hook input priority filter - 10; policy accept;
		iifname "lo" accept
		tcp dport 2375 reject with tcp reset comment "tcp://[::]:2375"
	}
}
"""


@pytest.mark.parametrize(("shown", "wanted", "expected"), [
    (LISTED, ["tcp://[::]:2375"], ()),
    (LISTED, ["tcp://[::]:2375", "tcp://10.0.0.5:2376"], ("tcp://10.0.0.5:2376",)),
    (LISTED, ["tcp://0.0.0.0:2375"], ("tcp://0.0.0.0:2375",)),
    ("", ["tcp://[::]:2375"], ("tcp://[::]:2375",)),
    (LISTED.replace("{", "{\n\tflags dormant", 1), ["tcp://[::]:2375"], ("tcp://[::]:2375",)),
    (LISTED.replace("type filter hook input priority filter - 10; policy accept;", ""), ["tcp://[::]:2375"],
     ("tcp://[::]:2375",)),
    (LISTED.replace("reject with tcp reset", "accept"), ["tcp://[::]:2375"], ("tcp://[::]:2375",)),
])
def test_what_a_table_does_not_block_is_not_stated_as_blocked(
        library: Library, shown: str, wanted: list[str], expected: tuple[str, ...]) -> None:
    rejections = [Rejection(address) for address in wanted]
    assert nftables.missing(rejections, shown) == expected
    library.answers = [(0, "", ""), (0, shown, "")]
    if expected:
        with pytest.raises(Unsupported, match="it does not block"):
            NftablesTable().put(rejections)


def test_the_table_is_removed_also_without_the_library(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """I13."""
    library.answers = [(0, "", "")]
    NftablesTable().remove()
    assert library.commands == [nftables.REMOVE_TABLE]
    removed: list[bool] = []
    monkeypatch.setattr(nftables, "delete_table", lambda: removed.append(True))
    monkeypatch.setitem(sys.modules, "nftables", None)
    with pytest.raises(Unsupported, match="python3-nftables is not installed"):
        NftablesTable().shown()
    NftablesTable().remove()
    assert removed == [True]


class Netlink:
    """A netlink socket whose answers are given."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.is_closed = False

    def __call__(self, *_: object) -> Netlink:
        return self

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settimeout(self, seconds: float) -> None:
        pass

    def bind(self, address: object) -> None:
        if self.answers and isinstance(self.answers[0], PermissionError):
            raise self.answers[0]

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, size: int) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.is_closed = True


def acknowledged(code: int) -> bytes:
    return struct.pack("=IHHII", 20, nftables.NLMSG_ERROR, 0, 2, 0) + struct.pack("=i", code)


@pytest.mark.parametrize(("answer", "problem"), [
    (acknowledged(0), ""), (acknowledged(-errno.ENOENT), ""),
    (acknowledged(-errno.EPERM), "Operation not permitted"), (TimeoutError("timed out"), "timed out"),
])
def test_the_table_is_deleted_by_netlink(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | OSError, problem: str
) -> None:
    kernel = Netlink(answer)
    monkeypatch.setattr("socket.socket", kernel)
    if problem:
        with pytest.raises(Unsupported, match=f"cannot delete the nftables table: {problem}"):
            nftables.delete_table()
    else:
        nftables.delete_table()
    assert len(kernel.sent) == 1
    assert b"dockerd_guard\0" in kernel.sent[0]
    assert len(kernel.sent[0]) % 4 == 0
    assert kernel.is_closed


@pytest.mark.parametrize(("answers", "is_changed"), [
    ((BlockingIOError(),), False),
    ((b"another_table\0", BlockingIOError()), False),
    ((b"dockerd_guard\0", BlockingIOError()), True),
    ((b"dockerd_guard\0", b"another_table\0", BlockingIOError()), True),
    ((OSError(errno.ENOBUFS, ""), BlockingIOError()), True),
])
def test_changes_of_the_table_are_noticed(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[bytes | OSError, ...], is_changed: bool
) -> None:
    kernel = Netlink(*answers)
    monkeypatch.setattr("socket.socket", kernel)
    monitor = nftables.NftablesMonitor()
    assert monitor.fileno() == 7
    assert monitor.take() is is_changed


def test_a_monitor_that_may_not_listen_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Netlink(PermissionError())
    monkeypatch.setattr("socket.socket", kernel)
    with pytest.raises(PermissionError):
        nftables.NftablesMonitor()
    assert kernel.is_closed
