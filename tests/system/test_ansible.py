"""The Ansible collection of the package: a rollout to three hosts by Debian's ansible-core, oldest and newest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.correction import OUR_SERVICE_DROPIN, POLICY
from tests.support.rollout import ENFORCE, ROLLOUT, Fleet, expose, fleet_of, trees


@pytest.fixture(params=["bookworm", "sid"])
def fleet(request: pytest.FixtureRequest, package: Path) -> Iterator[Fleet]:
    with fleet_of((request.param,) * 3, package) as fleet:
        yield fleet


def test_rollout_stops_at_the_first_host_that_fails(fleet: Fleet) -> None:
    """web2 has no live-restore, so that a restart would stop its container."""
    containers = [expose(machine, live_restore=machine is not fleet.machines[1]) for machine in fleet.machines]
    before, hosts = [trees(machine) for machine in fleet.machines], fleet.pids()

    # apt is slow. slow_rollout.py installs the package.
    # The splay is for agents that restart dockerd by themselves: the rollout would fail until its end.
    variables = {"agent_package": "", "agent_policy": {**ENFORCE, "correct": {"splay": "10h"}}}
    shown = fleet.play(ROLLOUT, "--check", "--diff", **variables)
    assert (shown.status, shown.failed) == (0, ()), shown.out
    assert shown.out.count("which stops bystander.") == 1, shown.out
    assert shown.out.count("containers keep running.") == 2
    assert "-mode: observe" in shown.out
    assert [trees(machine) ^ old for machine, old in zip(fleet.machines, before, strict=True)] == [set()] * 3
    assert fleet.pids() == hosts

    failed = fleet.play(ROLLOUT, **variables)
    web1, web2, web3 = fleet.machines
    assert (failed.status != 0, failed.failed) == (True, ("web2",)), failed.out
    assert "live-restore" in failed.out
    # The files are corrected everywhere, dockerd was restarted on one host.
    assert [machine.exists(OUR_SERVICE_DROPIN) for machine in fleet.machines] == [True] * 3
    assert [new == old for new, old in zip(fleet.pids(), hosts, strict=True)] == [False, True, True]
    assert "restart: never" in web3.read(POLICY)

    web2.run("docker rm --force bystander")
    restarted = web1.main_pid()
    assert fleet.play(ROLLOUT, **variables).failed == ()
    assert [new == old for new, old in zip(fleet.pids(), (restarted, *hosts[1:]), strict=True)] == [True, False, False]
    assert (web1.container_pid(), web3.container_pid()) == (containers[0], containers[2])
    assert not any(machine.api_answers() for machine in fleet.machines)

    again = fleet.play(ROLLOUT, **variables)
    assert (again.status, again.changed) == (0, {"web1": 0, "web2": 0, "web3": 0}), again.out
    fact = web1.run("ansible localhost -c local -m setup -a filter=ansible_local").out
    assert '"dockerd_guard": {' in fact
    assert '"mode": "enforce"' in fact
