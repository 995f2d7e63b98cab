"""What tests of decisions have in common: steps, situations, what is remembered, and what holds of every decision."""

from __future__ import annotations

import math

from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE
from dockerd_guard.plan.decide import Decision, Verdict
from dockerd_guard.plan.memory import Attempt, Contained, CorrectedFile, Intent, Memory, digest
from dockerd_guard.plan.plan import Change
from tests.simulation.host import SimulatedHost
from tests.support.situations import (
    LATE,
    OURS,
    Act,
    Outcome,
    Remember,
    ago,
    containers,
    daemon_json,
    fault,
    guarded,
    listens,
    opened,
    reload,
    restart,
    restart_socket,
    sleep,
)

NOTHING, WAIT, RECOVER = Verdict.NOTHING, Verdict.WAIT, Verdict.RECOVER
ROLL_BACK, HOLD, BACK_OFF, APPLY = Verdict.ROLL_BACK, Verdict.HOLD, Verdict.BACK_OFF, Verdict.APPLY
WRITE, RELOAD = "write 1 file", "reload systemd"
RESTART, START = "restart docker.service", "start docker.service"
CORRECT = (WRITE, RELOAD, RESTART)

SOCKET_OPEN = (listens("/run/docker.sock", "2375"), reload, restart_socket)
SOCKET_ELSEWHERE = (listens("2375"), reload, restart_socket)
"""docker.socket has a port and not its path: it has to be restarted."""
WITH_CERTIFICATES = "sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}]\n"
NO_CERTIFICATES = "; ".join(
    f"{flag} /etc/docker/{name}.pem is missing: dockerd will not start with TLS"
    for flag, name in (("tlscacert", "ca"), ("tlscert", "server-cert"), ("tlskey", "server-key")))
NO_START = f"dockerd would not start: {NO_CERTIFICATES}"
FIX_THIS = "Fix this; the agent retries automatically"

FAILED = (daemon_json("{}"), *opened("-H fd:// --tlsverify"), sleep(120))
"""Docker is down because of its TLS flags, and live-restore is off."""


def vanish(host: SimulatedHost) -> None:
    """The containers end."""
    host.containers.clear()


def starting(host: SimulatedHost) -> None:
    """dockerd runs and has not reported READY=1 yet."""
    host.active[SERVICE] = "activating"


def starting_since(seconds_ago: int) -> Act:
    """The same, so long ago to the nanosecond."""
    def act(host: SimulatedHost) -> None:
        host.clock.sleep(math.ceil(host.clock.seconds) - host.clock.seconds)
        assert host.running is not None
        started_ns = int(host.clock.wall.timestamp()) * 10**9 - seconds_ago * 10**9
        host.running = host.running._replace(process=host.running.process._replace(started_ns=started_ns))
        starting(host)
    return act


def activating(host: SimulatedHost) -> None:
    """systemd starts dockerd, whose process does not exist yet."""
    host.stop("admin")
    starting(host)


BUSY = (daemon_json("{}"), restart, containers(2))
"""Containers run without live-restore."""
DIED = (*opened(), guarded, fault(dies_after_s=1.0), restart, sleep(120))
"""dockerd fails soon after each start with what a correction wrote."""
STOPS = "live-restore is off: 2 running containers would be stopped"
SILENT = "dockerd does not answer; cannot check whether containers would be stopped"
OBSTACLE = f"tcp://0.0.0.0:2375 would still listen ({LATE}:3:40)"


def restarted(*minutes_ago: float) -> Remember:
    return lambda now, memory: memory._replace(restarts=tuple(ago(now, 60 * minutes) for minutes in minutes_ago))


def failed(seconds_ago: float, given: str | None = None) -> Remember:
    """A correction that failed, and the inputs it was made on, None before the first observation after it."""
    return lambda now, memory: memory._replace(attempt=Attempt(ago(now, seconds_ago), "no luck", 300.0, given))


def changed(seconds_ago: float) -> Remember:
    """When a trigger last showed a change."""
    return lambda now, memory: memory._replace(changed_at=ago(now, seconds_ago))


def undone(*seconds_ago: float, path: str = OURS, after: bytes | None = None) -> Remember:
    """A correction that was undone: of the file on the disk now, or one that left this content."""
    def remember(now: Instant, memory: Memory) -> Memory:
        known = memory.corrected.get(path)
        left = known.digest if known is not None and after is None else digest(after)
        file = CorrectedFile(path, left, ago(now, 3600), tuple(ago(now, seconds) for seconds in seconds_ago), True)
        return memory._replace(corrected={**memory.corrected, path: file})
    return remember


def obstacles(*known: str) -> Remember:
    return lambda now, memory: memory._replace(obstacles=known)


def contained(*addresses: str) -> Remember:
    return lambda now, memory: memory._replace(contained=Contained(("nftables",), addresses))


def begun(  # noqa: PLR0913 -- the fields of an intent
    *, is_applied: bool = False, was_active: bool = True, invocation: str = "earlier", is_unverified: bool = False,
    proven_s_ago: float | None = None, changes: tuple[Change, ...] = (Change(OURS, None, b"x"),)
) -> Remember:
    """A correction that was begun a minute ago."""
    return lambda now, memory: memory._replace(intent=Intent(
        changes, ago(now, 60), (), was_active, invocation, is_applied,
        None if proven_s_ago is None else ago(now, proven_s_ago), is_unverified=is_unverified))


def both(*parts: Remember) -> Remember:
    def remember(now: Instant, memory: Memory) -> Memory:
        for part in parts:
            memory = part(now, memory)
        return memory
    return remember


FOREIGN = (Change("/etc/elsewhere", None, b"x"),)
"""A change that is not on the disk, so that nothing is rolled back."""


def check(decision: Decision, outcome: Outcome) -> None:
    """What is true of every decision."""
    is_undoing = decision.verdict in (RECOVER, ROLL_BACK)
    verifies = decision.verdict is APPLY and not decision.actions.anything
    assert is_undoing or verifies or (decision.verdict is APPLY) == decision.actions.anything
    assert not verifies or (decision.intent is not None and decision.intent.is_unverified)
    assert is_undoing or set(decision.actions.steps()) <= set(decision.required.steps())
    assert (decision.verdict is BACK_OFF) == (decision.contested is not None)
    if decision.verdict is APPLY:
        assert decision.intent is not None
        assert verifies or not decision.intent.is_applied
        paths = {change.path for change in decision.intent.changes}
        assert {change.path for change in decision.actions.changes} <= paths
    if decision.actions.starts_dockerd and not is_undoing:
        assert outcome.memory.restarts[-1] == outcome.now
