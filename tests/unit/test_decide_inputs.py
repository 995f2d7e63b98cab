"""What is kept of the inputs of a decision: a change of one of them makes a failure be tried again."""

from __future__ import annotations

import pytest

from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.inputs import foreign_inputs, inputs
from dockerd_guard.plan.memory import Attempt
from dockerd_guard.rootfs import Rootfs
from tests.simulation.host import SimulatedHost
from tests.support.remembered import APPLY, HOLD
from tests.support.situations import (
    DAEMON_JSON,
    DIRECTORY,
    LATE,
    OPEN,
    OURS,
    Act,
    daemon_json,
    decided,
    do,
    dropin,
    environment,
    fault,
    link,
    opened,
    read_policy,
    remove,
    seen_on,
    sleep,
    stop,
    write,
)


def digest_of(host: SimulatedHost, text: str) -> str:
    outcome = decided(host, read_policy(text))
    with Rootfs(str(host.root)) as rootfs:
        return inputs(seen_on(host, rootfs), outcome.assessment.plan, outcome.assessment.policy)


LOOPBACK = "sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}]"

PATTERN = write(f"{DIRECTORY}/env.conf", "[Service]\nEnvironmentFile=-/etc/docker.d/*.env\n")

CHANGED_INPUTS = (
    ("a drop-in", opened(), "", (dropin(f"{OPEN} --debug"),)),
    ("a drop-in of the same size", opened(), "", (sleep(1), dropin(OPEN))),
    ("a late drop-in", opened(), "", (dropin(OPEN, LATE),)),
    ("the unit", opened(), "", (sleep(1), lambda host: host.touch("/usr/lib/systemd/system/docker.service"))),
    ("docker.socket", opened(), "", (sleep(1), lambda host: host.touch("/usr/lib/systemd/system/docker.socket"))),
    ("an environment file that was missing", opened(), "", (write("/etc/default/docker", ""),)),
    ("a file that a pattern matches", (write("/etc/docker.d/a.env", "A=1\n"), *opened(), PATTERN), "", (
        write("/etc/docker.d/a.env", "A=2\n"),)),
    ("dockerd, which was upgraded", opened(), "", (write("/usr/bin/dockerd", "another version"),)),
    ("daemon.json", opened(), "", (sleep(1), daemon_json('{"live-restore": true}'))),
    ("a certificate that was missing", opened(), LOOPBACK, (write("/etc/docker/server-cert.pem", "x"),)),
    ("a key", opened(), LOOPBACK, (write("/etc/docker/server-key.pem", "x"),)),
    ("a CA", opened(), LOOPBACK, (write("/etc/docker/ca.pem", "x"),)),
    ("the program", opened(), "", (write("/usr/bin/dockerd", "28"),)),
    ("where a link leads", (*opened(), write("/srv/daemon.json", "{}"), link(DAEMON_JSON, "/srv/daemon.json")), "", (
        sleep(1), write("/srv/daemon.json", "{}"))),
    ("the disk", opened(), "", (fault(disk_errno=28),)),
    ("the manager's environment", opened(), "", (environment(DOCKER_OPTS="--debug"),)),
    ("the unit's state", opened(), "", (stop,)),
    ("the socket unit's state", opened(), "", (lambda host: host.active.update({"docker.socket": "failed"}),)),
    ("what would be written", opened(), "", (dropin(f"{OPEN}  --debug "), sleep(0))),
)


@pytest.mark.parametrize(("name", "happened", "text", "then"), CHANGED_INPUTS, ids=lambda value: value if isinstance(
    value, str) else "")
def test_a_failure_is_retried_when_an_input_changes(
    host: SimulatedHost, name: str, happened: tuple[Act, ...], text: str, then: tuple[Act, ...]
) -> None:
    """I9."""
    do(host, happened)
    before = digest_of(host, text)
    assert digest_of(host, text) == before
    host.clock.sleep(60)
    assert digest_of(host, text) == before
    do(host, then)
    assert digest_of(host, text) != before


