"""A storm: all hosts of a fleet need a restart at the same time, and some are killed while they have a slot.

Waiting and restarts are in simulated time; requests are real, and those of the same moment are sent at once.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dockerd_guard.fleet.lock import Fault, Host, LockError, Slot
from dockerd_guard.model.instant import Instant
from dockerd_guard.nethelper.fleet_protocol import FleetRequest, FleetVerb
from dockerd_guard.nethelper.fleet_server import FleetServer, policy_files
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.slots import refused
from dockerd_guard.policy.model import Fleet, LockKind
from tests.storm.services import StormService

ARRIVAL_S = 2.0
"""All hosts are given the policy in this time."""

SHORTEST_RESTART_S, LONGEST_RESTART_S = 0.5, 17.0
"""As seen on machines; their logarithms are distributed evenly."""

KILLED = 0.1
"""The share of the hosts whose agent is killed while it has a slot."""

LEASE_S = 120.0

REAL_LEASE_S = 3600.0
"""Of the leases in etcd, which ends none by itself: simulated time is faster than etcd's clock, or slower."""

BEGIN = datetime(2026, 11, 25, tzinfo=UTC)

AT_ONCE_S = 0.05
"""Requests within this time are sent at the same time."""

THREADS = 16


class Plan(NamedTuple):
    """What a host does, by the seed. `dies_after`: as a part of the restart; `is_back_s`: when its agent is started
    again, counted from then."""

    host: Host
    arrival_s: float
    restart_s: float
    dies_after: float | None
    is_back_s: float


class Outcome(NamedTuple):
    """What a storm came to."""

    most_at_once: int
    served: int
    killed: int
    requests: float
    most_requests: int
    seconds: float
    ideal_s: float
    """Without any wait between restarts, and without hosts that were killed."""
    lost: tuple[str, ...]
    """Hosts that had not their slot any more when their restart had ended."""


def plans(seed: str, hosts: int, arrival_s: float = ARRIVAL_S) -> list[Plan]:
    chance = random.Random(seed)
    made = []
    for number in range(hosts):
        low, high = math.log(SHORTEST_RESTART_S), math.log(LONGEST_RESTART_S)
        made.append(Plan(
            Host(f"{chance.getrandbits(128):032x}", f"web{number}", "boot"), chance.uniform(0, arrival_s),
            math.exp(chance.uniform(low, high)), chance.random() if chance.random() < KILLED else None,
            chance.uniform(0, 2 * LEASE_S)))
    return made


class Storm:
    """One storm on one group."""

    def __init__(self, service: StormService, group: str, slots: int, planned: list[Plan], threads: int) -> None:
        self._service = service
        self._fleet = Fleet(LockKind.ETCD, (service.url,), group, slots, lease_s=REAL_LEASE_S, timeout_s=5.0)
        self._plans = planned
        self._servers = [FleetServer(policy_files) for _ in planned]
        self._memories = [Memory() for _ in planned]
        self._slots: dict[int, Slot] = {}
        self._dead: dict[int, Slot] = {}
        self._killed: set[int] = set()
        self._served = 0
        self._lost: list[str] = []
        self._events: list[tuple[float, int, Callable[[int, float], None]]] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self) -> Outcome:
        for number, plan in enumerate(self._plans):
            self._at(plan.arrival_s, number, self._ask)
        self._service.requests.counts.clear()
        now = 0.0
        while self._events:
            now = self._events[0][0]
            batch: dict[int, tuple[float, Callable[[int, float], None]]] = {}
            while self._events and self._events[0][0] <= now + AT_ONCE_S and self._events[0][1] not in batch:
                at, number, act = heapq.heappop(self._events)
                batch[number] = at, act
            if self._pool is None:
                for number, (at, act) in batch.items():
                    act(number, at)
            else:
                list(self._pool.map(lambda number, event: event[1](number, event[0]), batch, batch.values()))
        if self._pool is not None:
            self._pool.shutdown()
        requests = self._service.requests.counts
        return Outcome(
            self._service.most_at_once(self._fleet.group), self._served, len(self._killed),
            requests.total() / len(self._plans), max(requests.values()), now,
            sum(plan.restart_s for plan in self._plans) / self._fleet.slots, tuple(self._lost))

    def _at(self, at: float, number: int, act: Callable[[int, float], None]) -> None:
        with self._lock:
            heapq.heappush(self._events, (at, number, act))

    def _request(self, number: int, verb: FleetVerb, slot: Slot | None = None) -> object:
        self._service.requests.act_for(number)
        host = self._plans[number].host
        request = FleetRequest(verb, self._fleet, host) if slot is None else FleetRequest(verb, self._fleet, slot=slot)
        return self._servers[number].answer(request)

    def _ask(self, number: int, now: float) -> None:
        plan = self._plans[number]
        try:
            slot = self._request(number, FleetVerb.ACQUIRE)
            assert isinstance(slot, Slot)
            if not self._request(number, FleetVerb.STILL, slot):
                self._at(now + 1.0, number, self._ask)
                return
        except LockError as error:
            assert error.fault in (Fault.FULL, Fault.UNREACHABLE), error
            self._memories[number] = refused(
                Instant(BEGIN, "boot", now), self._memories[number], error, plan.host.id)
            refusal = self._memories[number].fleet.refusal
            assert refusal is not None
            self._at(now + refusal.retry_s, number, self._ask)
            return
        self._memories[number] = Memory()
        self._slots[number] = slot
        self._dead.pop(number, None)
        if plan.dies_after is not None and number not in self._killed:
            self._at(now + plan.restart_s * plan.dies_after, number, self._die)
        else:
            self._at(now + plan.restart_s, number, self._end)

    def _die(self, number: int, now: float) -> None:
        self._killed.add(number)
        self._dead[number] = self._slots.pop(number)
        self._servers[number] = FleetServer(policy_files)
        self._at(now + LEASE_S, number, self._lose)
        self._at(now + self._plans[number].is_back_s, number, self._ask)

    def _lose(self, number: int, now: float) -> None:
        """The lease of a host that was killed ends, unless its agent has gone on with it."""
        if (slot := self._dead.pop(number, None)) is not None:
            self._service.revoke(slot.lease)

    def _end(self, number: int, now: float) -> None:
        slot = self._slots.pop(number)
        had_slot = self._service.created(self._fleet.group, slot.number) == slot.revision
        began = datetime.now(UTC) - timedelta(seconds=self._plans[number].restart_s)
        try:
            had_slot &= bool(self._request(number, FleetVerb.RELEASE, slot._replace(since=began.isoformat())))
        except LockError:
            # Its lease ends, as the agent leaves it.
            self._dead[number] = slot
            self._at(now + LEASE_S, number, self._lose)
        if not had_slot:
            self._lost.append(self._plans[number].host.name)
        self._served += 1
