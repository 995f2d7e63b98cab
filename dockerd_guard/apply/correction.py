"""Carry a plan out: write, reload, restart where the gate allows, verify, and roll back.

A working Docker is never left dead, and no file is left half changed: what was there before is
kept until the result has been seen from outside (the kernel's sockets, an answer to a ping).
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
"""How long sockets may take after systemd called dockerd started; it binds before READY=1."""

VERIFY_TIMEOUT_UNNOTIFIED_S = 40.0
"""The same where Type= is not notify: dockerd's own pause of 16 s on plain TCP is in it."""

POLL_S = 0.1


class CorrectionResult(NamedTuple):
    """What came of a correction.

    `done`: the host complies now, seen from outside. Else `hold` says what keeps the rest back,
    or `error` what went wrong; `rolled_back` whether everything is as it was before.
    `steps` tells what was done, in order, for people. `interference`: the file, if any, that something
    else changed while the correction went on, so that the same may succeed another time. `unwritable`: a
    file could not be written, which may be over without a trace. `left_changed`: some could not even be put
    back, which recover() will try again. `seen`: the host as the correction left it, by its own last look; None
    where something was done since.
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
    """What a correction acts and looks with: systemd, the state directory, a fresh look at the host, the network.

    The tree of the latest look is open, those before need not be.
    """

    manager: Manager
    state: StateFiles
    observe: Callable[[], Observation]
    network: Network


def correct(seen: Observation, plan: Plan, policy: Policy, situation: Situation, means: Context) -> CorrectionResult:
    """Carry a plan out, as far as the gate allows now. Raises Unavailable when systemd goes away."""
    return _Correction(seen, plan, policy, situation, means).run(
        required_actions(seen, plan, policy), lambda fresh: required_actions(fresh, plan, policy))


class _Correction:
    """One correction under way: what it has done so far, and how to undo it."""

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
        """Do all that is needed; `actions_now` tells what a fresh look still asks for."""
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
                "; ".join(problems), next_step="mend that: it is tried again by itself"))
        hold = may_restart(self.policy.correct, self.situation) if todo.restarts else None
        self.intent = Intent(earlier.before(todo.changes) if earlier is not None else todo.changes,
                             datetime.now(UTC), self._stops(todo) if hold is None else ())
        if earlier is not None and not todo.anything:
            # A start that was not ours needs no proof; one that a crash cut short does.
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
        # What cannot be noted down now, recover() makes good by what is noted.
        with contextlib.suppress(OSError):
            if outcome.hold is not None:
                self.state.begin(self.intent._replace(held=True))
            elif not outcome.left_changed:
                self.state.finish()
        return outcome

    def _problems(self) -> tuple[str, ...]:
        """What is known to fail. Raises NoNetwork, where nobody could see afterwards whether it succeeded."""
        if any(declared.is_tcp for declared in declared_bindings(self.policy)):
            self.network.check()
        return Preflight(self.plan, self.policy, self.ours, self.network).problems()

    def _told(self, error: OSError) -> str:
        """The files of ours are named already; what else is written is the state."""
        is_told = isinstance(error.filename, str) and error.filename.startswith("/")
        return f"{error.filename if is_told else self.state.directory}: {error.strerror}"

    def _stops(self, todo: Actions) -> tuple[str, ...]:
        """The active units that go down on the way."""
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
            self.steps.append("systemd reloaded its units")
        for name in todo.stop_sockets:
            self.manager.run_job("StopUnit", name)
            self.steps.append(f"stopped {name}")
        if todo.reload or todo.stop_sockets:
            # Reload succeeds with broken units too, and NeedDaemonReload= has blind spots
            # (systemd#4500, #31752): what counts is what systemd says it has.
            self.seen = self.observe()
            loaded = self.seen.loaded
            if loaded is None or not complies(loaded.layer, self.policy):
                reason = "nothing" if loaded is None else loaded.layer.reason or ", ".join(loaded.layer.hosts)
                if path := _changed_meanwhile(todo.changes, self.seen.configured, self.policy):
                    return self._undo(price, f"something else changed {path} meanwhile",
                                      restart=False)._replace(interference=path)
                return self._undo(price, f"systemd loaded something else: {reason}", restart=False)
        if not todo.restarts:
            # Somebody may have started dockerd meanwhile, with what was loaded before.
            again = actions_now(self.seen)
            return CorrectionResult(not again.restarts, price, tuple(self.steps),
                           hold=Hold("docker.service was started meanwhile") if again.restarts else None,
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
        """The end of a correction: it holds, or is undone; what cannot be tried now is by the next pass."""
        try:
            wrong = self._verify()
        except HelperUnavailable as error:
            return CorrectionResult(False, price, tuple(self.steps), hold=_unproven(error))
        if wrong:
            return self._undo(price, wrong, restart=True)
        return CorrectionResult(True, price, tuple(self.steps), seen=self.seen)

    def _verify(self) -> str:
        """Look from outside until all is as declared; in words what is not, or nothing."""
        timeout_s = (VERIFY_TIMEOUT_S if self.plan.after.service.type in ("notify", "notify-reload")
                     else VERIFY_TIMEOUT_UNNOTIFIED_S)
        end = time.monotonic() + timeout_s
        while True:
            wrong = self._what_is_wrong()
            if not wrong:
                self.steps.append("every declared socket answers, and no other listens")
                return ""
            if time.monotonic() > end:
                return wrong
            time.sleep(POLL_S)

    def _what_is_wrong(self) -> str:
        self.seen = seen = self.observe()
        if seen.running is None or seen.listening is None:
            return "dockerd does not run"
        if not complies(seen.listening.layer, self.policy):
            listening = ", ".join(binding.address for binding in seen.listening.layer.bindings) or "nothing"
            return f"dockerd listens on {listening}"
        return "; ".join(answers(self.policy, self.network))

    def _undo(self, price: Cost, reason: str, *, restart: bool) -> CorrectionResult:
        """Put the files back as they were, and dockerd too where it was restarted."""
        undone = undo(self.intent, self.manager, was_restarted=restart)
        words = reason + (f"; and in undoing it: {undone.words}" if undone.words else "")
        return CorrectionResult(False, price, tuple(self.steps), error=words, rolled_back=not undone.words,
                       left_changed=bool(undone.left_changed))


def carry_out(assessment: Assessment, means: Context) -> CorrectionResult:
    """Apply and verify. Raises Unavailable when systemd goes away meanwhile."""
    remember_start(assessment.seen, means.state)
    return correct(assessment.seen, assessment.plan, assessment.policy, assessment.situation, means)


def remember_start(seen: Observation, state: StateFiles) -> None:
    """Note down what dockerd was started with, as long as the files still say it."""
    if (found := start_record(seen, state.started())) is not None:
        # Then a later restart waits for somebody to look.
        with contextlib.suppress(OSError):
            state.keep_started(found)


def queue_manual_fix(assessment: Assessment, outcome: CorrectionResult, means: Context) -> None:
    """Let the agent know what was corrected beside it."""
    if not outcome.steps:
        return
    left = {finding.fact for finding in judge(outcome.seen or means.observe(), assessment.policy)}
    mended = tuple(finding.fact for finding in drifts(assessment.findings) if finding.fact not in left)
    # The correction stands, whether it is told or not.
    with contextlib.suppress(OSError):
        means.state.queue_manual_fix(ManualFix(outcome.steps, mended))
