"""The safety invariants of a host, checked after each step. Each check yields a message for each violation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from dockerd_guard.fleet.lock import Fault
from dockerd_guard.model.address import Tls, canonical
from dockerd_guard.model.names import DROPIN_NAME, SAVED_SUFFIX, SERVICE, SOCKET
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.probes import Known
from dockerd_guard.plan.backoff import FREE_REPEATS
from dockerd_guard.plan.decide import Verdict
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.plan import original_of
from dockerd_guard.policy.model import Mode, Restart, Unreachable, declared_bindings
from dockerd_guard.report.journal import Event, Outcome
from dockerd_guard.rootfs import Content, Link, Rootfs
from tests.simulation.actions import DAEMON_JSON, DROPINS, OTHER_UNIT, OTHER_UNIT_TEXT, POLICY, SECRET, World
from tests.simulation.host import DOCKERD_FILE, STOP_S, WORKING_DOCKERD, SimulatedHost, Start
from tests.simulation.interfaces import SimulatedKernel, SimulatedManager
from tests.simulation.watch import Correction, files, inputs

MAX_PASS_S = 400.0
"""A pass may wait for one stop that hangs (240 s), and for verification."""

AT_ONCE_S = 0.01
"""systemd's daemon-reload, which is before the last look of a pass, takes longer."""

RESTING = {"active", "inactive", "failed"}
"""The states of a docker.service that is not being restarted."""


class Before(NamedTuple):
    """What is compared with what is so after a pass."""

    files: Mapping[str, bytes]
    was_running: bool
    state: str
    killed: int
    starts: int
    stops: int
    resets: int
    executed: int
    entries: int
    lines: int
    seconds: float
    next_starts: int
    takes_port: bool
    has_faults: bool
    memory: Memory


def before(world: World) -> Before:
    """What is so before a pass."""
    host, agent = world.host, world.agents[-1]
    faults = bool(host.disk_errno or host.bus_is_gone or host.engine_is_silent or host.dies_after_s or host.stop_hangs
                  or host.crash_in is not None or host.full_in is not None or host.interferes)
    host.interfered.clear()
    host.met.clear()
    now = files(host)
    world.watch.others_changed(now)
    intent, known = agent.controller.memory.intent, world.watch.correction
    if known is not None and (intent is None or intent.begun.since_boot_s > known.at):
        # An action has run passes of its own.
        world.watch.correction = None
    return Before(now, host.running is not None, host.active[SERVICE], len(host.killed),
                  len(host.starts), host.stops, host.resets, len(host.executed), len(agent.journal.entries),
                  len(agent.journal.lines), host.clock.seconds, len(host.next_starts),
                  host.binds_at_stop is not None, faults, agent.controller.memory)


def violations(world: World, then: Before, *, is_manual: bool = False) -> Iterator[str]:
    """Everything that a pass broke, or `dockerd-guard fix` (`is_manual`)."""
    now = files(world.host)
    begun, then = then, _with_others(world, then)
    yield from _containers(world, then)
    yield from _budget(world, then, is_manual)
    yield from _turn(world, then, is_manual)
    yield from _slot(world, then, is_manual)
    yield from _works(world, then)
    yield from _meanwhile(world, then)
    yield from _content(world, then, now)
    yield from _foreign(world, begun, then, now)
    yield from _secrets(world, then)
    yield from _stated(world)
    yield from _time(world, then)
    yield from world.watch.problems
    changed = world.watch.we_changed(then.files, now)
    if is_manual:
        world.watch.failure = None
        return
    if world.host.bus_is_gone:
        # Nothing was decided.
        return
    if not world.host.met:
        yield from _open(world)
    yield from _code(world, then)
    yield from _delays(world)
    yield from _retries(world, now)
    if not world.host.met:
        yield from _records(world, then, now)
    yield from _rolls_back(world, then, now)
    decision = world.agents[-1].controller.decision
    if decision.verdict is Verdict.APPLY and changed and then.was_running and not world.host.met:
        others = {path: content for path, content in _others(world.host, then.files).items() if path not in changed}
        world.watch.correction = Correction(changed, world.host.clock.seconds, others)
    elif changed or world.agents[-1].controller.memory.intent is None:
        # It was undone, or dockerd has run with it for long enough.
        world.watch.correction = None


