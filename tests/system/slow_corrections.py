"""A hundred corrections and more, of mixed drift on all releases: what each restart did to a container.

Every other drift comes while the policy is `observe`, runs, and is corrected by a restart when it is `enforce`
again; the others come under the agent's eyes, and are right on disk before anybody restarts dockerd.
"""

from __future__ import annotations

import os

from tests.machines.machine import Machine, wait_for
from tests.support.correction import EXPOSURES, LIVE_RESTORE, OUR_SERVICE_DROPIN, POLICY, UNIT, repaired
from tests.support.war import CONTEST, starts

CORRECTIONS = int(os.environ.get("CORRECTIONS", "36"))
"""On each release."""

POLICY_TEXT = "version: 1\nmode: {mode}\nsockets: [fd://]\ncorrect: {{budget: 1000/1h}}\n"


def follow(machine: Machine, mode: str) -> None:
    machine.write(POLICY, POLICY_TEXT.format(mode=mode))
    machine.run("systemctl reload dockerd-guard")


def made(machine: Machine) -> int:
    """How many corrections wrote something, and hold."""
    return sum("wrote " in entry["MESSAGE"] for entry in repaired(machine))


def calm(machine: Machine) -> bool:
    """Whether nothing is left to do, and nothing of ours is left."""
    return machine.run("dockerd-guard diff && ! find /etc/systemd/system -name zz-dockerd-guard.conf | grep .",
                       check=False).status == 0


def test_no_correction_restarts_a_container(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    # So many in a few minutes are a war to the agent, and it would stop: tests/system/slow_war.py.
    machine.run(f"sed -i 's/^UPDATES = .*/UPDATES = 1000/; s/^ROUNDS = .*/ROUNDS = 1000/' {CONTEST}")
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
