"""The lock service by a process of its own: what the helper takes from the agent's end, and how it keeps a slot."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.fleet.lock import Fault, Host, LockError
from dockerd_guard.model.json_values import JsonError, encoded
from dockerd_guard.nethelper import fleet_client, fleet_server
from dockerd_guard.nethelper.fleet_client import FleetClient, local_client
from dockerd_guard.nethelper.fleet_protocol import NO_HOST, NO_SLOT, FleetRequest, FleetVerb, request_of
from dockerd_guard.nethelper.fleet_server import FleetServer, credentials, policy_files, serve
from dockerd_guard.policy.model import Fleet, FleetTls, LockKind
from tests.support.lock_services import FakeEtcd, answering, http_answer

HOST = Host("28a511d43a904103968fb838342be6e4", "web1", "boot")
OTHER = Host("0" * 32, "web2", "boot2")
FLEET = Fleet(LockKind.ETCD, ("https://etcd1:2379", "http://127.0.0.1:2379"), "prod")


@pytest.fixture
def etcd() -> Iterator[FakeEtcd]:
    service = FakeEtcd()
    yield service
    service.close()


@pytest.fixture
def fleet(etcd: FakeEtcd) -> Fleet:
    return FLEET._replace(endpoints=(etcd.url,))


@pytest.fixture
def client() -> Iterator[FleetClient]:
    made = local_client()
    yield made
    made.close()


# --- the protocol ---------------------------------------------------------------------------------


def line(**fields: Any) -> bytes:
    """A line as the agent would send it, but for these fields."""
    return json.dumps({**encoded(FleetRequest(FleetVerb.ACQUIRE, FLEET, HOST)), **fields}).encode()


def fleet_line(**fields: Any) -> bytes:
    return line(fleet={**encoded(FLEET), **fields})


HOSTILE = {
    "nothing": b"",
    "no JSON": b"GET / HTTP/1.1\r",
    "nested without end": b"[" * 100_000,
    "no verb of ours": line(verb="run"),
    "a fleet of text": line(fleet="prod"),
    "no endpoint": fleet_line(endpoints=[]),
    "too many endpoints": fleet_line(endpoints=["https://a"] * 11),
    "a file": fleet_line(endpoints=["file:///etc/shadow"]),
    "http to another host": fleet_line(endpoints=["http://10.0.0.5:2379"]),
    "a header in the host": fleet_line(endpoints=["https://a\r\nX: y"]),
    "a user in the URL": fleet_line(endpoints=["https://u:p@a"]),
    "a group with a slash": fleet_line(group="prod/slot"),
    "no group": fleet_line(group=""),
    "no slots": fleet_line(slots=0),
    "a million slots": fleet_line(slots=1_000_000),
    "a short lease": fleet_line(lease_s=1.0),
    "no timeout": fleet_line(timeout_s=0.0),
    "an endless timeout": fleet_line(timeout_s=1e9),
    "another protocol": fleet_line(lock="consul"),
    "a host with a slash": line(host=["a/b", "c", "d"]),
    "a host without end": line(host=["a" * 1000, "c", "d"]),
    "a slot of text": line(slot="0"),
    "a slot with a long number": line(slot=["prod", "id", 2**70, 0, 0, ""]),
}


@pytest.mark.parametrize("request_", [
    FleetRequest(FleetVerb.ACQUIRE, FLEET, HOST), FleetRequest(FleetVerb.STATE, FLEET, NO_HOST, NO_SLOT),
    FleetRequest(FleetVerb.STOP, FLEET._replace(tls=FleetTls("/a", "/b", "/c")), HOST, NO_SLOT, "dead\n\x1b[31m")])
def test_what_the_agent_asks_is_understood(request_: FleetRequest) -> None:
    assert request_of(json.dumps(encoded(request_)).encode()) == request_


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_nothing_else_is(hostile: bytes) -> None:
    with pytest.raises(JsonError):
        request_of(hostile)


def test_the_helper_uses_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot read the files that the policy names."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    with_key = FLEET._replace(tls=FleetTls("/etc/ca.pem", "/etc/cert.pem", "/etc/key.pem"))
    assert credentials(with_key) == FleetTls(*(f"/run/credentials/x/fleet-{name}" for name in ("ca", "cert", "key")))
    assert credentials(FLEET) == FleetTls("", "", "")
    assert policy_files(with_key) == FleetTls("/etc/ca.pem", "/etc/cert.pem", "/etc/key.pem")


def test_another_user_is_not_answered() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(line() + b"\n")
        assert serve(there, policy_files, os.geteuid() + 1) == 1


def test_a_line_that_is_no_request_ends_the_helper() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(b"{}\n")
        assert serve(there, policy_files, os.geteuid()) == 1


# --- a slot ---------------------------------------------------------------------------------------


def test_a_slot_from_the_agents_end(client: FleetClient, fleet: Fleet) -> None:
    slot = client.acquire(fleet, HOST)
    assert client.still(fleet, slot)
    second = local_client()
    with pytest.raises(LockError) as caught:
        second.acquire(fleet, OTHER)
    assert (caught.value.fault, caught.value.next_step) == (
        Fault.FULL, f"Wait; web1 since {slot.since} restarts dockerd")
    state = client.state(fleet)
    assert ([each.host for each in state.slots], [each.host for each in state.waiting]) == (["web1"], ["web2"])
    assert client.release(fleet, slot)
    assert second.acquire(fleet, OTHER).number == 0
    client.stop(fleet, HOST, "dead")
    assert client.state(fleet).stop is not None
    client.resume(fleet, None)
    assert client.state(fleet).stop is None


def test_the_helper_runs_only_while_a_slot_is_asked_for_or_held(client: FleetClient, fleet: Fleet) -> None:
    """Its next process has the IP filter and the credentials that its unit has then."""
    slot = client.acquire(fleet, HOST)
    assert client._wire is not None
    assert client.still(fleet, slot)
    assert client._wire is not None
    assert client.release(fleet, slot)
    assert client._wire is None
    client.stop(fleet, OTHER, "dead")
    assert client._wire is None
    with pytest.raises(LockError):
        client.acquire(fleet, HOST)
    assert client._wire is None
    assert not client.still(fleet, slot)
    assert client._wire is None


def test_a_new_helper_goes_on_with_a_slot(client: FleetClient, fleet: Fleet) -> None:
    slot = client.acquire(fleet, HOST)
    client.close()
    assert local_client().still(fleet, slot)
    client.close()
    assert local_client().release(fleet, slot)


def test_fleetlock_from_the_agents_end(client: FleetClient) -> None:
    with answering(http_answer(b"")) as (place, received):
        fleet = FLEET._replace(lock=LockKind.FLEETLOCK, endpoints=(f"http://{place}",))
        slot = client.acquire(fleet, HOST)
        client.stop(fleet, HOST, "dead")
        assert not client.state(fleet).shows_members
        assert client.still(fleet, slot)
        client.resume(fleet, slot)
    assert all(HOST.id.encode() in request for request in received)
    assert len(received) == 3


class Server:
    """A helper whose clock a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(fleet_server, "time", self)
        self.server = FleetServer(policy_files)

    def monotonic(self) -> float:
        return self.now

    def ask(self, verb: FleetVerb, fleet: Fleet, **fields: Any) -> Any:
        return self.server.answer(FleetRequest(verb, fleet, **fields))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.server.renew()


