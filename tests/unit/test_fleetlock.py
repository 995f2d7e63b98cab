"""Slots by FleetLock, with a service that answers as airlock does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from dockerd_guard.fleet.fleetlock import MAX_TRIES, FleetLock
from dockerd_guard.fleet.http import Service
from dockerd_guard.fleet.lock import Fault, Host, LockError, Slot
from dockerd_guard.policy.model import FleetTls
from tests.support.lock_services import FakeFleetLock

WEB1, WEB2, WEB3 = (Host(f"{number:032x}", f"web{number}", "boot") for number in (1, 2, 3))

Client = Callable[..., FleetLock]


@pytest.fixture
def service() -> Iterator[FakeFleetLock]:
    made = FakeFleetLock(slots=2)
    yield made
    made.close()


@pytest.fixture
def client(service: FakeFleetLock) -> Client:
    def make(host: Host, group: str = "prod", path: str = "") -> FleetLock:
        return FleetLock(Service([service.url + path], FleetTls(), 5.0, 30.0), group, host.id)
    return make


def refused(act: Callable[[], object]) -> LockError:
    with pytest.raises(LockError) as caught:
        act()
    return caught.value


def test_slots_are_taken_and_given_back(client: Client) -> None:
    first, second, third = (client(host) for host in (WEB1, WEB2, WEB3))
    slots = [first.acquire(WEB1), second.acquire(WEB2)]
    assert refused(lambda: third.acquire(WEB3)).fault is Fault.FULL
    # A host that was killed asks again.
    assert first.acquire(WEB1) == slots[0]
    assert first.still(slots[0])
    assert first.release(slots[0])
    assert third.acquire(WEB3)
    assert not first.still(slots[0])


def test_a_stranger_gives_back_nothing(client: Client, service: FakeFleetLock) -> None:
    client(WEB1).acquire(WEB1)
    assert client(WEB3).release(Slot("prod", WEB3.id))
    assert service.holders == {WEB1.id}


def test_an_unknown_group(client: Client) -> None:
    error = refused(lambda: client(WEB1, "web").acquire(WEB1))
    assert (error.fault, "correct.fleet.group" in error.next_step) == (Fault.INVALID, True)


def test_an_endpoint_with_a_path(client: Client, service: FakeFleetLock) -> None:
    client(WEB1, path="/airlock/").acquire(WEB1)
    assert service.holders == {WEB1.id}


@pytest.mark.parametrize(("conflicts", "is_granted"), [(1, True), (MAX_TRIES - 1, True), (MAX_TRIES, False)])
def test_conflicts(client: Client, service: FakeFleetLock, conflicts: int, is_granted: bool) -> None:
    """They look like a full semaphore, and are asked again at once."""
    service.conflicts = conflicts
    if is_granted:
        assert client(WEB1).acquire(WEB1)
    else:
        assert refused(lambda: client(WEB1).acquire(WEB1)).fault is Fault.FULL


def test_many_at_once(client: Client, service: FakeFleetLock) -> None:
    faults: list[Fault] = []

    def ask(host: Host) -> None:
        try:
            client(host).acquire(host)
        except LockError as error:
            faults.append(error.fault)
    threads = [threading.Thread(target=ask, args=(Host(f"{number:032x}", "web", "boot"),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (service.most, len(service.holders), faults) == (2, 2, [Fault.FULL] * 18)
