"""What is blocked at the network, and how: the table of nftables, and IPAddressDeny= in its place."""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
import types
from pathlib import Path
from typing import Any, cast

import pytest

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.commands import uninstall
from dockerd_guard.containment import containment, nftables
from dockerd_guard.containment.containment import Containment, ContainmentResult, Method
from dockerd_guard.containment.nftables import NftablesTable, ruleset
from dockerd_guard.model.address import Via
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.plan.exposures import Exposure
from dockerd_guard.plan.memory import Contained, Memory


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
        self.changed: float | None = None

    def changed_at(self) -> float | None:
        changed, self.changed = self.changed, None
        return changed

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
        self.reopened: list[float] = []
        self.files = [directory / name for name in ("allow", "deny")]
        (directory / "cgroup").touch()
        monkeypatch.setattr(containment, "CONTROL_FILES", tuple(map(str, self.files)))
        monkeypatch.setattr(containment, "CGROUP_V2_FILE", str(directory / "cgroup"))
        self.containment = Containment(contained or Contained(), cast(Any, self.nftables), self.stored.append,
                                       self.reopened.append)

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
    again = blocking.keep(BY_FLAG)
    assert again == ContainmentResult(Method.NFTABLES, put_back=(BY_FLAG,), reopened_s=again.reopened_s)
    blocking.containment.restore()
    assert blocking.reopened == [pytest.approx(again.reopened_s, abs=0.01)]
    blocking.nftables.blocked = ()
    blocking.containment.restore()
    assert len(blocking.reopened) == 2
    blocking.containment.restore()
    assert len(blocking.reopened) == 2
    assert list(blocking.nftables.blocked) == [BY_FLAG.rejection]
    assert blocking.keep(BY_FLAG).put_back == (BY_FLAG,)
    assert blocking.keep(BY_FLAG) == ContainmentResult(Method.NFTABLES)
    blocking.keep()
    blocking.containment.restore()
    assert not blocking.nftables.blocked


@pytest.mark.parametrize(("changed", "counted"), [
    # It was flushed while a pass was under way.
    (5.0, 2.0), (None, 0.0),
    # Before it was found in force the last time, and after it was found removed: what is not possible does not count.
    (1.0, 2.5), (4.25, 2.5), (99.0, 0.0),
])
def test_the_time_counts_from_the_change(
        blocking: Blocking, monkeypatch: pytest.MonkeyPatch, changed: float | None, counted: float) -> None:
    now = 4.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    blocking.keep(BY_FLAG)
    # Our own change of the table is told as well.
    now = blocking.nftables.changed = 4.5
    blocking.keep(BY_FLAG)
    now, blocking.nftables.blocked, blocking.nftables.changed = 7.0, (), changed
    assert blocking.keep(BY_FLAG).reopened_s == counted
    assert blocking.reopened == [counted]
    now = 9.0
    blocking.keep(BY_FLAG, BY_SOCKET)
    assert blocking.reopened == [counted], "another exposure removes no block"


def test_the_directory_of_the_filter_stays_until_it_is_lifted(blocking: Blocking, monkeypatch: pytest.MonkeyPatch
                                                              ) -> None:
    """watchdog 6 loses a directory that is removed, made again and removed again while a pass has it open."""
    blocking.nftables.is_gone = True
    directory = blocking.files[0].parent / "docker.service.d"
    directory.mkdir()
    blocking.files[:] = [directory / file.name for file in blocking.files]
    monkeypatch.setattr(containment, "CONTROL_FILES", tuple(map(str, blocking.files)))
    blocking.keep(BY_FLAG)
    there: list[bool] = []

    def reload() -> None:
        there.append(directory.is_dir())
        blocking.filter.current = ((), ())

    monkeypatch.setattr(blocking.filter, "reload", reload)
    blocking.keep()
    assert there == [True]
    assert not directory.exists()


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


@pytest.mark.parametrize("code", [0, errno.ENOSPC, errno.EROFS])
def test_the_removal_of_the_package_releases_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """I13: also where nothing can be stored."""
    blocking = Blocking(tmp_path, monkeypatch)
    blocking.nftables.blocked = (BY_FLAG.rejection,)
    blocking.filter.current = (containment.LOCALHOST, containment.ANY)
    state = StateFiles(str(tmp_path / "state"))
    state.save(Memory(contained=Contained(("nftables", "IPAddressDeny="), ("tcp://[::]:2375",))))

    def refuse(name: str, content: bytes | None) -> None:
        raise OSError(code, os.strerror(code))

    if code:
        monkeypatch.setattr(state, "_write", refuse)
    released = uninstall.release(state, cast(Any, blocking.nftables), cast(Any, blocking.filter))
    assert released == ("tcp://[::]:2375",)
    assert not blocking.nftables.blocked
    assert not any(blocking.filter.current)


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


def test_a_published_port_must_be_in_the_chain_before_the_destination_changes() -> None:
    published = [Rejection("tcp://[::]:2375", is_published=True)]
    assert nftables.missing(published, LISTED) == ("tcp://[::]:2375",)
    before = LISTED.replace("chain input", "chain prerouting").replace(
        "hook input priority filter - 10", "hook prerouting priority mangle")
    assert nftables.missing(published, before) == ()
    assert nftables.missing([Rejection("tcp://[::]:2375")], before) == ("tcp://[::]:2375",)


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
