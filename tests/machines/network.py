"""Machines joined by a bridge, for what several hosts do together.

    with machines_of_a_fleet(("bookworm", "bookworm", "trixie"), package=deb) as (network, (web1, web2, web3)):
        web1.run("curl --silent http://web2:2379/version")
        network.cut(web2)

The bridge is in the network namespace outside the first machine, so that it ends with that one. Each machine knows the
others by name. All have one kernel, and therefore one clock.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.machines.machine import Machine

BRIDGE = "fleet"
INTERFACE = "eth1"
"""The interface of a machine on the bridge; eth0 leads to its own outside."""


class Host(NamedTuple):
    """A machine on the bridge."""

    name: str
    address: str
    machine: Machine


class Network:
    """A bridge with machines on it, called web1, web2 and so on, at 10.78.0.1 and following."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.hosts = tuple(Host(f"web{number}", f"10.78.0.{number}", machine)
                           for number, machine in enumerate(machines, start=1))
        self._ip(self._bridge, "link", "add", BRIDGE, "type", "bridge")
        self._ip(self._bridge, "link", "set", BRIDGE, "up")
        for host in self.hosts:
            self.join(host.machine)

    def join(self, machine: Machine) -> None:
        """Connect a machine, again after it was started again."""
        name, address, _ = self.host(machine)
        with contextlib.suppress(RuntimeError):
            # The kernel removes the previous pair with the machine's network namespace, but with a delay.
            self._ip(self._bridge, "link", "delete", name)
        self._ip(self._bridge, "link", "add", name, "type", "veth",
                 "peer", "name", INTERFACE, "netns", str(machine.leader))
        self._ip(self._bridge, "link", "set", name, "master", BRIDGE, "up")
        self._ip(machine.leader, "address", "add", f"{address}/24", "dev", INTERFACE)
        self._ip(machine.leader, "link", "set", INTERFACE, "up")
        machine.run(["hostname", name])
        machine.write("/etc/hostname", f"{name}\n")
        machine.write("/etc/hosts", "127.0.0.1 localhost\n" + "".join(
            f"{host.address} {host.name}\n" for host in self.hosts))

    def cut(self, machine: Machine) -> None:
        """Cut the cable of a machine: nothing arrives, and nobody is told."""
        self._ip(self._bridge, "link", "set", self.host(machine).name, "nomaster")

    def mend(self, machine: Machine) -> None:
        """Connect it again."""
        self._ip(self._bridge, "link", "set", self.host(machine).name, "master", BRIDGE)

    def host(self, machine: Machine) -> Host:
        """Return the name and the address of a machine."""
        return next(host for host in self.hosts if host.machine is machine)

    @property
    def _bridge(self) -> int:
        return self.hosts[0].machine.outside_pid

    @staticmethod
    def _ip(namespace: int, *arguments: str) -> None:
        command = ["nsenter", "--target", str(namespace), "--net", "ip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}: {done.stderr}")


@contextlib.contextmanager
def machines_of_a_fleet(
    releases: Sequence[str], *, package: Path | None = None, debian: tuple[str, ...] = ()
) -> Iterator[tuple[Network, tuple[Machine, ...]]]:
    """Boot a machine of each release and join them; all end with the block."""
    with contextlib.ExitStack() as stack:
        machines = tuple(stack.enter_context(Machine.boot(release, package=package, debian=debian))
                         for release in releases)
        yield Network(machines), machines