def after_crash(world: World, then: Before) -> Iterator[str]:
    """What must be so wherever the agent is killed."""
    now = files(world.host)
    begun, then = then, _with_others(world, then)
    yield from _containers(world, then)
    yield from _content(world, then, now)
    yield from _foreign(world, begun, then, now)
    world.watch.we_changed(then.files, now)
    world.watch.correction = world.watch.failure = None


def _with_others(world: World, then: Before) -> Before:
    """The same, with what others did during the pass as if it had been done before."""
    return then._replace(files=world.watch.with_others(then.files, world.host.met))


def _meanwhile(world: World, then: Before) -> Iterator[str]:
    """What others start while a pass is under way runs after it, as does what they have not stopped."""
    host = world.host
    started = next((event for event in reversed(host.met) if event.has_started), None)
    if started is None or host.running is not None or then.has_faults or len(host.next_starts) < then.next_starts:
        return
    if not any(event.at > started.at and event.name in {"stop", "kill_dockerd"} for event in host.met):
        yield f"I1: {started.name} started dockerd during the pass, and it is {host.active} after it"


def _containers(world: World, then: Before) -> Iterator[str]:
    policy, host = world.agents[-1].controller.policy, world.host
    killed = [by for _, by in host.killed[then.killed:] if by == "us"]
    if killed and policy.correct.restart is not Restart.ALWAYS:
        yield f"I1: {len(killed)} containers were stopped under restart: {policy.correct.restart}"
    ours = [start for start in host.starts[then.starts:] if start.by == "us"]
    if ours and then.was_running and not then.has_faults and policy.correct.restart is Restart.NEVER:
        yield "I1: dockerd was restarted under restart: never"


def _budget(world: World, then: Before, is_manual: bool) -> Iterator[str]:
    policy, host = world.agents[-1].controller.policy, world.host
    ours = [start.at for start in host.starts if start.by == "us"]
    recent = [at for at in ours if host.clock.seconds - at < policy.correct.budget.per_s]
    allowed = host.most_allowed(policy.correct.budget.restarts)
    # The last correction within the budget may have to be rolled back (I3).
    if len(host.starts) > then.starts and len(recent) > allowed + 1:
        yield f"I2: {len(recent)} starts by us, allowed are {policy.correct.budget}"
    if host.resets - then.resets > 1:
        yield f"I2: {host.resets - then.resets} times ResetFailedUnit in one pass"
    has_started = any(start.by == "us" for start in host.starts[then.starts:])
    if has_started and not is_manual and policy.mode is not Mode.ENFORCE and then.memory.intent is None:
        yield f"I2: started by us under mode: {policy.mode}"


def _is_restart(world: World, then: Before) -> bool:
    """Whether the pass corrected by stopping a dockerd that ran until then. It may have died before."""
    return world.agents[-1].controller.decision.verdict is Verdict.APPLY and world.host.stops > then.stops


def _corrections(starts: Sequence[Start]) -> Iterator[float]:
    """When dockerd was started, but for starts before which the restart was needed already: those of a correction that
    failed, and that undid it, and those of others that left dockerd where it listened before."""
    yield from (start.at for start in starts[:1])
    for before, start in pairwise(starts):
        is_undone = start.by == "us" and not (start.is_up and before.is_up)
        is_same = before.is_up and start.is_up and start.by != "us" and start.addresses == before.addresses
        if not is_undone and not is_same:
            yield start.at


def _turn(world: World, then: Before, is_manual: bool) -> Iterator[str]:
    """A restart waits for the turn of its host, counted at the earliest from when dockerd started under this policy."""
    host, controller = world.host, world.agents[-1].controller
    policy, decision = controller.policy, controller.decision
    since = world.watch.in_force_since(policy, then.seconds)
    ours = next((start.at for start in host.starts[then.starts:] if start.by == "us"), None)
    if policy.correct.splay_s and not is_manual and _is_restart(world, then) and ours is not None:
        begun = max(since, *_corrections(host.starts[:then.starts]))
        if ours < begun + decision.facts.share * policy.correct.splay_s:
            yield f"I2: restarted {ours - begun:.0f} s after it was needed, its share is {decision.facts.share}"


