"""Apply a plan: write files, reload, restart if the gate allows it, verify, and roll back on failure.

The previous files are kept until the result is verified from outside (the kernel's sockets, the answer to a
ping), so that a working Docker keeps working.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.apply import files
from dockerd_guard.apply.preflight import Preflight
from dockerd_guard.apply.rollback import restart, undo
from dockerd_guard.apply.state_files import Intent, ManualFix, StateFiles
from dockerd_guard.apply.verify import _changed_meanwhile, _unproven, answers
from dockerd_guard.model.address import canonical
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.network import HelperUnavailable, Network
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import Actions, required_actions
from dockerd_guard.plan.assessment import Assessment
from dockerd_guard.plan.gate import Cost, Hold, Situation, cost, may_restart, obstructed
from dockerd_guard.plan.pending_changes import start_record
from dockerd_guard.plan.plan import Plan, complies
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rules.judge import drifts, judge
from dockerd_guard.systemd.manager import JobFailed, Manager, Refused

VERIFY_TIMEOUT_S = 10.0
"""Timeout for the sockets after systemd reports dockerd as started; dockerd binds before READY=1."""

VERIFY_TIMEOUT_UNNOTIFIED_S = 40.0
"""The same for other values of Type=, which includes dockerd's own pause of 16 s on TCP without TLS."""

POLL_S = 0.1


class CorrectionResult(NamedTuple):
    """The result of a correction.

    `done`: the host complies, as verified from outside. Else `hold`: why the rest waits, or `error`: what failed.
    `rolled_back`: everything is as it was before. `steps`: messages about what was done, in order.
    `interference`: the file that another program changed during the correction; a retry may succeed.
    `unwritable`: a file could not be written; the cause may end without a trigger. `left_changed`: a file could
    not be restored; recover() retries. `seen`: the last observation of the host; None if it is out of date.
    """

    done: bool
    cost: Cost
    steps: tuple[str, ...] = ()
    hold: Hold | None = None
    error: str = ""
    rolled_back: bool = False
    interference: str = ""
    unwritable: bool = False
    left_changed: bool = False
    seen: Observation | None = None


class Context(NamedTuple):
    """What a correction works with: systemd, the state directory, a function to observe the host, the network.

    Only the root file system of the latest observation is open.
    """

    manager: Manager
    state: StateFiles
    observe: Callable[[], Observation]
    network: Network


def correct(seen: Observation, plan: Plan, policy: Policy, situation: Situation, means: Context) -> CorrectionResult:
    """Apply a plan as far as the gate allows now. Raises Unavailable if the connection to systemd is lost."""
    return _Correction(seen, plan, policy, situation, means).run(
        required_actions(seen, plan, policy), lambda fresh: required_actions(fresh, plan, policy))


