"""What is kept of the inputs of a decision: a change of one of them makes a failure be tried again."""

from __future__ import annotations

import pytest

from dockerd_guard.plan.decide import inputs
from dockerd_guard.rootfs import Rootfs
from tests.simulation.host import SimulatedHost
from tests.support.situations import (
    DAEMON_JSON,
    LATE,
    OPEN,
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

CHANGED_INPUTS = (
    ("a drop-in", opened(), "", (dropin(f"{OPEN} --debug"),)),
    ("a drop-in of the same size", opened(), "", (sleep(1), dropin(OPEN))),
    ("a late drop-in", opened(), "", (dropin(OPEN, LATE),)),
    ("the unit", opened(), "", (sleep(1), lambda host: host.touch("/usr/lib/systemd/system/docker.service"))),
    ("docker.socket", opened(), "", (sleep(1), lambda host: host.touch("/usr/lib/systemd/system/docker.socket"))),
    ("an environment file that was missing", opened(), "", (write("/etc/default/docker", ""),)),
    ("daemon.json", opened(), "", (sleep(1), daemon_json('{"live-restore": true}'))),
    ("a certificate that was missing", opened(), LOOPBACK, (write("/etc/docker/server-cert.pem", "x"),)),
    ("a key", opened(), LOOPBACK, (write("/etc/docker/server-key.pem", "x"),)),
    ("a CA", opened(), LOOPBACK, (write("/etc/docker/ca.pem", "x"),)),
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


def test_the_policy_is_an_input(host: SimulatedHost) -> None:
    do(host, opened())
    assert digest_of(host, "") != digest_of(host, "correct: {budget: 4/1h}")


def test_inputs_are_known_without_systemd(host: SimulatedHost) -> None:
    do(host, opened())
    outcome = decided(host, read_policy(""))
    with Rootfs(str(host.root)) as rootfs:
        seen = seen_on(host, rootfs)._replace(loaded=None)
        assert inputs(seen, outcome.assessment.plan, read_policy("")) != digest_of(host, "")