def test_a_lease_is_renewed_each_third(monkeypatch: pytest.MonkeyPatch, etcd: FakeEtcd, fleet: Fleet) -> None:
    helper = Server(monkeypatch)
    assert helper.server.wait_s() is None
    slot = helper.ask(FleetVerb.ACQUIRE, fleet, host=HOST)
    renewed: list[str] = []
    lease = etcd.lease

    def noted(path: str, data: dict[str, Any], header: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        renewed.append(path)
        return lease(path, data, header)
    monkeypatch.setattr(etcd, "lease", noted)
    assert helper.server.wait_s() == 40.0
    # Just before the restart it is as good as new, later it is renewed.
    assert helper.ask(FleetVerb.STILL, fleet, slot=slot)
    assert not renewed
    for _ in range(12):
        helper.wait(10)
    assert renewed == ["/v3/lease/keepalive"] * 3
    helper.wait(10)
    assert helper.ask(FleetVerb.STILL, fleet, slot=slot)
    assert helper.server.wait_s() == 40.0
    assert len(renewed) == 4
    assert helper.ask(FleetVerb.RELEASE, fleet, slot=slot)
    assert helper.server.wait_s() is None
    helper.wait(100)
    assert len(renewed) == 4


def test_a_new_helper_renews_the_slot_of_another(
        monkeypatch: pytest.MonkeyPatch, etcd: FakeEtcd, fleet: Fleet) -> None:
    """It does not know how much of the lease is left."""
    slot = Server(monkeypatch).ask(FleetVerb.ACQUIRE, fleet, host=HOST)
    etcd.leases.clear()
    assert not Server(monkeypatch).ask(FleetVerb.STILL, fleet, slot=slot)
    with pytest.raises(LockError, match="the lease of this host's slot of the group prod ends"):
        Server(monkeypatch).ask(FleetVerb.ACQUIRE, fleet, host=HOST)


def test_a_lease_that_is_lost_during_the_restart(
        monkeypatch: pytest.MonkeyPatch, etcd: FakeEtcd, fleet: Fleet) -> None:
    helper = Server(monkeypatch)
    slot = helper.ask(FleetVerb.ACQUIRE, fleet, host=HOST)
    etcd.expire(slot.lease)
    helper.wait(50)
    assert not helper.ask(FleetVerb.RELEASE, fleet, slot=slot)
    # The next slot is not lost.
    slot = helper.ask(FleetVerb.ACQUIRE, fleet, host=HOST)
    assert helper.ask(FleetVerb.RELEASE, fleet, slot=slot)


def test_a_service_that_does_not_answer_a_renewal(
        monkeypatch: pytest.MonkeyPatch, etcd: FakeEtcd, fleet: Fleet) -> None:
    helper = Server(monkeypatch)
    slot = helper.ask(FleetVerb.ACQUIRE, fleet, host=HOST)
    do = etcd.do
    monkeypatch.setattr(etcd, "do", lambda path, data: (503, {}))
    helper.wait(40)
    assert helper.server.wait_s() == 3.0
    monkeypatch.setattr(etcd, "do", do)
    helper.wait(3)
    assert helper.server.wait_s() == 40.0
    assert helper.ask(FleetVerb.RELEASE, fleet, slot=slot)


# --- the agent's end ------------------------------------------------------------------------------


@contextlib.contextmanager
def helper_that(answers: bytes | None) -> Iterator[FleetClient]:
    """A helper that answers every request with these bytes, None: not at all."""
    here, there = socket.socketpair()

    def run() -> None:
        with there, contextlib.suppress(OSError):
            there.recv(65536)
            if answers is None:
                time.sleep(1.0)
            else:
                there.sendall(answers)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client = FleetClient(lambda: here)
    yield client
    client.close()
    thread.join()


@pytest.mark.parametrize("answers", [b"", b"{}\n", b"[]\n", b'{"answer": 7}\n', b"x" * 100, b'{"fault": "x"}\n', None,
                                     b'{"answer": {"group": "prod"}}\n'])
def test_a_helper_that_does_not_answer_as_it_should(monkeypatch: pytest.MonkeyPatch, answers: bytes | None) -> None:
    monkeypatch.setattr(fleet_client, "ANSWER_TIMEOUT_S", 0.3)
    with helper_that(answers) as client, pytest.raises(LockError) as caught:
        client.acquire(FLEET, HOST)
    assert (caught.value.fault, caught.value.reason) == (
        Fault.UNREACHABLE, "dockerd-guard-fleet.socket does not answer")
    assert caught.value.next_step.startswith("Run `systemctl restart dockerd-guard-fleet.socket`")


def test_no_helper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fleet_client, "SOCKET_PATH", str(tmp_path / "none"))
    with pytest.raises(LockError, match="No such file or directory"):
        FleetClient().state(FLEET)
