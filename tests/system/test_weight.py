"""The agent's resident memory after the start, after many passes and after a correction."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.weight import AGENT, HIGHEST_KIB, PEAK_KIB, resident_kib, unused

POLICY = "/etc/dockerd-guard/config.yaml"

PASSES = 40
GROWTH_KIB, MAX_ROUNDS = 512, 4
"""Memory grows by less in one of so many rounds of passes: it grows in the first ones, and by what is loaded once, as
for a message that no pass before had."""


def passes(machine: Machine) -> None:
    """Run that many passes. A reload ends after a pass with the new policy."""
    machine.run(f"for _ in $(seq {PASSES}); do systemctl reload {AGENT}; "
                f"while [ $(systemctl show --value --property=ActiveState {AGENT}) = reloading ]; do :; done; done")


def test_memory_stays_below_its_limits(machine: Machine) -> None:
    assert unused(machine) == []
    assert resident_kib(machine) <= HIGHEST_KIB
    passes(machine)
    sizes = [resident_kib(machine)]
    while len(sizes) == 1 or (sizes[-1] - sizes[-2] > GROWTH_KIB and len(sizes) <= MAX_ROUNDS):
        passes(machine)
        sizes.append(resident_kib(machine))
    assert sizes[-1] - sizes[-2] <= GROWTH_KIB, sizes
    assert sizes[-1] <= HIGHEST_KIB

    machine.write("/etc/systemd/system/docker.service.d/open.conf",
                  "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    machine.run(f"sed -i 's/^mode: .*/mode: enforce/; $ a correct: {{restart: always}}' {POLICY}; "
                "systemctl daemon-reload; systemctl restart docker")
    wait_for(lambda: machine.journal(f"--unit={AGENT}", "DOCKERD_GUARD_EVENT=corrected"), "correction", timeout=180)
    assert resident_kib(machine) <= HIGHEST_KIB
    assert resident_kib(machine, "VmHWM") <= PEAK_KIB
    assert unused(machine) == []


def test_memory_stays_below_its_limits_with_tls(machine: Machine) -> None:
    """A child process checks the private key: in the agent, OpenSSL would take 7 MB permanently."""
    machine.run("openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=test -keyout /etc/docker/key.pem "
                "-out /etc/docker/cert.pem")
    machine.write(POLICY, "version: 1\nmode: enforce\n"
                          "sockets: [fd://, {address: 'tcp://127.0.0.1:2376', tls: mutual}]\n"
                          "tls: {ca: /etc/docker/cert.pem, cert: /etc/docker/cert.pem, key: /etc/docker/key.pem}\n"
                          "correct: {restart: always}\n")
    wait_for(lambda: machine.journal(f"--unit={AGENT}", "DOCKERD_GUARD_EVENT=corrected"), "correction", timeout=180)
    assert resident_kib(machine) <= HIGHEST_KIB
    assert unused(machine) == []
