"""What has to be done to a host, by each layer: observations of a simulated host with one thing changed."""

from __future__ import annotations

from typing import Any

import pytest

from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import Actions, has_failed, is_in_force, required_actions, started_at
from dockerd_guard.plan.memory import Intent
from dockerd_guard.plan.plan import Change
from dockerd_guard.systemd.sockets import Listen
from tests.simulation.clock import SimulatedClock
from tests.simulation.host import SimulatedHost
from tests.support.situations import (
    OPEN,
    OURS,
    OVERRIDE,
    Act,
    decided,
    do,
    dropin,
    fault,
    guarded,
    opened,
    policy,
    read_policy,
    reload,
    remove,
    restart,
    sleep,
    stop,
)

NOW: Instant = SimulatedClock().now()
POLICY = read_policy("")
TCP = "tcp://[::]:2375"


def binding(address: str, via: Via = Via.FLAG) -> Binding:
    return Binding(address, scope_of(address), Tls.NONE, via)


def steps(host: SimulatedHost, seen: Observation | None = None, intent: Intent | None = None) -> tuple[str, ...]:
    assessment = decided(host, POLICY).assessment
    return required_actions(seen or assessment.seen, assessment.plan, POLICY, intent).steps()


def observed(host: SimulatedHost) -> Observation:
    return decided(host, POLICY).assessment.seen


@pytest.mark.parametrize(("actions", "starts", "anything"), [
    (Actions(), False, False), (Actions(changes=(Change("/a", None, b""),)), False, True),
    (Actions(reload=True), False, True),
    (Actions(stop_sockets=("a.socket",)), False, True), (Actions(restart_socket=True), True, True),
    (Actions(restart=True), True, True), (Actions(start=True), True, True),
])
def test_what_starts_dockerd(actions: Actions, starts: bool, anything: bool) -> None:
    assert (actions.starts_dockerd, actions.anything) == (starts, anything)
    assert actions.without_starts.starts_dockerd is False
    assert actions.without_starts.anything == (anything and not starts)


def test_one_of_the_two_live_layers_is_enough(host: SimulatedHost) -> None:
    """dockerd was started as declared and listens elsewhere, or the other way round."""
    seen = observed(host)
    assert seen.running is not None
    assert seen.listening is not None
    extra = binding("tcp://0.0.0.0:2375")
    running = seen.running._replace(layer=seen.running.layer._replace(bindings=(*seen.running.layer.bindings, extra)))
    layer = seen.listening.layer
    listening = seen.listening._replace(layer=layer._replace(bindings=(*layer.bindings, extra)))
    assert steps(host, seen) == ()
    assert steps(host, seen._replace(running=running)) == ("restart docker.service",)
    assert steps(host, seen._replace(listening=listening)) == ("restart docker.service",)


def test_what_has_failed(host: SimulatedHost) -> None:
    seen = observed(host)
    assert seen.loaded is not None
    down = seen._replace(running=None, loaded=seen.loaded._replace(active_state="failed"))
    assert has_failed(down)
    assert not has_failed(seen)
    assert not has_failed(down._replace(running=seen.running))
    assert not has_failed(down._replace(loaded=None))
    assert not has_failed(down._replace(loaded=seen.loaded._replace(active_state="inactive")))


def test_which_run_of_dockerd_it_is(host: SimulatedHost) -> None:
    """A wrapper may clear the environment."""
    seen = observed(host)
    assert seen.running is not None
    cleared = seen.running._replace(process=seen.running.process._replace(environ={}))
    assert started_at(seen) == host.invocation
    assert (started_at(seen._replace(running=cleared)), started_at(seen._replace(running=None))) == ("", "")


@pytest.mark.parametrize(("change", "expected"), [
    ({}, True), ({"is_applied": False}, False), ({"changes": ()}, False),
    ({"changes": (Change(OURS, None, b"other"),)}, False),
    ({"changes": (Change(OURS, None, b"x"), Change("/etc/missing", None, b"x"))}, False),
])
def test_whether_a_correction_is_in_force(host: SimulatedHost, change: dict[str, Any], expected: bool) -> None:
    host.put(OURS, "x")
    intent = Intent((Change(OURS, None, b"x"),), NOW, (), is_applied=True)._replace(**change)
    seen = observed(host)
    with seen.rootfs.changed({}) as rootfs:
        assert is_in_force(seen._replace(rootfs=rootfs), intent) is expected


