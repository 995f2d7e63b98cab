"""The real passes of the agent, and `fix`, on a simulated host."""

from __future__ import annotations

import os

from dockerd_guard.agent.controller import Controller, Host
from dockerd_guard.agent.drift_tracker import DriftTracker
from dockerd_guard.agent.reconcile import by_hand, reconcile
from dockerd_guard.apply.context import Context
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.commands.uninstall import release
from dockerd_guard.observe.live import observer
from dockerd_guard.plan.slots import not_asked
from dockerd_guard.policy.model import Policy, PolicyError
from dockerd_guard.policy.reader import read_policy
from dockerd_guard.report.journal import Journal, JournalEntry
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import (
    SimulatedFiles,
    SimulatedKernel,
    SimulatedManager,
    SimulatedNetwork,
    validate_nothing,
)
from tests.simulation.lock import SimulatedLock

STATE = "/var/lib/dockerd-guard"


class RecordedJournal(Journal):
    """Keeps the entries."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.lines: list[str] = []

    def write(self, entry: JournalEntry) -> None:
        self.entries.append(entry)

    def say(self, message: str, level: str = "info") -> None:
        self.lines.append(message)


class SimulatedStateFiles(StateFiles):
    """State files on the simulated disk."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(f"{host.root}{STATE}")
        self._host = host

    def _write(self, name: str, content: bytes | None) -> None:
        self._host.tick()
        if self._host.disk_errno:
            raise OSError(self._host.disk_errno, os.strerror(self._host.disk_errno), self.directory)
        super()._write(name, content)
        self._host.tick()


class SimulatedAgent:
    """One process of the agent. A new one goes on from what the last one stored."""

    def __init__(self, host: SimulatedHost, journal: RecordedJournal) -> None:
        self.host = host
        self.journal = journal
        self.state = SimulatedStateFiles(host)
        self.ports = Host(
            lambda: SimulatedManager(host), self._policy, SimulatedFiles(host), SimulatedKernel(host),
            SimulatedNetwork(host), host.clock, validate_nothing(host), self.state, SimulatedLock(host))
        tracker = DriftTracker(journal, lambda: host.clock.seconds)
        self.controller = Controller(self.ports, self._policy(), journal, tracker)

    def _policy(self) -> Policy:
        with Rootfs(str(self.host.root)) as rootfs:
            return read_policy(rootfs)

    def run_pass(self, *, retry: bool = False) -> float | None:
        """One pass; the seconds after which the next is due at the latest."""
        self.host.probed_before = len(self.host.probes)
        self.controller.run_pass([], retry=retry, watch=lambda rootfs, policy: ())
        # A pass takes time: what somebody writes after it does not have the times of what was written before.
        self.host.clock.sleep(1e-5)
        return self.controller.wake_s

    def uninstall(self) -> list[str]:
        """What the removal of the package runs. Returns what it leaves (I13)."""
        release(self.state, self.ports.network, SimulatedManager(self.host))
        host = self.host
        return ([f"I13: blocked after the removal: {host.blocked}"] * bool(host.blocked)
                + [f"I13: IPAddressDeny= after the removal: {host.ip_filter}"] * any(host.ip_filter))

    def fix(self) -> None:
        """`dockerd-guard fix`, as far as it is not output."""
        manager = SimulatedManager(self.host)
        try:
            policy = self._policy()
        except PolicyError:
            return
        with observer(manager, self.ports.kernel, self.ports.files.root) as observe:
            context = Context(manager, self.ports.files, observe, self.ports.network, self.host.clock,
                              self.ports.validate, self.ports.lock)
            seen = observe()
            reconcile(seen, judge(seen, policy), policy, not_asked(self.state.load()), context, self.ports.kernel,
                      self.state, by_hand)
