"""Play random histories on simulated hosts and check the invariants; shrink and replay what fails."""

from __future__ import annotations

import random
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dockerd_guard.model.names import SERVICE
from dockerd_guard.plan.decide import Verdict
from tests.simulation import invariants
from tests.simulation.actions import OTHER_UNIT, OTHER_UNIT_TEXT, World, restart_agent
from tests.simulation.histories import ACTIONS, FAULTS, Action, calm, choose
from tests.simulation.host import Crash, SimulatedHost, simulated_times
from tests.simulation.watch import Watch

STEPS = 40
"""Actions of one history."""

MAX_SETTLING_PASSES = 200
RESYNC_S = 300.0
"""The resync of the default policy."""


class Outcome(NamedTuple):
    """What became of one history: the violations, decisions taken by verdict, and faults injected."""

    violations: tuple[str, ...]
    decisions: Counter[str]
    faults: Counter[str]


def scratch() -> Path:
    """A directory in memory where there is one: the histories write many files."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="dockerd-guard-simulation.", dir=shm if shm.is_dir() else None))


def play(actions: Sequence[Action]) -> Outcome:
    """Play one history to its end, or to the first violation."""
    # SIGTERM, which ends a process of the pool, waits until the directory is known, and until it is removed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    root = scratch()
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            with simulated_times():
                return _play(actions, root)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    finally:
        shutil.rmtree(root, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _play(actions: Sequence[Action], root: Path) -> Outcome:
    host = SimulatedHost(root)
    host.put(OTHER_UNIT, OTHER_UNIT_TEXT)
    world = World(host, [], Watch())
    decisions: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    restart_agent(world)
    for action in actions:
        faults.update([action.name] if action.name in FAULTS else [])
        then = invariants.before(world)
        try:
            ACTIONS[action.name][0](world, action.variant)
        except Crash:
            restart_agent(world)
        found = _run(world, then if action.name == "fix" else None, decisions)
        if found:
            return Outcome(tuple(f"after {action}: {each}" for each in found), decisions, faults)
    calm(world)
    return Outcome(tuple(_settle(world, decisions)), decisions, faults)


def _run(world: World, then: invariants.Before | None, decisions: Counter[str]) -> list[str]:
    """The passes that one action causes: at once, and again when the agent asks for it."""
    found = list(invariants.violations(world, then, is_manual=True)) if then is not None else []
    for _ in range(4):
        world.agents[-1].controller.changed()
        then = invariants.before(world)
        try:
            wake_s = world.agents[-1].run_pass()
        except Crash:
            # systemd starts it again, at once.
            found += invariants.after_crash(world, then)
            restart_agent(world)
            world.host.clock.sleep(0.1)
            continue
        if not world.host.bus_is_gone:
            decisions[world.agents[-1].controller.decision.verdict] += 1
        found += invariants.violations(world, then)
        found += [f"I12: {line}" for line in _internal_errors(world)]
        if found or ((wake_s is None or wake_s > 1.0) and not world.host.met):
            break
        # What somebody did meanwhile is an event of its own.
        world.host.clock.sleep(1.0 if world.host.met else wake_s or 0.0)
    return found


def _internal_errors(world: World) -> list[str]:
    return [entry.message for entry in world.agents[-1].journal.entries if "internal error" in entry.message]


def _settle(world: World, decisions: Counter[str]) -> list[str]:
    """Let the agent come to rest (I14)."""
    agent = world.agents[-1]
    for _ in range(MAX_SETTLING_PASSES):
        wake_s = agent.run_pass()
        decisions[agent.controller.decision.verdict] += 1
        is_at_rest = wake_s is None and world.host.active[SERVICE] != "auto-restart"
        if is_at_rest and agent.controller.decision.verdict is Verdict.NOTHING:
            break
        world.host.clock.sleep((wake_s if wake_s is not None else RESYNC_S) + 0.01)
    return [*invariants.settled(world), *_internal_errors(world)]


def history(seed: int) -> tuple[Action, ...]:
    """The history of a seed."""
    return choose(random.Random(seed), STEPS)


def invariant(violation: str) -> str:
    """The invariant that a violation is of: `I3`."""
    found = re.search(r"(?:^|: )(I\d+): ", violation)
    return found[1] if found is not None else violation


def shrink(actions: Sequence[Action]) -> tuple[Action, ...]:
    """The shortest history found that still breaks the same invariant (delta debugging)."""
    def broken(trial: Sequence[Action]) -> str:
        found = play(trial).violations
        return invariant(found[0]) if found else ""

    wanted, kept, size = broken(actions), list(actions), len(actions) // 2
    while size:
        start = 0
        while start < len(kept):
            trial = kept[:start] + kept[start + size:]
            if broken(trial) == wanted:
                kept = trial
            else:
                start += size
        size //= 2
    return tuple(kept)
