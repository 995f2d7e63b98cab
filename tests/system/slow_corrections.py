"""More than a hundred corrections of mixed drift on all releases, and what each restart does to a container.

Half of the drift is created under `mode: observe`, becomes effective, and is corrected by a restart under `mode:
enforce`. The other half is created under `mode: enforce` and is corrected on disk before dockerd restarts.
"""

from __future__ import annotations

import os

from tests.machines.machine import Machine, wait_for
from tests.support.contention import BACKOFF, starts
from tests.support.correction import EXPOSURES, LIVE_RESTORE, OUR_SERVICE_DROPIN, POLICY, UNIT, repaired

CORRECTIONS = int(os.environ.get("CORRECTIONS", "36"))
"""The number of corrections on each release."""

POLICY_TEXT = "version: 1\nmode: {mode}\nsockets: [fd://]\ncorrect: {{budget: 1000/1h}}\n"


def follow(machine: Machine, mode: str) -> None:
    machine.write(POLICY, POLICY_TEXT.format(mode=mode))
    machine.run("systemctl reload dockerd-guard")


def made(machine: Machine) -> int:
    """Return the number of corrections that wrote files and were kept."""
    return sum("wrote " in entry["MESSAGE"] for entry in repaired(machine))


def calm(machine: Machine) -> bool:
    """Whether the host complies and has no drop-in of ours."""
    return machine.run("dockerd-guard diff && ! find /etc/systemd/system -name zz-dockerd-guard.conf | grep .",
                       check=False).status == 0


def test_corrections_restart_no_container(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    # The same exposure again counts as a correction that was undone: tests/system/slow_contention.py.
    machine.run(f"sed -i 's/^FREE_REPEATS = .*/FREE_REPEATS = 1000/' {BACKOFF}")
    machine.run("systemctl restart dockerd-guard; systemctl reload docker")
    container = machine.start_container()
    before, corrected, lost = starts(machine), 0, 0
    while corrected < CORRECTIONS:
        exposure = EXPOSURES[corrected % len(EXPOSURES)]
        runs = corrected // len(EXPOSURES) % 2 == 0
        follow(machine, "observe" if runs else "enforce")
        known = made(machine)
        for path, text in exposure.files.items():
            machine.write(path, text)
        if exposure.line and (runs or exposure.line.startswith("sed")):
            machine.run(exposure.line)
        machine.run("systemctl daemon-reload")
        if runs:
            machine.run("systemctl reset-failed docker.service docker.socket; systemctl restart docker")
            wait_for(machine.api_answers, f"API open to everyone by {exposure.name}")
            follow(machine, "enforce")
        wait_for(lambda n=known: made(machine) > n, f"correction of {exposure.name}")  # type: ignore[misc]
        assert not machine.api_answers(), exposure.name
        assert machine.socket_answers(), exposure.name
        corrected += made(machine) - known
        lost += machine.container_pid() != container
        container = machine.container_pid()
        machine.remove(*exposure.files)
        machine.run(f"sed -i 's| -H=tcp://0.0.0.0:2375 --tls=false||' {UNIT}; systemctl daemon-reload")
        wait_for(lambda: calm(machine), f"removal of our files after {exposure.name}")
    print(f"{machine.release}: {corrected} corrections, docker.service started {starts(machine) - before} times, "
          f"{lost} containers restarted")
    assert lost == 0
    assert not machine.exists(OUR_SERVICE_DROPIN)