@pytest.mark.parametrize(("change", "expected"), [
    ({}, True), ({"was_active": True}, False), ({"proven_by": NOW}, False), ({"is_applied": False}, False),
    ({"changes": (Change(OURS, None, b"other"),)}, False),
    # It was on its way up with what was there before, and failed; and when it was started again since.
    ({"was_active": True, "was_starting": True, "invocation": "the last"}, True),
    ({"was_active": True, "was_starting": True, "invocation": "an earlier one"}, False),
    # It had started, and failed later.
    ({"was_active": True, "invocation": "the last"}, False),
])
def test_the_start_that_is_left(host: SimulatedHost, change: dict[str, Any], expected: bool) -> None:
    """docker.service failed with a configuration that complies now."""
    host.put("/etc/elsewhere", "x")
    do(host, (*opened("-H fd:// --storage-driver=zfs"), sleep(120)))
    intent = Intent((Change("/etc/elsewhere", None, b"x"),), NOW, (), is_applied=True)._replace(**change)
    seen = observed(host)
    assert seen.loaded is not None
    if intent.invocation == "the last":
        intent = intent._replace(invocation=seen.loaded.invocation)
    with seen.rootfs.changed({}) as rootfs:
        assert steps(host, seen._replace(rootfs=rootfs), intent) == (("start docker.service",) if expected else ())
    assert steps(host) == ()


BUDGET = "mode: enforce\nsockets: [fd://]\ncorrect: {budget: 1/1h}"
FAILS_OPEN = dropin(f"{OPEN} --tls --tlscert=/nowhere --tlskey=/nowhere")
HELD = (policy(BUDGET), *opened(), guarded, sleep(40), remove(OURS), FAILS_OPEN, reload, restart, sleep(120), guarded)
"""Docker has failed because of its hosts, whose files are corrected; the budget holds the start."""
FAILS = (fault(next_starts=["refuses"] * 9), restart, sleep(120), fault(next_starts=[]))


@pytest.mark.parametrize(("name", "then", "runs"), [
    ("nothing", (), True),
    ("an administrator removes the drop-in", (remove(OVERRIDE), guarded), True),
    ("an administrator changes it", (dropin("-H fd:// --debug"), guarded, dropin("-H fd://"), guarded), True),
    ("our file is removed, and written again", (remove(OURS), guarded), True),
    ("somebody starts it as it is, and it fails", FAILS, True),
    ("somebody starts it with other files, and it fails", (remove(OVERRIDE), guarded, *FAILS), False),
    ("somebody starts it, and it runs", (remove(OVERRIDE), reload, restart, guarded, stop), False),
])
def test_a_held_start_is_left_whatever_others_change_meanwhile(
    host: SimulatedHost, name: str, then: tuple[Act, ...], runs: bool
) -> None:
    """I14. Only a start by somebody else ends it: what failed once more would fail again."""
    do(host, HELD)
    assert (host.active["docker.service"], host.text(OURS) is not None) == ("failed", True)
    do(host, (*then, sleep(3700), guarded))
    assert (host.running is not None) is runs


def test_a_held_start_is_left_though_systemd_restarts_docker_meanwhile(host: SimulatedHost) -> None:
    """I14. Docker was failing, and systemd between two attempts, when the files were corrected."""
    do(host, (*HELD[:-2], fault(next_starts=["refuses"] * 9), guarded))
    assert host.active["docker.service"] == "auto-restart"
    do(host, (remove(OVERRIDE), guarded, sleep(120), fault(next_starts=[]), sleep(3700), guarded))
    assert host.running is not None


# --- docker.socket --------------------------------------------------------------------------------


def with_socket(seen: Observation, *, state: str = "active", held: tuple[str, ...] = ("unix:///run/docker.sock",),
                passed: tuple[str, ...] = (), of_another: tuple[str, ...] = ()) -> Observation:
    """docker.socket in this state, PID 1 holding and dockerd having been passed these; another socket unit."""
    assert seen.loaded is not None
    assert seen.listening is not None
    other = seen.loaded.sockets[0]._replace(
        unit=seen.loaded.sockets[0].unit._replace(name="docker-tcp.socket"),
        listen=tuple(Listen("Stream", address.removeprefix("tcp://"), Location("/x", 1)) for address in of_another))
    layer = seen.listening.layer
    return seen._replace(
        running=None,
        loaded=seen.loaded._replace(socket_states={"docker.socket": state}, active_state="active",
                                    sockets=(*seen.loaded.sockets, *((other,) if of_another else ()))),
        listening=seen.listening._replace(held_by_systemd=held, layer=layer._replace(bindings=(
            *layer.bindings, *(binding(address, Via.SOCKET_UNIT) for address in passed)))))


