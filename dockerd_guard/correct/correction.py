"""Carry a plan out: write, reload, restart where the gate allows, verify, and roll back.

A working Docker is never left dead, and no file is left half changed: what was there before is
kept until the result has been seen from outside (the kernel's sockets, an answer to a ping).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dockerd_guard.bindings import Tls, canonical
from dockerd_guard.correct import files
from dockerd_guard.correct.gate import Cost, Hold, Situation, cost, may_restart
from dockerd_guard.correct.network import Network, NoNetwork
from dockerd_guard.correct.plan import (
    SAVED_SUFFIX,
    SERVICE,
    SOCKET,
    Change,
    Plan,
    complies,
    content_at,
    files_of,
)
from dockerd_guard.correct.preflight import Preflight
from dockerd_guard.correct.state import Intent, State
from dockerd_guard.observe.configured import dockerd_syntax, passed_by
from dockerd_guard.observe.observation import Configured, Observation
from dockerd_guard.policy import Policy, declared_bindings
from dockerd_guard.systemd.manager import JobFailed, Manager, Refused
from dockerd_guard.tree import Tree

VERIFY_TIMEOUT_S = 10.0
"""How long sockets may take after systemd called dockerd started; it binds before READY=1."""

VERIFY_TIMEOUT_UNNOTIFIED_S = 40.0
"""The same where Type= is not notify: dockerd's own pause of 16 s on plain TCP is in it."""

POLL_S = 0.1


class Outcome(NamedTuple):
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


class Needs(NamedTuple):
    """What has to be done to a host, each by what was seen of it."""

    changes: tuple[Change, ...]
    reload: bool
    stop_sockets: tuple[str, ...]
    """Socket units that are to pass nothing any more."""
    restart_socket: bool
    restart: bool

    @property
    def restarts(self) -> bool:
        """Whether some unit has to be restarted."""
        return self.restart_socket or self.restart

    @property
    def anything(self) -> bool:
        """Whether there is anything to do at all."""
        return bool(self.changes or self.reload or self.stop_sockets or self.restarts)


def needs(seen: Observation, plan: Plan, policy: Policy) -> Needs:
    """Tell what has to be done, by comparing each layer with the policy."""
    loaded = seen.loaded
    if plan.obstacles or loaded is None:
        return Needs((), False, (), False, False)
    reload = bool(plan.changes) or not complies(loaded.layer, policy)
    runs = seen.running is not None
    wrong = [layer for layer in (seen.running, seen.listening)
             if layer is not None and not complies(layer.layer, policy)]
    failed = loaded.active_state == "failed"
    wanted = {canonical(address) for address, _ in passed_by(
        socket for socket in plan.after.sockets if socket.unit.name == SOCKET)}
    of_socket = {canonical(dockerd_syntax(item.address)) for socket in loaded.sockets
                 if socket.unit.name == SOCKET for item in socket.listen} | wanted
    held = {canonical(address) for address in seen.listening.held_by_systemd} & of_socket if seen.listening else set()
    socket_is_active = loaded.socket_states.get(SOCKET) == "active"
    passing = {socket.unit.name for socket in plan.after.sockets}
    return Needs(plan.changes, reload,
                 stop_sockets=tuple(name for name, state in loaded.socket_states.items()
                                    if state == "active" and name not in passing),
                 restart_socket=socket_is_active and wanted != held,
                 restart=(runs and bool(wrong)) or failed)


class Means(NamedTuple):
    """What a correction acts and looks with: systemd, the state directory, a fresh look at the host, the network.

    The tree of the latest look is open, those before need not be.
    """

    manager: Manager
    state: State
    observe: Callable[[], Observation]
    network: Network


def correct(seen: Observation, plan: Plan, policy: Policy, situation: Situation, means: Means) -> Outcome:
    """Carry a plan out, as far as the gate allows now. Raises Unavailable when systemd goes away."""
    return _Correction(seen, plan, policy, situation, means).run(
        needs(seen, plan, policy), lambda fresh: needs(fresh, plan, policy))


def obstructed(plan: Plan, policy: Policy) -> Hold:
    """What holds a plan that does not lead to a host that complies."""
    allow = ", or allow `foreign_files` in the policy's `correct`" * (not policy.correct.foreign_files)
    return Hold("; ".join(plan.obstacles), next_step=f"change that by hand{allow}")


