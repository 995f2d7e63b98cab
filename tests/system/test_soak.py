"""Half a minute of the soak test. `make soak HOURS=8` runs longer."""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.system.soak import growing, soak

SECONDS = 30

THREADS_OF_A_WATCH = 2
"""Of watchdog. Each daemon-reload replaces /run/systemd/generator, whose watch ends and is renewed."""


def test_random_drift_is_detected_and_no_resource_grows(machine: Machine) -> None:
    samples = soak(machine, SECONDS, seed=1)
    assert len(samples) >= 2
    assert growing(samples) == []
    # The first step creates directories that are watched from then on.
    threads = [sample.threads for sample in samples[1:]]
    assert max(threads) - min(threads) <= THREADS_OF_A_WATCH
    assert max(sample.descriptors for sample in samples) - min(sample.descriptors for sample in samples) <= 2
