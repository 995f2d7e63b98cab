"""Execute a decision: write, reload, restart, verify, and roll back. Asks nothing that `decide` has answered.

What was there before is kept until the result has been seen from outside. docker.service that worked before works
afterwards, or the correction is undone (I3).
"""

from __future__ import annotations

from collections.abc import Callable

from dockerd_guard.apply.context import Context
from dockerd_guard.apply.preflight import Preflight, unbindable
from dockerd_guard.apply.rollback import restart, undo, would_be_refused
from dockerd_guard.apply.verify import changed_meanwhile, changed_since, identities, unverifiable, verify
from dockerd_guard.fleet.lock import LockError
from dockerd_guard.model.address import canonical
from dockerd_guard.model.instant import Instant
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe.network import HelperUnavailable
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import required_actions
from dockerd_guard.plan.before_start import AGAIN
from dockerd_guard.plan.decide import Decision, Result
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.memory import Intent
from dockerd_guard.plan.plan import Plan, complies, content_at
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.manager import JobFailed, Refused


def preflight(seen: Observation, decision: Decision, plan: Plan, policy: Policy, context: Context) -> Hold | None:
    """Return what is known to fail, before anything is changed.

    Runs code of this host only where the decision starts dockerd, and then only the binary that runs already (I4).
    """
    ours = _held_by_systemd(seen) | (frozenset(
        canonical(binding.address) for binding in seen.listening.layer.bindings) if seen.listening else frozenset())
    try:
        if any(declared.is_tcp for declared in declared_bindings(policy)):
            context.network.check()
        checks = Preflight(plan, policy, ours, context, seen.running)
        problems = checks.problems(starts_dockerd=decision.actions.starts_dockerd)
    except HelperUnavailable as error:
        return unverifiable(error)
    return Hold("; ".join(problems), next_step="Fix this; the agent retries automatically") if problems else None


Gate = Callable[[Observation], Hold | None]
"""Returns what holds a start by now."""


def execute(  # noqa: PLR0913, PLR0917 -- the decision, and what to act with
    seen: Observation, decision: Decision, plan: Plan, policy: Policy, context: Context, gate: Gate
) -> Result:
    """Carry out the actions of a decision. Its intent is stored already. Raises Unavailable when systemd goes away.

    `gate` is asked once more when everything is loaded, right before a start.
    """
    return _Execution(seen, decision, plan, policy, context, gate).run()


def _held_by_systemd(seen: Observation) -> frozenset[str]:
    return frozenset(map(canonical, seen.listening.held_by_systemd)) if seen.listening is not None else frozenset()


def _unbindable(seen: Observation, policy: Policy, context: Context) -> str:
    """Which declared TCP addresses dockerd, which does not run now, could not bind; as a message, empty for none."""
    if context.manager.unit(SERVICE).number("MainPID"):
        return ""
    try:
        return "; ".join(unbindable(policy, _held_by_systemd(seen), context))
    except HelperUnavailable:
        return ""


def roll_back(seen: Observation, intent: Intent, policy: Policy, context: Context, *, may_start: bool) -> Result:
    """Restore what docker.service ran with before a correction that it failed with, and start it.

    The correction stays where dockerd would refuse what was there before (I3).
    """
    cause = _unbindable(seen, policy, context)
    stays = would_be_refused(intent, context)
    undoing = intent._replace(changes=()) if stays else intent
    undone = undo(undoing, context, restarts=True, reset_failed=True, may_start=may_start)
    what = "stays, since dockerd would refuse what was there before" if stays else "was undone"
    error = "; ".join(filter(None, (
        f"docker.service failed with the corrected configuration, which {what}", cause, undone.message)))
    return Result(False, error=error, unbindable=bool(cause), was_rolled_back=not stays and not undone.message,
                  starts=undone.starts, undone=undoing.changes, restored=not undone.left_changed)


class Changed(Exception):
    """A file is not what it was when it was decided to change it."""


