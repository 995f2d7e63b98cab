"""A loop of the agent without a machine: its bus, its network, its watched files and its notifications."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard.agent import loop
from dockerd_guard.agent.drift_tracker import DriftTracker
from dockerd_guard.agent.loop import Agent
from dockerd_guard.agent.states import AgentState
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.systemd.manager import Unavailable
from tests.simulation.agent import RecordedJournal
from tests.simulation.host import SimulatedHost
from tests.simulation.interfaces import (
    SimulatedFiles,
    SimulatedKernel,
    SimulatedManager,
    SimulatedNetwork,
    validate_nothing,
)

POLICY = parse_policy(b"version: 1\nmode: enforce\nsockets: [fd://]\nwatch: {settle: 10ms, resync: 1min}\n")


class Bus(SimulatedManager):
    """A connection to systemd whose signals come through a pipe."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.read, self.write = os.pipe2(os.O_NONBLOCK)
        self.is_broken = False

    def subscribe(self, on_change: Any = None, units: tuple[str, ...] = ()) -> None:
        self.woken = on_change

    def fileno(self) -> int:
        if self.is_broken:
            raise Unavailable("broken")
        return self.read

    def process(self, timeout_s: float = 0.0) -> None:
        if self.is_broken:
            raise Unavailable("broken")
        with contextlib.suppress(BlockingIOError):
            self.woken(os.read(self.read, 100).decode())


class Network(SimulatedNetwork):
    """The network helper, whose notices of changed rules come through a pipe."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self.read, self.write = os.pipe2(os.O_NONBLOCK)
        self.is_closed = False
        self.cannot_follow = False
        self.follows: bool | None = None

    def fileno(self) -> int | None:
        return self.read

    def changes(self) -> bool:
        try:
            return bool(os.read(self.read, 100))
        except BlockingIOError:
            return False

    def follow(self, *, is_there: bool) -> bool:
        if self.cannot_follow:
            raise Unsupported("no netlink")
        changed, self.follows = self.follows != is_there, is_there
        return changed and is_there

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Watched:
    """The watched files."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK)
        self.is_closed = False
        self.paths: set[str] = set()
        self.is_new = False
        self.unwatched: tuple[str, ...] = ()
        self.confirm_s: float | None = None

    def fileno(self) -> int | None:
        return self.read

    def watch(self, paths: set[str], listed: set[str]) -> tuple[bool, tuple[str, ...]]:
        self.paths = set(paths)
        is_new, self.is_new = self.is_new, False
        return is_new, self.unwatched

    def changes(self) -> bool:
        try:
            return bool(os.read(self.read, 100))
        except BlockingIOError:
            return False

    def close(self) -> None:
        self.is_closed = True


class Notified:
    """What the service manager is notified of."""

    watchdog_s: float | None = None

    def __init__(self) -> None:
        self.sent: list[str] = []

    def ready(self, status: str) -> None:
        self.sent.append(f"READY {status}")

    def reloading(self) -> None:
        self.sent.append("RELOADING")

    def status(self, status: str) -> None:
        self.sent.append(f"STATUS {status}")

    def stopping(self) -> None:
        self.sent.append("STOPPING")

    def alive(self) -> None:
        self.sent.append("WATCHDOG")

    def taken(self) -> list[str]:
        """What was sent since, without the watchdog."""
        found, self.sent = [text for text in self.sent if text != "WATCHDOG"], []
        return found


class Loop:
    """An agent with stand-ins, and what it works with."""

    def __init__(self, host: SimulatedHost, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.journal = RecordedJournal()
        self.network, self.files, self.notify = Network(host), Watched(), Notified()
        self.bus: Bus | None = None
        self.state = StateFiles(str(directory / "state"))
        os.makedirs(self.state.directory)
        self.policy = POLICY
        for name, value in {
            "Notify": lambda: self.notify, "Files": lambda: self.files, "NethelperClient": lambda: self.network,
            "StateFiles": lambda: self.state, "Manager": self._connect, "HostFiles": lambda: SimulatedFiles(host),
            "HostKernel": lambda: SimulatedKernel(host), "HostClock": lambda: host.clock,
            "validate": validate_nothing(host), "load_policy": self._load_policy,
        }.items():
            monkeypatch.setattr(loop, name, value)
        self.agent = Agent("/policy.yaml", POLICY, self.journal, DriftTracker(self.journal))

    def _connect(self) -> Bus:
        self.bus = Bus(self.host)
        return self.bus

    def _load_policy(self, path: str, *, require_root_owned: bool) -> Any:
        assert (path, require_root_owned) == ("/policy.yaml", True)
        return self.policy

    def state_of_agent(self) -> AgentState:
        return self.agent._machine.state
