"""Half a minute of the soak test. `make soak HOURS=8` runs longer."""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.system.soak import growing, soak

SECONDS = 30


def test_random_drift_is_detected_and_no_resource_grows(machine: Machine) -> None:
    samples = soak(machine, SECONDS, seed=1)
    assert len(samples) >= 2
    assert growing(samples) == []
    # watchdog has threads for each watch. The first step creates directories that are watched from then on.
    assert len({sample.threads for sample in samples[1:]}) == 1
    assert max(sample.descriptors for sample in samples) - min(sample.descriptors for sample in samples) <= 2