class _Correction:
    """A correction in progress: its steps so far, and how to undo them."""

    def __init__(self, seen: Observation, plan: Plan, policy: Policy, situation: Situation, means: Context) -> None:
        listening = seen.listening
        self.ours = frozenset(canonical(address) for address in (
            *(binding.address for binding in listening.layer.bindings), *listening.held_by_systemd,
        )) if listening is not None else frozenset()
        self.seen = seen
        self.plan = plan
        self.policy = policy
        self.situation = situation
        self.manager, self.state, self.observe, self.network = means
        self.steps: list[str] = []
        self.intent = Intent((), datetime.now(UTC), ())

    def run(self, todo: Actions, actions_now: Callable[[Observation], Actions]) -> CorrectionResult:
        """Perform the actions. `actions_now` computes the actions that a new observation still needs."""
        price = cost(bool(todo.changes or todo.reload), todo.restarts, self.situation)
        if self.plan.obstacles:
            return CorrectionResult(False, price, hold=obstructed(self.plan, self.policy))
        earlier = self.state.intent()
        if not todo.anything and earlier is None:
            return CorrectionResult(True, price)
        try:
            problems = self._problems() if todo.anything else ()
        except HelperUnavailable as error:
            return CorrectionResult(False, price, hold=_unproven(error))
        if problems:
            return CorrectionResult(False, price, hold=Hold(
                "; ".join(problems), next_step="Fix this; the agent retries automatically"))
        hold = may_restart(self.policy.correct, self.situation) if todo.restarts else None
        self.intent = Intent(earlier.before(todo.changes) if earlier is not None else todo.changes,
                             datetime.now(UTC), self._stops(todo) if hold is None else ())
        if earlier is not None and not todo.anything:
            # Verify a start of ours that a crash interrupted; other starts are not verified.
            self.intent = earlier
            outcome = self._checked(price) if earlier.stops else CorrectionResult(True, price)
        else:
            try:
                self.state.begin(self.intent)
            except OSError as error:
                return CorrectionResult(False, price, error=self._told(error), unwritable=True)
            try:
                outcome = self._carry_out(todo, price, hold, actions_now)
            except OSError as error:
                outcome = self._undo(price, self._told(error), restart=False)._replace(unwritable=True)
            except (JobFailed, Refused) as error:
                outcome = self._undo(price, str(error), restart=False)
        # If this cannot be written, recover() works with the intent that is stored.
        with contextlib.suppress(OSError):
            if outcome.hold is not None:
                self.state.begin(self.intent._replace(held=True))
            elif not outcome.left_changed:
                self.state.finish()
        return outcome

    def _problems(self) -> tuple[str, ...]:
        """Messages about what would fail. Raises HelperUnavailable if the result could not be verified."""
        if any(declared.is_tcp for declared in declared_bindings(self.policy)):
            self.network.check()
        return Preflight(self.plan, self.policy, self.ours, self.network).problems()

    def _told(self, error: OSError) -> str:
        """An error message with the path; without one the error is about the state directory."""
        is_told = isinstance(error.filename, str) and error.filename.startswith("/")
        return f"{error.filename if is_told else self.state.directory}: {error.strerror}"

    def _stops(self, todo: Actions) -> tuple[str, ...]:
        """The active units that the correction stops."""
        return (*todo.stop_sockets, *(SOCKET,) * todo.restart_socket,
                *(SERVICE,) * (todo.restarts and self.situation.docker_is_active))

    def _carry_out(self, todo: Actions, price: Cost, hold: Hold | None,
                   actions_now: Callable[[Observation], Actions]) -> CorrectionResult:
        for change in todo.changes:
            try:
                files.put(change.path, change.after, change.access)
            except OSError as error:
                raise OSError(error.errno, error.strerror, change.path) from None
            self.steps.append(f"{'removed' if change.after is None else 'wrote'} {change.path}")
        if todo.reload:
            self.manager.reload()
            self.steps.append("reloaded systemd")
        for name in todo.stop_sockets:
            self.manager.run_job("StopUnit", name)
            self.steps.append(f"stopped {name}")
        if todo.reload or todo.stop_sockets:
            # Reload succeeds with broken units too, and NeedDaemonReload= is not reliable
            # (systemd#4500, #31752): compare what systemd has loaded.
            self.seen = self.observe()
            loaded = self.seen.loaded
            if loaded is None or not complies(loaded.layer, self.policy):
                reason = "nothing" if loaded is None else loaded.layer.reason or ", ".join(loaded.layer.hosts)
                if path := _changed_meanwhile(todo.changes, self.seen.configured, self.policy):
                    return self._undo(price, f"another program changed {path} during the correction",
                                      restart=False)._replace(interference=path)
                return self._undo(price, f"systemd has loaded a different configuration: {reason}", restart=False)
        if not todo.restarts:
            # dockerd may have been started meanwhile with the configuration loaded before.
            again = actions_now(self.seen)
            return CorrectionResult(not again.restarts, price, tuple(self.steps),
                           hold=Hold("docker.service was started during the correction") if again.restarts else None,
                           seen=self.seen)
        if hold is not None:
            return CorrectionResult(False, price, tuple(self.steps), hold=hold, seen=self.seen)
        if self.situation.docker_is_active:
            self.state.count_restart(datetime.now(UTC))
        units = (*(SOCKET,) * todo.restart_socket,
                 *(SERVICE,) * (todo.restart or self.situation.docker_is_active))
        try:
            restart(self.manager, units)
        except (JobFailed, Refused) as error:
            return self._undo(price, str(error), restart=True)
        self.steps.append(f"restarted {' and '.join(units)}")
        return self._checked(price) if SERVICE in units else CorrectionResult(True, price, tuple(self.steps))

    def _checked(self, price: Cost) -> CorrectionResult:
        """Verify the correction and undo it on failure; held if it cannot be verified now."""
        try:
            wrong = self._verify()
        except HelperUnavailable as error:
            return CorrectionResult(False, price, tuple(self.steps), hold=_unproven(error))
        if wrong:
            return self._undo(price, wrong, restart=True)
        return CorrectionResult(True, price, tuple(self.steps), seen=self.seen)

    def _verify(self) -> str:
        """Check from outside until the host complies or the timeout. Returns "" or a message."""
        timeout_s = (VERIFY_TIMEOUT_S if self.plan.after.service.type in ("notify", "notify-reload")
                     else VERIFY_TIMEOUT_UNNOTIFIED_S)
        end = time.monotonic() + timeout_s
        while True:
            wrong = self._what_is_wrong()
            if not wrong:
                self.steps.append("verified that every declared socket answers and no other listens")
                return ""
            if time.monotonic() > end:
                return wrong
            time.sleep(POLL_S)

    def _what_is_wrong(self) -> str:
        self.seen = seen = self.observe()
        if seen.running is None or seen.listening is None:
            return "dockerd is not running"
        if not complies(seen.listening.layer, self.policy):
            listening = ", ".join(binding.address for binding in seen.listening.layer.bindings) or "nothing"
            return f"dockerd listens on {listening}"
        return "; ".join(answers(self.policy, self.network))

    def _undo(self, price: Cost, reason: str, *, restart: bool) -> CorrectionResult:
        """Restore the files, and restart dockerd if it was restarted."""
        undone = undo(self.intent, self.manager, was_restarted=restart)
        words = reason + (f"; errors while undoing it: {undone.words}" if undone.words else "")
        return CorrectionResult(False, price, tuple(self.steps), error=words, rolled_back=not undone.words,
                       left_changed=bool(undone.left_changed))


def carry_out(assessment: Assessment, means: Context) -> CorrectionResult:
    """Apply and verify. Raises Unavailable if the connection to systemd is lost."""
    remember_start(assessment.seen, means.state)
    return correct(assessment.seen, assessment.plan, assessment.policy, assessment.situation, means)


def remember_start(seen: Observation, state: StateFiles) -> None:
    """Record daemon.json for the running dockerd, unless it has changed since the start."""
    if (found := start_record(seen, state.started())) is not None:
        # Without the record a later restart may be held.
        with contextlib.suppress(OSError):
            state.keep_started(found)


def queue_manual_fix(assessment: Assessment, outcome: CorrectionResult, means: Context) -> None:
    """Record what `fix` has corrected, for the journal entry of the agent."""
    if not outcome.steps:
        return
    left = {finding.fact for finding in judge(outcome.seen or means.observe(), assessment.policy)}
    mended = tuple(finding.fact for finding in drifts(assessment.findings) if finding.fact not in left)
    # The correction stands even if it is not logged.
    with contextlib.suppress(OSError):
        means.state.queue_manual_fix(ManualFix(outcome.steps, mended))
