"""Three machines that one of them, the controller, configures by ansible-playbook over ssh."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.machines.network import Network, machines_of_a_fleet
from tests.support.correction import LIVE_RESTORE, OPEN, OVERRIDE, rests

DEBIAN = ("ansible-core", "openssh-client", "openssh-server", "python3-apt")
ROLLOUT = "dockerd_guard.agent.rollout"
INVENTORY = "/root/hosts.json"
ANSIBLE = ("env", "ANSIBLE_HOST_KEY_CHECKING=False", "ANSIBLE_PIPELINING=True", "ANSIBLE_NOCOLOR=1",
           "ANSIBLE_TIMEOUT=5")
PLAY_SECONDS = 600

ENFORCE = {"version": 1, "mode": "enforce", "sockets": ["fd://"]}

TREES = """
find /etc /var/lib/dockerd-guard -printf '%p %y %m %u %l\\n'
find /etc /var/lib/dockerd-guard -type f -exec sha256sum {} + | sed 's/^/sum /'
"""
"""Every file with its type, mode and owner, and the content of each regular one."""

_RECAP = re.compile(r"^(\w+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+) ", re.MULTILINE)


class Play(NamedTuple):
    """A run of ansible-playbook. `failed`: hosts that failed or did not answer."""

    status: int
    out: str
    changed: dict[str, int]
    failed: tuple[str, ...]


class Fleet(NamedTuple):
    """The machines, of which the first is also the controller."""

    network: Network
    machines: tuple[Machine, ...]

    @property
    def controller(self) -> Machine:
        return self.machines[0]

    def pids(self) -> list[int]:
        """The PID of each dockerd."""
        return [machine.main_pid() for machine in self.machines]

    def play(self, playbook: str, *arguments: str, **variables: object) -> Play:
        """Run a playbook with variables of all hosts."""
        hosts: dict[str, dict[str, str]] = {host.name: {} for host in self.network.hosts}
        inventory = {"all": {"hosts": hosts, "vars": {"ansible_user": "root", **variables}}}
        self.controller.write(INVENTORY, json.dumps(inventory))
        done = self.controller.run([*ANSIBLE, "ansible-playbook", "--inventory", INVENTORY, playbook, *arguments],
                                   check=False, timeout=PLAY_SECONDS)
        recap = _RECAP.findall(done.out)
        return Play(done.status, done.out + done.err, {name: int(changed) for name, changed, *_ in recap},
                    tuple(name for name, _, *troubles in recap if troubles != ["0", "0"]))


@contextlib.contextmanager
def fleet_of(releases: tuple[str, ...], package: Path | None, *, debian: tuple[str, ...] = DEBIAN) -> Iterator[Fleet]:
    """Boot the machines, with a key by which the first logs in on each."""
    with machines_of_a_fleet(releases, package=package, debian=debian) as (network, machines):
        controller = machines[0]
        controller.run("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        for machine in machines:
            machine.write("/root/.ssh/authorized_keys", controller.read("/root/.ssh/id_ed25519.pub"), mode=0o600)
        yield Fleet(network, machines)


def expose(machine: Machine, *, live_restore: bool = True) -> int:
    """Open the API of a machine to everyone, beside a container; its PID."""
    if live_restore:
        machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    return machine.start_container()


def trees(machine: Machine) -> set[str]:
    """What is in /etc and in the state directory, one line each, once the agent rests."""
    wait_for(lambda: rests(machine), "agent at rest")
    return set(machine.run(TREES).out.splitlines())