def _slot(world: World, then: Before, is_manual: bool) -> Iterator[str]:
    """A restart has a slot of the fleet, which is given back when the pass has ended; or, where an earlier process was
    killed, when the restart has."""
    host, controller = world.host, world.agents[-1].controller
    fleet, decision, lock = controller.policy.correct.fleet, controller.decision, host.lock
    if is_manual or host.bus_is_gone:
        return
    if fleet is None:
        # What etcd has of this host ends with its lease.
        if lock.slot is not None and not lock.slot.lease and not lock.is_gone and not then.has_faults and (
                decision.verdict is not Verdict.RECOVER and not controller.memory.fleet.owed):
            yield "I2: a slot of FleetLock is kept under a policy without a lock"
        return
    ours = next((start.at for start in host.starts[then.starts:] if start.by == "us"), None)
    may_proceed = fleet.unreachable is Unreachable.PROCEED and (lock.is_gone or lock.fault is Fault.UNREACHABLE)
    if ours is not None and _is_restart(world, then) and not may_proceed and not lock.had_slot(ours):
        yield f"I2: restarted without a slot: {decision.hold}"
    is_kept = controller.memory.fleet.is_kept or lock.is_gone or decision.verdict is Verdict.RECOVER
    is_kept |= then.memory.fleet.slot is not None and not {then.state, host.active[SERVICE]} <= RESTING
    if lock.slot is not None and not is_kept and not then.has_faults:
        yield f"I2: a slot is kept after the pass: {decision.verdict}, {decision.hold}"


def _works(world: World, then: Before) -> Iterator[str]:
    host = world.host
    if any(event.name in {"stop", "kill_dockerd"} for event in host.met) or any(
            start.by == "admin" and not start.is_up for start in host.starts[then.starts:]):
        return
    if then.was_running and host.running is None and not then.has_faults and len(host.starts) > then.starts:
        if then.next_starts - len(host.next_starts) > 1:
            # So was the start of the rollback. No other host of the fleet may follow.
            fleet = world.agents[-1].controller.policy.correct.fleet
            memory = world.agents[-1].controller.memory.fleet
            if fleet is not None and not (host.lock.stopped or memory.to_stop or memory.is_kept or host.bus_is_gone):
                yield "I3: dockerd is dead after a rollback, and the group is not stopped"
            return
        stopped_at = next(start.at for start in host.starts[then.starts:]) - STOP_S
        if any(event.files and event.at > stopped_at - AT_ONCE_S for event in host.met) and (
                not host.read().layer.starts or host.text(DOCKERD_FILE) != WORKING_DOCKERD):
            # Between the last look and the restart others can write. Nobody can exclude that.
            return
        is_taken = then.takes_port and host.binds_at_stop is None
        if (len(host.next_starts) < then.next_starts or is_taken) and not host.read().layer.starts:
            # A start failed for no reason in any file, and what dockerd ran with before would be refused by now.
            return
        if is_taken and host.foreign_listener in {binding.key for binding in host.read().layer.bindings}:
            return
        yield f"I3: dockerd ran before the pass, and is {host.active} after it"


def _rolls_back(world: World, then: Before, now: Mapping[str, bytes]) -> Iterator[str]:
    """A correction of a dockerd that ran, and that failed when it was started with it, is undone, unless dockerd would
    refuse what was there before."""
    host, known = world.host, world.watch.correction
    if known is None or then.has_faults or then.state != "failed" or host.active[SERVICE] != "failed":
        return
    if host.result == "start-limit-hit":
        # dockerd ran until somebody restarted it too often.
        return
    if host.active[SOCKET] != "active" and host.new_socket_commands:
        # I4: its undo would run them.
        return
    # It may include earlier corrections, of files that somebody else has changed since.
    intent = then.memory.intent
    if intent is None or not intent.changes:
        return
    written = {each.path for each in intent.changes} | known.files.keys()
    if any(path not in written and path != POLICY
           for path, _ in _others(host, then.files).items() ^ known.others.items()):
        # dockerd failed with what others have changed since.
        return
    is_in_force = all(then.files.get(each.path) == now.get(each.path) == _text(each.after) for each in intent.changes)
    if is_in_force and host.starts[-1].at > known.at and not host.is_refused_with(
            {each.path: each.before for each in intent.changes}):
        yield "I3: dockerd failed with a correction that stays"


