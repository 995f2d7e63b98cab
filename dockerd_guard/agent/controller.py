"""One pass of the agent on one host: policy, observation, containment, drift, correction, record.

Knows nothing of triggers, signals or files that are published; the simulation runs this code on a simulated host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dockerd_guard.agent.drift_tracker import CONFIRM_S, DriftTracker
from dockerd_guard.agent.reconcile import Pass, reconcile, with_start
from dockerd_guard.apply.context import Clock, Context, Validate
from dockerd_guard.apply.files import HostFiles
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.containment.containment import Containment
from dockerd_guard.fleet.lock import Lock
from dockerd_guard.model.address import Tls, canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.kernel import HostKernel, is_active
from dockerd_guard.observe.live import observe_host, observer
from dockerd_guard.observe.network import Network, Unsupported
from dockerd_guard.observe.observation import AccessPath, Listening, Observation, Running
from dockerd_guard.observe.probes import Known, Prober
from dockerd_guard.plan.actions import is_starting
from dockerd_guard.plan.decide import Decision, Result, Verdict, containment, forget_policy, retry_now
from dockerd_guard.plan.exposures import Exposure, exposures
from dockerd_guard.plan.memory import Contained, Memory
from dockerd_guard.policy.model import Mode, Policy, PolicyError
from dockerd_guard.report.containment import containment_entries
from dockerd_guard.report.correction import (
    contested_entry,
    corrected_so_far_entry,
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

RETRY_S = 5.0
"""Delay before retrying a broken connection to systemd."""

LOOK_AT_DOCKERD_S = 0.1
"""Delay before another look at a dockerd with a TCP host that is starting. It listens before systemd announces it."""

LOOK_AT_START_S, LOOK_AT_OTHERS_S = 1.0, 10.0
"""Delay before another look at a second dockerd that does not listen yet: of root, of another account."""

LOOK_AGAIN_S = 2.0
"""Delay before another look at access paths that change with each look, and at programs that have just begun to
listen."""

LOOK_WITHOUT_SYSTEMD_S = 1.0
"""Delay before another look while no signal of systemd announces a start of dockerd."""

RETRY_AFTER_ERROR_S = 60.0
"""Delay before the next pass after an internal error."""


class Host(NamedTuple):
    """What a pass needs of a host. `connect` raises Unavailable, `read_policy` PolicyError."""

    connect: Callable[[], Manager]
    read_policy: Callable[[], Policy]
    files: HostFiles
    kernel: HostKernel
    network: Network
    clock: Clock
    validate: Validate
    state: StateFiles
    lock: Lock


class ExposureTime(NamedTuple):
    """What takes in how long something was open to the network.

    `counted` is called with each new count of `Controller.exposed`, and with the start of the running dockerd (seconds
    since the epoch): before and after blocking, and after a correction. `reopened`: see Containment.
    """

    counted: Callable[[int, float | None], None] = lambda exposed, started_at: None
    reopened: Callable[[float], None] = lambda seconds: None


NOT_COUNTED = ExposureTime()


class Controller:
    """The passes on one host, and what is kept between them: the memory, the open drifts, the connection to systemd."""

    def __init__(
        self, host: Host, policy: Policy, journal: Journal, tracker: DriftTracker,
        exposure: ExposureTime = NOT_COUNTED
    ) -> None:
        self.host = host
        self.policy = policy
        self.policy_problem = ""
        self.memory = host.state.load()
        self.decision = Decision(Verdict.NOTHING)
        self.exposed = 0
        """Addresses that are open to the network against the policy and not blocked."""
        self.wake_s: float | None = None
        """When to look again at the latest, after the last pass."""
        self.containment = Containment(self.memory.contained, host.network, self._remember_contained, exposure.reopened)
        self._probe = Prober(host.network.probe, host.state, lambda: host.clock.now().since_boot_s,
                             lambda: is_active(self._manager))
        self._counted = exposure.counted
        self._journal = journal
        self._tracker = tracker
        self._manager: Manager | None = None
        self._recovery = ""
        self._owns_state = False
        """Whether this pass holds the lock of the state directory."""
        self._unstored: Contained | None = None
        """What is blocked, where another process held the lock when that changed."""
        self._forgets_policy = False
        self._access_paths: tuple[AccessPath, ...] | None = None
        """Those of the last pass, None before the first."""
        self._paths_changed = False

    @property
    def manager(self) -> Manager | None:
        """The connection to systemd, None without one."""
        return self._manager

    def disconnected(self) -> None:
        """Take in that the connection to systemd broke."""
        self._manager = None

    def changed(self) -> None:
        """Take in that something on the host changed."""
        self.memory = self.memory._replace(changed_at=self.host.clock.now())

    def run_pass(
        self, problems: list[str], *, retry: bool = False, watch: Callable[[Rootfs, Policy], tuple[str, ...]],
        owns_state: bool = True
    ) -> None:
        """Observe, report, correct what may be corrected. The caller holds the lock of the state directory.

        `problems` are those of watching since the last pass; `retry`: try again what failed. `watch` is called with
        the rootfs that the host was read through, and returns what cannot be watched. Without `owns_state` another
        process holds the lock: drift is reported and contained, nothing is decided, corrected or stored. Never raises.
        """
        self.wake_s = None
        self._owns_state = owns_state
        self._load()
        cause = Cause.POLICY_CHANGE if self._take_new_policy() else Cause.DRIFT
        if self._forgets_policy:
            self.memory = forget_policy(self.memory)
            self._forgets_policy = not owns_state
        if retry:
            self.memory = retry_now(self.memory)
        try:
            manager = self._connection(problems)
            with Rootfs(self.host.files.root) as rootfs:
                self._observe_and_act(rootfs, manager, cause, problems, watch)
        except Unavailable as error:
            self._lost(error, problems)
        except Unreadable as error:
            problems.append(str(error))
        except Exception as error:
            problems.append(f"internal error: {error!r} at {_source_line(error)}; please report it")
            self._wake_in(RETRY_AFTER_ERROR_S)
        self._owns_state = False
        self._tracker.report_blindness(problems)

    def _load(self) -> None:
        """Read the memory. What is blocked is this process's own, whatever another process stored meanwhile."""
        self.memory = self.host.state.load()._replace(
            changed_at=self.memory.changed_at, unneeded_since=self.memory.unneeded_since)
        if self._unstored is not None:
            self.memory = self.memory._replace(contained=self._unstored)
        if self._unstored is not None and self._owns_state:
            self._remember_contained(self._unstored)
            self._unstored = None

    def _observe_and_act(
        self, rootfs: Rootfs, manager: Manager | None, cause: Cause, problems: list[str],
        watch: Callable[[Rootfs, Policy], tuple[str, ...]]
    ) -> None:
        policy, kernel = self.policy, self.host.kernel
        try:
            seen = observe_host(rootfs, manager, kernel, known=self._known())
        except Unavailable as error:
            manager = None
            self._lost(error, problems)
            seen = observe_host(rootfs, None, kernel, known=self._known())
        seen = self._with_known_paths(seen)
        problems += (trouble.text for trouble in seen.troubles if manager is not None)
        self._count_exposed(seen)
        # First: to judge, to query dockerd and to restart it may take a while (I12). nftables needs no D-Bus.
        seen = self._with_access_paths(seen)
        blocked_before = set(map(canonical, self.containment.addresses))
        blocked = self.containment.block_at_once(self._exposures(seen))
        if any(tls is Tls.UNKNOWN for _, tls in _tls(seen)):
            seen = self._probed(seen)
        self._count_exposed(seen)
        self.memory = with_start(seen, self.memory)
        findings = judge(seen, policy)
        problems += watch(rootfs, policy)
        self._report_manual_fixes(findings)
        is_contested = self.decision.verdict is Verdict.BACK_OFF
        open_now = {canonical(each.address) for each in exposures(seen, policy, self.host.clock.now().date)}
        if self._tracker.report_drifts(seen, findings, open_now, policy, cause, blocked=blocked_before,
                                       is_contested=is_contested, is_being_corrected=not self._owns_state,
                                       knows_containers=kernel.knows_containers()):
            self._wake_in(CONFIRM_S)
        # After the drifts, whose exposure it ends, and before a correction, which may take seconds (I10).
        for entry in containment_entries(blocked, by_policy=False):
            self._tracker.write(entry)
        if manager is None or not self._owns_state:
            self._contain(seen, manager, problems, set())
            self._count_exposed(seen)
            if manager is not None:
                self._look_for_access_paths(seen)
            else:
                self._wake_in(LOOK_WITHOUT_SYSTEMD_S)
            return
        # After the entries, which do not wait for the network helper.
        unprobed, seen = seen, self._probed(seen)
        if _tls(seen) != _tls(unprobed):
            findings = judge(seen, policy)
            self._wake_in(0.0)
        with observer(manager, kernel, self.host.files.root, self._known) as observe:
            context = Context(manager, self.host.files, observe, self.host.network, self.host.clock,
                              self.host.validate, self.host.lock, self._probe)
            before = self.memory
            done = reconcile(seen, findings, policy, before, context, kernel, self.host.state)
            self.memory = done.memory
            seen = self._with_known_paths(done.seen or observe())
            self._record(done, seen, before, cause)
            self._contain(seen, manager, problems, {exposure.address for exposure in blocked.cut})
            self._count_exposed(seen)
            self._look_for_access_paths(seen)
        self.decision = done.assessment.decision

    def _with_known_paths(self, seen: Observation) -> Observation:
        """With the access paths of the last pass, none in the first one."""
        return seen._replace(access_paths=self._access_paths or ())

    def _with_access_paths(self, seen: Observation) -> Observation:
        """With the access paths of the last look, none without systemd or a started dockerd before. In the first one
        what an earlier process blocked stays blocked while they are looked for."""
        if self._access_paths is None and (seen.loaded is None or self._answers_no_request(seen)):
            return seen
        if self._access_paths is None:
            if self._contains:
                self.containment.block_unreported(self.containment.with_blocked(
                    self._exposures(seen), self.containment.addresses))
            self._access_paths = self._current_access_paths(seen)
        return seen._replace(access_paths=self._access_paths)

    def _look_for_access_paths(self, seen: Observation) -> None:
        """Look for other ways to the API, last: this may take seconds. Another pass follows if they have changed, and
        while a dockerd has not had the time to listen."""
        if self._answers_no_request(seen) and (self._access_paths is None or not self.host.kernel.has_new_socket()):
            if is_starting(self.host.clock.now(), seen) and _tcp_hosts(seen.running) - _tcp_hosts(seen.listening):
                self._wake_in(LOOK_AT_DOCKERD_S)
            return
        found = self._current_access_paths(seen)
        if found != self._access_paths:
            self._access_paths = found
            # Whoever opens and closes ports all the time does not keep this process busy.
            self._wake_in(LOOK_AGAIN_S if self._paths_changed else 0.0)
            self._paths_changed = True
        else:
            self._paths_changed = False
        starting = [other.process.uid for other in seen.others if other.is_starting or other.opening]
        if starting:
            self._wake_in(LOOK_AT_START_S if 0 in starting else LOOK_AT_OTHERS_S)
        if self.host.kernel.has_young_listener():
            self._wake_in(LOOK_AGAIN_S)

    def _current_access_paths(self, seen: Observation) -> tuple[AccessPath, ...]:
        return self.host.kernel.access_paths(seen, self.host.network, self._manager, self.containment.addresses)

    def _answers_no_request(self, seen: Observation) -> bool:
        """Whether docker.service starts, and would answer late (I12), or stops: a request that it does not accept any
        more makes docker.socket start it again."""
        is_stopping = seen.loaded is not None and seen.loaded.active_state == "deactivating"
        return is_stopping or is_starting(self.host.clock.now(), seen)

    def _probed(self, seen: Observation) -> Observation:
        """With what the TCP sockets of dockerd answer, as far as they can be reached."""
        try:
            return self._probe(seen)
        except Unsupported:
            return seen

    def _known(self) -> Known:
        return Known(self.memory.start, self._probe.probes)

    def _report_manual_fixes(self, findings: tuple[Finding, ...]) -> None:
        """Log what `fix` did since the last pass; stored at once, since this pass may end early."""
        if not self._owns_state:
            return
        for fix in self.memory.manual_fixes:
            self._tracker.report_manual_fix(fix, findings)
        if self.memory.manual_fixes:
            self.memory = self.memory._replace(manual_fixes=())
            with contextlib.suppress(OSError):
                self.host.state.save(self.memory)

    def _record(self, done: Pass, seen: Observation, before: Memory, cause: Cause) -> None:
        """Log what the pass came to, and when to look again."""
        assessment, decision = done.assessment, done.assessment.decision
        if done.recovery and done.recovery != self._recovery:
            self._journal.say(sentence(done.recovery), "notice")
        self._recovery = done.recovery
        if done.wake_s is not None:
            self._wake_in(done.wake_s)
        if decision.complies and before.held is not None and done.result is None and not done.recovery:
            self._tracker.write(resolved_entry(before.held, cause, assessment))
        is_new = before.held is None or decision.hold is None or before.held.reason != decision.hold.reason
        if decision.contested is not None and is_new:
            self._tracker.write(contested_entry(decision.contested, self.host.clock.now().wall, assessment, cause))
        for entry in self._correction_entries(done, seen, before, cause):
            self._tracker.write(entry)

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
        fixed = self._tracker.forget_fixed(judge(seen, self.policy)) if result.steps else ()
        yield correction_entry(result, done.assessment, cause, fixed)
        if fixed and not result.is_done:
            yield corrected_so_far_entry(fixed, cause)

    def _count_exposed(self, seen: Observation) -> None:
        """Count what is open and not blocked; keeps the last count where not everything was observed."""
        if not seen.troubles:
            blocked = self.containment.addresses
            today = self.host.clock.now().date
            self.exposed = sum(bool(exposure.namespace) or exposure.address not in blocked
                               for exposure in exposures(seen, self.policy, today, blocked) if not exposure.is_idle)
            if self._access_paths is None and not self.exposed:
                # That nothing is open is not known before the first look for access paths.
                return
            self._counted(self.exposed, None if seen.running is None else seen.running.process.started_ns / 1e9)

    def _exposures(self, seen: Observation) -> tuple[Exposure, ...]:
        """What must be blocked now. What is blocked stays so where not everything is seen: without systemd, before the
        first look for access paths, and what a container may publish before the first answer of an engine."""
        wanted = containment(self.host.clock.now(), seen, self.policy, self.memory)
        if not self._contains:
            return wanted
        blocked = self.containment.addresses
        is_partial = seen.loaded is None or self._access_paths is None
        return self.containment.with_blocked(
            wanted, blocked if is_partial else self.host.kernel.unverified(seen, blocked))

    @property
    def _contains(self) -> bool:
        """Whether the policy requests containment."""
        return self.policy.mode is Mode.ENFORCE and self.policy.correct.contain

    # --- containment ----------------------------------------------------------------------

    def _contain(
        self, seen: Observation, manager: Manager | None, problems: list[str], just_blocked: set[str]
    ) -> None:
        """Block what is open against the policy, and nothing else; log what is new.

        Of `just_blocked` addresses the entry about their correction shows the end.
        """
        if self._contains and seen.listening is None:
            # What cannot be seen is not released.
            return
        try:
            wanted = self._exposures(seen)
            result = self.containment.add(wanted) if manager is None else self.containment.keep(wanted, manager)
        except (OSError, Unsupported) as error:
            problems.append(f"cannot change what is blocked at the network: {error}")
            self._wake_in(RETRY_S)
            return
        released = tuple(address for address in result.released if address not in just_blocked)
        for entry in containment_entries(result._replace(released=released), by_policy=not self._contains):
            self._tracker.write(entry)

    def _remember_contained(self, contained: Contained) -> None:
        self.memory = self.memory._replace(contained=contained)
        if not self._owns_state:
            self._unstored = contained
            return
        # A full disk must not keep a port open; the end of the pass stores it again.
        with contextlib.suppress(OSError):
            self.host.state.save(self.memory)

    # --- systemd and the policy -----------------------------------------------------------

    def _connection(self, problems: list[str]) -> Manager | None:
        if self._manager is None:
            try:
                self._manager = self.host.connect()
            except Unavailable as error:
                self._lost(error, problems)
        return self._manager

    def _lost(self, error: Unavailable, problems: list[str]) -> None:
        """Take in that systemd cannot be queried; the next pass connects again."""
        self._manager = None
        self._wake_in(RETRY_S)
        problems.append(f"cannot query systemd: {error}; if D-Bus is down: `systemctl start dbus.socket`")

    def _take_new_policy(self) -> bool:
        """Read the policy again. Returns whether it has changed. An invalid one is logged once."""
        try:
            policy = self.host.read_policy()
        except PolicyError as error:
            if str(error) != self.policy_problem:
                self.policy_problem = str(error)
                for problem in error.problems:
                    self._tracker.write(policy_error_entry(
                        problem, Outcome.KEPT, "The last valid policy stays in force", "Fix the file and save it"))
            return False
        self.policy_problem = ""
        if policy == self.policy:
            return False
        self.policy = policy
        self._forgets_policy = True
        self._tracker.write(policy_entry(policy, Cause.POLICY_CHANGE))
        return True

    def _wake_in(self, seconds: float) -> None:
        """Look again at the latest then."""
        self.wake_s = seconds if self.wake_s is None else min(self.wake_s, seconds)


def _tls(seen: Observation) -> list[tuple[str, Tls]]:
    """Each address of a running dockerd with its TLS."""
    return [(binding.address, binding.tls) for layer in (seen.running, seen.listening) if layer is not None
            for binding in layer.layer.bindings]


def _tcp_hosts(seen: Running | Listening | None) -> set[str]:
    return {canonical(binding.address) for binding in seen.layer.bindings if binding.is_tcp} if seen else set()


def _source_line(error: Exception) -> str:
    """Source file and line of an exception, without any content of a host's files."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown location"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
