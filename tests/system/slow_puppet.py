"""The Puppet module of the package, by Debian's puppet-agent: noop, a policy, the same again, an invalid one."""

from __future__ import annotations

import json

import pytest

from tests.machines.machine import Machine
from tests.support.correction import POLICY, entries
from tests.support.rollout import expose, trees

NOTHING, CHANGED, FAILED = 0, 2, 4
"""`puppet apply --detailed-exitcodes`."""


@pytest.fixture(params=["bookworm", "trixie", "sid"])
def release(request: pytest.FixtureRequest) -> str:
    """The releases with Puppet 7, 8 and 9."""
    return str(request.param)


@pytest.fixture
def debian() -> tuple[str, ...]:
    return ("puppet-agent",)


def apply(machine: Machine, mode: str, *arguments: str) -> tuple[int, str]:
    """Apply the class with a policy of this mode, which may restart nothing; exit code and output."""
    code = ("class { 'dockerd_guard': policy => { 'version' => 1, 'sockets' => ['fd://'], "
            f"'mode' => '{mode}', 'correct' => {{ 'restart' => 'never' }} }} }}")
    done = machine.run(["puppet", "apply", "--detailed-exitcodes", "--color=false", *arguments, "--execute", code],
                       check=False)
    return done.status, done.out + done.err


def test_the_module(machine: Machine) -> None:
    expose(machine)
    before, dockerd, agent = trees(machine), machine.main_pid(), machine.main_pid("dockerd-guard.service")

    status, shown = apply(machine, "enforce", "--noop", "--show_diff")
    assert (status, "\n+mode: enforce\n" in shown) == (NOTHING, True), shown
    # Puppet itself makes directories there.
    assert not [line for line in trees(machine) ^ before if not line.startswith("/etc/puppet/")]

    status, said = apply(machine, "enforce")
    assert status == CHANGED, said
    assert "mode: enforce" in machine.read(POLICY)
    assert any("mode enforce" in entry["MESSAGE"] for entry in entries(machine, "policy"))
    # The agent is reloaded, not restarted; Docker neither.
    assert (machine.main_pid("dockerd-guard.service"), machine.main_pid()) == (agent, dockerd)
    assert not machine.api_answers()

    status, said = apply(machine, "enforce")
    assert status == NOTHING, said
    assert apply(machine, "enforced")[0] == FAILED
    assert "mode: enforce\n" in machine.read(POLICY)
    fact = json.loads(machine.run(["puppet", "facts", "show", "dockerd_guard", "--render-as", "json"]).out)
    assert fact["dockerd_guard"]["policy"]["mode"] == "enforce"
    assert machine.run("systemctl stop dockerd-guard; puppet apply --execute 'include dockerd_guard'").status == 0
    assert machine.is_active("dockerd-guard.service")
    assert "mode: observe" in machine.read(POLICY)
