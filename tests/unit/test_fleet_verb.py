"""`dockerd-guard fleet`: who has a slot, who waits, what is stopped; and the end of a stop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.commands import fleet, uninstall
from dockerd_guard.commands._common import Unanswerable
from dockerd_guard.fleet.lock import Fault, Host, LockError, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.nethelper.fleet_client import local_client
from dockerd_guard.plan.memory import FleetMemory, Memory, OwedSlot, Refusal
from dockerd_guard.policy.model import Fleet, LockKind
from dockerd_guard.policy.reader import parse_policy
from tests.simulation.clock import START
from tests.support.lock_services import FakeEtcd, answering, http_answer

pytestmark = pytest.mark.libraries

WEB1, WEB2, WEB3 = (Host(f"{number:032x}", f"web{number}", "boot") for number in (1, 2, 3))


@pytest.fixture
def etcd() -> Iterator[FakeEtcd]:
    service = FakeEtcd()
    yield service
    service.close()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFiles:
    """The state directory of this host; root asks."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(fleet, "StateFiles", lambda: StateFiles(str(tmp_path)))
    return StateFiles(str(tmp_path))


def run(monkeypatch: pytest.MonkeyPatch, correct: str, action: str = "show", output_format: str = "text") -> int:
    policy = parse_policy(f"version: 1\nsockets: [fd://]\ncorrect: {correct}\n".encode())
    monkeypatch.setattr(fleet, "load_policy", lambda path, require_root_owned: policy)
    return fleet.run(SimpleNamespace(policy=None, action=action, format=output_format))


def in_etcd(etcd: FakeEtcd, slots: int = 2) -> str:
    return f"{{fleet: {{lock: etcd, endpoints: ['{etcd.url}'], group: prod, slots: {slots}}}}}"


def test_a_group_at_rest(etcd: FakeEtcd, state: StateFiles, monkeypatch: pytest.MonkeyPatch,
                         capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, in_etcd(etcd)) == 0
    assert capsys.readouterr().out == f"group prod (etcd: {etcd.url}): 0 of 2 slots taken, 0 hosts wait.\n"


def test_who_has_a_slot_and_who_waits(etcd: FakeEtcd, state: StateFiles, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    client, shared = local_client(), Fleet(LockKind.ETCD, (etcd.url,), "prod")
    slot = client.acquire(shared, WEB1)
    with pytest.raises(LockError):
        client.acquire(shared, WEB2)
    client.stop(shared, WEB3, "dockerd does not start")
    assert run(monkeypatch, in_etcd(etcd, 1)) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"group prod (etcd: {etcd.url}): 1 of 1 slots taken, 1 hosts wait."
    assert rest[0] == f"slot 0   web1, since {slot.since}"
    assert rest[1].startswith("waits    web2, since 20")
    assert rest[2].startswith("stopped by web3, since 20")
    assert rest[2].endswith(": dockerd does not start")
    assert rest[3] == "Next: Check Docker there, then run `dockerd-guard fleet resume`."
    assert run(monkeypatch, in_etcd(etcd, 1), output_format="json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert [each["host"] for each in shown["slots"]] == ["web1"]
    assert [each["host"] for each in shown["waiting"]] == ["web2"]
    assert shown["stopped"]["reason"] == "dockerd does not start"
    assert run(monkeypatch, in_etcd(etcd, 1), "resume") == 0
    assert "stopped" not in capsys.readouterr().out
    # The slot of another host stays.
    assert client.still(shared, slot)
    client.close()


def test_what_this_host_remembers(etcd: FakeEtcd, state: StateFiles, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    refusal = Refusal(Instant(START), Fault.FULL, "all 2 slots are taken", "Wait", 1, 2.0)
    state.save(Memory(fleet=FleetMemory(refusal=refusal, to_stop="dockerd died")))
    assert run(monkeypatch, in_etcd(etcd)) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "This host was left without Docker, and could not stop the group yet: dockerd died",
        "This host waits: all 2 slots are taken."]
    assert run(monkeypatch, in_etcd(etcd), "resume") == 0
    assert state.load().fleet == FleetMemory()


def test_a_slot_of_fleetlock_that_is_kept(state: StateFiles, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    state.save(Memory(fleet=FleetMemory(Slot("prod", "id"), is_kept=True, unreachable=3)))
    with answering(http_answer(b"")) as (place, received):
        correct = f"{{fleet: {{lock: fleetlock, endpoints: ['http://{place}'], group: prod}}}}"
        assert run(monkeypatch, correct) == 1
        assert capsys.readouterr().out.splitlines()[:2] == [
            f"group prod (fleetlock: http://{place}): FleetLock does not show who has a slot; the lock service does.",
            "stopped by this host, which was left without Docker and keeps its slot."]
        assert not received
        assert run(monkeypatch, correct, "resume", "json") == 0
    assert json.loads(capsys.readouterr().out)["slots"] is None
    assert [request.split(b" ")[1] for request in received] == [b"/v1/steady-state"]
    assert state.load().fleet == FleetMemory(unreachable=3)


@pytest.mark.parametrize(("correct", "words"), [
    ("{}", "the policy has no `correct.fleet`"),
    ("{fleet: {lock: etcd, endpoints: ['http://127.0.0.1:1'], group: prod}}", "Check 127.0.0.1:1: Connection refused"),
])
def test_no_answer(state: StateFiles, monkeypatch: pytest.MonkeyPatch, correct: str, words: str) -> None:
    for action in fleet.ACTIONS:
        with pytest.raises(Unanswerable, match=words):
            run(monkeypatch, correct, action)


def test_another_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unanswerable, match="run it as root"):
        fleet.run(SimpleNamespace(policy=None, action="show", format="text"))


HERE = Slot("prod", "id")


@pytest.mark.parametrize(("lock", "known", "requests"), [
    (LockKind.FLEETLOCK, {"slot": HERE, "is_kept": True}, 1),
    (LockKind.FLEETLOCK, {"unsure": HERE}, 1),
    (LockKind.FLEETLOCK, {}, 0),
    (LockKind.ETCD, {"slot": HERE._replace(lease=7)}, 0),
])
@pytest.mark.parametrize("is_owed", [False, True])
def test_the_removal_of_the_package_gives_slots_back(
        state: StateFiles, lock: LockKind, known: dict[str, Any], requests: int, *, is_owed: bool) -> None:
    """FleetLock would keep a host that is gone, and the others of its group would wait for ever (I13)."""
    with answering(http_answer(b"")) as (place, received):
        there = Fleet(lock, (f"http://{place}",), "prod")
        owed = (OwedSlot(there._replace(lock=LockKind.FLEETLOCK, group="other"), HERE),) if is_owed else ()
        state.save(Memory(fleet=FleetMemory(asked=there, owed=owed, **known)))
        assert list(uninstall.give_back(state, local_client())) == []
    assert [request.split(b" ")[1] for request in received] == [b"/v1/steady-state"] * (requests + is_owed)


def test_a_slot_that_cannot_be_given_back_on_removal_is_named(state: StateFiles) -> None:
    there = Fleet(LockKind.FLEETLOCK, ("http://127.0.0.1:1",), "prod")
    state.save(Memory(fleet=FleetMemory(HERE, asked=there)))
    assert list(uninstall.give_back(state, local_client())) == [
        "the slot of this host in the group prod at http://127.0.0.1:1 was not given back: the lock service in "
        "correct.fleet.endpoints is not available. Next: Remove id there"]