def test_a_decision_to_act_has_its_inputs(host: SimulatedHost) -> None:
    """Where nothing could be written, they are those of the failure."""
    do(host, opened())
    policy = read_policy("")
    decision = decided(host, policy).assessment.decision
    assert decision.verdict is Verdict.APPLY
    assert decision.inputs == digest_of(host, "")
    with Rootfs(str(host.root)) as rootfs:
        plan = decided(host, policy).assessment.plan
        assert decision.foreign == foreign_inputs(
            seen_on(host, rootfs), plan, policy, tuple(change.path for change in decision.actions.changes))


def test_the_policy_is_an_input(host: SimulatedHost) -> None:
    do(host, opened())
    assert digest_of(host, "") != digest_of(host, "correct: {budget: 4/1h}")


def linked_daemon_json(host: SimulatedHost) -> None:
    do(host, (*opened(), write("/srv/daemon.json", "{}"), link(DAEMON_JSON, "/srv/daemon.json")))


@pytest.mark.parametrize(("written", "then", "is_foreign"), [
    ((), sleep(0), False),
    ((OURS,), dropin(OPEN, OURS), False),
    (("/srv/daemon.json",), write("/srv/daemon.json", "{ }"), False),
    ((OURS,), write("/srv/daemon.json", "{ }"), True),
    ((OURS,), dropin(f"{OPEN} --debug"), True),
    ((OURS,), dropin(OPEN, f"{DIRECTORY}/not utf-8 \udcff.conf"), True),
    ((DAEMON_JSON,), link(DAEMON_JSON, "/srv/other.json"), False),
    ((OURS,), environment(DOCKER_OPTS="--debug"), True),
    ((OURS,), write("/usr/bin/dockerd", "another version"), True),
    ((OURS,), remove("/usr/bin/dockerd"), True),
    ((OURS,), lambda host: (host.root / "usr/bin/dockerd").chmod(0o700), False),
    ((OURS,), stop, False),
    ((OURS,), fault(disk_errno=28), False),
])
def test_own_writes_are_not_foreign_inputs(
    host: SimulatedHost, written: tuple[str, ...], then: Act, is_foreign: bool
) -> None:
    def digest_now() -> str:
        outcome = decided(host, read_policy(""))
        with Rootfs(str(host.root)) as rootfs:
            return foreign_inputs(seen_on(host, rootfs), outcome.assessment.plan, read_policy(""), written)

    linked_daemon_json(host)
    before = digest_now()
    do(host, (sleep(1), then))
    assert (digest_now() != before) is is_foreign


@pytest.mark.parametrize(("foreign", "verdict"), [(None, HOLD), ("", HOLD), ("other", APPLY)])
def test_what_was_repaired_before_the_first_look_at_the_host_is_noticed(
    host: SimulatedHost, foreign: str | None, verdict: Verdict
) -> None:
    """I9."""
    do(host, opened())
    outcome = decided(host, read_policy(""))
    decision = outcome.assessment.decision
    written = tuple(each.path for each in decision.actions.changes)
    attempt = Attempt(host.clock.now(), "no luck", 300.0, None, True,
                      decision.foreign if foreign is None else foreign, written)
    again = decided(host, read_policy(""), lambda _, memory: memory._replace(attempt=attempt)).assessment.decision
    assert again.verdict is verdict


def test_inputs_are_known_without_systemd(host: SimulatedHost) -> None:
    do(host, opened())
    outcome = decided(host, read_policy(""))
    with Rootfs(str(host.root)) as rootfs:
        seen = seen_on(host, rootfs)._replace(loaded=None)
        digest = inputs(seen, outcome.assessment.plan, read_policy(""))
        assert digest != digest_of(host, "")
        other = seen._replace(configured=seen.configured._replace(manager_environment={"A": "of an earlier look"}))
        assert inputs(other, outcome.assessment.plan, read_policy("")) == digest
