"""The output of `status` for a host and its agent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dockerd_guard.commands import status as command
from dockerd_guard.model.address import Binding, Scope, Tls, Via
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import LISTENING, Listening
from dockerd_guard.plan.memory import Contained, HeldCorrection, Memory
from dockerd_guard.policy.model import POLICY_FILE
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.report import status as report
from dockerd_guard.report.agent_status import AgentStatus, Drift, LastCorrection
from dockerd_guard.report.status import NO_POLICY, AgentUnit, Cell, Row, Status
from tests.support import golden
from tests.support.hosts import Host

pytest_plugins = ["tests.support.fixtures"]

DAEMON_JSON = "/etc/docker/daemon.json"

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BEFORE = NOON - timedelta(minutes=90)

POLICY = parse_policy(b"version: 1\nmode: enforce\nsockets: [fd://]\n", POLICY_FILE)

LOCAL = Row("unix:///run/docker.sock", Tls.NONE, (Cell(Tls.NONE),) * 4)
OPEN = Row("tcp://0.0.0.0:2375", None, (Cell(), Cell(), Cell(Tls.NONE), Cell(Tls.NONE)))

FINDING = Finding("DG101", "error", "the Docker API listens on tcp://0.0.0.0:2375; it listens there now", "configured",
                  Location("/etc/a.conf", 3), "safe", "tcp://0.0.0.0:2375")

UNIT = AgentUnit("loaded", "active", "success", 42, BEFORE)
DOWN = AgentUnit("loaded", "failed", "exit-code", 0, BEFORE)

STATUS_FILE = AgentStatus(NOON - timedelta(seconds=12), 42, "watching", "enforce", POLICY_FILE, BEFORE, "")
HOLDING = STATUS_FILE._replace(
    state="holding", drifts=(Drift(BEFORE, FINDING),), contained=("tcp://[::]:2375",),
    held=HeldCorrection("outside the window Sat 02:00-05:00", BEFORE, NOON + timedelta(hours=14), "Wait"),
    last=LastCorrection(BEFORE, "rolled-back", "failed",
                        "The correction failed verification and was rolled back: no answer."))

GOOD = Status(NOON, UNIT, True, STATUS_FILE, POLICY, "", (LOCAL,), (), (), None, ())
BAD = GOOD._replace(agent_status=HOLDING, rows=(LOCAL, OPEN), findings=(FINDING,), contained=HOLDING.contained,
                    last=HOLDING.last)


def lines(status: Status, columns: int | None = None, *, colour: bool = False) -> str:
    return "".join(f"{line}\n" for line in report.lines(status, columns=columns, colour=colour, zone=UTC))


def test_compliant_host() -> None:
    golden.check(lines(GOOD), "report/status-good.txt")


@pytest.mark.parametrize("cell", [Cell(), Cell(by_systemd=True)], ids=["nothing", "systemd alone"])
def test_docker_is_not_reported_to_listen_where_it_does_not(cell: Cell) -> None:
    """A waiver removes the finding, not the fact."""
    stopped = LOCAL._replace(cells=(*LOCAL.cells[:2], Cell(), cell))
    assert lines(GOOD._replace(rows=(stopped,))).startswith("No problem found; not every declared socket is open.\n")


def test_host_with_problems() -> None:
    golden.check(lines(BAD), "report/status-bad.txt")


def test_forty_columns_are_enough() -> None:
    shown = lines(BAD, 40)
    assert max(map(len, shown.splitlines())) <= 40
    golden.check(shown, "report/status-narrow.txt")


def test_colour_changes_no_line() -> None:
    coloured = lines(BAD, 100, colour=True)
    assert "\033[1;31merror\033[0m DG101" in coloured
    assert "\033[1;31mtls none" in coloured
    for code in ("\033[1;31m", "\033[1;33m", "\033[1m", "\033[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == lines(BAD, 100)


def test_output_is_printable() -> None:
    evil = FINDING._replace(message="\x1b]0;x\x07\u202e", location=Location("/etc/\n\udcff.conf", 3))
    shown = lines(BAD._replace(findings=(evil,), policy_problem="\x1b[2J", unseen=("\x9b",)))
    assert all(line.isprintable() for line in shown.splitlines())
    assert lines(BAD).isascii()


@pytest.mark.parametrize(("changes", "wrong", "is_complete"), [
    ({}, (), True),
    ({"unit": DOWN, "is_alive": False}, ("no agent is running",), True),
    ({"unit": UNIT._replace(active_state="activating"), "is_alive": False}, ("the agent is starting",), True),
    ({"agent_status": STATUS_FILE._replace(at=NOON - timedelta(hours=1))}, ("the agent is overdue",), True),
    ({"agent_status": STATUS_FILE._replace(blind=("no bus",))}, ("the agent has degraded visibility",), True),
    ({"policy": None, "policy_problem": "line 3"}, ("the policy is invalid",), True),
    ({"policy": None, "policy_problem": NO_POLICY}, ("there is no policy",), True),
    ({"findings": (FINDING, FINDING._replace(severity="warning"))}, ("1 error", "1 warning"), True),
    ({"findings": (FINDING,) * 2}, ("2 errors",), True),
    ({"contained": ("tcp://a:1", "tcp://b:1")}, ("2 ports blocked",), True),
    # Without root the status of a running agent is sufficient.
    ({"unseen": ("no root",)}, (), True),
    ({"unseen": ("no root",), "agent_status": STATUS_FILE._replace(blind=("no bus",))},
     ("the agent has degraded visibility",), False),
    # The status file of a stopped agent is out of date.
    ({"unit": DOWN, "is_alive": False, "agent_status": HOLDING}, ("no agent is running",), True),
    # No source is available.
    ({"unit": None, "is_alive": False, "agent_status": None, "unseen": ("no bus",)}, (), False),
])
def test_problems_and_completeness(changes: dict[str, Any], wrong: tuple[str, ...], is_complete: bool) -> None:
    status = GOOD._replace(**changes)
    assert status.wrong == wrong
    assert report.is_complete(status) is is_complete


@pytest.mark.parametrize(("changes", "line"), [
    ({"unit": None, "is_alive": False, "agent_status": None}, "agent    unknown: cannot query systemd over D-Bus"),
    ({"unit": None, "is_alive": False},
     "agent    unknown: cannot query systemd over D-Bus; last check 12 s ago, by PID 42"),
    ({"unit": None, "is_alive": False}, "policy   /etc/dockerd-guard/config.yaml, mode: enforce"),
    ({"unit": AgentUnit("not-found", "inactive", "", 0, None), "is_alive": False},
     "agent    not installed: there is no dockerd-guard.service"),
    ({"unit": DOWN, "is_alive": False},
     "agent    failed since 2026-11-23 10:30:00, exit-code; this host is not guarded: systemctl status dockerd-guard"),
    ({"unit": DOWN, "is_alive": False, "agent_status": None},
     "policy   /etc/dockerd-guard/config.yaml, mode: enforce; not enforced, no agent is running"),
    ({"policy_problem": "config.yaml:3:1: bad"}, "         config.yaml:3:1: bad; the last valid policy stays in force"),
    ({"agent_status": STATUS_FILE._replace(held=HeldCorrection("never", BEFORE, None))},
     "held     never, until this changes; since 2026-11-23 10:30:00"),
    ({"agent_status": STATUS_FILE._replace(held=HeldCorrection("x", BEFORE, NOON + timedelta(minutes=7), is_due=True))},
     "held     x, restart due 2026-11-23 12:07:00; since 2026-11-23 10:30:00"),
    ({"unseen": ("no root",)}, "degraded visibility: no root"),
    ({"policy": None}, "unix:///run/docker.sock  ?       yes         yes     yes      yes"),
    ({"rows": (LOCAL._replace(cells=(Cell(), None, None, Cell(by_systemd=True))),)},
     "unix:///run/docker.sock  declared  no          ?       ?        systemd"),
    ({"findings": (FINDING,) * 14}, "and 4 more: dockerd-guard lint"),
])
def test_each_state_has_its_line(changes: dict[str, Any], line: str) -> None:
    assert line in lines(GOOD._replace(**changes)).splitlines()


def test_status_as_json() -> None:
    golden.check_json(report.to_json(BAD), "report/status-bad.json")
    unknown = report.to_json(GOOD._replace(unit=None, is_alive=False, agent_status=None, policy=None, rows=(
        LOCAL._replace(cells=(None, Cell(by_systemd=True), Cell(), Cell(Tls.NONE))),)))
    assert unknown["agent"] == {"alive": None, "unit": None, "pid": None, "state": None, "looked": None, "blind": []}
    assert unknown["policy"] == {"file": None, "mode": None, "since": None, "problem": None}
    assert unknown["sockets"][0]["layers"] == {
        "configured": None, "loaded": "systemd", "running": False, "listening": "none"}


MISSING = FINDING._replace(code="DG102", location=Location("/etc/p.yaml", 2), socket="fd://")
UNKNOWN = FINDING._replace(code="DG205", location=Location(DAEMON_JSON, 1), socket=None)


@pytest.mark.parametrize(("own", "agents", "denied", "expected"), [
    ((MISSING, UNKNOWN), None, (), (MISSING, UNKNOWN)),
    ((FINDING, UNKNOWN), None, (DAEMON_JSON,), (FINDING,)),
    ((FINDING, MISSING), (FINDING,), (), (FINDING, MISSING)),
    # daemon.json may contain what seems to be missing.
    ((MISSING, UNKNOWN), (), (DAEMON_JSON,), ()),
    ((MISSING, UNKNOWN), (FINDING,), (DAEMON_JSON,), (FINDING,)),
])
def test_a_file_that_this_account_cannot_read_is_no_finding(
        own: tuple[Finding, ...], agents: tuple[Finding, ...] | None, denied: tuple[str, ...],
        expected: tuple[Finding, ...]) -> None:
    assert command.merged(own, agents, frozenset(denied)) == expected


@pytest.mark.parametrize(("is_partial", "cell"), [(False, Cell()), (True, None)])
def test_a_socket_that_an_unread_file_may_configure_is_unknown(
        stock_host: Host, is_partial: bool, cell: Cell | None) -> None:
    policy = parse_policy(b"version: 1\nsockets: [fd://, {address: 'tcp://127.0.0.1:2376'}]\n", POLICY_FILE)
    local, declared = command.rows(stock_host.see(), policy, is_partial=is_partial)
    assert (local.address, local.cells[0]) == ("unix:///run/docker.sock", Cell(Tls.NONE))
    assert (declared.address, declared.cells[0]) == ("tcp://127.0.0.1:2376", cell)


@pytest.mark.parametrize("namespace", ["", "/run/netns/vpn"])
def test_a_socket_in_another_network_namespace_is_not_shown_as_the_hosts(stock_host: Host, namespace: str) -> None:
    seen = stock_host.see()
    binding = Binding("tcp://[::]:2375", Scope.WILDCARD, Tls.NONE, Via.FLAG, namespace=namespace)
    layer = seen.configured.layer._replace(name=LISTENING, bindings=(binding,))
    *_, row = command.rows(seen._replace(listening=Listening(layer, (), ())), POLICY)
    assert (row.address, row.namespace) == (binding.address, namespace)
    shown = GOOD._replace(rows=(row,))
    assert report.to_json(shown)["sockets"][0].get("network_namespace", "") == namespace
    assert (f"tcp://[::]:2375 in {namespace}" in lines(shown)) == bool(namespace)


def test_a_declared_address_of_another_network_namespace_is_not_the_declared_one(stock_host: Host) -> None:
    seen = stock_host.see()
    address, vpn = "tcp://127.0.0.1:2376", "/run/netns/vpn"
    binding = Binding(address, Scope.LOOPBACK, Tls.NONE, Via.FLAG)
    configured = seen.configured._replace(layer=seen.configured.layer._replace(bindings=(binding,)))
    layer = seen.configured.layer._replace(name=LISTENING, bindings=(binding._replace(namespace=vpn),))
    declares = parse_policy(b"version: 1\nsockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: none}]\n")
    found = command.rows(seen._replace(configured=configured, listening=Listening(layer, (), ())), declares)
    assert [(row.declared, row.namespace, row.cells[0], row.cells[-1]) for row in found if row.address == address] == [
        (Tls.NONE, "", Cell(Tls.NONE), Cell()), (None, vpn, Cell(), Cell(Tls.NONE))]


@pytest.mark.parametrize(("is_root", "is_alive", "expected"), [
    (True, True, HOLDING.contained),
    (False, True, HOLDING.contained),
    (False, False, HOLDING.contained),
    # What the agent published before it ended may be old.
    (True, False, ("tcp://10.0.0.5:2375",)),
])
def test_what_is_blocked_is_shown_also_where_the_state_directory_is_full(
        monkeypatch: pytest.MonkeyPatch, is_root: bool, is_alive: bool, expected: tuple[str, ...]) -> None:
    stored = Memory(contained=Contained(("nftables",), ("tcp://10.0.0.5:2375",)))
    monkeypatch.setattr(command, "StateFiles", lambda: SimpleNamespace(load=lambda: stored))
    monkeypatch.setattr("os.geteuid", lambda: 0 if is_root else 1000)
    assert command._contained(HOLDING, is_alive=is_alive) == expected
