"""Which failures of dockerd after a correction are those of the correction, and undo it."""

from __future__ import annotations

import pytest

from dockerd_guard.observe.live import is_restarted_too_often
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.memory import Intent
from dockerd_guard.systemd.manager import UnitState
from tests.simulation.agent import SimulatedAgent
from tests.simulation.host import SimulatedHost
from tests.support.remembered import APPLY, HOLD, NOTHING, ROLL_BACK
from tests.support.situations import (
    DAEMON_JSON,
    LATE,
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    daemon_json,
    decided,
    do,
    dropin,
    environment,
    fault,
    guarded,
    opened,
    policy,
    read_policy,
    reload,
    remove,
    restart,
    sleep,
    write,
)

PORT = "/etc/systemd/system/docker.socket.d/port.conf"
FAILS = (reload, fault(dies_after_s=1.0), restart, sleep(120))


def again(path: str) -> Act:
    """Somebody writes what a file holds already, at a later time."""
    def rewrite(host: SimulatedHost) -> None:
        text = host.text(path)
        assert text is not None
        host.clock.sleep(1.0)
        host.put(path, text)
    return rewrite


@pytest.mark.parametrize(("name", "changed", "verdict"), [
    ("nothing", (), ROLL_BACK),
    ("written again as it was", (again(OVERRIDE), again(DAEMON_JSON)), ROLL_BACK),
    ("what dockerd does not read", (write("/srv/notes", "x"),), ROLL_BACK),
    ("daemon.json", (daemon_json('{"live-restore": true, "debug": true}'),), NOTHING),
    ("daemon.json that is gone", (remove(DAEMON_JSON),), NOTHING),
    ("a drop-in", (write(f"{OVERRIDE}.d.conf", "[Service]\nNice=5\n"),), NOTHING),
    ("an environment file that was missing", (write("/etc/default/docker", "X=1\n"),), NOTHING),
    ("the program, by a package upgrade", (write("/usr/bin/dockerd", "28"),), NOTHING),
    ("a program that is gone", (remove("/usr/bin/dockerd"),), NOTHING),
    ("the environment of systemd", (environment(HTTP_PROXY="http://proxy"),), NOTHING),
    ("the unit", (write("/usr/lib/systemd/system/docker.socket",
                        "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0600\n"),), NOTHING),
    ("a late drop-in that opens a port", (dropin(OPEN, LATE),), APPLY),
    ("arguments that our drop-in has copied", (dropin(f"{OPEN} --debug"),), APPLY),
])
def test_dockerd_failed_with_a_correction_unless_others_have_changed_something_since(
    host: SimulatedHost, name: str, changed: tuple[Act, ...], verdict: Verdict
) -> None:
    """I3. Without the agent it would have failed with such a change as well; its undo would open what is closed."""
    do(host, (daemon_json('{"live-restore": true}'), *opened(), guarded))
    assert host.text(OURS) is not None
    do(host, (*changed, *FAILS))
    assert host.active["docker.service"] == "failed"
    assert decided(host, read_policy("")).assessment.decision.verdict is verdict


def test_what_others_have_changed_is_corrected_after_a_failure(host: SimulatedHost) -> None:
    """A correction closed a port of docker.socket that was never open; its undo would have opened it."""
    do(host, (write(PORT, "[Socket]\nListenStream=\nListenStream=2375\n"), guarded, dropin(OPEN, LATE),
              *FAILS, fault(dies_after_s=None)))
    assert host.active == {"docker.service": "failed", "docker.socket": "failed"}
    agent = guarded(host)
    assert isinstance(agent, SimulatedAgent)
    assert agent.controller.decision.verdict is APPLY
    assert host.running is not None and host.running.layer.hosts == ("fd://",)
    assert [sock.address for sock in host.held] == ["unix:///run/docker.sock"]


def test_a_dockerd_that_was_restarted_too_often_did_not_fail_with_a_correction(host: SimulatedHost) -> None:
    """I3. It ran at each start (systemd.unit(5), StartLimitIntervalSec=)."""
    do(host, (dropin(OPEN), guarded, restart, restart, restart, restart))
    assert host.active["docker.service"] == "failed"
    assert decided(host, read_policy("")).assessment.decision.verdict is NOTHING
    assert host.text(OURS) is not None


@pytest.mark.parametrize(("seen", "result", "code", "status", "expected"), [
    ("252: restarted five times", "start-limit-hit", 1, 0, True),
    ("252: an unknown option of dockerd", "exit-code", 1, 1, False),
    ("252: ExecStartPre=/bin/false", "exit-code", 0, 0, False),
    ("252: killed four times", "signal", 2, 9, False),
    ("257: restarted five times", "start-limit-hit", 1, 0, True),
    ("257: an unknown option of dockerd", "exit-code", 1, 1, False),
    ("262: restarted five times", "start-limit-hit", 1, 0, True),
    ("262: an unknown option of dockerd", "start-limit-hit", 1, 1, False),
    ("262: ExecStartPre=/bin/false", "start-limit-hit", 0, 0, False),
    ("262: killed four times", "start-limit-hit", 2, 9, False),
])
def test_what_systemd_says_of_a_service_that_failed(
    seen: str, result: str, code: int, status: int, expected: bool
) -> None:
    """As seen on booted machines."""
    state = UnitState("docker.service", {"Result": result, "ExecMainCode": code, "ExecMainStatus": status})
    assert is_restarted_too_often(state) is expected