class _Execution:
    """One correction under way."""

    def __init__(  # noqa: PLR0913, PLR0917 -- as execute()
        self, seen: Observation, decision: Decision, plan: Plan, policy: Policy, context: Context, gate: Gate
    ) -> None:
        assert decision.intent is not None  # noqa: S101 -- decide() gives one with each APPLY
        self.seen = seen
        self.decided_on = seen
        self.before = identities(seen)
        self.actions = decision.actions
        self.intent = decision.intent
        self.hold = decision.hold
        self.slot = decision.slot
        self.plan = plan
        self.policy = policy
        self.context = context
        self.gate = gate
        self.steps: list[str] = []
        self.starts: list[Instant] = []

    def run(self) -> Result:
        try:
            return self._run()
        except OSError as error:
            # Only files are written here; systemd's errors have types of their own.
            return self._undo(f"{error.filename}: {error.strerror}", restarts=False)._replace(unwritable=True)
        except JobFailed as error:
            return self._undo(str(error), restarts=bool(self.starts), after=error)
        except (Refused, Changed) as error:
            return self._undo(str(error), restarts=bool(self.starts))

    def _run(self) -> Result:
        if self.intent.is_unverified:
            return self._verified()
        manager = self.context.manager
        self._write()
        # A start applies what systemd has loaded, not what was judged, where somebody edited a file since.
        loads = self.actions.reload or self.actions.starts_dockerd
        if loads:
            manager.reload()
            self.steps.append("reloaded systemd")
        hold = self._stop_sockets()
        if hold is None and (loads or self.actions.stop_sockets) and (problem := self._not_loaded()) is not None:
            return problem
        if hold is None and self.actions.starts_dockerd:
            hold = self.gate(self.seen) or self._slot_hold() or self._edited()
        if hold is not None or not self.actions.starts_dockerd:
            self.hold = hold or self.hold
            return self._finished()
        self._start()
        if self.starts:
            return self._verified()
        # docker.socket was started, and listens.
        self.seen = self.context.observe()
        return self._finished()

    def _stop_sockets(self) -> Hold | None:
        """Stop socket units, unless something holds that by now: a stop runs their commands."""
        if not self.actions.stop_sockets:
            return None
        self.seen = self.context.observe()
        if (hold := self.gate(self.seen)) is not None:
            return hold
        for name in self.actions.stop_sockets:
            self.context.manager.run_job("StopUnit", name)
            self.steps.append(f"stopped {name}")
        return None

    def _write(self) -> None:
        """Write the files. Raises OSError, and Changed."""
        for change in self.actions.changes:
            with Rootfs(self.context.files.root) as rootfs:
                if content_at(rootfs, change.path) != change.before:
                    # No copy has what it holds now (I5).
                    raise Changed(f"another program changed {change.path} during the correction")
            try:
                self.context.files.put(change.path, change.after, change.access)
            except OSError as error:
                raise OSError(error.errno, error.strerror, change.path) from None
            self.steps.append(f"{'removed' if change.after is None else 'wrote'} {change.path}")

    def _not_loaded(self) -> Result | None:
        """The failure where systemd has not loaded what was written.

        Reload() succeeds with broken units too, and NeedDaemonReload= has blind spots (systemd#4500, #31752).
        """
        self.seen = self.context.observe()
        loaded = self.seen.loaded
        if loaded is not None and complies(loaded.layer, self.policy):
            return None
        if path := changed_meanwhile(self.actions.changes, self.decided_on, self.before, self.seen.configured,
                                     self.policy, self.context.files.root):
            return self._undo(f"another program changed {path} during the correction",
                              restarts=False)._replace(interference=path)
        found = "nothing" if loaded is None else loaded.layer.reason or ", ".join(loaded.layer.hosts)
        return self._undo(f"systemd has loaded a different configuration: {found}", restarts=False)

    def _finished(self) -> Result:
        """The end without a start: dockerd may have been started meanwhile, with what was loaded before."""
        left = required_actions(self.seen, self.plan._replace(changes=()), self.policy)
        hold = self.hold
        if hold is None and left.starts_dockerd:
            hold = Hold("docker.service was started during the correction")
        return Result(hold is None, tuple(self.steps), hold, kept=self.actions.changes, seen=self.seen)

    def _slot_hold(self) -> Hold | None:
        """Why the restart may not begin, though it has a slot: that is another host's by now. From here on the slot is
        kept; dockerd asks nobody, so a lease that ends later stops nothing."""
        fleet = self.policy.correct.fleet
        if fleet is None or self.slot is None:
            return None
        try:
            is_ours = self.context.lock.still(fleet, self.slot)
        except LockError as error:
            return Hold(error.reason, next_step=error.next_step)
        return None if is_ours else Hold(f"the slot of the group {self.slot.group} was lost before the restart",
                                         next_step="Wait; the agent asks for another")

    def _edited(self) -> Hold | None:
        """Why the restart may not begin, though the gate allowed it: the engine, and the lock service of a fleet, may
        take seconds to answer, and what dockerd reads at its start has changed meanwhile (I1, I4)."""
        what = changed_since(self.seen, self.context.files.root)
        return Hold(f"another program changed {what} during the correction", next_step=AGAIN) if what else None

    def _start(self) -> None:
        was_active = self.intent.was_active
        units = (*(SOCKET,) * self.actions.restart_socket,
                 *(SERVICE,) * (self.actions.restart or self.actions.start or was_active))
        if SERVICE in units:
            self.starts.append(self.context.clock.now())
        # The start limit counts the starts of an administrator too: without a reset this one may be refused, and
        # dockerd would be down. One reset for each correction (I2).
        if restart(self.context.manager, units, reset_failed=True):
            self.steps.append(f"{'restarted' if was_active else 'started'} {' and '.join(units)}")

    def _verified(self) -> Result:
        """The end of a correction that dockerd was started with: it holds, or is undone."""
        try:
            problem, self.seen = verify(self.policy, self.plan.after.service.type, self.context)
        except HelperUnavailable as error:
            return Result(False, tuple(self.steps), unverifiable(error), starts=tuple(self.starts),
                          kept=self.actions.changes)
        if problem:
            return self._undo(problem, restarts=True)
        self.steps.append("verified that every declared socket answers and no other listens")
        return Result(True, tuple(self.steps), starts=tuple(self.starts), kept=self.actions.changes, seen=self.seen)

    def _undo(self, reason: str, *, restarts: bool, after: JobFailed | None = None) -> Result:
        """Restore the files, and dockerd if it was started with the new ones and ran before.

        An earlier correction that dockerd was not started with yet is part of what it was started with now. It stays
        where dockerd would refuse what was there before.
        """
        cause = _unbindable(self.seen, self.policy, self.context) if restarts else ""
        own = self.intent._replace(changes=self.actions.changes)
        intent = own if not restarts or (
            own != self.intent and would_be_refused(self.intent, self.context)) else self.intent
        restarts = restarts and self.intent.was_active
        undone = undo(intent, self.context, restarts=restarts, reset_failed=not self.starts, after=after)
        error = "; ".join(filter(None, (
            reason, cause, undone.message and f"errors while undoing it: {undone.message}")))
        return Result(False, tuple(self.steps), error=error, was_rolled_back=not undone.message,
                      starts=(*self.starts, *undone.starts), undone=intent.changes, restored=not undone.left_changed,
                      unbindable=bool(cause))