def _code(world: World, then: Before) -> Iterator[str]:
    decision, host = world.agents[-1].controller.decision, world.host
    first = next((number for number, start in enumerate(host.starts) if number >= then.starts and start.by == "us"), -1)
    if _is_restart(world, then) and first in host.unjudged:
        yield f"I4: restarted with {host.unjudged[first]}, which nobody has started it with before"
    if wrong := [path for path in host.executed if path != DOCKERD_FILE]:
        yield f"I4: executed {wrong}"
    if len(host.executed) > then.executed and not decision.actions.starts_dockerd:
        yield f"I4: executed {host.executed[-1]}, and no restart was allowed: {decision.hold}"


def _content(world: World, then: Before, now: Mapping[str, bytes]) -> Iterator[str]:
    """What somebody else wrote stays somewhere, whatever became of the file; but not what they have overwritten, a
    file that was restored just before, say."""
    host = world.host
    kept = {*now.values(), *(content for event in host.met for content in event.lost)}
    for path, content in (*then.files.items(), *host.interfered.items()):
        # A copy that we made may be the only one that is left.
        is_ours = path.endswith(f"/{DROPIN_NAME}") or (
            (path, content) in world.watch.ours and original_of(path) == path)
        if not is_ours and content not in kept and not path.startswith("/etc/dockerd-guard/"):
            yield f"I5: the content of {path} is lost"
    if host.text(OTHER_UNIT) != OTHER_UNIT_TEXT:
        yield f"I5: {OTHER_UNIT} was changed"


def _foreign(world: World, begun: Before, then: Before, now: Mapping[str, bytes]) -> Iterator[str]:
    """Only drop-ins of the unit itself and daemon.json are changed, and a link stays a link, also in its copies."""
    for path in {*then.files, *now}:
        old, new = then.files.get(path), now.get(path)
        if old != new and not path.startswith((DROPINS, "/etc/systemd/system/docker.socket.d", DAEMON_JSON)):
            yield f"I5: {path} was changed"
        originals = [each.get(original_of(path)) for each in (
            begun.files, then.files, *(event.before for event in world.host.met))]
        if old != new is not None and SAVED_SUFFIX in path and new not in originals:
            yield f"I5: {path} is not what was there"


def _secrets(world: World, then: Before) -> Iterator[str]:
    journal = world.agents[-1].journal
    texts = [*(str(entry) for entry in journal.entries[then.entries:]), *journal.lines[then.lines:]]
    yield from (f"I11: {text}" for text in texts if SECRET in text)


def _delays(world: World) -> Iterator[str]:
    """Nothing is delayed but what was really undone again and again (I8)."""
    decision = world.agents[-1].controller.decision
    if decision.verdict is Verdict.BACK_OFF:
        yield from (f"I8: {change.path} is delayed, and was undone {times} times"
                    for change in decision.required.changes if not change.is_copy
                    if (times := world.watch.undone[change.path, _text(change.after)]) <= FREE_REPEATS)
    if decision.verdict is Verdict.WAIT and decision.hold is None and decision.required.starts_dockerd:
        yield f"I8: a restart that is needed waits for {decision.wake_s} s"


