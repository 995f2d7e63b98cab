"""What systemd would run because of a correction, and has not run before (I4)."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from dockerd_guard.apply.apply import execute
from dockerd_guard.apply.context import Context
from dockerd_guard.apply.rollback import restart
from dockerd_guard.observe.started import StartRecord
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.decide import Verdict, decide
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.pending_changes import pending_changes
from dockerd_guard.plan.unrun_commands import new_dependencies, socket_commands, socket_dependents
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.manager import JobFailed, UnitState
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedFiles, SimulatedManager, SimulatedNetwork, validate_nothing
from tests.simulation.lock import SimulatedLock
from tests.support.situations import Act, decided, do, link, opened, read_policy, reload, remove, write

PRE = "/etc/systemd/system/docker.socket.d/pre.conf"
PORT = "/etc/systemd/system/docker.socket.d/port.conf"
OPENED = "[Socket]\nListenStream=\nListenStream=2375\n"
EVIL = "[Socket]\nExecStartPre=/srv/x\n"
VENDOR = "/usr/lib/systemd/system/docker.socket"
TARGET = "/etc/systemd/system/x.service"
WANTS = "/etc/systemd/system/docker.service.wants/x.service"
SOCKET_WANTS = "/run/systemd/system/docker.socket.wants/x.service"
CONTROL = "/etc/systemd/system.control/docker.socket.d/50-x.conf"
NOT_RUN = "systemd would run what it has not run before: "
PENDING = "a restart would apply other pending changes: "


def later(host: SimulatedHost) -> None:
    host.clock.sleep(1)


def boot(host: SimulatedHost) -> None:
    """What is there was there at the boot."""
    host.booted_us = host.now_us()


def set_back(host: SimulatedHost) -> None:
    """Somebody sets the clock back by an hour; a second goes by."""
    host.clock.wall_offset_s -= 3600
    host.clock.sleep(1)


def restart_all(host: SimulatedHost) -> None:
    """systemctl stop docker.socket docker.service; systemctl start docker.socket docker.service."""
    host.stop("admin")
    host.start_socket()
    host.start("admin")


def runs(host: SimulatedHost) -> None:
    host.active["x.service"] = "active"


class Row(NamedTuple):
    """What happened on a host, and what holds the restart of docker.socket and docker.service."""

    name: str
    happened: tuple[Act, ...]
    hold: str


OPEN: tuple[Act, ...] = (write(PORT, OPENED), reload, restart_all, later)
"""A correction restarts both units: docker.socket lacks its path."""

LINKED: tuple[Act, ...] = (write(TARGET, "[Service]\nExecStart=/srv/x\n"), link(WANTS, "../x.service"))

ROWS = (
    Row("nothing", OPEN, ""),
    Row("a command that is not loaded", (*OPEN, write(PRE, EVIL)), f"{NOT_RUN}ExecStartPre= ({PRE}:2)"),
    Row("a command that was loaded since", (*OPEN, write(PRE, EVIL), reload), f"{NOT_RUN}ExecStartPre= ({PRE}:2)"),
    Row("a command of a stop", (*OPEN, write(PRE, "[Socket]\nExecStopPost=/srv/x\n")),
        f"{NOT_RUN}ExecStopPost= ({PRE}:2)"),
    Row("a command that has run", (write(PRE, EVIL), *OPEN), ""),
    Row("a command that has run, and systemd has loaded it again", (later, write(PRE, EVIL), *OPEN, later, reload),
        f"{NOT_RUN}ExecStartPre= ({PRE}:2)"),
    Row("the same from before the boot", (write(PRE, EVIL), boot, *OPEN, later, reload), ""),
    Row("a command of after the clock was set back", (*OPEN, set_back, write(PRE, EVIL)),
        f"{NOT_RUN}ExecStartPre= ({PRE}:2)"),
    Row("the same, and it was loaded since", (*OPEN, set_back, write(PRE, EVIL), later, reload),
        f"{NOT_RUN}ExecStartPre= ({PRE}:2)"),
    Row("a command that has run since the clock was set back", (set_back, write(PRE, EVIL), *OPEN), ""),
    Row("an empty command", (*OPEN, write(PRE, "[Socket]\nExecStartPre=\n")), ""),
    Row("no command", (*OPEN, write(PRE, "[Socket]\nBacklog=9\n")), ""),
    Row("another unit is wanted", (*OPEN, write(PRE, "[Unit]\nWants=x.service\n")), f"{NOT_RUN}Wants= ({PRE}:2)"),
    *(Row(f"another unit by {key}=", (*OPEN, write(PRE, f"[Unit]\n{key}=x.service\n")), f"{NOT_RUN}{key}= ({PRE}:2)")
      for key in ("BindsTo", "OnFailure", "OnSuccess", "Requires", "Upholds")),
    Row("by systemctl set-property", (*OPEN, write(CONTROL, EVIL)), ""),
    Row("a package was upgraded", (*OPEN, write(VENDOR, "[Socket]\nListenStream=/run/docker.sock\n"
        "ExecStartPre=/usr/lib/docker/prepare\n")), ""),
    Row("a link wants another unit with docker.service", (*OPEN, *LINKED), PENDING + WANTS),
    Row("it wanted it at the start", (*LINKED, *OPEN), ""),
    Row("the unit was changed since", (*LINKED, *OPEN, write(TARGET, "[Service]\nExecStart=/srv/y\n")), ""),
    Row("the link is of a package", (*OPEN, link(WANTS.replace("/etc/", "/usr/lib/"), TARGET)), ""),
    Row("the unit runs anyway", (*OPEN, *LINKED, runs), ""),
    Row("the link is a mask", (*OPEN, link(WANTS, "/dev/null")), ""),
    Row("it was there, and is removed", (*LINKED, *OPEN, remove(WANTS)), ""),
    Row("a link wants another unit with docker.socket", (*OPEN, link(SOCKET_WANTS, TARGET)), NOT_RUN + SOCKET_WANTS),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_correction_runs_nothing_new(host: SimulatedHost, row: Row) -> None:
    do(host, row.happened)
    decision = decided(host, read_policy("")).assessment.decision
    assert decision.required.restart_socket
    assert (decision.hold.reason if decision.hold is not None else "") == row.hold
    assert decision.actions.restart_socket is not bool(row.hold)


@pytest.mark.parametrize(("text", "found"), [(EVIL, (f"ExecStartPre= ({PRE}:2)",)), ("[Socket]\nBacklog=9\n", ())])
def test_a_stop_of_a_socket_unit_runs_nothing_new(host: SimulatedHost, text: str, found: tuple[str, ...]) -> None:
    do(host, (later, write(PRE, text)))
    seen = decided(host, read_policy("")).assessment.seen
    assert socket_commands(seen, seen.configured, Actions(stop_sockets=("docker.socket",))) == found
    assert socket_commands(seen, seen.configured, Actions(stop_sockets=("other.socket",))) == ()
    # docker.service starts with its socket unit where that does not run.
    assert socket_commands(seen, seen.configured, Actions(restart=True)) == ()
    host.active["docker.socket"] = "inactive"
    seen = decided(host, read_policy("")).assessment.seen
    assert socket_commands(seen, seen.configured, Actions(restart=True)) == found
    assert socket_commands(seen, seen.configured, Actions(reload=True)) == ()
    assert seen.loaded is not None
    unknown = seen._replace(loaded=seen.loaded._replace(socket_states={}))
    assert socket_commands(unknown, seen.configured, Actions(restart=True)) == found
    assert socket_commands(seen._replace(loaded=None), seen.configured, Actions(restart=True)) == ()
    assert socket_dependents(seen._replace(loaded=None), Actions(restart_socket=True)) == ()


def test_a_recorded_link_stays_known_after_a_reload(host: SimulatedHost) -> None:
    do(host, (later, *LINKED, *OPEN))
    memory = decided(host, read_policy("")).memory
    do(host, (later, reload))
    decision = decided(host, read_policy(""), lambda _, now: now._replace(start=memory.start)).assessment.decision
    assert decision.hold is None
    decision = decided(host, read_policy("")).assessment.decision
    assert decision.hold is not None
    assert decision.hold.reason == PENDING + WANTS


@pytest.mark.parametrize("known", [None, StartRecord("of another start", None, (f"link={WANTS}",))])
def test_what_another_start_was_recorded_with_says_nothing(host: SimulatedHost, known: StartRecord | None) -> None:
    do(host, (*OPEN, *LINKED))
    seen = decided(host, read_policy("")).assessment.seen
    with seen.rootfs.changed({}) as rootfs:
        assert pending_changes(seen._replace(rootfs=rootfs), seen.configured, known, in_swarm=False) == (WANTS,)


def test_what_is_as_old_as_the_start_is_not_new(host: SimulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    do(host, (later, *LINKED, write(PRE, EVIL), reload, restart_all))
    seen = decided(host, read_policy("")).assessment.seen
    with seen.rootfs.changed({}) as rootfs:
        seen = seen._replace(rootfs=rootfs)
        unit, loaded = seen.configured.service.unit, seen.loaded
        entry = rootfs.stat(WANTS, follow=False)
        assert entry is not None
        assert list(new_dependencies(seen, unit, entry.ctime_ns)) == []
        for each in (seen, seen._replace(loaded=None)):
            assert list(new_dependencies(each, unit, entry.ctime_ns - 1)) == [WANTS]
        # systemd has loaded its units when docker.socket was started, and not since.
        assert loaded is not None
        started_ns = loaded.socket_started_ns["docker.socket"]
        for loaded_ns, found in ((started_ns, ()), (started_ns + 1, (f"ExecStartPre= ({PRE}:2)",))):
            each = seen._replace(loaded=loaded._replace(units_loaded_ns=loaded_ns))
            assert socket_commands(each, seen.configured, Actions(restart_socket=True)) == found
        # It is removed between two looks.
        monkeypatch.setattr(Rootfs, "stat_if_possible", lambda *_, **__: None)
        assert list(new_dependencies(seen, unit, 0)) == [WANTS]


OTHER = {"docker.socket": "active", "other.socket": "active"}


@pytest.mark.parametrize("hold", [None, Hold(NOT_RUN)])
def test_a_socket_unit_is_stopped_unless_that_is_held_by_then(host: SimulatedHost, hold: Hold | None) -> None:
    """What its stop would run may have been loaded by the correction itself."""
    outcome, policy = decided(host, read_policy("")), read_policy("")
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    assert seen.loaded is not None
    decision, _ = decide(outcome.now, seen._replace(loaded=seen.loaded._replace(socket_states=OTHER)), (), plan, policy,
                         Memory())
    host.active["other.socket"] = "active"
    jobs: list[str] = []
    manager = SimulatedManager(host)
    manager.run_job = lambda verb, unit, timeout_s=0.0: jobs.append(f"{verb} {unit}")  # type: ignore[method-assign]
    context = Context(manager, SimulatedFiles(host), lambda: seen, SimulatedNetwork(host), host.clock,
                      validate_nothing(host), SimulatedLock(host))
    result = execute(seen, decision, plan, policy, context, lambda _: hold)
    assert (result.hold, jobs) == (hold, [] if hold is not None else ["StopUnit other.socket"])


@pytest.mark.parametrize("commands", [(), (f"ExecStopPost= ({PRE}:2)",)])
def test_a_stop_that_would_run_something_new_is_held(host: SimulatedHost, commands: tuple[str, ...]) -> None:
    outcome = decided(host, read_policy(""))
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    assert seen.loaded is not None
    do(host, (later, write(PRE, "[Socket]\nExecStopPost=/srv/x\n") if commands else later))
    seen = decided(host, read_policy("")).assessment.seen
    assert seen.loaded is not None
    socket = seen.configured.sockets[0]
    plan = plan._replace(
        base=plan.base._replace(sockets=(socket._replace(unit=socket.unit._replace(name="other.socket")),)))
    seen = seen._replace(loaded=seen.loaded._replace(socket_states=OTHER))
    decision, _ = decide(outcome.now, seen, (), plan, read_policy(""), Memory())
    if commands:
        assert (decision.verdict, decision.actions) == (Verdict.HOLD, Actions())
        assert decision.hold is not None
        assert decision.hold.reason == NOT_RUN + commands[0]
    else:
        assert decision.actions == Actions(stop_sockets=("other.socket",))


@pytest.mark.parametrize(("correct", "hold"), [
    ("", "a.service, b.service would be stopped with a socket unit"), ("correct: {restart: always}\n", ""),
])
def test_what_requires_a_socket_unit_is_not_stopped(host: SimulatedHost, correct: str, hold: str) -> None:
    do(host, OPEN)
    outcome = decided(host, read_policy(correct))
    seen, plan, policy = outcome.assessment.seen, outcome.assessment.plan, read_policy(correct)
    assert seen.loaded is not None
    seen = seen._replace(loaded=seen.loaded._replace(socket_dependents={
        "docker.socket": ("b.service",), "other.socket": ("a.service", "b.service"), "tcp.socket": ("c.service",)},
        socket_states=OTHER))
    decision, _ = decide(outcome.now, seen, (), plan, policy, Memory())
    assert (decision.hold.reason if decision.hold is not None else "") == hold
    assert (decision.actions.restart_socket, decision.actions.stop_sockets) == (
        (False, ()) if hold else (True, ("other.socket",)))
    assert decision.facts.of_sockets == ("a.service", "b.service")


def test_a_stop_of_a_socket_unit_stops_nothing_else(host: SimulatedHost) -> None:
    outcome = decided(host, read_policy(""))
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    assert seen.loaded is not None
    seen = seen._replace(loaded=seen.loaded._replace(
        socket_dependents={"other.socket": ("a.service",)}, socket_states=OTHER))
    decision, _ = decide(outcome.now, seen, (), plan, read_policy(""), Memory())
    assert (decision.verdict, decision.actions) == (Verdict.HOLD, Actions())
    decision, _ = decide(outcome.now, seen, (), plan, read_policy("correct: {restart: always}\n"), Memory())
    assert decision.actions.stop_sockets == ("other.socket",)


def test_a_socket_unit_is_stopped_although_the_restart_is_held(host: SimulatedHost) -> None:
    """I8. Nothing stops with it, and it runs nothing: what it passes need not wait."""
    do(host, opened())
    never = read_policy("correct: {restart: never}\n")
    outcome = decided(host, never)
    seen, plan = outcome.assessment.seen, outcome.assessment.plan
    assert seen.loaded is not None
    with seen.rootfs.changed({}) as rootfs:
        seen = seen._replace(rootfs=rootfs, loaded=seen.loaded._replace(socket_states=OTHER))
        decision, _ = decide(outcome.now, seen, (), plan, never, Memory())
    assert decision.hold is not None
    assert (decision.actions.stop_sockets, decision.actions.starts_dockerd) == (("other.socket",), False)


class Recorder(SimulatedManager):
    """Records the jobs. Four units stop with docker.socket or docker.service, and some come back by themselves."""

    def __init__(self, host: SimulatedHost, back: tuple[str, ...]) -> None:
        super().__init__(host)
        self.jobs: list[str] = []
        self._active = {"a.service", "b.service", "c.service", "d.service"}
        self._back = set(back)

    def unit(self, name: str) -> UnitState:
        more: dict[str, object] = {}
        if name == "docker.socket":
            more = {"RequiredBy": ["docker.service", "a.service", "down.service"], "ConsistsOf": ["b.service"]}
        elif name == "docker.service":
            more = {"BoundBy": ["b.service"], "RequisiteOf": ["c.service"], "PropagatesStopTo": ["d.service"]}
        elif name in self._active:
            more = {"ActiveState": "active"}
        return UnitState(name, {**super().unit(name).properties, **more})

    def run_job(self, verb: str, unit: str, timeout_s: float = 0.0) -> None:
        self.jobs.append(f"{verb} {unit}")
        if verb in {"StopUnit", "RestartUnit"}:
            self._active = set(self._back)
        if unit == "b.service":
            raise JobFailed(unit, verb, "timeout")


@pytest.mark.parametrize(("units", "back", "jobs"), [
    # docker.socket takes new addresses only while docker.service is stopped.
    (("docker.socket", "docker.service"), (),
     ["StopUnit docker.socket", "StopUnit docker.service", "StartUnit docker.socket", "StartUnit docker.service",
      "StartUnit a.service", "StartUnit b.service", "StartUnit c.service", "StartUnit d.service"]),
    # systemd restarts what requires docker.service, but not what it stops by StopPropagatedFrom=.
    (("docker.service",), ("a.service", "b.service", "c.service"),
     ["RestartUnit docker.service", "StartUnit d.service"]),
])
def test_a_restart_starts_again_what_it_stops(
    host: SimulatedHost, units: tuple[str, ...], back: tuple[str, ...], jobs: list[str]
) -> None:
    manager = Recorder(host, back)
    restart(manager, units, reset_failed=True)
    assert manager.jobs == jobs
