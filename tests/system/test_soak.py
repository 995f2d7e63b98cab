"""Half a minute of the soak test. `make soak HOURS=8` runs longer."""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.system.soak import CONTAINMENT_DESCRIPTORS, growing, soak

SECONDS = 30

def test_random_drift_is_detected_and_no_resource_grows(machine: Machine) -> None:
    samples = soak(machine, SECONDS, seed=1)
    assert len(samples) >= 2
    assert growing(samples) == []
    # watchdog has two threads and three descriptors for each watch. No drift and no daemon-reload adds or renews one.
    assert len({sample.threads for sample in samples}) == 1
    descriptors = [sample.descriptors for sample in samples]
    assert max(descriptors) - min(descriptors) <= CONTAINMENT_DESCRIPTORS