def _others(host: SimulatedHost, found: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The files, and the environment of systemd."""
    return {**found, "environment": repr(sorted(host.environment.items())).encode()}


def _text(content: Content | None) -> bytes | None:
    return f"link {content.target}".encode() if isinstance(content, Link) else content


def _retries(world: World, now: Mapping[str, bytes]) -> Iterator[str]:
    """A failure holds nothing any more once one of its inputs has changed (I9)."""
    agent, watch = world.agents[-1], world.watch
    attempt, hold = agent.controller.memory.attempt, agent.controller.decision.hold
    if attempt is None or hold is None or not hold.reason.startswith("the last attempt failed"):
        watch.failure = None
        return
    current = (attempt.at, inputs(world.host, now, agent.controller.policy))
    is_new = watch.failure is None or watch.failure[0] != attempt.at or bool(world.host.met)
    if not is_new and watch.failure != current:
        yield f"I9: inputs changed, and still {hold.reason}"
    watch.failure = current


def _records(world: World, then: Before, now: Mapping[str, bytes]) -> Iterator[str]:
    """What the journal reports of a correction is so (I10)."""
    agent, host = world.agents[-1], world.host
    declared = {canonical(socket.address) for socket in declared_bindings(agent.controller.policy)}
    for entry in agent.journal.entries[then.entries:]:
        is_correction = entry.event is Event.CORRECTED and entry.message.startswith("Docker listens as declared again:")
        if is_correction and entry.outcome is Outcome.REPAIRED and host.running is not None:
            listens = {canonical(sock.address) for sock, _ in host.running.sockets}
            # What docker.socket listens on, and passes to nobody, is blocked (I7); it leads nowhere.
            held = {canonical(sock.address) for sock in host.held if host.active[SOCKET] == "active"} - (
                {canonical(each.address) for each in host.blocked} - listens)
            if listens != declared or held - declared:
                yield f"I10: reported as repaired, and listens on {sorted(listens)}, held are {sorted(held)}"
        if entry.event is Event.ROLLED_BACK and agent.controller.decision.verdict is Verdict.APPLY and (
                then.memory.intent is None) and (
                different := {path for path, _ in now.items() ^ then.files.items()} - host.interfered.keys()):
            yield f"I10: reported as rolled back, and {sorted(different)} differ"


def _open(world: World) -> Iterator[str]:
    agent, host = world.agents[-1], world.host
    policy = agent.controller.policy
    if policy.mode is not Mode.ENFORCE or not policy.correct.contain:
        return
    declared = {canonical(socket.address) for socket in declared_bindings(policy)}
    for address in host.open_addresses():
        if canonical(address) in declared:
            continue
        if not host.nftables_is_gone:
            yield f"I7: {address} is open and not blocked"
        elif not any(host.ip_filter) and not agent.controller.exposed:
            yield f"I7: {address} is open and not reported as open"
    wrong = set(agent.controller.memory.contained.addresses) & set(host.open_addresses())
    if wrong and not host.nftables_is_gone:
        yield f"I7: reported as blocked, and open: {wrong}"


def _stated(world: World) -> Iterator[str]:
    """What is stated of the running dockerd, as the agent would observe it now."""
    host, controller = world.host, world.agents[-1].controller
    if host.running is None or host.bus_is_gone:
        return
    known = Known(controller.memory.start, world.agents[-1].state.load_probes())
    with Rootfs(str(host.root)) as rootfs:
        seen = observe_host(rootfs, SimulatedManager(host), SimulatedKernel(host), known=known)
    for layer in (part.layer for part in (seen.running, seen.listening) if part is not None):
        for binding in layer.bindings:
            if binding.is_tcp and binding.tls not in (host.running.tls, Tls.UNKNOWN):
                yield f"I6: {layer.name} has {binding.address} with TLS {binding.tls}, it is {host.running.tls}"
    if host.met:
        # What answers during a pass may not be what was observed, and is asked again.
        del host.probes[host.probed_before:]
    if len(set(host.probes)) < len(host.probes):
        yield f"I6: an address was probed again: {host.probes}"


def _time(world: World, then: Before) -> Iterator[str]:
    if (took_s := world.host.clock.seconds - then.seconds) > MAX_PASS_S:
        yield f"I12: a pass took {took_s:.0f} s"


def settled(world: World) -> Iterator[str]:
    """I14, of a host where nothing holds anything and nobody interferes."""
    agent, host = world.agents[-1], world.host
    decision = agent.controller.decision
    if decision.required.anything or decision.verdict is not Verdict.NOTHING:
        yield f"I14: not settled: {decision.verdict}, {decision.required.steps()}, {decision.hold}"
    if host.open_addresses():
        yield f"I14: open: {host.open_addresses()}"
    if host.blocked:
        yield f"I14: blocked for ever: {host.blocked}"
    if host.running is None:
        yield "I14: dockerd does not run"
    then, starts = files(host), len(host.starts)
    host.clock.sleep(600)
    agent.run_pass()
    if files(host) != then or len(host.starts) != starts:
        yield "I14: a further pass changed something"
