"""What the gate is given to decide on: restart_facts() of observations with one thing changed."""

from __future__ import annotations

import pytest

from dockerd_guard.observe.engine import Engine
from dockerd_guard.observe.observation import EngineAnswer
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.decide import decide
from dockerd_guard.plan.facts import restart_facts
from dockerd_guard.plan.gate import RestartFacts
from dockerd_guard.plan.inputs import inputs
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.plan import Change
from tests.simulation.host import SimulatedHost
from tests.support.situations import DAEMON_JSON, Outcome, daemon_json, decided, do, link, read_policy, write

RESTART = Actions(restart=True)
ENGINE = Engine("26.1.5", live_restore=True, containers_running=0, in_swarm=False)


def facts(outcome: Outcome, answer: EngineAnswer | None = None, actions: Actions = RESTART) -> RestartFacts:
    seen = outcome.assessment.seen
    assert seen.loaded is not None
    loaded = seen.loaded._replace(dependents=("shop.service",))
    with seen.rootfs.changed({}) as rootfs:
        seen = seen._replace(rootfs=rootfs, engine=answer, loaded=loaded)
        return restart_facts(seen, outcome.assessment.plan, actions, outcome.memory)


@pytest.mark.parametrize("answer", [None, EngineAnswer(), EngineAnswer(ENGINE)])
def test_facts_of_a_restart(host: SimulatedHost, answer: EngineAnswer | None) -> None:
    outcome = decided(host, read_policy(""))
    assert facts(outcome, answer) == RestartFacts(True, answer, ("shop.service",), next_live_restore=True)


def test_facts_without_a_restart_are_fewer(host: SimulatedHost) -> None:
    """Nothing is read that only a restart needs."""
    outcome = decided(host, read_policy(""))
    assert facts(outcome, EngineAnswer(), Actions(reload=True)) == RestartFacts(True, EngineAnswer(), ("shop.service",))


@pytest.mark.parametrize("actions", [RESTART, Actions()])
def test_facts_without_systemd(host: SimulatedHost, actions: Actions) -> None:
    outcome = decided(host, read_policy(""))
    seen = outcome.assessment.seen._replace(loaded=None, running=None)
    found = restart_facts(seen, outcome.assessment.plan, actions, outcome.memory)
    assert (found.is_active, found.dependents) == (False, ())


@pytest.mark.parametrize(("in_swarm", "pending"), [
    (False, ()), (True, ('"live-restore" (/etc/docker/daemon.json:1)',)),
])
def test_live_restore_is_a_pending_change_in_a_swarm(
    host: SimulatedHost, in_swarm: bool, pending: tuple[str, ...]
) -> None:
    """dockerd in a swarm does not start with it."""
    do(host, (daemon_json("{}"), lambda host: host.restart("admin")))
    memory = decided(host, read_policy("")).memory
    assert memory.start is not None
    do(host, (daemon_json('{"live-restore": true}'),))
    outcome = decided(host, read_policy(""), lambda now, _: memory)
    seen = outcome.assessment.seen
    with seen.rootfs.changed({}) as rootfs:
        answer = EngineAnswer(ENGINE._replace(in_swarm=in_swarm))
        found = restart_facts(seen._replace(rootfs=rootfs, engine=answer), outcome.assessment.plan, RESTART, memory)
    assert found.pending_changes == pending


def test_refusals_are_messages(host: SimulatedHost) -> None:
    outcome = decided(host, read_policy("sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}]"))
    plan = outcome.assessment.plan
    assert outcome.assessment.decision.facts.refusals == tuple(finding.message for finding in plan.refusals) != ()


def test_inputs_of_any_name_have_a_digest(host: SimulatedHost) -> None:
    """File names are bytes."""
    outcome = decided(host, read_policy(""))
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    with seen.rootfs.changed({}) as rootfs:
        named = plan._replace(changes=(Change("/etc/\udcff", None, b"x"),))
        assert inputs(seen._replace(rootfs=rootfs), named, outcome.assessment.policy)


def test_a_link_is_an_input_besides_its_target(host: SimulatedHost) -> None:
    do(host, (write("/srv/daemon.json", "{}"), link(DAEMON_JSON, "/srv/daemon.json")))
    digests = []
    for _ in range(2):
        host.touch(DAEMON_JSON)
        outcome = decided(host, read_policy(""))
        seen = outcome.assessment.seen
        with seen.rootfs.changed({}) as rootfs:
            digests.append(inputs(seen._replace(rootfs=rootfs), outcome.assessment.plan, outcome.assessment.policy))
        host.clock.sleep(5)
    assert digests[0] != digests[1]


def test_inputs_without_the_managers_environment(host: SimulatedHost) -> None:
    outcome = decided(host, read_policy(""))
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    with seen.rootfs.changed({}) as rootfs:
        seen = seen._replace(rootfs=rootfs, configured=seen.configured._replace(manager_environment=None))
        assert inputs(seen, plan, outcome.assessment.policy)


def test_files_alone_can_be_decided_about(host: SimulatedHost) -> None:
    outcome = decided(host, read_policy(""))
    seen = outcome.assessment.seen._replace(loaded=None, running=None, listening=None)
    decision, _ = decide(outcome.now, seen, (), outcome.assessment.plan, outcome.assessment.policy, Memory())
    assert decision.complies
