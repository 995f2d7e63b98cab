"""Three hosts with one slot: their restarts never overlap, whatever happens to the host that has it, to etcd, or to the
network. By systemd's own entries about docker.service in the journal of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.machines.machine import wait_for
from tests.machines.network import Host
from tests.support.fleet_machines import AGENT, ETCD, GATES, LEASE_S, Fleet, Gate, fleet_of, overlaps

STOP, START_PRE, START_POST = GATES

LONGER_THAN_LEASE_S = LEASE_S + 10.0

SOON_S = 8.0
"""Long enough for several requests, and much shorter than a lease."""


def nothing(fleet: Fleet, holder: Host, began: float) -> None:
    """The others ask all the time."""
    fleet.keep_asking(fleet.others(holder), SOON_S)


def long_restart(fleet: Fleet, holder: Host, began: float) -> None:
    """The restart takes longer than the lease, which is renewed."""
    fleet.keep_asking(fleet.others(holder), LONGER_THAN_LEASE_S)


def agent_is_killed(fleet: Fleet, holder: Host, began: float) -> None:
    """The next agent of the host keeps the slot until the restart has ended, longer than the lease."""
    machine = holder.machine
    before = machine.main_pid(AGENT)
    machine.run(["systemctl", "kill", "--signal=KILL", AGENT])
    # Its first pass waits for the restart, and it is not active before.
    wait_for(lambda: machine.main_pid(AGENT) not in (0, before), "another agent")
    fleet.keep_asking(fleet.others(holder), LONGER_THAN_LEASE_S)


def etcd_hangs(fleet: Fleet, holder: Host, began: float) -> None:
    """The restart of the host with the slot ends meanwhile, and no other begins."""
    fleet.signal_etcd(fleet.hosts[0], "STOP")
    fleet.keep_asking(fleet.others(holder), SOON_S)
    fleet.open_gate()
    fleet.corrected([holder])
    fleet.keep_asking(fleet.others(holder), SOON_S)
    assert [each.host for each in fleet.restarts(began)] == [holder.name]
    fleet.signal_etcd(fleet.hosts[0], "CONT")


def leader_is_killed(fleet: Fleet, holder: Host, began: float) -> None:
    """The slot is still renewed by the members that are left."""
    leader = fleet.leader()
    leader.machine.run(["systemctl", "kill", "--signal=KILL", ETCD])
    fleet.keep_asking(fleet.others(holder), LONGER_THAN_LEASE_S)


def leader_hangs(fleet: Fleet, holder: Host, began: float) -> None:
    """So that each request to it times out."""
    leader = fleet.leader()
    fleet.signal_etcd(leader, "STOP")
    fleet.keep_asking(fleet.others(holder), LONGER_THAN_LEASE_S)


def holder_is_cut_off(fleet: Fleet, holder: Host, began: float) -> None:
    """It cannot give the slot back; its restart ends before the lease, and the others go on when that has ended."""
    fleet.network.cut(holder.machine)
    fleet.keep_asking(fleet.others(holder), SOON_S)
    fleet.open_gate()
    fleet.corrected()
    fleet.network.mend(holder.machine)


def other_is_cut_off(fleet: Fleet, holder: Host, began: float) -> None:
    """It does not restart while it is cut off."""
    cut, third = fleet.others(holder)
    fleet.network.cut(cut.machine)
    fleet.keep_asking((cut, third), SOON_S)
    fleet.open_gate()
    fleet.corrected((holder, third))
    assert [each.host for each in fleet.restarts(began)] == [holder.name, third.name]
    fleet.network.mend(cut.machine)
    fleet.ask_now([cut])


class Case(NamedTuple):
    """What happens while a host with the slot is at the gate, and on how many hosts etcd is."""

    name: str
    happens: Callable[[Fleet, Host, float], None]
    members: int = 1
    gate: Gate = START_PRE


CASES = (
    Case("nothing is wrong", nothing),
    Case("a restart longer than the lease", long_restart),
    *(Case(f"the agent is killed while docker.service is in {gate.state}", agent_is_killed, gate=gate)
      for gate in GATES),
    Case("etcd hangs", etcd_hangs),
    Case("the leader of etcd is killed", leader_is_killed, 3),
    Case("the leader of etcd hangs", leader_hangs, 3),
    Case("the host with the slot is cut off", holder_is_cut_off, 3),
    Case("a host that waits is cut off", other_is_cut_off, 3),
)


@pytest.fixture
def fleet(release: str, package: Path, case: Case) -> Iterator[Fleet]:
    with fleet_of(release, package, case.members) as fleet:
        yield fleet


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_restarts_never_overlap(fleet: Fleet, case: Case) -> None:
    fleet.expose(case.gate)
    began = fleet.enforce()
    holder = fleet.first_at(case.gate)
    case.happens(fleet, holder, began)
    fleet.open_gate()
    fleet.corrected()
    found = fleet.restarts(began)
    print(f"{holder.machine.release}, {case.name}: {', '.join(map(str, found))}")
    assert not overlaps(found), fleet.journals()
    assert [each.host for each in found][:1] == [holder.name]
    assert sorted(each.host for each in found) == [host.name for host in fleet.hosts], fleet.journals()


@pytest.mark.parametrize("case", [Case("no lock", nothing)], ids=lambda case: case.name)
def test_without_the_lock_they_overlap(fleet: Fleet, case: Case) -> None:
    """What the test above compares would be seen."""
    fleet.expose(case.gate)
    began = fleet.enforce(has_lock=False)
    wait_for(lambda: fleet.at(case.gate) == fleet.hosts, "restarts of all hosts at the same time")
    fleet.open_gate()
    fleet.corrected()
    assert len(overlaps(fleet.restarts(began))) == 3
