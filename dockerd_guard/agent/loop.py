"""The agent: runs a pass on each trigger. agent/states.py has its states."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

from dockerd_guard.agent.drift_tracker import CONFIRM_S, DriftTracker
from dockerd_guard.agent.notify import Notify
from dockerd_guard.agent.publisher import Publisher, Standing, policy_changed_at
from dockerd_guard.agent.reconcile import Pass, reconcile, with_start
from dockerd_guard.agent.states import AgentState, StateMachine
from dockerd_guard.agent.triggers import Files, Waker, wait
from dockerd_guard.apply.context import Context, HostClock
from dockerd_guard.apply.files import HostFiles
from dockerd_guard.apply.preflight import validate
from dockerd_guard.apply.state_files import Busy, StateFiles, exclusive, single_agent
from dockerd_guard.containment.containment import Containment
from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding
from dockerd_guard.nethelper.client import NethelperClient
from dockerd_guard.observe.kernel import HostKernel
from dockerd_guard.observe.live import observe_host, observer
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.decide import Decision, Result, Verdict, containment, forget_policy, retry_now
from dockerd_guard.plan.exposures import exposures
from dockerd_guard.plan.memory import Contained, Memory
from dockerd_guard.policy.model import Mode, Policy, PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report.containment import containment_entries
from dockerd_guard.report.correction import (
    contested_entry,
    correction_entry,
    policy_entry,
    policy_error_entry,
    resolved_entry,
)
from dockerd_guard.report.drift import sentence
from dockerd_guard.report.journal import Cause, Journal, JournalEntry, Outcome
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.judge import judge
from dockerd_guard.systemd.manager import Manager, Unavailable

MAX_SETTLE_S = 1.0
"""Maximum delay of a pass while changes keep arriving."""

CONTESTED_PACE_S = 3.0
"""The same while another program keeps undoing a correction. Containment does not wait for it (I8)."""

RETRY_S = 5.0
"""Delay before retrying a broken connection to systemd or an unfinished pass."""

RETRY_AFTER_ERROR_S = 60.0
"""Delay before the next pass after an internal error."""


class Agent:
    """One agent on one host. `run` returns the exit code."""

    def __init__(self, policy_file: str, journal: Journal) -> None:
        self.policy_file = policy_file
        self.journal = journal
        self.tracker = DriftTracker(journal)
        self.notify = Notify()
        self.waker = Waker()
        self.files = Files()
        self.clock = HostClock()
        self.kernel = HostKernel()
        self.state_files = StateFiles()
        self.machine = StateMachine()
        self.network = NethelperClient()
        self.memory = self.state_files.load()
        self.containment = Containment(self.memory.contained, self.network, self._remember_contained)
        self.publisher = Publisher(journal, self.tracker, self.state_files.directory)
        self.policy: Policy | None = None
        self.policy_since = policy_changed_at(policy_file)
        self.policy_problem = ""
        self._manager: Manager | None = None
        self._decision = Decision(Verdict.NOTHING)
        self._problems: list[str] = []
        self._recovery = ""
        self._is_busy = False
        self._is_reload = False
        self._exposed = 0
        self._observed_at: float | None = None
        self._triggered_at = 0.0
        self._wake_at: float | None = None

    # --- the loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Run until SIGTERM or SIGINT. Returns 0 then, 2 if there is no valid policy at the start."""
        self._catch_signals()
        try:
            self.policy = load_policy(self.policy_file, require_root_owned=True)
        except PolicyError as error:
            for problem in error.problems:
                self.tracker.write(policy_error_entry(
                    problem, Outcome.FAILED, "No valid policy; this host is not guarded",
                    "Fix the file; the agent starts when it is saved"))
            self.notify.status(f"No valid policy; this host is not guarded: {error.problems[0]}")
            return 2
        with contextlib.ExitStack() as locks:
            if self._is_the_only_one(locks):
                self.notify.status("Running the first check of this host")
                self.tracker.write(policy_entry(self.policy))
                self._pass(Cause.DRIFT)
                while self._wait():
                    self._pass(Cause.DRIFT)
            self.notify.stopping()
            self.publisher.publish(self._standing)
            self.files.close()
            self.network.close()
        return 0

    def _is_the_only_one(self, locks: contextlib.ExitStack) -> bool:
        """Wait until no other agent runs on this host. Returns False on a signal to stop."""
        reported = False
        while not self.machine.is_stopping:
            try:
                locks.enter_context(single_agent(self.state_files.directory))
            except Busy as error:
                if not reported:
                    reported = True
                    self.journal.say(f"Waiting: {error}.", "warning")
                    self.notify.ready(f"Waiting: {error}")
                self._events(RETRY_S)
                self.notify.alive()
            except OSError as error:
                self.journal.say(f"Cannot check for another running agent: {error}", "warning")
                return True
            else:
                return True
        return False

    def _catch_signals(self) -> None:
        def woken(*_: object) -> None:
            """Replaces the default action; set_wakeup_fd has written the number to the pipe."""

        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            signal.signal(number, woken)
        signal.set_wakeup_fd(self.waker.write_fd, warn_on_full_buffer=False)

    def _wait(self) -> bool:
        """Wait for a trigger or the resync, then until it is quiet. Returns False on a signal to stop.

        Feeds the service watchdog.
        """
        policy = self._known_policy
        resync = time.monotonic() + policy.watch.resync_s
        if self._wake_at is not None:
            resync = min(resync, self._wake_at)
        triggered_at: float | None = None
        quiet_at = 0.0
        longest_s = CONTESTED_PACE_S if self._decision.verdict is Verdict.BACK_OFF else MAX_SETTLE_S
        while True:
            now = time.monotonic()
            due = resync if triggered_at is None else min(quiet_at, triggered_at + longest_s)
            if now >= due:
                return True
            left_s = due - now
            if self.notify.watchdog_s is not None:
                left_s = min(left_s, self.notify.watchdog_s)
            came = self._events(left_s)
            self.notify.alive()
            if self.machine.is_stopping:
                return False
            if came:
                self._triggered_at = time.monotonic()
                self.memory = self.memory._replace(changed_at=self.clock.now())
                triggered_at = triggered_at or self._triggered_at
                quiet_at = self._triggered_at + policy.watch.settle_s
                self.machine.to(AgentState.SETTLING)

    def _events(self, timeout_s: float) -> bool:
        """Wait for events or the timeout. Returns whether a pass is due."""
        fds = [self.waker.fileno()]
        if (bus := self._bus_fd()) is not None:
            fds.append(bus)
            # Signals that arrived during a D-Bus call are queued in libsystemd; poll(2) does not report them.
            self._listen()
        fds += [fd for fd in (self.files.fileno(), self.network.fileno()) if fd is not None]
        ready = wait(fds, timeout_s)
        came = False
        if self.network.fileno() in ready and self.network.changes():
            came = True
            # A rule set that was flushed comes back at once, whatever else waits (I8).
            self._contain_again()
        if self.files.fileno() in ready:
            changed, missed = self.files.changes()
            came |= changed
            self._problems += [missed] if missed else []
        if self.waker.fileno() in ready:
            for number in self.waker.drain():
                came |= self._signal(number)
        if bus in ready:
            self._listen()
        return came or (bus is not None and self._bus_fd() is None)

    def _signal(self, number: int) -> bool:
        """Take in a signal, or a wake-up (0). Returns whether a pass is due."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.machine.to(AgentState.STOPPING)
            return False
        if number == signal.SIGHUP:
            self.notify.reloading()
            self._is_reload = True
        elif number == signal.SIGCONT:
            self._problems.append("dockerd-guard was stopped, and has been continued (SIGCONT)")
        return True

    def _listen(self) -> None:
        """Process systemd's D-Bus signals, each of which wakes the loop."""
        if self._manager is not None:
            try:
                self._manager.process()
            except Unavailable:
                self._manager = None

    def _bus_fd(self) -> int | None:
        """The file descriptor of the D-Bus connection; None without one."""
        if self._manager is None:
            return None
        try:
            return self._manager.fileno()
        except Unavailable:
            self._manager = None
            return None

    # --- one pass -------------------------------------------------------------------------

    def _pass(self, cause: Cause) -> None:
        """Observe, report, correct what may be corrected. Retries later if another dockerd-guard holds the lock."""
        if self.machine.is_stopping:
            return
        self.machine.to(AgentState.WORKING)
        self._wake_at = None
        problems, self._problems = self._problems, []
        if problems:
            # Only another observation can show that nothing is missing any more.
            self.waker.wake()
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(exclusive(self.state_files.directory))
            except Busy as error:
                if not self._is_busy:
                    self.journal.say(f"Waiting: {error}.")
                self._is_busy = True
                self._wake_in(RETRY_S)
            except OSError as error:
                self._work(cause, [*problems, f"cannot use the state directory: {error}"])
            else:
                self._is_busy = False
                self.memory = self.state_files.load()._replace(changed_at=self.memory.changed_at)
                self._work(cause, problems)
        if self.network.changes():
            self.waker.wake()
        self.network.rest()
        if not self.machine.is_stopping:
            self.machine.to(AgentState.HOLDING if self.memory.held else AgentState.WATCHING)
        standing = self._standing
        self.publisher.publish(standing)
        self.notify.ready(self.publisher.status_line(standing))

    def _work(self, cause: Cause, problems: list[str]) -> None:
        if self._take_new_policy():
            cause = Cause.POLICY_CHANGE
        if self._is_reload:
            self._is_reload = False
            self.memory = retry_now(self.memory)
        try:
            manager = self._connection(problems)
            with Rootfs() as rootfs:
                self._observe_and_act(rootfs, manager, cause, problems)
        except Unavailable as error:
            self._manager = None
            self._wake_in(RETRY_S)
            problems.append(f"cannot query systemd: {error}; if D-Bus is down: `systemctl start dbus.socket`")
        except Unreadable as error:
            problems.append(str(error))
        except Exception as error:
            problems.append(f"internal error: {error!r} at {_source_line(error)}; please report it")
            self._wake_in(RETRY_AFTER_ERROR_S)
        self.tracker.report_blindness(problems)

    def _observe_and_act(self, rootfs: Rootfs, manager: Manager | None, cause: Cause, problems: list[str]) -> None:
        policy = self._known_policy
        seen = observe_host(rootfs, manager, self.kernel)
        problems += (trouble.text for trouble in seen.troubles if manager is not None)
        if manager is not None:
            # First: to judge, to query dockerd and to restart it may take a while (I12).
            self.containment.block_at_once(containment(seen, policy, self.memory))
        self._exposed = len(exposures(seen, policy))
        self._observed_at = time.time()
        self.memory = with_start(seen, self.memory)
        findings = judge(seen, policy)
        self._watch(rootfs, policy, problems)
        self._report_manual_fixes(findings)
        is_contested = self._decision.verdict is Verdict.BACK_OFF
        if self.tracker.report_drifts(seen, findings, policy, cause, is_contested=is_contested):
            self._wake_in(CONFIRM_S)
        if manager is None:
            return
        with observer(manager, self.kernel) as observe:
            context = Context(manager, HostFiles(), observe, self.network, self.clock, validate)
            done = reconcile(seen, findings, policy, self.memory, context, self.kernel, self.state_files)
            before, self.memory = self.memory, done.memory
            seen = done.seen or observe()
            self._exposed = len(exposures(seen, policy))
            self._record(done, seen, before, cause)
            self._contain(seen, manager, problems)
        self._decision = done.assessment.decision

    def _watch(self, rootfs: Rootfs, policy: Policy, problems: list[str]) -> None:
        """Watch before acting, and look again afterwards, so that no change between two observations is lost."""
        rootfs.resolve(self.policy_file)
        for path in policy.tls[:3] if policy.tcp_tls not in (None, Tls.NONE) else ():
            # A correction may wait for these files, and no file of the host names them yet.
            rootfs.stat(path)
        is_new, unwatched = self.files.watch({*rootfs.consulted, self.policy_file}, rootfs.listed)
        problems += unwatched
        if is_new:
            self._triggered_at = time.monotonic()
            self.waker.wake()

    def _report_manual_fixes(self, findings: tuple[Finding, ...]) -> None:
        """Log what `fix` did since the last pass."""
        for fix in self.memory.manual_fixes:
            self.tracker.report_manual_fix(fix, findings)
        self.memory = self.memory._replace(manual_fixes=())

    def _record(self, done: Pass, seen: Observation, before: Memory, cause: Cause) -> None:
        """Log what the pass came to, and when to look again."""
        assessment, decision = done.assessment, done.assessment.decision
        if done.recovery and done.recovery != self._recovery:
            self.journal.say(sentence(done.recovery), "notice")
        self._recovery = done.recovery
        if done.wake_s is not None:
            self._wake_in(done.wake_s)
        if decision.complies and before.held is not None and done.result is None and not done.recovery:
            self.tracker.write(resolved_entry(before.held, cause))
        if decision.contested is not None and self._decision.verdict is not Verdict.BACK_OFF:
            self.tracker.write(contested_entry(decision.contested, self.clock.now().wall, assessment, cause))
        for entry in self._correction_entries(done, seen, before, cause):
            self.tracker.write(entry)

    def _correction_entries(
        self, done: Pass, seen: Observation, before: Memory, cause: Cause
    ) -> Iterator[JournalEntry]:
        """One entry for a correction, and for a hold when it begins."""
        result, decision = done.result, done.assessment.decision
        if result is None and decision.verdict is Verdict.HOLD and decision.hold is not None:
            result = Result(False, hold=decision.hold)
        if result is None:
            return
        if result.hold is not None and self.memory.held is None:
            self.memory = self.memory._replace(held=before.held)
        is_known = bool(result.hold) and not result.steps and before.held is not None and (
            result.hold is not None and before.held.reason == result.hold.reason)
        is_known |= before.attempt is not None and bool(result.error) and before.attempt.error == result.error
        is_retry = result.hold is not None and result.hold.reason.startswith("the last attempt failed")
        if is_known or is_retry:
            return
        fixed = self.tracker.forget_fixed(judge(seen, self._known_policy)) if result.steps else ()
        yield correction_entry(result, done.assessment, cause, fixed)

    # --- containment ----------------------------------------------------------------------

    def _contain(self, seen: Observation, manager: Manager, problems: list[str]) -> None:
        """Block what is open against the policy, and nothing else; log what is new."""
        policy = self._known_policy
        wanted = containment(seen, policy, self.memory)
        try:
            result = self.containment.keep(wanted, manager)
        except (OSError, Unsupported) as error:
            problems.append(f"cannot change what is blocked at the network: {error}")
            return
        try:
            if self.network.follow(is_there=self.containment.is_by_nftables):
                self.waker.wake()
        except Unsupported as error:
            problems.append(f"cannot follow changes of nftables' rules: {error}")
        asked_for = policy.mode is Mode.ENFORCE and policy.correct.contain
        for entry in containment_entries(result, by_policy=not asked_for):
            self.tracker.write(entry)

    def _contain_again(self) -> None:
        """Put back at once what was in force, after somebody changed the rules."""
        self.containment.restore()

    def _remember_contained(self, contained: Contained) -> None:
        self.memory = self.memory._replace(contained=contained)
        # A full disk must not keep a port open; the end of the pass stores it again.
        with contextlib.suppress(OSError):
            self.state_files.save(self.memory)

    # --- systemd and the policy -----------------------------------------------------------

    def _connection(self, problems: list[str]) -> Manager | None:
        if self._manager is None:
            try:
                manager = Manager()
                manager.heartbeat = self.notify.alive
                manager.subscribe(lambda _: self.waker.wake(), ("docker.service", "docker.socket"))
                self._manager = manager
            except Unavailable as error:
                problems.append(f"cannot query systemd: {error}; if D-Bus is down: `systemctl start dbus.socket`")
                self._wake_in(RETRY_S)
        return self._manager

    @property
    def _known_policy(self) -> Policy:
        assert self.policy is not None  # noqa: S101 -- run() does not go on without
        return self.policy

    def _take_new_policy(self) -> bool:
        """Read the policy again. Returns whether it has changed. An invalid one is logged once."""
        try:
            policy = load_policy(self.policy_file, require_root_owned=True)
        except PolicyError as error:
            if str(error) != self.policy_problem:
                self.policy_problem = str(error)
                for problem in error.problems:
                    self.tracker.write(policy_error_entry(
                        problem, Outcome.KEPT, "The last valid policy stays in force", "Fix the file and save it"))
            return False
        self.policy_problem = ""
        if policy == self.policy:
            return False
        self.policy = policy
        self.policy_since = policy_changed_at(self.policy_file)
        self.memory = forget_policy(self.memory)
        self.tracker.write(policy_entry(policy, Cause.POLICY_CHANGE))
        return True

    def _wake_in(self, seconds: float) -> None:
        """Look again at the latest then."""
        at = time.monotonic() + seconds
        self._wake_at = at if self._wake_at is None else min(self._wake_at, at)

    @property
    def _standing(self) -> Standing:
        return Standing(
            self.machine.state, self._known_policy, self.policy_since, self.policy_problem, self.memory,
            self._decision.verdict is Verdict.BACK_OFF, self._exposed, self._observed_at, self._triggered_at)


def _source_line(error: Exception) -> str:
    """Source file and line of an exception, without any content of a host's files."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown location"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def run(policy_file: str) -> int:
    """Run the agent on this host; returns the exit code."""
    if os.geteuid() != 0:
        print("dockerd-guard: the agent needs root: it reads /proc of dockerd and writes to /etc", file=sys.stderr)
        return 2
    return Agent(policy_file, Journal()).run()
