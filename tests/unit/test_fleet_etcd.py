"""Slots in etcd: by a stand-in of its JSON gateway, and by the real one where it is installed."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dockerd_guard.fleet.etcd import DEFAULT_DURATION_S, Etcd
from dockerd_guard.fleet.http import Reply, Service
from dockerd_guard.fleet.lock import Fault, Host, LockError, Slot
from dockerd_guard.policy.model import FleetTls
from tests.support.lock_services import ETCD, EtcdService, FakeEtcd, RealEtcd, answering, http_answer

Client = Callable[..., Etcd]

WEB1, WEB2, WEB3 = (Host(f"{number:032x}", f"web{number}", f"boot{number}") for number in (1, 2, 3))


@pytest.fixture(scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.skipif(
    ETCD is None, reason="etcd is not installed"))])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdService]:
    made = FakeEtcd() if request.param == "stand-in" else RealEtcd(tmp_path_factory.mktemp("etcd"))
    yield made
    made.close()


@pytest.fixture
def client(service: EtcdService, request: pytest.FixtureRequest) -> Client:
    """Makes clients of a group of this test alone."""
    group = f"{request.node.originalname}".replace("_", "-")

    def make(slots: int = 1, *, timeout_s: float = 5.0) -> Etcd:
        return Etcd(Service([service.url], FleetTls(), timeout_s, 30.0), group, slots, 60)
    return make


def put(service: EtcdService, key: str, value: str) -> None:
    data = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
    urllib.request.urlopen(f"{service.url}/v3/kv/put", json.dumps(data).encode(), 5).close()


def refused(act: Callable[[], object]) -> LockError:
    with pytest.raises(LockError) as caught:
        act()
    return caught.value


def test_a_slot_is_taken_once_and_given_back(client: Client) -> None:
    slot = client().acquire(WEB1)
    assert slot[:3] == (client()._group, WEB1.id, 0)
    assert client().still(slot)
    full = refused(lambda: client().acquire(WEB2))
    assert (full.fault, full.reason) == (Fault.FULL, f"all 1 slots of the group {slot.group} are taken")
    assert full.next_step == f"Wait; web1 since {slot.since} restarts dockerd"
    assert client().release(slot)
    assert not client().still(slot)
    assert not client().release(slot)
    assert client().acquire(WEB2).number == 0


NO_LEADER = http_answer(b'{"error": "etcdserver: no leader", "code": 14}', "503 Service Unavailable")


def test_a_member_without_a_leader_is_asked_last(service: EtcdService) -> None:
    with answering(NO_LEADER) as (bad, received):
        etcd = Etcd(Service([f"http://{bad}", service.url], FleetTls(), 5.0, 30.0), "no-leader", 1, 60)
        slot = etcd.acquire(WEB1)
        assert etcd.still(slot)
        assert etcd.release(slot)
        assert len(received) == 1
        alone = Etcd(Service([f"http://{bad}"] * 2, FleetTls(), 5.0, 30.0), "no-leader", 1, 60)
        assert refused(lambda: alone.acquire(WEB1)).next_step.endswith("HTTP status 503, etcdserver: no leader")


def test_each_host_gets_its_own_slot(client: Client) -> None:
    first, second = client(2).acquire(WEB1), client(2).acquire(WEB2)
    assert {first.number, second.number} == {0, 1}
    assert refused(lambda: client(2).acquire(WEB3)).fault is Fault.FULL
    assert client(2).release(first)
    assert client(2).acquire(WEB3).number == first.number
    assert client(2).still(second)


def test_a_message_names_some_hosts(client: Client) -> None:
    for number in range(8):
        client(8).acquire(Host(f"{number:032x}", f"web{number}", "boot"))
    said = refused(lambda: client(8).acquire(Host("f" * 32, "last", "boot"))).next_step
    assert (said.count(" since "), said.endswith(" and 3 more restart dockerd")) == (5, True)


def test_fewer_slots_than_were_taken(client: Client) -> None:
    """The policy of some hosts says 3, that of others 1 already."""
    slots = [client(3).acquire(host) for host in (WEB1, WEB2)]
    client(3).release(slots[0])
    assert refused(lambda: client(1).acquire(WEB3)).fault is Fault.FULL


def test_a_lease_that_ends_frees_the_slot(client: Client, service: EtcdService) -> None:
    slot = client().acquire(WEB1)
    service.expire(slot.lease)
    assert not client().still(slot)
    other = client().acquire(WEB2)
    assert not client().still(slot)
    assert not client().release(slot)
    assert client().still(other)


def test_an_agent_that_was_killed_has_its_slot_still(client: Client) -> None:
    slot = client().acquire(WEB1)
    assert client().acquire(WEB1) == slot
    assert client().still(slot)


def test_a_slot_from_before_a_reboot(client: Client) -> None:
    slot = client().acquire(WEB1)
    error = refused(lambda: client().acquire(WEB1._replace(boot="another")))
    assert (error.fault, "from before its reboot" in error.reason) == (Fault.FULL, True)
    assert client().still(slot)


def test_two_hosts_with_one_machine_id(client: Client) -> None:
    slot = client(2).acquire(WEB1)
    error = refused(lambda: client(2).acquire(WEB2._replace(id=WEB1.id)))
    assert (error.fault, error.reason) == (Fault.INVALID, "the host web1 has the same machine ID, and a slot")
    assert "systemd-machine-id-setup" in error.next_step
    assert client(2).still(slot)


def test_a_group_that_is_stopped(client: Client) -> None:
    client().stop(WEB1, "dockerd does not start:\n\x1b[31m" + "x" * 1000)
    error = refused(lambda: client().acquire(WEB2))
    assert error.fault is Fault.STOPPED
    assert error.reason.startswith(f"the group {client()._group} was stopped by web1: dockerd does not start:??[31mxxx")
    assert len(error.reason) < 400
    state = client().state().stop
    assert state is not None
    assert state.host == "web1"
    client().resume(None)
    assert client().acquire(WEB2)
    assert client().state().stop is None


def test_a_stop_during_the_request(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """No slot is taken between a look at the group and the transaction."""
    taking = client()
    grant = taking._grant

    def stop_first(seconds: int) -> int:
        client().stop(WEB2, "dead")
        return grant(seconds)
    monkeypatch.setattr(taking, "_grant", stop_first)
    assert refused(lambda: taking.acquire(WEB1)).fault is Fault.STOPPED
    assert client().state().slots == ()


def test_who_waits_is_shown_until_it_has_a_slot(client: Client) -> None:
    slot = client().acquire(WEB1)
    refused(lambda: client().acquire(WEB2))
    since = client().state().waiting[0].since
    refused(lambda: client().acquire(WEB2))
    refused(lambda: client().acquire(WEB3))
    state = client().state()
    assert [member.host for member in state.slots] == ["web1"]
    assert sorted(member.host for member in state.waiting) == ["web2", "web3"]
    assert next(member.since for member in state.waiting if member.host == "web2") == since
    client().release(slot)
    client().acquire(WEB2)
    assert [member.host for member in client().state().waiting] == ["web3"]


def test_many_at_once(client: Client) -> None:
    """Of 20 hosts that ask at the same time, 3 get one of 3 slots."""
    slots: list[Slot] = []
    faults: list[Fault] = []

    def ask(number: int) -> None:
        try:
            slots.append(client(3, timeout_s=20.0).acquire(Host(f"{number:032x}", f"web{number}", "boot")))
        except LockError as error:
            faults.append(error.fault)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slot.number for slot in slots) == [0, 1, 2]
    assert faults == [Fault.FULL] * 17


def test_a_host_knows_when_it_is_its_turn(client: Client, service: EtcdService) -> None:
    """By its place among those that wait, the slots, and how long the last host had its own."""
    slots = [client(2).acquire(host) for host in (WEB1, WEB2)]
    waiting = [Host(f"{number:032x}", f"web{number}", "boot") for number in range(10, 15)]
    # In the order of the IDs, not of the requests.
    for host in reversed(waiting):
        assert refused(lambda: client(2).acquire(host)).expected_s == 1 / 2 * DEFAULT_DURATION_S  # noqa: B023
    assert [refused(lambda: client(2).acquire(host)).expected_s for host in waiting] == [  # noqa: B023
        place / 2 * DEFAULT_DURATION_S for place in (1, 2, 3, 4, 5)]
    assert [refused(lambda: client(2).acquire(host)).ahead for host in waiting] == [0, 1, 2, 3, 4]  # noqa: B023
    client(2).release(slots[0]._replace(since=(datetime.now(UTC) - timedelta(seconds=20)).isoformat()))
    client(2).acquire(waiting[0])
    assert [round(refused(lambda: client(2).acquire(host)).expected_s) for host in waiting[1:]] == [  # noqa: B023
        10, 20, 30, 40]


@pytest.mark.parametrize("value", ["", "[]", '{"seconds": "7"}', '{"seconds": -1}', '{"seconds": 1e999}',
                                   '{"seconds": 601}', '{"seconds": 99999999999999999999}'])
def test_a_duration_that_is_none(client: Client, service: EtcdService, value: str) -> None:
    client().acquire(WEB1)
    put(service, f"dockerd-guard/v1/{client()._group}/duration", value)
    assert refused(lambda: client().acquire(WEB2)).expected_s == DEFAULT_DURATION_S


@pytest.mark.parametrize("since", ["", "yesterday", "2026-11-26T14:02:00", "9999-01-01T00:00:00+00:00"])
def test_a_slot_whose_begin_is_not_known_is_given_back(client: Client, since: str) -> None:
    """By a clock that was set back, or an older version."""
    slot = client().acquire(WEB1)
    assert client().release(slot._replace(since=since))
    slot = client().acquire(WEB2)
    assert refused(lambda: client().acquire(WEB1)).expected_s == DEFAULT_DURATION_S
    assert client().release(slot._replace(since=""))


def test_how_many_requests_a_slot_takes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[str] = []
    post = Service.post

    def counted(self: Service, path: str, *arguments: Any) -> Reply:
        requests.append(path)
        return post(self, path, *arguments)
    monkeypatch.setattr(Service, "post", counted)
    slot = client().acquire(WEB1)
    assert client().still(slot, renew=False)
    assert client().release(slot)
    assert requests == ["v3/kv/txn", "v3/lease/grant", "v3/kv/txn", "v3/kv/range", "v3/kv/txn"]
    client().acquire(WEB1)
    requests.clear()
    refused(lambda: client().acquire(WEB2))
    assert requests == ["v3/kv/txn", "v3/lease/grant", "v3/kv/put"]
    refused(lambda: client().acquire(WEB2))
    assert len(requests) == 4


@pytest.mark.parametrize("value", ["", "no JSON", "[]", '{"id": 7, "host": ["x"]}', '{"host": "a\\u001b[31m\\nb"}',
                                   "[" * 50_000])
def test_what_others_wrote_into_the_group(client: Client, service: EtcdService, value: str) -> None:
    """A key that is none of ours counts as taken, and shows nothing but text."""
    group = client()._group
    put(service, f"dockerd-guard/v1/{group}/slot/0", value)
    error = refused(lambda: client().acquire(WEB1))
    assert error.fault is Fault.FULL
    assert error.next_step.isprintable()
    put(service, f"dockerd-guard/v1/{group}/stop", value)
    stopped = refused(lambda: client().acquire(WEB1))
    assert stopped.fault is Fault.STOPPED
    assert str(stopped).isprintable()
    client().resume(None)


def test_another_group_is_another_lock(service: EtcdService) -> None:
    """`prod` and `prod.eu` have a common prefix."""
    clients = [Etcd(Service([service.url], FleetTls(), 5.0, 30.0), group, 1, 60) for group in ("prod", "prod.eu")]
    slots = [each.acquire(WEB1) for each in clients]
    assert [len(each.state().slots) for each in clients] == [1, 1]
    assert all(each.release(slot) for each, slot in zip(clients, slots, strict=True))


def test_an_etcd_that_hangs(service: EtcdService, client: Client) -> None:
    if not isinstance(service, RealEtcd):
        pytest.skip("the stand-in is a thread of this process")
    slot = client().acquire(WEB1)
    os.kill(service.process.pid, signal.SIGSTOP)
    try:
        error = refused(lambda: client(timeout_s=0.5).still(slot))
        assert (error.fault, error.next_step.endswith("timed out")) == (Fault.UNREACHABLE, True)
    finally:
        os.kill(service.process.pid, signal.SIGCONT)
    assert client().still(slot)
