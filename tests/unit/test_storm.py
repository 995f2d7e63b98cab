"""The storms of `make storm`: a fleet in this process, and what its observer finds if the lock is wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from dockerd_guard.fleet.etcd import ROOT
from tests.storm.services import EtcdInProcess
from tests.storm.storm import Outcome, Storm, plans

HOSTS, SLOTS = 60, 3


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[EtcdInProcess]:
    made = EtcdInProcess(monkeypatch)
    yield made
    made.close()


def storm(service: EtcdInProcess, group: str = "prod", seed: str = "1") -> Outcome:
    return Storm(service, group, SLOTS, plans(seed, HOSTS), 1).run()


def test_a_storm(service: EtcdInProcess) -> None:
    outcome = storm(service)
    assert (outcome.most_at_once, outcome.served, outcome.lost) == (SLOTS, HOSTS, ())
    assert outcome.killed > 0
    # Nobody has less than five, and those that wait know when to ask again.
    assert 5 < outcome.requests < 12
    assert outcome.seconds > outcome.ideal_s


def test_a_seed_is_the_same_storm(service: EtcdInProcess) -> None:
    first, same, other = storm(service), storm(service, "again"), storm(service, "other", "2")
    assert first == same
    assert first != other


def test_more_slots_than_there_are(service: EtcdInProcess) -> None:
    """The observer counts, whatever the clients believe."""
    for number in range(SLOTS + 2):
        key = base64.b64encode(f"{ROOT}/prod/slot/{number}".encode()).decode()
        service.change({"key": key, "value": ""}, is_put=True)
    assert service.most_at_once("prod") == SLOTS + 2
