"""Each kind of mutation on some file, each file with some mutation, and degraded visibility that ends at once.
slow_blindness.py has all others."""

from __future__ import annotations

from pathlib import Path

from tests.machines.machine import Machine, wait_for
from tests.support.blindness import (
    CLOSED,
    DETECTED_S,
    DROPIN_DIRECTORY,
    OPEN,
    RESYNC,
    blind,
    check_mutations,
    check_policy_mutations,
    is_open,
)
from tests.support.correction import OVERRIDE, POLICY, entries, rests

MISSED = "no file event arrived"
MAX_QUEUED_EVENTS = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

# The vendor's unit comes first: each mutation leaves its file behind, and an override has precedence.
SOME = (
    ("the vendor's unit", "delete"),
    ("override", "first directory"),
    ("environment file", "content"),
    ("override", "touch"),
    ("daemon.json", "rename"),
    ("socket drop-in", "overwrite by rename"),
    ("daemon.json", "chmod"),
    ("environment file", "symlink swap"),
    ("new drop-in", "mask"),
    ("socket drop-in", "directory replaced"),
)


def test_each_kind_of_mutation_is_detected_by_its_event(machine: Machine) -> None:
    check_mutations(machine, SOME)


def test_replaced_or_deleted_policy_is_detected_by_its_event(machine: Machine) -> None:
    check_policy_mutations(machine, ("overwrite by rename", "delete"))


def test_change_whose_event_is_lost_in_a_full_queue_is_reported_as_missed(machine: Machine) -> None:
    agent = machine.main_pid("dockerd-guard.service")
    machine.run("systemctl kill --signal=STOP dockerd-guard")
    machine.run(["python3", "-c", f"""
import os
for number in range({MAX_QUEUED_EVENTS} + 1000):
    os.close(os.open("/etc/systemd/x%d" % (number % 2), os.O_CREAT | os.O_WRONLY))
"""])
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl kill --signal=CONT dockerd-guard")
    wait_for(lambda: is_open(machine), "drift", timeout=DETECTED_S)
    for words in (MISSED, "was stopped"):
        wait_for(lambda w=words: blind(machine, w), f"report: {words}")  # type: ignore[misc]
        wait_for(lambda w=words: blind(machine, w, over=True), f"end of: {words}")  # type: ignore[misc]
    machine.write(OVERRIDE, CLOSED)
    wait_for(lambda: not is_open(machine), "end of the drift by its event")
    assert machine.main_pid("dockerd-guard.service") == agent


def test_mount_over_a_directory_is_detected_by_resync(machine: Machine) -> None:
    machine.run(f"mkdir -p {DROPIN_DIRECTORY} /root/other")
    machine.write("/root/other/override.conf", OPEN)
    machine.write(POLICY, RESYNC)
    wait_for(lambda: entries(machine, "policy")[1:], "policy in force")
    # In a pass the directory began to be watched.
    wait_for(lambda: rests(machine), "end of a pass")
    machine.run(f"mount --bind /root/other {DROPIN_DIRECTORY}")
    wait_for(lambda: is_open(machine), "drift", timeout=DETECTED_S)
    wait_for(lambda: blind(machine, MISSED), "report of the mount")
    wait_for(lambda: blind(machine, MISSED, over=True), "entry about the end of it")
    machine.write("/root/other/override.conf", CLOSED)
    wait_for(lambda: not is_open(machine), "end of the drift")