@pytest.mark.parametrize(("change", "is_stale"), [
    ({}, False),
    ({"held": ()}, True),
    ({"passed": (TCP,)}, True),
    # That of another socket unit, which is stopped on its own.
    ({"passed": (TCP,), "of_another": (TCP,)}, False),
    ({"held": ("unix:///run/docker.sock", TCP), "of_another": (TCP,)}, False),
    ({"state": "inactive", "held": ()}, False),
    ({"state": "failed", "passed": (TCP,)}, False),
])
def test_when_docker_socket_holds_other_addresses_than_its_unit(
    host: SimulatedHost, change: dict[str, tuple[str, ...]], is_stale: bool
) -> None:
    seen = with_socket(observed(host), **change)  # type: ignore[arg-type]
    assert ("restart docker.socket" in steps(host, seen)) is is_stale
    assert "restart docker.socket" not in steps(host, seen._replace(listening=None))


@pytest.mark.parametrize(("state", "held", "expected"), [
    ("failed", (), ("restart docker.socket", "start docker.service")),
    ("inactive", (), ("restart docker.socket",)),
    ("failed", ("unix:///run/docker.sock",), ()),
])
def test_a_dockerd_that_docker_socket_passed_nothing_is_started_with_it(
    host: SimulatedHost, state: str, held: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    """It failed for that alone: "no sockets found via socket activation"."""
    seen = with_socket(observed(host), held=held)
    assert seen.loaded is not None
    assert steps(host, seen._replace(loaded=seen.loaded._replace(active_state=state))) == expected


def test_an_address_that_docker_socket_still_lists_in_memory(host: SimulatedHost) -> None:
    """dockerd was passed it, and the corrected unit does not list it: a daemon-reload closes it."""
    seen = with_socket(observed(host), passed=(TCP,))
    assert seen.loaded is not None
    own = seen.loaded.sockets[0]
    listed = own._replace(listen=(*own.listen, Listen("Stream", TCP.removeprefix("tcp://"), Location("/x", 1))))
    seen = seen._replace(loaded=seen.loaded._replace(sockets=(listed,)))
    assert "restart docker.socket" not in steps(host, seen)
    assert seen.listening is not None
    missing = seen._replace(listening=seen.listening._replace(held_by_systemd=(TCP,)))
    assert "restart docker.socket" in steps(host, missing)


def test_an_address_that_another_socket_unit_is_to_pass(host: SimulatedHost) -> None:
    seen = with_socket(observed(host))
    assessment = decided(host, POLICY).assessment
    after = assessment.plan.after
    own = after.sockets[0]
    other = own._replace(unit=own.unit._replace(name="docker-tcp.socket"),
                         listen=(Listen("Stream", TCP.removeprefix("tcp://"), Location("/x", 1)),))
    plan = assessment.plan._replace(after=after._replace(sockets=(own, other)))
    assert not required_actions(seen, plan, POLICY).restart_socket


@pytest.mark.parametrize(("taken", "also", "is_stale"), [
    ("unix:///run/docker.sock", (), True),
    ("unix:///run/other.sock", (), False),
    # -H fd:// -H unix:///run/docker.sock: dockerd would replace it again.
    ("unix:///run/docker.sock", ("unix:///run/docker.sock",), False),
])
def test_socket_file_that_dockerd_has_replaced(
    host: SimulatedHost, taken: str, also: tuple[str, ...], is_stale: bool
) -> None:
    seen = with_socket(observed(host))
    assert seen.listening is not None
    seen = seen._replace(listening=seen.listening._replace(taken=(taken,)))
    after = decided(host, POLICY).assessment.plan.after
    layer = after.layer._replace(bindings=(*after.layer.bindings, *map(binding, also)))
    plan = decided(host, POLICY).assessment.plan._replace(after=after._replace(layer=layer))
    assert required_actions(seen, plan, POLICY).restart_socket is is_stale


def test_a_stopped_docker_is_not_started(host: SimulatedHost) -> None:
    do(host, (dropin(OPEN), stop))
    assert steps(host) == ("write 1 file", "reload systemd")
