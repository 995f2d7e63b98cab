"""No request starts a Docker that an administrator stopped: systemd does so at a connection to docker.socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dockerd_guard.model.address import Tls
from dockerd_guard.model.names import SERVICE
from dockerd_guard.observe import engine
from dockerd_guard.observe.engine import Ping
from dockerd_guard.observe.kernel import HostKernel, is_active, observe_engine
from dockerd_guard.observe.listeners import ListenerTable, Owned
from dockerd_guard.observe.observation import Observation, Process
from dockerd_guard.observe.probes import Prober
from dockerd_guard.rootfs import Rootfs
from tests.simulation.agent import SimulatedStateFiles
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager, SimulatedNetwork
from tests.support.situations import do, opened, seen_on

RELAY = Owned(Process(77, ("socat", "TCP-LISTEN:5000,fork", "UNIX-CONNECT:/run/docker.sock"), {}, 0, "relay.service",
                      "/usr/bin/socat"), {7: "tcp://0.0.0.0:5000"})

Happens = Callable[[SimulatedHost], None]


def becomes(state: str) -> Happens:
    return lambda host: host.active.update({SERVICE: state})


def bus_is_gone(host: SimulatedHost) -> None:
    host.bus_is_gone = True


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that are sent."""
    sent: list[str] = []

    def answer(*_: object) -> list[object]:
        sent.append("containers")
        return []

    def ping(network: SimulatedNetwork, address: str, tls: Tls) -> Ping:
        sent.append(address)
        return Ping(False, Tls.NONE, "")

    monkeypatch.setattr(engine, "answer", answer)
    monkeypatch.setattr(SimulatedKernel, "ask", lambda *_: sent.append("engine"))
    monkeypatch.setattr(SimulatedNetwork, "ping", ping)
    monkeypatch.setattr(ListenerTable, "look", lambda _: (RELAY,))
    return sent


@pytest.fixture
def seen(host: SimulatedHost) -> Iterator[Observation]:
    """Docker is up at this moment."""
    with Rootfs(str(host.root)) as rootfs:
        yield seen_on(host, rootfs)


def ask(host: SimulatedHost, seen: Observation, manager: SimulatedManager) -> None:
    observe_engine(seen, SimulatedKernel(host), manager)
    HostKernel().access_paths(seen, SimulatedNetwork(host), manager)


ALL = {"engine", "containers", "tcp://0.0.0.0:5000"}


@pytest.mark.parametrize(("happens", "sent"), [
    (becomes("active"), ALL),
    (becomes("reloading"), ALL),
    (becomes("deactivating"), set()),
    (becomes("inactive"), set()),
    (becomes("failed"), set()),
    # The start of the next one, which answers late.
    (becomes("activating"), set()),
    # Nobody can be asked: what was observed counts.
    (bus_is_gone, ALL),
])
def test_nothing_is_asked_of_a_docker_that_stopped_since_it_was_observed(
        host: SimulatedHost, seen: Observation, requests: list[str], happens: Happens, sent: set[str]) -> None:
    manager = SimulatedManager(host)
    assert seen.listening is not None and seen.listening.held_by_systemd
    happens(host)
    ask(host, seen, manager)
    assert set(requests) == sent


def test_what_systemd_holds_no_socket_of_is_always_asked(
        host: SimulatedHost, seen: Observation, requests: list[str]) -> None:
    assert seen.listening is not None
    becomes("deactivating")(host)
    unheld = seen._replace(listening=seen.listening._replace(held_by_systemd=()))
    ask(host, unheld, SimulatedManager(host))
    assert set(requests) == ALL


def test_what_was_not_asked_is_asked_at_the_next_look(
        host: SimulatedHost, seen: Observation, requests: list[str]) -> None:
    """A port that was found while docker.service restarted would otherwise stay open until something else happens."""
    kernel, manager = HostKernel(), SimulatedManager(host)
    for state, sent in ("activating", 0), ("active", 1), ("active", 1):
        becomes(state)(host)
        kernel.access_paths(seen, SimulatedNetwork(host), manager)
        assert requests.count("tcp://0.0.0.0:5000") == sent


@pytest.mark.parametrize("state", ["deactivating", "inactive", "failed", "activating"])
def test_docker_that_has_become_inactive_is_held_with_this_reason(
    host: SimulatedHost, seen: Observation, state: str
) -> None:
    """It is started again by now, perhaps: nothing is said of what it was when it was observed."""
    becomes(state)(host)
    answer = observe_engine(seen, SimulatedKernel(host), SimulatedManager(host))
    assert (answer.engine, answer.problem) == (None, "docker.service is not active")


@pytest.mark.parametrize(("state", "sent"), [
    ("active", ["tcp://0.0.0.0:2375"]), ("deactivating", []), ("inactive", []),
])
def test_no_tcp_socket_of_a_docker_that_stopped_is_probed(host: SimulatedHost, state: str, sent: list[str]) -> None:
    do(host, opened())
    probed: list[str] = []
    manager = SimulatedManager(host)
    prober = Prober(probed.append, SimulatedStateFiles(host), is_active=lambda: is_active(manager))
    with Rootfs(str(host.root)) as rootfs:
        seen = seen_on(host, rootfs)
        becomes(state)(host)
        prober(seen)
    assert probed == sent