class _Correction:
    """One correction under way: what it has done so far, and how to undo it."""

    def __init__(self, seen: Observation, plan: Plan, policy: Policy, situation: Situation, means: Means) -> None:
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

    def run(self, todo: Needs, needs_now: Callable[[Observation], Needs]) -> Outcome:
        """Do all that is needed; `needs_now` tells what a fresh look still asks for."""
        price = cost(bool(todo.changes or todo.reload), todo.restarts, self.situation)
        if self.plan.obstacles:
            return Outcome(False, price, hold=obstructed(self.plan, self.policy))
        earlier = self.state.intent()
        if not todo.anything and earlier is None:
            return Outcome(True, price)
        try:
            problems = self._problems() if todo.anything else ()
        except NoNetwork as error:
            return Outcome(False, price, hold=_unproven(error))
        if problems:
            return Outcome(False, price, hold=Hold(
                "; ".join(problems), next_step="mend that: it is tried again by itself"))
        hold = may_restart(self.policy.correct, self.situation) if todo.restarts else None
        self.intent = Intent(earlier.before(todo.changes) if earlier is not None else todo.changes,
                             datetime.now(UTC), self._stops(todo) if hold is None else ())
        if earlier is not None and not todo.anything:
            # A start that was not ours needs no proof; one that a crash cut short does.
            self.intent = earlier
            outcome = self._checked(price) if earlier.stops else Outcome(True, price)
        else:
            try:
                self.state.begin(self.intent)
            except OSError as error:
                return Outcome(False, price, error=self._told(error), unwritable=True)
            try:
                outcome = self._carry_out(todo, price, hold, needs_now)
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

    def _stops(self, todo: Needs) -> tuple[str, ...]:
        """The active units that go down on the way."""
        return (*todo.stop_sockets, *(SOCKET,) * todo.restart_socket,
                *(SERVICE,) * (todo.restarts and self.situation.docker_is_active))

    def _carry_out(self, todo: Needs, price: Cost, hold: Hold | None,
                   needs_now: Callable[[Observation], Needs]) -> Outcome:
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
            again = needs_now(self.seen)
            return Outcome(not again.restarts, price, tuple(self.steps),
                           hold=Hold("docker.service was started meanwhile") if again.restarts else None,
                           seen=self.seen)
        if hold is not None:
            return Outcome(False, price, tuple(self.steps), hold=hold, seen=self.seen)
        if self.situation.docker_is_active:
            self.state.count_restart(datetime.now(UTC))
        units = (*(SOCKET,) * todo.restart_socket,
                 *(SERVICE,) * (todo.restart or self.situation.docker_is_active))
        try:
            restart(self.manager, units)
        except (JobFailed, Refused) as error:
            return self._undo(price, str(error), restart=True)
        self.steps.append(f"restarted {' and '.join(units)}")
        return self._checked(price) if SERVICE in units else Outcome(True, price, tuple(self.steps))

    def _checked(self, price: Cost) -> Outcome:
        """The end of a correction: it holds, or is undone; what cannot be tried now is by the next pass."""
        try:
            wrong = self._verify()
        except NoNetwork as error:
            return Outcome(False, price, tuple(self.steps), hold=_unproven(error))
        if wrong:
            return self._undo(price, wrong, restart=True)
        return Outcome(True, price, tuple(self.steps), seen=self.seen)

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

    def _undo(self, price: Cost, reason: str, *, restart: bool) -> Outcome:
        """Put the files back as they were, and dockerd too where it was restarted."""
        undone = undo(self.intent, self.manager, was_restarted=restart)
        words = reason + (f"; and in undoing it: {undone.words}" if undone.words else "")
        return Outcome(False, price, tuple(self.steps), error=words, rolled_back=not undone.words,
                       left_changed=bool(undone.left_changed))


class Undone(NamedTuple):
    """What could not be undone: files, and units; in words."""

    left_changed: tuple[str, ...]
    not_started: tuple[str, ...]

    @property
    def words(self) -> str:
        return "; ".join(self.left_changed + self.not_started)


def restart(manager: Manager, units: Sequence[str]) -> None:
    """Restart docker.service with these of its socket units; the sockets alone where it is not among them.

    Raises JobFailed and Refused.
    """
    manager.reset_failed(SERVICE)
    sockets = [name for name in units if name != SERVICE]
    if not sockets:
        manager.run_job("RestartUnit", SERVICE)
        return
    # A socket unit takes new addresses only when it starts, and will not start while its service
    # runs: "Socket service docker.service already active, refusing." The sockets go first, else
    # a client that comes by starts the service again.
    for name in (*sockets, SERVICE):
        manager.run_job("StopUnit", name)
    for name in sockets:
        manager.reset_failed(name)
        manager.run_job("StartUnit", name)
    if SERVICE in units:
        manager.run_job("StartUnit", SERVICE)


