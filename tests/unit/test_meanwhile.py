"""What others do while a correction is under way, at each moment of it."""

from __future__ import annotations

import pytest

from tests.simulation.actions import DROPINS, exec_start
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.histories import Action
from tests.simulation.host import SimulatedHost
from tests.simulation.meanwhile import EVENTS, MOMENTS, SITUATIONS
from tests.simulation.run import play

DAEMON_JSON = "/etc/docker/daemon.json"
OPTIONS = "/etc/default/docker"


@pytest.mark.parametrize(("situation", "event"), [
    # Code in a drop-in was loaded with the correction, and run by its restart (I3, I4).
    ("exposed", "code"),
    # Containers that were started after the decision (I1).
    ("exposed_without_live_restore", "run_containers"),
    # An edit of a file that the correction changes, too (I5).
    ("exposed_by_daemon_json", "daemon_json"), ("exposed_by_daemon_json", "no_live_restore"),
    # The restart of docker.socket stopped a dockerd that somebody had just started (I1).
    ("down", "start"), ("down", "restart"),
    # The undo of a correction that failed.
    ("refused_next", "start"),
])
def test_what_others_do_meanwhile_breaks_no_invariant(situation: str, event: str) -> None:
    situations = [number for number, each in enumerate(SITUATIONS) if each.__name__.strip("_") == situation]
    events = [number for number, each in enumerate(EVENTS) if each.__name__.strip("_") == event]
    assert situations and events
    broken = {}
    for moment in range(30):
        variant = moment + MOMENTS * (events[0] + len(EVENTS) * situations[-1])
        broken[moment] = play((Action("meanwhile", variant), Action("later", 3))).violations
    assert {moment: found for moment, found in broken.items() if found} == {}


@pytest.mark.parametrize("options", ["", OPTIONS, "/etc/docker.d/a.env"])
@pytest.mark.parametrize("moment", range(13, 27))
def test_live_restore_that_is_switched_off_meanwhile_holds_the_restart(
    host: SimulatedHost, moment: int, options: str
) -> None:
    """I1. At each moment but that of the restart itself: the engine and the lock service may take seconds to answer."""
    host.put(DAEMON_JSON, "{}" if options else '{"live-restore": true}')
    if options:
        host.put(f"{DROPINS}/env.conf", "[Service]\nEnvironmentFile=-/etc/docker.d/*.env\n")
        host.put(options, "DOCKER_OPTS=--live-restore\n")
    host.put(f"{DROPINS}/override.conf", exec_start("-H fd:// -H tcp://0.0.0.0:2375 $DOCKER_OPTS"))
    host.reload()
    host.restart("admin")
    host.containers = {1, 2}

    def edit() -> None:
        host.put(options or DAEMON_JSON, "" if options else "{}")
        host.has_unseen = True

    host.meanwhile = moment, edit
    SimulatedAgent(host, RecordedJournal()).run_pass()
    assert host.meanwhile is None
    assert [by for _, by in host.killed if by == "us"] == []


@pytest.mark.parametrize("moment", [26, 27, 28, 29])
def test_an_undo_runs_no_command_of_a_socket_unit_that_has_not_run_before(host: SimulatedHost, moment: int) -> None:
    """I4. docker.socket gets one after the restart of the correction has failed, and fails too."""
    host.put(f"{DROPINS}/override.conf", exec_start("-H fd:// -H tcp://0.0.0.0:2375"))
    host.reload()
    host.restart("admin")
    host.next_starts = ["refuses"]

    def edit() -> None:
        assert host.running is None and not host.next_starts
        host.put("/etc/systemd/system/docker.socket.d/pre.conf", "[Socket]\nExecStartPre=/srv/x/pre\n")
        host.reload()
        host.active["docker.socket"], host.held = "failed", ()

    host.meanwhile = moment, edit
    agent = SimulatedAgent(host, RecordedJournal())
    agent.run_pass()
    assert host.meanwhile is None
    assert "/srv/x/pre" not in host.executed
    assert any("would run what systemd has not run before" in entry.message for entry in agent.journal.entries)


@pytest.mark.parametrize("moment", [12, 16, 20])
def test_a_docker_that_is_stopped_meanwhile_is_not_started(host: SimulatedHost, moment: int) -> None:
    host.put(f"{DROPINS}/override.conf", exec_start("-H fd:// -H tcp://0.0.0.0:2375"))
    host.put("/etc/dockerd-guard/config.yaml", "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {budget: 1/1h}\n")
    host.reload()
    host.restart("admin")
    host.meanwhile = moment, lambda: host.stop("admin")
    SimulatedAgent(host, RecordedJournal()).run_pass()
    assert host.meanwhile is None
    assert host.running is None


def test_one_restart_of_a_budget_of_one_is_made(host: SimulatedHost) -> None:
    host.put(f"{DROPINS}/override.conf", exec_start("-H fd:// -H tcp://0.0.0.0:2375"))
    host.put("/etc/dockerd-guard/config.yaml", "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {budget: 1/1h}\n")
    host.reload()
    host.restart("admin")
    SimulatedAgent(host, RecordedJournal()).run_pass()
    assert host.starts[-1].by == "us"
