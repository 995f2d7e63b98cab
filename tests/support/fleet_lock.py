"""A simulated host of a fleet: policies with a lock, and what the lock service does."""

from __future__ import annotations

from tests.simulation.host import SimulatedHost
from tests.support.situations import Act, opened, policy


def lock_policy(more: str = "", lock: str = "etcd", group: str = "prod") -> Act:
    """A policy with a lock."""
    return policy("mode: enforce\nsockets: [fd://]\ncorrect: {fleet: "
                  f"{{lock: {lock}, group: {group}, endpoints: ['https://lock']{more}}}}}")


ETCD, FLEETLOCK = lock_policy(), lock_policy(lock="fleetlock")
PROCEED = lock_policy(", unreachable: proceed")
PORT = (ETCD, *opened())


def service(**values: object) -> Act:
    """What the lock service does, by attribute of LockService."""
    def set_them(host: SimulatedHost) -> None:
        for name, value in values.items():
            assert hasattr(host.lock, name)
            setattr(host.lock, name, value)
    return set_them