def undo(intent: Intent, manager: Manager, *, was_restarted: bool) -> Undone:
    """Put everything back as it was before the intent. Raises Unavailable.

    A file that somebody else has changed since is his; then what was saved of it stays, too.
    """
    left_changed, not_started = [], []
    with Tree() as tree:
        now = {change.path: content_at(tree, change.path) for change in intent.changes}
    theirs = [change.path for change in intent.changes if now[change.path] not in (change.before, change.after)]
    for change in reversed(intent.changes):
        if now[change.path] == change.before is not None or change.path in theirs or (
                theirs and SAVED_SUFFIX in change.path):
            continue
        try:
            files.put(change.path, change.before, change.access)
        except OSError as error:
            # What is not there is taken away once more, for the directory that may have been made for it.
            if now[change.path] is not None:
                left_changed.append(f"{change.path}: {error.strerror}")
    try:
        manager.reload()
        if intent.stops and (was_restarted or not all(_is_up(manager, name) for name in intent.stops)):
            restart(manager, intent.stops)
    except (JobFailed, Refused) as error:
        not_started.append(str(error))
        if SERVICE in intent.stops:
            # A stop that takes longer than anybody waits for must not be the last thing that is done to it.
            with contextlib.suppress(JobFailed, Refused):
                manager.run_job("StartUnit", SERVICE, timeout_s=0)
    return Undone(tuple(left_changed), tuple(not_started))


def _is_up(manager: Manager, unit: str) -> bool:
    return manager.unit(unit).text("ActiveState") in ("active", "activating", "reloading")


def _changed_meanwhile(changes: Iterable[Change], now: Configured, policy: Policy) -> str:
    """A file that is not as it was just written; or the one changed last, where the files do not say any more
    what they were to say; or nothing."""
    with Tree() as tree:
        for change in changes:
            if content_at(tree, change.path) != change.after:
                return change.path
        if complies(now.layer, policy):
            return ""
        found = {path: entry.ctime_ns for path in files_of(now) if (entry := tree.stat(path)) is not None}
        return max(found, key=lambda path: found[path], default="")


def _unproven(error: NoNetwork) -> Hold:
    return Hold(f"{error}, and only it can tell whether Docker answers over TCP", next_step=NoNetwork.next_step)


def answers(policy: Policy, network: Network) -> Iterable[str]:
    """Try every declared socket; in words, those that do not answer as declared. Raises NoNetwork."""
    for socket in declared_bindings(policy):
        answer = network.ping(socket.address, socket.tls)
        if not answer.answers:
            yield f"{socket.address} does not answer: {answer.reason}"
        elif socket.tls is Tls.MUTUAL and answer.tls is not Tls.MUTUAL:
            yield f"{socket.address} lets in clients without a certificate"


def recover(state: State, manager: Manager) -> str:
    """Bring to an end what a crash cut short; what was done, in words. Raises OSError, Refused, Unavailable.

    Each file is whole, old or new. Where all are new they stay: what was stopped is started, and the
    next pass restarts dockerd where that is still to be done, verifies, and undoes everything if it does
    not hold. Else all are made old again. A correction that waits for leave is left as it is.
    """
    files.sweep(state.directory)
    intent = state.intent()
    if intent is None:
        return ""
    for directory in {change.path.rpartition("/")[0] for change in intent.changes}:
        files.sweep(directory)
    if intent.held:
        return ""
    began = f"a correction begun at {intent.begun:%Y-%m-%d %H:%M:%S} did not come to its end"
    with Tree() as tree:
        is_written = all(content_at(tree, change.path) == change.after for change in intent.changes)
    if is_written:
        ours = [name for name in (SOCKET, SERVICE) if name in intent.stops]
        try:
            manager.reload()
            if not all(_is_up(manager, name) for name in ours):
                restart(manager, ours)
        except JobFailed as error:
            return _undone(intent, state, manager, f"{began}, and cannot ({error})", was_restarted=True)
        state.begin(intent._replace(held=True))
        return f"{began}: all its files are written and stay; the rest is looked at anew"
    # Dockerd may have come up, at a boot perhaps, by some of the files and not by others.
    started = datetime.fromtimestamp(manager.unit(SERVICE).number("ExecMainStartTimestamp") / 1e6, UTC)
    return _undone(intent, state, manager, began, was_restarted=started > intent.begun)


def _undone(intent: Intent, state: State, manager: Manager, began: str, *, was_restarted: bool) -> str:
    """Undo what a crash cut short."""
    if SERVICE not in intent.stops and manager.unit(SERVICE).text("ActiveState") == "failed":
        intent = intent._replace(stops=(*intent.stops, SERVICE))
    undone = undo(intent, manager, was_restarted=was_restarted)
    if not undone.left_changed:
        state.finish()
    return began + (f"; in undoing it: {undone.words}" if undone.words else ": everything is as before it")
