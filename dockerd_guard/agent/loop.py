"""The agent: runs a pass on each trigger. agent/states.py has its states, agent/controller.py its passes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from datetime import UTC, datetime

from dockerd_guard.agent.controller import Controller, ExposureTime, Host
from dockerd_guard.agent.drift_tracker import DriftTracker
from dockerd_guard.agent.notify import Notify
from dockerd_guard.agent.publisher import Publisher, Standing, policy_changed_at
from dockerd_guard.agent.states import AgentState, StateMachine
from dockerd_guard.agent.triggers import Files, Waker, wait
from dockerd_guard.apply.context import HostClock
from dockerd_guard.apply.files import HostFiles
from dockerd_guard.apply.preflight import validate
from dockerd_guard.apply.state_files import Busy, StateFiles, exclusive, single_agent
from dockerd_guard.model.address import Tls
from dockerd_guard.nethelper.client import NethelperClient
from dockerd_guard.nethelper.fleet_client import FleetClient
from dockerd_guard.observe.kernel import HostKernel
from dockerd_guard.observe.network import HELPER_UNITS, Unsupported
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.policy.model import Policy, PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report.correction import policy_entry, policy_error_entry
from dockerd_guard.report.journal import Journal, Outcome
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.manager import Manager, Unavailable

MAX_SETTLE_S = 1.0
"""Maximum delay of a pass while changes keep arriving."""

CONTESTED_PACE_S = 3.0
"""The same while another program keeps undoing a correction. Containment does not wait for it (I8)."""

RETRY_S = 5.0
"""Delay before trying again to become the one agent of this host."""

LOCK_PACE_S = 1.0
"""Delay before trying again to get the lock of the state directory, which ends with a fix."""


class Agent:
    """One agent on one host. `run` returns the exit code."""

    def __init__(self, policy_file: str, policy: Policy, journal: Journal, tracker: DriftTracker) -> None:
        self._policy_file = policy_file
        self._policy_since = policy_changed_at(policy_file)
        self._journal = journal
        self._tracker = tracker
        self._notify = Notify()
        self._waker = Waker()
        self._files = Files()
        self._network = NethelperClient()
        self._lock = FleetClient()
        self._state_files = StateFiles()
        self._machine = StateMachine()
        self._publisher = Publisher(journal, tracker, self._state_files.directory)
        self._controller = Controller(Host(
            self._connect, lambda: load_policy(policy_file, require_root_owned=True), HostFiles(), HostKernel(),
            self._network, HostClock(), validate, self._state_files, self._lock), policy, journal, tracker,
            ExposureTime(lambda exposed, started_at: self._publisher.counted(exposed, self._triggered_at, started_at),
                         self._publisher.reopened))
        self._problems: list[str] = []
        self._busy_since: datetime | None = None
        """When another process was first found to hold the lock of the state directory, None if this one gets it."""
        self._is_swept = False
        self._is_reload = False
        self._observed_at: float | None = None
        self._triggered_at = 0.0
        self._wake_at: float | None = None

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns 0."""
        self._catch_signals()
        with contextlib.ExitStack() as locks:
            if self._is_the_only_one(locks):
                self._notify.status("Running the first check of this host")
                self._tracker.write(policy_entry(self._controller.policy))
                self._pass()
                while self._wait():
                    self._pass()
            self._notify.stopping()
            self._publisher.publish(self._standing)
            self._files.close()
            self._network.close()
            self._lock.close()
        return 0

    def _is_the_only_one(self, locks: contextlib.ExitStack) -> bool:
        """Wait until no other agent runs on this host. Returns False on a signal to stop."""
        reported = False
        while not self._machine.is_stopping:
            try:
                locks.enter_context(single_agent(self._state_files.directory))
            except Busy as error:
                if not reported:
                    reported = True
                    self._journal.say(f"Waiting: {error}.", "warning")
                    self._notify.ready(f"Waiting: {error}")
                self._events(RETRY_S)
                self._notify.alive()
            except OSError as error:
                self._journal.say(f"Cannot check for another running agent: {error}", "warning")
                return True
            else:
                return True
        return False

    def _catch_signals(self) -> None:
        def woken(*_: object) -> None:
            """Replaces the default action; set_wakeup_fd has written the number to the pipe."""

        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            signal.signal(number, woken)
        signal.set_wakeup_fd(self._waker.write_fd, warn_on_full_buffer=False)

    def _wait(self) -> bool:
        """Wait for a trigger or the resync, then until it is quiet. Returns False on a signal to stop.

        Feeds the service watchdog. Nothing announces a program that is started by hand: whenever the watchdog is fed,
        the listening sockets are compared.
        """
        policy = self._controller.policy
        resync = time.monotonic() + policy.watch.resync_s
        if self._wake_at is not None:
            resync = min(resync, self._wake_at)
        triggered_at: float | None = None
        quiet_at, compared_at = 0.0, time.monotonic()
        longest_s = CONTESTED_PACE_S if self._controller.decision.verdict is Verdict.BACK_OFF else MAX_SETTLE_S
        while True:
            now = time.monotonic()
            due = resync if triggered_at is None else min(quiet_at, triggered_at + longest_s)
            if now >= due:
                return True
            left_s = due - now
            if self._notify.watchdog_s is not None:
                left_s = min(left_s, self._notify.watchdog_s)
            came = self._events(left_s)
            self._notify.alive()
            if self._machine.is_stopping:
                return False
            if not came and time.monotonic() - compared_at >= left_s:
                compared_at = time.monotonic()
                if self._controller.host.kernel.has_new_listener():
                    self._triggered_at = compared_at
                    return True
            if came:
                self._triggered_at = time.monotonic()
                self._controller.changed()
                triggered_at = triggered_at or self._triggered_at
                quiet_at = self._triggered_at + policy.watch.settle_s
                self._machine.to(AgentState.SETTLING)

    def _events(self, timeout_s: float) -> bool:
        """Wait for events or the timeout. Returns whether a pass is due."""
        fds = [self._waker.fileno()]
        was_connected = self._controller.manager is not None
        if (bus := self._bus_fd()) is not None:
            fds.append(bus)
            # Signals that arrived during a D-Bus call are queued in libsystemd; poll(2) does not report them.
            self._listen()
        if was_connected and self._controller.manager is None:
            # The connection broke during the last pass: do not wait for the resync.
            return True
        fds += [fd for fd in (self._files.fileno(), self._network.fileno()) if fd is not None]
        ready = wait(fds, timeout_s)
        came = False
        if self._network.fileno() in ready:
            came |= self._restore()
        if self._files.fileno() in ready:
            came |= self._files.changes()
        if self._waker.fileno() in ready:
            for number in self._waker.drain():
                came |= self._signal(number)
        if bus in ready:
            self._listen()
        return came or (was_connected and self._bus_fd() is None)

    def _restore(self) -> bool:
        """Put a flushed rule set back at once, whatever else waits (I8). Returns whether a pass is due."""
        if not self._network.changes():
            return False
        self._controller.containment.restore()
        return True

    def _beat(self) -> None:
        """What goes on while a pass waits for a job of systemd."""
        self._notify.alive()
        if self._restore():
            self._waker.wake()

    def _signal(self, number: int) -> bool:
        """Take in a signal, or a wake-up (0). Returns whether a pass is due."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self._machine.to(AgentState.STOPPING)
            return False
        if number == signal.SIGHUP:
            self._notify.reloading()
            self._is_reload = True
        elif number == signal.SIGCONT:
            self._problems.append("dockerd-guard was stopped, and has been continued (SIGCONT)")
        return True

    def _listen(self) -> None:
        """Process systemd's D-Bus signals, each of which wakes the loop."""
        if (manager := self._controller.manager) is not None:
            try:
                manager.process()
            except Unavailable:
                self._controller.disconnected()

    def _bus_fd(self) -> int | None:
        """The file descriptor of the D-Bus connection; None without one."""
        if (manager := self._controller.manager) is None:
            return None
        try:
            return manager.fileno()
        except Unavailable:
            self._controller.disconnected()
            return None

    def _connect(self) -> Manager:
        manager = Manager()
        manager.heartbeat = self._beat
        manager.subscribe(self._systemd_changed, ("docker.service", "docker.socket"))
        return manager

    def _systemd_changed(self, what: str) -> None:
        """Wake the loop, except for the end of a job on a helper of our own: a pass may have started it."""
        if not what.startswith(HELPER_UNITS):
            self._waker.wake()

    # --- one pass -------------------------------------------------------------------------

    def _pass(self) -> None:
        """Run one pass and publish what it came to. Corrects later if another dockerd-guard holds the lock."""
        if self._machine.is_stopping:
            return
        self._machine.to(AgentState.WORKING)
        self._wake_at = None
        problems, self._problems = self._problems, []
        if problems:
            # Only another observation can show that nothing is missing any more.
            self._waker.wake()
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(exclusive(self._state_files.directory))
            except Busy as error:
                if self._busy_since is None:
                    self._busy_since = datetime.now(UTC)
                    self._journal.say(f"Waiting: {error}.")
                self._work(problems, owns_state=False)
                self._wake_in(LOCK_PACE_S)
            except OSError as error:
                self._busy_since = None
                self._work([*problems, f"cannot use the state directory: {error}"])
            else:
                self._busy_since = None
                if not self._is_swept:
                    self._state_files.sweep()
                    self._is_swept = True
                self._work(problems)
        if self._network.changes():
            self._waker.wake()
        self._network.rest()
        if not self._machine.is_stopping:
            self._machine.to(AgentState.HOLDING if self._standing.held is not None else AgentState.WATCHING)
        standing = self._standing
        self._publisher.publish(standing)
        self._notify.ready(self._publisher.status_line(standing))

    def _work(self, problems: list[str], *, owns_state: bool = True) -> None:
        before, controller = self._controller.policy, self._controller
        controller.run_pass(problems, retry=self._is_reload, watch=self._watch, owns_state=owns_state)
        self._is_reload = self._is_reload and not owns_state
        self._observed_at = time.time()
        if controller.policy is not before:
            self._policy_since = policy_changed_at(self._policy_file)
        if controller.wake_s is not None:
            self._wake_in(controller.wake_s)
        try:
            if self._network.follow(is_there=controller.containment.is_by_nftables):
                self._waker.wake()
        except Unsupported as error:
            self._problems.append(f"cannot monitor the nftables rules: {error}")

    def _watch(self, rootfs: Rootfs, policy: Policy) -> tuple[str, ...]:
        """Watch before acting, and look again afterwards, so that no change between two observations is lost."""
        rootfs.resolve(self._policy_file)
        for path in policy.tls[:3] if policy.tcp_tls not in (None, Tls.NONE) else ():
            # A correction may wait for these files, and no file of the host names them yet.
            rootfs.stat(path)
        is_new, unwatched = self._files.watch({*rootfs.consulted, self._policy_file}, rootfs.listed)
        if (confirm_s := self._files.confirm_s) is not None:
            self._wake_in(confirm_s)
        if is_new:
            self._triggered_at = time.monotonic()
            self._waker.wake()
        return unwatched

    def _wake_in(self, seconds: float) -> None:
        """Look again at the latest then."""
        at = time.monotonic() + seconds
        self._wake_at = at if self._wake_at is None else min(self._wake_at, at)

    @property
    def _standing(self) -> Standing:
        controller = self._controller
        return Standing(
            self._machine.state, controller.policy, self._policy_since, controller.policy_problem, controller.memory,
            controller.decision.verdict is Verdict.BACK_OFF, controller.exposed, self._observed_at, self._triggered_at,
            self._busy_since)


def run(policy_file: str, log_format: str) -> int:
    """Run the agent on this host. Returns the exit code: 2 without root or without a valid policy."""
    if os.geteuid() != 0:
        print("dockerd-guard: the agent needs root: it reads /proc of dockerd and writes to /etc", file=sys.stderr)
        return 2
    journal = Journal(log_format)
    tracker = DriftTracker(journal)
    try:
        policy = load_policy(policy_file, require_root_owned=True)
    except PolicyError as error:
        for problem in error.problems:
            tracker.write(policy_error_entry(
                problem, Outcome.FAILED, "No valid policy; this host is not guarded",
                "Fix the file; the agent starts when it is saved"))
        Notify().status(f"No valid policy; this host is not guarded: {error.problems[0]}")
        return 2
    return Agent(policy_file, policy, journal, tracker).run()
