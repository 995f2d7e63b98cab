"""The agent: runs the pipeline on each trigger.

    starting --> watching <--> settling --> working --> watching
                    ^                          |
                    +-------- holding <--------+

`watching`: the host complies, or (mode: observe) its drift is reported. `settling`: something changed, more
changes may follow. `working`: a pass runs. `holding`: a correction waits for a maintenance window or a change.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum

from dockerd_guard.agent import textfile
from dockerd_guard.agent.counters import Stopwatch
from dockerd_guard.agent.drift_tracker import CONFIRM_S, DriftTracker
from dockerd_guard.agent.notify import Notify
from dockerd_guard.agent.status_file import OWN_FILE, publish, published
from dockerd_guard.agent.triggers import Files, Waker, wait
from dockerd_guard.agent.undone_corrections import UndoneCorrections, is_tidying, is_update
from dockerd_guard.apply.correction import Context, CorrectionResult, carry_out, remember_start
from dockerd_guard.apply.rollback import recover
from dockerd_guard.apply.state_files import Busy, StateFiles, exclusive, single_agent
from dockerd_guard.containment.containment import Containment
from dockerd_guard.model.address import Tls
from dockerd_guard.model.finding import Finding
from dockerd_guard.nethelper.client import NethelperClient
from dockerd_guard.observe.live import observe_host, observer
from dockerd_guard.observe.network import Unsupported
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import Assessment, assess
from dockerd_guard.plan.backoff import Contested
from dockerd_guard.plan.exposures import Exposure, exposures
from dockerd_guard.policy.model import Mode, Policy, PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report.agent_status import AgentStatus, Counters, HeldCorrection, last_correction
from dockerd_guard.report.containment import entries as containment_entries
from dockerd_guard.report.correction import (
    contested_entry,
    correction_entry,
    hold_text,
    policy_entry,
    policy_error_entry,
)
from dockerd_guard.report.drift import sentence
from dockerd_guard.report.journal import Cause, Event, Journal, JournalEntry, Outcome
from dockerd_guard.report.metrics import Snapshot
from dockerd_guard.report.metrics import text as metrics_text
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.judge import drifts, judge
from dockerd_guard.systemd.manager import Manager, Refused, Unavailable

MAX_SETTLE_S = 1.0
"""Maximum delay of a pass while changes keep arriving."""

RETRY_S = 5.0
"""Delay before retrying a broken connection to systemd or an unfinished pass."""

RETRY_HELD_S = 60.0
"""How often the reason for a hold is checked again."""

RETRY_AFTER_MISTAKE_S = 60.0
"""Delay before the next pass after an internal error."""

CONTESTED_PACE_S = 3.0
"""Minimum time between passes while another program keeps writing a contested file."""

QUIET_S = 0.5
"""How long a host that complies by itself must be quiet before this is accepted: a program that keeps
writing may write the opposite next."""

CONTESTED_QUIET_S = 10.0
"""The same while another program is known to write: on a busy host its next write may take seconds."""

class AgentState(StrEnum):
    """The states of the agent."""

    STARTING = "starting"
    WATCHING = "watching"
    SETTLING = "settling"
    WORKING = "working"
    HOLDING = "holding"
    STOPPING = "stopping"


class Agent:
    """One agent on one host. `run` returns the exit code."""

    def __init__(self, policy_file: str, journal: Journal) -> None:
        self.policy_file = policy_file
        self.journal = journal
        self.drift_tracker = DriftTracker(journal)
        self.notify = Notify()
        self.waker = Waker()
        self.files = Files()
        self.state_files = StateFiles()
        self.undone_corrections = UndoneCorrections(self.state_files)
        self.network = NethelperClient()
        self.containment = Containment(self.state_files, self.network)
        self.state = AgentState.STARTING
        self.policy: Policy | None = None
        self._policy_problem = ""
        self._manager: Manager | None = None
        self._held: HeldCorrection | None = None
        self._agent_status: AgentStatus | None = None
        self._policy_since = datetime.now(UTC)
        self._missed: list[str] = []
        self._failed: object = None
        self._obstacles: tuple[str, ...] = ()
        self._failed_until = math.inf
        self._is_recovered = False
        self._recover_at = 0.0
        self._recovery = self._error = ""
        self._busy = False
        self._is_contested = False
        self._triggered_at = 0.0
        self._wake_at: float | None = None
        self._looked_at: float | None = None
        self._exposed = 0
        self._exposure = Stopwatch()
        self._unpublished = ""

    # --- the loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Run until SIGTERM or SIGINT. Returns 0 then, 2 if there is no valid policy at the start."""
        self._catch_signals()
        try:
            self.policy = load_policy(self.policy_file, require_root_owned=True)
        except PolicyError as error:
            for problem in error.problems:
                self.drift_tracker.write(policy_error_entry(
                    problem, Outcome.FAILED, "No valid policy; this host is not guarded",
                    "Fix the file; the agent starts when it is saved"))
            self.notify.status(f"No valid policy; this host is not guarded: {error.problems[0]}")
            return 2
        with contextlib.ExitStack() as locks:
            if self._is_the_only_one(locks):
                self.notify.status("Running the first check of this host")
                self._remember()
                self.drift_tracker.write(policy_entry(self.policy))
                self._pass(Cause.DRIFT)
                while (cause := self._wait()) is not None:
                    self._pass(cause)
            self.notify.stopping()
            self._publish()
            self.files.close()
            self.network.close()
        return 0

    def _is_the_only_one(self, locks: contextlib.ExitStack) -> bool:
        """Wait until no other agent runs on this host. Returns False on a signal to stop."""
        said = ""
        while self.state is not AgentState.STOPPING:
            try:
                locks.enter_context(single_agent(self.state_files.directory))
            except Busy as error:
                if not said:
                    said = f"Waiting: {error}"
                    self.journal.say(f"{said}.", "warning")
                    self.notify.ready(said)
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

    def _wait(self) -> Cause | None:
        """Wait for a trigger or the resync, then until it is quiet. Returns None on a signal to stop.

        Feeds the service watchdog.
        """
        policy = self._known_policy
        now = time.monotonic()
        resync = now + policy.watch.resync_s
        if self._wake_at is not None:
            resync = min(resync, self._wake_at)
        triggered_at: float | None = None
        quiet_at = 0.0
        cause = Cause.DRIFT
        while True:
            now = time.monotonic()
            due = resync if triggered_at is None else min(quiet_at, triggered_at + MAX_SETTLE_S)
            if triggered_at is not None and self._is_contested:
                due = triggered_at + CONTESTED_PACE_S
            if now >= due:
                return cause
            left = due - now
            if self.notify.watchdog_s is not None:
                left = min(left, self.notify.watchdog_s)
            came = self._events(left)
            self.notify.alive()
            if self.state is AgentState.STOPPING:
                return None
            if came:
                self._triggered_at = time.monotonic()
                triggered_at = triggered_at or self._triggered_at
                quiet_at = self._triggered_at + policy.watch.settle_s
                self._to(AgentState.SETTLING)

    def _events(self, timeout_s: float) -> bool:
        """Wait for events or the timeout. Returns whether a pass is due."""
        fds = [self.waker.fileno()]
        if (bus := self._bus_fd()) is not None:
            fds.append(bus)
            # Signals that arrived during a D-Bus call are queued in libsystemd; poll(2) does not report them.
            self._listen()
        fds += [fd for fd in (self.files.fileno(), self.network.fileno()) if fd is not None]
        ready = wait(fds, timeout_s)
        came = self.network.fileno() in ready and self.network.changes()
        if self.files.fileno() in ready:
            came |= self.files.changes()
        if self.waker.fileno() in ready:
            for number in self.waker.drain():
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._to(AgentState.STOPPING)
                elif number == signal.SIGHUP:
                    self.notify.reloading()
                    came = True
                elif number == signal.SIGCONT:
                    self._missed.append("dockerd-guard was stopped, and has been continued (SIGCONT)")
                    came = True
                elif number == 0:
                    came = True
        if bus in ready:
            self._listen()
        return came or (bus is not None and self._bus_fd() is None)

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
        self._to(AgentState.WORKING)
        self._wake_at = None
        troubles: list[str] = []
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(exclusive(self.state_files.directory))
            except Busy as error:
                if not self._busy:
                    self.journal.say(f"Waiting: {error}.")
                self._busy = True
                self._wake_in(RETRY_S)
            except OSError as error:
                troubles.append(f"cannot use the state directory: {error}")
                self._work(cause, troubles)
            else:
                self._busy = False
                self._work(cause, troubles)
        if self.network.changes():
            self.waker.wake()
        self.network.rest()
        if self.state is AgentState.WORKING:
            self._to(AgentState.HOLDING if self._held else AgentState.WATCHING)
        self._publish()
        self.notify.ready(self._status)

    def _work(self, cause: Cause, troubles: list[str]) -> None:
        if self._take_new_policy():
            cause = Cause.POLICY_CHANGE
        if self._missed:
            troubles += self._missed
            # Only another look can show that nothing is missing any more.
            self.waker.wake()
        self._missed = []
        try:
            manager = self._connection(troubles)
            with Rootfs() as rootfs:
                self._look_and_act(rootfs, manager, cause, troubles)
        except Unavailable as error:
            self._manager = None
            self._wake_in(RETRY_S)
            troubles.append(f"cannot query systemd: {error}; if D-Bus is down: `systemctl start dbus.socket`")
        except Unreadable as error:
            troubles.append(str(error))
        except Exception as error:
            troubles.append(f"internal error: {error!r} at {_where(error)}; please report it")
            self._wake_in(RETRY_AFTER_MISTAKE_S)
        self.drift_tracker.report_blindness(troubles)

    def _look_and_act(self, rootfs: Rootfs, manager: Manager | None, cause: Cause, troubles: list[str]) -> None:
        policy = self._known_policy
        is_recovered = manager is not None and self._recover(manager)
        seen = observe_host(rootfs, manager)
        troubles += (trouble.text for trouble in seen.troubles if manager is not None)
        if manager is not None:
            # First: querying dockerd, correcting and restarting may take a while.
            self.containment.cut_at_once(self._exposures(seen))
        self._count_exposed(seen)
        remember_start(seen, self.state_files)
        findings = judge(seen, policy)
        # Watch before acting and look again afterwards, so that no change between two looks is lost.
        rootfs.resolve(self.policy_file)
        for path in policy.tls[:3] if policy.tcp_tls not in (None, Tls.NONE) else ():
            # A correction may wait for these files, and no file of the host names them yet.
            rootfs.stat(path)
        is_new, unwatched = self.files.watch({*rootfs.consulted, self.policy_file}, rootfs.listed)
        troubles += unwatched
        if (confirm_s := self.files.confirm_s) is not None:
            self._wake_in(confirm_s)
        if is_new:
            self._triggered_at = time.monotonic()
            self.waker.wake()
        self._hear_of_fix(seen, findings)
        if self.drift_tracker.report_drifts(seen, findings, policy, cause, is_contested=self._is_contested):
            self._wake_in(CONFIRM_S)
        if policy.mode is Mode.ENFORCE and manager is not None and is_recovered:
            assessment = assess(seen, policy, self.state_files.records(), self.network.ask, findings)
            seen = self._correct(assessment, cause, manager)
        else:
            self._held = None
        if manager is not None:
            self._contain(seen, manager, troubles)
        self._count_exposed(seen)
        self._looked_at = time.time()

    def _hear_of_fix(self, seen: Observation, findings: tuple[Finding, ...]) -> None:
        """Log what `fix` has corrected since the last look."""
        if seen.troubles or (done := self.state_files.pending_manual_fix()) is None:
            return
        if self.drift_tracker.report_manual_fix(done, findings) and not any(drifts(findings)):
            # It ended what was held; one entry is enough.
            self._held = None
        try:
            self.state_files.clear_manual_fix()
        except OSError:
            # No second entry: its drifts are no longer open.
            return

    def _count_exposed(self, seen: Observation) -> None:
        """Count what is open to the network and not blocked. Keeps the last count if observation failed."""
        if not seen.troubles:
            cut_off = self.containment.addresses
            self._exposed = sum(exposure.address not in cut_off for exposure in
                                exposures(seen, self._known_policy, cut_off))
        self._exposure.looked(is_exposed=self._exposed > 0, changed_at=self._triggered_at)

    def _contain(self, seen: Observation, manager: Manager, troubles: list[str]) -> None:
        """Block what is open against the policy; release everything else."""
        if self._is_to_contain and seen.listening is None:
            return
        wanted = self._exposures(seen)
        try:
            result = self.containment.keep(wanted, manager)
        except (OSError, Unsupported) as error:
            troubles.append(f"cannot change what is blocked at the network: {error}")
            return
        try:
            if self.network.follow(is_there=self.containment.is_by_nftables):
                self.waker.wake()
        except Unsupported as error:
            troubles.append(f"cannot monitor the nftables rules: {error}")
        for entry in containment_entries(result, by_policy=not self._is_to_contain):
            self.drift_tracker.write(entry)

    def _exposures(self, seen: Observation) -> tuple[Exposure, ...]:
        """The exposures to block."""
        return exposures(seen, self._known_policy, self.containment.addresses) if self._is_to_contain else ()

    @property
    def _is_to_contain(self) -> bool:
        policy = self._known_policy
        return policy.mode is Mode.ENFORCE and policy.correct.contain

    def _correct(self, assessment: Assessment, cause: Cause, manager: Manager) -> Observation:
        """Correct what may be corrected now. Returns the latest observation."""
        policy = self._known_policy
        is_quiet = self._is_quiet_where_it_complies(assessment)
        obstacles_before, self._obstacles = self._obstacles, assessment.plan.obstacles
        if not assessment.actions.anything and not assessment.plan.obstacles:
            intent = self.state_files.intent()
            is_unproven = intent is not None and bool(intent.stops)
            if self._held and not is_unproven:
                self.drift_tracker.write(JournalEntry(
                    Event.CORRECTED, f"Docker listens as declared again, but not through the agent. "
                    f"The correction was {hold_text(self._held.reason, self._held.until)}.",
                    outcome=Outcome.KEPT, cause=cause))
            self._held = self._held if is_unproven else None
            self._failed, self._error = None, ""
            if intent is None:
                return assessment.seen
        if self._obstacles != obstacles_before and self._obstacles:
            # A file that is being rewritten may differ between the observation and the test of the plan.
            self.waker.wake()
            return assessment.seen
        attempt = (assessment.actions, assessment.plan.after.layer, policy)
        if self._failed == attempt and time.monotonic() < self._failed_until:
            return assessment.seen
        if not is_quiet:
            return assessment.seen
        if (contested := self.undone_corrections.contested(assessment)) is not None:
            self._leave_alone(contested, assessment, cause)
            return assessment.seen
        self._is_contested = False
        with observer(manager) as look:
            outcome = carry_out(assessment, Context(manager, self.state_files, look, self.network))
            self._failed = attempt if outcome.error and not outcome.interference else None
            self._failed_until = time.monotonic() + policy.watch.resync_s if outcome.unwritable else math.inf
            is_known, self._error = bool(outcome.error) and outcome.error == self._error, outcome.error
            mended: tuple[str, ...] = ()
            try:
                seen = outcome.seen or look()
                if outcome.steps:
                    self.undone_corrections.corrected(assessment, outcome.interference, seen.rootfs)
                mended = self.drift_tracker.forget_fixed(judge(seen, policy))
            finally:
                # Log the result even if the host cannot be observed any more.
                if not is_known and (outcome.steps or not outcome.done):
                    self._take_in(outcome, assessment, cause, mended)
        return seen

    def _is_quiet_where_it_complies(self, assessment: Assessment) -> bool:
        """False while another program may be about to change a host that complies by itself."""
        is_peace = self.undone_corrections.is_peace(assessment.seen.rootfs)
        complies = not assessment.actions.anything and not assessment.plan.obstacles
        if not (is_tidying(assessment) or (is_peace and complies)
                or (self._is_contested and is_update(assessment))):
            return True
        quiet_s = CONTESTED_QUIET_S if self._is_contested else QUIET_S
        if (left_s := self._triggered_at + quiet_s - time.monotonic()) > 0:
            self._wake_in(left_s)
            return False
        if is_peace:
            self.undone_corrections.make_peace()
            self._is_contested = False
        return True

    def _leave_alone(self, contested: Contested, assessment: Assessment, cause: Cause) -> None:
        """Hold, and log once that another program undoes the corrections."""
        now = datetime.now(UTC)
        self._wake_in((contested.until - now).total_seconds())
        self._hold(f"contested: another program {contested.verb} {contested.file}", contested.until,
                   f"Find the program that {contested.verb} it, then run `dockerd-guard fix`")
        if not self._is_contested:
            self.drift_tracker.write(contested_entry(contested, now, assessment, cause))
        self._is_contested = True

    def _wake_in(self, seconds: float) -> None:
        """Look again after `seconds` at the latest."""
        at = time.monotonic() + seconds
        self._wake_at = at if self._wake_at is None else min(self._wake_at, at)

    def _connection(self, troubles: list[str]) -> Manager | None:
        if self._manager is None:
            try:
                manager = Manager()
                manager.heartbeat = self.notify.alive
                manager.subscribe(lambda _: self.waker.wake(), ("docker.service", "docker.socket"))
                self._manager = manager
            except Unavailable as error:
                troubles.append(f"cannot query systemd: {error}; if D-Bus is down: `systemctl start dbus.socket`")
                self._wake_in(RETRY_S)
        return self._manager

    def _recover(self, manager: Manager) -> bool:
        """Finish or undo a correction that a crash interrupted. Returns whether none is left."""
        intent = self.state_files.intent()
        if self._is_recovered and (intent is None or intent.held):
            return True
        if time.monotonic() >= self._recover_at:
            try:
                done = recover(self.state_files, manager)
            except (OSError, Refused) as error:
                done = f"cannot finish or undo an earlier correction: {error}"
            if done and done != self._recovery:
                self.journal.say(sentence(done), "notice")
            self._recovery = done
            intent = self.state_files.intent()
            self._is_recovered = intent is None or intent.held
            self._recover_at = time.monotonic() + RETRY_S
        if not self._is_recovered:
            self._wake_in(RETRY_S)
        return self._is_recovered

    # --- the policy -----------------------------------------------------------------------

    @property
    def _known_policy(self) -> Policy:
        assert self.policy is not None  # noqa: S101 -- run() does not go on without
        return self.policy

    def _take_new_policy(self) -> bool:
        """Read the policy again. Returns whether it has changed. An invalid one is logged once."""
        try:
            policy = load_policy(self.policy_file, require_root_owned=True)
        except PolicyError as error:
            if str(error) != self._policy_problem:
                self._policy_problem = str(error)
                for problem in error.problems:
                    self.drift_tracker.write(policy_error_entry(
                        problem, Outcome.KEPT, "The last valid policy stays in force",
                                         "Fix the file and save it"))
            return False
        self._policy_problem = ""
        if policy == self.policy:
            return False
        self.policy = policy
        self._policy_since = datetime.now(UTC)
        self._failed, self._error = None, ""
        self.undone_corrections.forget()
        self.drift_tracker.write(policy_entry(policy, Cause.POLICY_CHANGE))
        return True

    # --- reporting ------------------------------------------------------------------------

    def _take_in(
        self, outcome: CorrectionResult, assessment: Assessment, cause: Cause, mended: tuple[str, ...]
    ) -> None:
        """Remember what a correction waits for, and log its result."""
        held_before, self._held = self._held, None
        if outcome.hold is not None and not outcome.done:
            self._held = held_before
            held = self._hold(*outcome.hold)
            if outcome.hold.until is not None:
                left_s = (outcome.hold.until - datetime.now(UTC)).total_seconds()
                self._wake_in(max(left_s, 1.0))
            elif assessment.situation.engine is None and assessment.actions.restart:
                self._wake_in(RETRY_S)
            else:
                # Some reasons end without a trigger, such as a port that becomes free.
                self._wake_in(RETRY_HELD_S)
            if held == held_before:
                return
        self.drift_tracker.write(correction_entry(outcome, assessment, cause, mended))

    def _hold(self, reason: str, until: datetime | None, next_step: str) -> HeldCorrection:
        """Remember what a correction waits for, and since when for the same reason."""
        since = self._held.since if self._held is not None and self._held.reason == reason else datetime.now(UTC)
        self._held = HeldCorrection(reason, since, until, next_step)
        return self._held

    def _remember(self) -> None:
        """Take over the state of the previous agent process."""
        assert self.policy is not None  # noqa: S101 -- run() does not go on without
        with contextlib.suppress(OSError):
            changed = datetime.fromtimestamp(os.stat(self.policy_file).st_ctime, UTC)
            self._policy_since = min(changed, self._policy_since)
        self._agent_status = published(f"{self.state_files.directory}/{OWN_FILE}")
        if self._agent_status is not None:
            self.drift_tracker.go_on_from(self._agent_status.drifts)

    def _publish(self) -> None:
        """Write the status file and the metrics."""
        now, policy = datetime.now(UTC), self._known_policy
        before = self._agent_status
        self._agent_status = AgentStatus(
            now, os.getpid(), str(self.state), str(policy.mode), policy.file, self._policy_since, self._policy_problem,
            self.drift_tracker.lasting(now), tuple(sorted(self.drift_tracker.blind)), self._held,
            self.containment.addresses,
            last_correction(self.drift_tracker.written, now) or (before and before.last), self._counts(before))
        self.drift_tracker.written.clear()
        publish(self._agent_status, before, self.state_files.directory)
        self._publish_metrics(self._agent_status)

    def _counts(self, before: AgentStatus | None) -> Counters:
        """The counters of the last status file plus those of this pass."""
        self._exposure.looked(is_exposed=self._exposed > 0, changed_at=self._triggered_at)
        seconds, self._exposure.seconds = self._exposure.seconds, 0.0
        counts = before.counts if before is not None else Counters()
        known = before.since() if before is not None else ()
        return counts.with_entries(self.drift_tracker.written, known)._replace(exposed_s=counts.exposed_s + seconds)

    def _publish_metrics(self, now: AgentStatus) -> None:
        """Write the metrics for node_exporter. Until the first look, those of the previous agent process stay."""
        if self._looked_at is None:
            return
        policy = self._known_policy
        lasting = (drift.finding for drift in now.drifts)
        snapshot = Snapshot(
            up=self.state is not AgentState.STOPPING, enforcing=policy.mode is Mode.ENFORCE, last_pass=self._looked_at,
            resync_s=policy.watch.resync_s, policy_ok=not now.policy_problem, policy_since=now.policy_since.timestamp(),
            blind=len(now.blind), drift_open=Counter(f"{finding.code} {finding.layer}" for finding in lasting),
            drift_total=now.counts.drifts, exposed=self._exposed, contained=len(now.contained),
            exposed_s=now.counts.exposed_s, held=now.held is not None, contested=self._is_contested,
            corrections=now.counts.corrections)
        try:
            textfile.publish(metrics_text(snapshot))
            self._unpublished = ""
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            if self._unpublished != reason:
                # The sandbox does not include a directory that was created after the agent started.
                hint = "; fix: `systemctl restart dockerd-guard`" * (error.errno == errno.EROFS)
                self.journal.say(f"Cannot write metrics to {textfile.DIRECTORY}: {reason}{hint}.", "warning")
            self._unpublished = reason

    @property
    def _status(self) -> str:
        """The STATUS= line: what is wrong, then what is being done about it."""
        policy = self._known_policy
        parts = [f"Degraded visibility: {min(self.drift_tracker.blind)}"] if self.drift_tracker.blind else []
        if self._held is not None:
            parts.append(hold_text(self._held.reason, self._held.until))
        elif self.drift_tracker.drifts:
            first, *others = sorted(
                self.drift_tracker.drifts.values(), key=lambda finding: (finding.socket is None, finding.order))
            more = f" (and {len(others)} more; dockerd-guard status)" if others else ""
            parts.append(f"{policy.mode}: {first.code} {sentence(first.message).rstrip('.')}{more}")
        elif not self.drift_tracker.blind:
            parts.append(f"{policy.mode}: Docker listens as declared, on " + (
                ", ".join(socket.address for socket in policy.sockets) or "nothing"))
        if self._failed is not None:
            parts.append("the last correction failed; it is retried when something changes")
        if self.containment.addresses:
            parts.append(f"blocked at the network: {', '.join(self.containment.addresses)}")
        if self._policy_problem:
            parts.append("the policy file is invalid, the last valid policy stays in force")
        return "; ".join(parts)

    def _to(self, state: AgentState) -> None:
        if self.state is not AgentState.STOPPING:
            self.state = state


def _where(error: Exception) -> str:
    """Source file and line of an exception, without any content of a host's files."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown location"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def run(policy_file: str, log_format: str) -> int:
    """Run the agent on this host; the exit code."""
    if os.geteuid() != 0:
        import sys

        print("dockerd-guard: the agent needs root: it reads /proc of dockerd and writes to /etc",
              file=sys.stderr)
        return 2
    return Agent(policy_file, Journal(log_format)).run()
