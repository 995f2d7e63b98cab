"""Rollouts to hosts of three releases by Debian 13's ansible-core: a failure stops them before it spreads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import OUR_SERVICE_DROPIN, POLICY
from tests.support.rollout import ENFORCE, ROLLOUT, Fleet, expose, fleet_of, trees

RELEASES = ("trixie", "bookworm", "sid")
AGENT = "dockerd-guard.service"
BROKEN_START = "/etc/systemd/system/docker.service.d/broken.conf"


@pytest.fixture
def fleet(package: Path) -> Iterator[Fleet]:
    with fleet_of(RELEASES, package) as fleet:
        yield fleet


@pytest.fixture
def bare_fleet() -> Iterator[Fleet]:
    with fleet_of(RELEASES, None) as fleet:
        yield fleet


def test_hosts_without_the_package_get_the_deb(bare_fleet: Fleet, package: Path) -> None:
    bare_fleet.controller.install(package)
    deb = f"/tmp/{package.name}"
    containers = [expose(machine) for machine in bare_fleet.machines]
    before = [machine.run("find /etc | sort").out for machine in bare_fleet.machines[1:]]
    shown = bare_fleet.play(ROLLOUT, "--check", agent_deb=deb, agent_policy=ENFORCE)
    assert (shown.status, shown.failed) == (0, ()), shown.out
    assert [machine.run("find /etc | sort").out for machine in bare_fleet.machines[1:]] == before
    done = bare_fleet.play(ROLLOUT, agent_deb=deb, agent_policy=ENFORCE)
    assert (done.status, done.failed) == (0, ()), done.out
    assert all(machine.is_active(AGENT) for machine in bare_fleet.machines)
    assert not any(machine.api_answers() for machine in bare_fleet.machines)
    assert [machine.container_pid() for machine in bare_fleet.machines] == containers
    for source in ({"agent_deb": deb}, {}):
        again = bare_fleet.play(ROLLOUT, agent_policy=ENFORCE, **source)
        assert (again.status, set(again.changed.values())) == (0, {0}), again.out


class Failure(NamedTuple):
    """What is done to web2, what the play then says, and which hosts have a restarted dockerd after it."""

    name: str
    prepare: Callable[[Fleet], object]
    says: str
    restarted: tuple[bool, ...]


FAILURES = (
    Failure("the host does not answer", lambda fleet: fleet.network.cut(fleet.machines[1]), "UNREACHABLE!",
            (False, False, False)),
    Failure("dockerd does not start, and the correction is undone",
            lambda fleet: break_start(fleet.machines[1]), r'\"rolled_back\": true',
            (True, True, False)),
)


def break_start(machine: Machine) -> None:
    """dockerd starts only without our drop-in."""
    machine.write(BROKEN_START, f"[Service]\nExecStartPre=/bin/sh -c '! test -e {OUR_SERVICE_DROPIN}'\n")
    machine.run("systemctl daemon-reload; systemctl restart docker")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_failure_stops_the_rollout(fleet: Fleet, failure: Failure) -> None:
    containers = [expose(machine) for machine in fleet.machines]
    failure.prepare(fleet)
    hosts = fleet.pids()
    done = fleet.play(ROLLOUT, agent_package="", agent_policy=ENFORCE)
    assert done.status != 0
    assert failure.says in done.out, done.out
    assert tuple(new != old for new, old in zip(fleet.pids(), hosts, strict=True)) == failure.restarted, done.out
    assert [machine.container_pid() for machine in fleet.machines] == containers


def test_an_invalid_policy_reaches_no_host(fleet: Fleet) -> None:
    wait_for(lambda: all(machine.is_active(AGENT) for machine in fleet.machines), "agents")
    before = [trees(machine) for machine in fleet.machines]
    for arguments in (("--check",), ()):
        done = fleet.play(ROLLOUT, *arguments, agent_package="", agent_policy={**ENFORCE, "mode": "enforced"})
        assert (done.status != 0, done.failed) == (True, ("web1", "web2", "web3")), done.out
        assert "enforced" in done.out
        assert [trees(machine) ^ old for machine, old in zip(fleet.machines, before, strict=True)] == [set()] * 3
    assert "mode: observe" in fleet.controller.read(POLICY)


def test_a_policy_that_observes_corrects_nothing(fleet: Fleet) -> None:
    """`fix` corrects whatever the mode is, so the playbook does not run it."""
    machines = fleet.machines[:2]
    for machine in machines:
        expose(machine)
    hosts = fleet.pids()
    for policy in ({}, {"agent_policy": {"version": 1, "sockets": ["fd://"], "watch": {"settle": "200ms"}}}):
        done = fleet.play(ROLLOUT, agent_package="", **policy)
        assert (done.status, done.failed) == (0, ()), done.out
        assert "settle: 200ms" in fleet.controller.read(POLICY) or not policy
        assert fleet.pids() == hosts
        assert not any(machine.exists(OUR_SERVICE_DROPIN) for machine in machines)


def test_a_policy_is_rolled_back_by_a_second_rollout(fleet: Fleet) -> None:
    """From the local socket alone to another one as well, and back, two hosts at a time."""
    containers = [expose(machine) for machine in fleet.machines]
    wider = {**ENFORCE, "sockets": ["fd://", "unix:///run/docker-other.sock"]}
    for policy, answers in ((wider, True), (ENFORCE, False)):
        hosts = fleet.pids()
        done = fleet.play(ROLLOUT, "--extra-vars", "dockerd_guard_serial=2", agent_package="", agent_policy=policy)
        assert (done.status, done.failed) == (0, ()), done.out
        assert all(new != old for new, old in zip(fleet.pids(), hosts, strict=True))
        for machine in fleet.machines:
            assert machine.socket_answers("/run/docker-other.sock") is answers
    assert [machine.container_pid() for machine in fleet.machines] == containers