def test_a_correction_of_an_earlier_version_of_the_agent_is_undone(host: SimulatedHost) -> None:
    """Its state file does not say what others had then."""
    do(host, (*opened(), guarded, daemon_json('{"live-restore": true, "debug": true}'), *FAILS))
    outcome = decided(host, read_policy(""), lambda now, memory: memory._replace(
        intent=memory.intent and memory.intent._replace(foreign="")))
    assert outcome.assessment.decision.verdict is ROLL_BACK


@pytest.mark.parametrize(("commands", "verdict"), [
    ((), ROLL_BACK), (("ExecStartPre",), HOLD), (("ExecStartPre", "ExecStopPost"), HOLD),
])
def test_an_undo_runs_no_command_of_a_socket_unit_that_has_not_run_before(
    host: SimulatedHost, commands: tuple[str, ...], verdict: Verdict
) -> None:
    """I4. docker.socket fails with docker.service, and starts with it."""
    lines = "".join(f"{key}=/srv/x/pre\n" for key in commands)
    do(host, (write(PORT, f"[Socket]\nListenStream=\nListenStream=2375\n{lines}"), guarded, *FAILS,
              fault(dies_after_s=None)))
    decision = guarded(host).controller.decision
    assert decision.verdict is verdict
    assert host.executed == []
    if commands:
        places = ", ".join(f"{key}= ({PORT}:{line})" for line, key in enumerate(commands, start=4))
        assert decision.hold == Hold(
            "docker.service failed with a correction, and its undo would run what systemd has not run before: "
            f"{places}",
            next_step="Revert this, then start docker.service")


SERVICE, SOCKET = "docker.service", "docker.socket"


@pytest.mark.parametrize(("down", "stops", "was_active", "starts", "is_held"), [
    ((), (SOCKET, SERVICE), True, False, False),
    ((SERVICE,), (SOCKET, SERVICE), True, False, True),
    ((SERVICE,), (SERVICE,), True, False, False),
    ((SOCKET,), (SOCKET, SERVICE), True, False, True),
    ((SOCKET,), (SERVICE,), True, False, False),
    ((SOCKET, SERVICE), (SERVICE,), True, False, True),
    ((SOCKET, SERVICE), (), True, False, True),
    ((SOCKET, SERVICE), (), False, True, True),
    ((SOCKET, SERVICE), (), False, False, False),
    ((SOCKET, SERVICE), ("other.socket",), False, False, False),
])
def test_an_interrupted_correction_runs_no_command_of_a_socket_unit_that_has_not_run_before(  # noqa: PLR0913, PLR0917
    host: SimulatedHost, down: tuple[str, ...], stops: tuple[str, ...], was_active: bool, starts: bool, is_held: bool
) -> None:
    """I4. Where what it has stopped is up, and docker.service if it ran or was to start, its end starts nothing."""
    do(host, (write(PORT, "[Socket]\nExecStartPre=/srv/x/pre\n"),))
    for unit in down:
        host.active[unit] = "inactive"
    if SERVICE in down:
        host.running = None
    decision = decided(host, read_policy(""), lambda now, memory: memory._replace(intent=Intent(
        (), now, stops, was_active, starts=starts))).assessment.decision
    assert decision.verdict is (HOLD if is_held else Verdict.RECOVER)
    assert decision.hold == (Hold(
        "a correction was interrupted, and its end would run what systemd has not run before: "
        f"ExecStartPre= ({PORT}:2)", next_step="Revert this; the agent retries automatically") if is_held else None)


def test_a_correction_of_a_dockerd_that_had_failed_is_not_undone(host: SimulatedHost) -> None:
    """I3. What was there before had failed as well. The budget holds our start; somebody starts it, and it fails."""
    once = "correct: {budget: 1/1h}"
    do(host, (policy(f"mode: enforce\nsockets: [fd://]\n{once}"), *opened(), guarded, sleep(40), remove(OURS),
              dropin(f"{OPEN} --tls --tlscert=/nowhere --tlskey=/nowhere"), reload, restart, sleep(120), guarded))
    assert (host.active["docker.service"], host.text(OURS) is not None) == ("failed", True)
    do(host, (fault(next_starts=["refuses"] * 9), restart, sleep(120)))
    assert decided(host, read_policy(once)).assessment.decision.verdict is HOLD


def test_a_correction_includes_what_an_earlier_one_wrote(host: SimulatedHost) -> None:
    """Also files that have their first content again."""
    do(host, (*opened(), guarded, dropin(f"{OPEN} --debug")))
    intent = decided(host, read_policy(""), lambda now, memory: memory._replace(
        intent=memory.intent and memory.intent._replace(written=("/etc/restored",)))).assessment.decision.intent
    assert intent is not None
    assert intent.written == ("/etc/restored", OURS)


def test_a_dockerd_without_an_invocation_id_is_no_other_run(host: SimulatedHost) -> None:
    """A wrapper has cleared the environment: systemd's ID would look like a start since the correction."""
    do(host, opened())
    assert host.running is not None
    host.running = host.running._replace(process=host.running.process._replace(environ={}))
    intent = decided(host, read_policy("")).assessment.decision.intent
    assert intent is not None
    assert (intent.was_active, intent.invocation) == (True, "")
