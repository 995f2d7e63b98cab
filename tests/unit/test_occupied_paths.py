"""A declared UNIX socket whose path is taken: systemd and dockerd delete what is there, so nothing is changed (I5)."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.agent.reconcile import by_hand
from dockerd_guard.apply.preflight import in_use
from dockerd_guard.model.names import SOCKET
from dockerd_guard.plan.decide import Decision, Verdict, decide
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.support.situations import (
    Act,
    decided,
    do,
    dropin,
    link,
    listens,
    opened,
    policy,
    read_policy,
    reload,
    restart,
    restart_socket,
    seen_on,
    stop,
    write,
)

NOTES = "/srv/notes.txt"
PASSED = f"sockets: [fd://]\nsocket_unit: {{listen: [/run/docker.sock, {NOTES}]}}"
BOUND = f'sockets: [fd://, "unix://{NOTES}"]'
SYSTEMD, DOCKERD = "systemd", "dockerd"


def node(path: str, kind: int) -> Act:
    """A FIFO or a socket."""
    def make(host: SimulatedHost) -> None:
        file = host.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        os.mknod(file, kind | 0o600)
    return make


def directory(path: str) -> Act:
    return lambda host: (host.root / path.lstrip("/")).mkdir(parents=True)


class Row(NamedTuple):
    """What is on the host, the policy, and the hold."""

    name: str
    happened: tuple[Act, ...]
    policy: str
    hold: str


def deletes(path: str, kind: str, who: str) -> str:
    return f"{path} is a {kind}, not a socket; {who} would delete it"


ROWS = (
    Row("a file, passed by systemd", (write(NOTES, "x"),), PASSED, deletes(NOTES, "regular file", SYSTEMD)),
    Row("a file, bound by dockerd", (write(NOTES, "x"),), BOUND, deletes(NOTES, "regular file", DOCKERD)),
    Row("a FIFO", (node(NOTES, stat.S_IFIFO),), PASSED, deletes(NOTES, "FIFO", SYSTEMD)),
    Row("a directory", (directory(NOTES),), BOUND, f"{NOTES} is a directory; dockerd could not listen there"),
    # bind(2) does not follow a link, and unlink(2) removes it.
    Row("a link to a file", (write("/srv/real", "x"), link(NOTES, "/srv/real")), BOUND,
        deletes(NOTES, "symbolic link", DOCKERD)),
    Row("a link to a socket", (node("/srv/real", stat.S_IFSOCK), link(NOTES, "real")), PASSED,
        deletes(NOTES, "symbolic link", SYSTEMD)),
    Row("a broken link", (link(NOTES, "/srv/nothing"),), PASSED, deletes(NOTES, "symbolic link", SYSTEMD)),
    Row("a file in a directory that is a link", (write("/data/notes.txt", "x"), link("/srv", "/data")), PASSED,
        deletes(NOTES, "regular file", SYSTEMD)),
    Row("a parent that is a file", (write("/srv", "x"),), PASSED,
        "/srv is a regular file, not a directory; systemd could not listen on /srv/notes.txt"),
    Row("a broken link as parent", (link("/srv", "/nothing"),), BOUND,
        "/srv is a symbolic link, not a directory; dockerd could not listen on /srv/notes.txt"),
    Row("a parent further up that is a file", (write("/srv", "x"),),
        "sockets: [fd://]\nsocket_unit: {listen: [/srv/new/er/docker.sock]}",
        "/srv is a regular file, not a directory; systemd could not listen on /srv/new/er/docker.sock"),
    Row("while Docker is stopped", (write(NOTES, "x"), stop), PASSED, deletes(NOTES, "regular file", SYSTEMD)),
    Row("the stock path, where a container made a directory", (*opened(), directory("/run/docker.sock")),
        "sockets: [fd://]", "/run/docker.sock is a directory; systemd could not listen there"),
    Row("the stock path, replaced by a file", (*opened(), write("/run/docker.sock", "x")),
        "sockets: [fd://]", deletes("/run/docker.sock", "regular file", SYSTEMD)),
    Row("two files", (write("/srv/a", "x"), write("/srv/b", "x")), 'sockets: [fd://, "unix:///srv/a", "unix:///srv/b"]',
        f"{deletes('/srv/a', 'regular file', DOCKERD)}; {deletes('/srv/b', 'regular file', DOCKERD)}"),
    Row("files alone differ", (write(NOTES, "x"), dropin(f"-H fd:// -H unix://{NOTES} -H tcp://0.0.0.0:2375")), BOUND,
        deletes(NOTES, "regular file", DOCKERD)),
    # dockerd removes the path of its own socket when it stops (Go's net.UnixListener.Close).
    Row("replaced since dockerd bound it", (*opened(f"-H fd:// -H unix://{NOTES}"), write(NOTES, "x")),
        "sockets: [fd://]", deletes(NOTES, "regular file", DOCKERD)),
)


def held(host: SimulatedHost, row: Row) -> list[Decision]:
    """What the agent and `fix` decide; the agent looks twice at an obstacle."""
    return [decided(host, read_policy(row.policy), None, choose).assessment.decision for choose in (decide, by_hand)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_nothing_is_changed_where_a_socket_would_replace_something(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    for decision in held(host, row):
        assert decision.hold is not None
        assert (decision.verdict, decision.hold.reason) == (Verdict.HOLD, row.hold)
        assert decision.hold.next_step == (
            "Move this away, or declare another path in the policy; the agent retries automatically")
        assert decision.required.anything
        assert not decision.actions.anything


@pytest.mark.parametrize("row", [
    Row("nothing there", (), PASSED, ""),
    Row("no directory yet", (), "sockets: [fd://]\nsocket_unit: {listen: [/srv/new/docker.sock]}", ""),
    Row("a socket", (node(NOTES, stat.S_IFSOCK),), PASSED, ""),
    Row("a socket through a link to its directory", (
        node("/run/docker.sock", stat.S_IFSOCK), link("/var/run", "/run"), *opened()),
        "sockets: [fd://]\nsocket_unit: {listen: [/var/run/docker.sock]}", ""),
    Row("no socket yet in a directory that is a link", (directory("/data"), link("/srv", "/data")), PASSED, ""),
    Row("replaced since systemd passed it", (
        listens("/run/docker.sock", NOTES), reload, restart_socket, write(NOTES, "x")), "sockets: [fd://]", ""),
    Row("an abstract address", (write("/@notes", "x"),), "sockets: [fd://]\nsocket_unit: {listen: ['@notes']}", ""),
    Row("another path is a file", (write(NOTES, "x"), *opened()), "sockets: [fd://]", ""),
    Row("a TCP address alone", (write(NOTES, "x"),),
        "sockets: [fd://, {address: 'tcp://127.0.0.1:2375', tls: none}]", ""),
], ids=lambda row: row.name)
def test_what_is_no_obstacle(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    for decision in held(host, row):
        assert decision.hold is None
        assert decision.verdict is Verdict.APPLY


def test_a_host_that_complies_is_not_held(host: SimulatedHost) -> None:
    """Nothing would be deleted, since nothing is to be done."""
    do(host, (write("/run/docker.sock", "x"),))
    assert [decision.verdict for decision in held(host, Row("", (), "sockets: [fd://]", ""))] == [Verdict.NOTHING] * 2


@pytest.mark.parametrize("text", [PASSED, BOUND])
def test_the_correction_follows_once_the_file_is_moved_away(host: SimulatedHost, text: str) -> None:
    do(host, (policy(f"mode: enforce\n{text}"), write(NOTES, "important")))
    before = len(host.starts)
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    entries = [entry.message for entry in agent.journal.entries if entry.event == "held"]
    assert [NOTES in message for message in entries] == [True]
    assert host.text(NOTES) == "important"
    assert len(host.starts) == before
    os.rename(host.root / NOTES.lstrip("/"), host.root / "srv/moved")
    agent.run_pass()
    assert len(host.starts) == before + 1
    assert agent.controller.memory.held is None


@pytest.mark.parametrize("text", [PASSED, BOUND])
def test_the_path_is_reported_by_lint_and_watched(host: SimulatedHost, text: str) -> None:
    do(host, (write(NOTES, "x"),))
    with Rootfs(str(host.root)) as rootfs:
        found = {finding.code: finding.message for finding in judge(seen_on(host, rootfs), read_policy(text))}
        assert found["DG102"] == (
            f"unix://{NOTES} is declared, but the files on disk do not configure it; a regular file is there")
        # The agent watches what was consulted until here: a pass follows when the file is moved away.
        assert NOTES in rootfs.consulted


# --- in use ---------------------------------------------------------------------------------------


def test_a_socket_that_another_program_serves_is_in_use(tmp_path: Path) -> None:
    stale, served, datagrams = (str(tmp_path / name) for name in ("stale", "served", "datagrams"))
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(stale)
        one.listen()
    with (socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log):
        other.bind(served)
        other.listen()
        log.bind(datagrams)
        found = {path: in_use(path) for path in (stale, served, datagrams, str(tmp_path / "nothing"))}
    assert list(found.values()) == [False, True, True, False]


def test_a_correction_is_held_before_it_takes_the_socket_of_another_program(host: SimulatedHost) -> None:
    path = "/run/other.sock"
    do(host, (policy(f"mode: enforce\nsockets: [fd://]\nsocket_unit: {{listen: [/run/docker.sock, {path}]}}"),))
    (host.root / "run").mkdir(exist_ok=True)
    here = os.getcwd()
    os.chdir(host.root / "run")
    with socket.socket(socket.AF_UNIX) as other:
        # sun_path has 108 bytes, and the path of a test directory may be longer.
        other.bind("other.sock")
        other.listen()
        os.chdir(here)
        agent = SimulatedAgent(host, RecordedJournal())
        agent.run_pass()
        entries = [entry.message for entry in agent.journal.entries if entry.event == "held"]
        assert [f"{path} is the socket of another program, which listens there" in message for message in entries] == [
            True]
        other.close()
        assert host.starts[-1].by == "admin"
    agent.host.clock.sleep(61)
    agent.run_pass()
    assert host.starts[-1].by == "us"


@pytest.mark.parametrize(("state", "held"), [("active", 0), ("inactive", 1)])
def test_a_socket_that_systemd_has_opened_since_the_observation_is_no_obstacle(
        host: SimulatedHost, monkeypatch: pytest.MonkeyPatch, state: str, held: int) -> None:
    """Somebody restarts docker.socket while a correction begins."""
    do(host, (stop, dropin("-H fd:// -H tcp://0.0.0.0:2375")))
    host.held = ()
    host.active[SOCKET] = state
    monkeypatch.setattr("dockerd_guard.apply.preflight.in_use", lambda path, _: path == "/run/docker.sock")
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    entries = [entry.message for entry in agent.journal.entries if entry.event == "held"]
    assert len([message for message in entries if "the socket of another program" in message]) == held


def test_the_stock_socket_of_docker_is_no_obstacle(host: SimulatedHost) -> None:
    """It is docker.socket's own, whoever connects to it."""
    do(host, (node("/run/docker.sock", stat.S_IFSOCK), dropin("-H fd:// -H tcp://0.0.0.0:2375"), reload, restart))
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    assert [entry.event for entry in agent.journal.entries if entry.outcome == "repaired"] == ["corrected"]
