"""Half a minute of the soak test. `make soak HOURS=8` runs longer."""

from __future__ import annotations

from tests.machines.machine import Machine
from tests.system.soak import CONTAINMENT_DESCRIPTORS, growing, soak

SECONDS = 30

THREADS_OF_A_WATCH = 2
"""Of watchdog. Each daemon-reload replaces /run/systemd/generator, whose watch ends and is renewed."""

DESCRIPTORS_OF_A_WATCH = 3
"""The same: inotify's, and a pipe that ends the thread (watchdog 6.0, inotify_c.py)."""


def test_random_drift_is_detected_and_no_resource_grows(machine: Machine) -> None:
    samples = soak(machine, SECONDS, seed=1)
    assert len(samples) >= 2
    assert growing(samples) == []
    # The first step creates directories that are watched from then on.
    threads = [sample.threads for sample in samples[1:]]
    assert max(threads) - min(threads) <= THREADS_OF_A_WATCH
    descriptors = [sample.descriptors for sample in samples]
    assert max(descriptors) - min(descriptors) <= DESCRIPTORS_OF_A_WATCH + CONTAINMENT_DESCRIPTORS
