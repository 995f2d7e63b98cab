"""`status`: how this host stands now, and the agent on it, put together from whoever can still be asked.

Four sources, each of which may fail alone: systemd on the agent's unit, the bulletin that the agent leaves in
/run, a look of our own at the host (all of it only as root), and the journal for the last correction. What
could not be seen is said; where a live agent has seen it, its word counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dockerd_guard.agent.bulletin import CORRECTIONS, Bulletin, Last, published
from dockerd_guard.bindings import Tls, canonical
from dockerd_guard.correct.state import State
from dockerd_guard.judge.finding import Finding
from dockerd_guard.judge.judge import drifts, judge
from dockerd_guard.observe.live import observe_host
from dockerd_guard.observe.observation import LAYERS, LISTENING, RUNNING, Observation
from dockerd_guard.operator.history import AGENT, Unread, read_journal
from dockerd_guard.policy import POLICY_FILE, Policy, PolicyError, declared_bindings, read_policy
from dockerd_guard.systemd.manager import Manager, Refused, Unavailable
from dockerd_guard.tree import Tree, Unreadable

LATE_S = 120.0
"""A pass may come this much later than the policy's resync."""

LAST_ENTRIES = 200
"""The last correction is looked for among these."""


class Unit(NamedTuple):
    """The agent's unit, as systemd has it; `since` is when it came into this state."""

    load_state: str
    active_state: str
    result: str
    pid: int
    since: datetime | None


class Cell(NamedTuple):
    """A place in one layer: with which TLS it is there (None: it is not); or held by systemd alone, whose
    next connection starts dockerd."""

    tls: Tls | None = None
    by_systemd: bool = False


class Row(NamedTuple):
    """A place, declared (with which TLS) or not, and its layers in the order of LAYERS (None: not known)."""

    address: str
    declared: Tls | None
    cells: tuple[Cell | None, ...]


class Status(NamedTuple):
    """All there is to say. `findings` are drifts, `since` tells of them by their fact; `unseen` are sentences.

    `is_alive`: the unit runs and the bulletin is this process's.
    """

    now: datetime
    unit: Unit | None
    is_alive: bool
    bulletin: Bulletin | None
    policy: Policy | None
    policy_problem: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    contained: tuple[str, ...]
    last: Last | None
    unseen: tuple[str, ...]

    @property
    def is_late(self) -> bool:
        """Whether the agent runs, but has not looked for longer than its policy asks."""
        resync_s = self.policy.watch.resync_s if self.policy is not None else 3600.0
        return self.is_alive and self.bulletin is not None and (
            self.now - self.bulletin.at > timedelta(seconds=resync_s + LATE_S))

    @property
    def is_vouched_for(self) -> bool:
        """Whether a live agent has seen everything."""
        return self.is_alive and not self.is_late and self.bulletin is not None and not self.bulletin.blind

    @property
    def since(self) -> dict[str, datetime]:
        """Since when each fact lasts, as far as the agent knows."""
        return self.bulletin.since() if self.bulletin is not None else {}

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is not in order, in words."""
        return tuple(self._wrong())

    def _wrong(self) -> Iterator[str]:
        if self.unit is not None and not self.is_alive:
            yield "the agent is starting" if self.unit.active_state in ("activating", "reloading") else "no agent runs"
        if self.is_late:
            yield "the agent does not look"
        if self.policy_problem:
            yield "the policy cannot be taken"
        for severity in ("error", "warning"):
            if number := sum(finding.severity == severity for finding in self.findings):
                yield f"{number} {severity}{'s' * (number != 1)}"
        if self.is_alive and self.bulletin is not None:
            if self.bulletin.held is not None:
                yield "a correction is held"
            if self.bulletin.blind:
                yield "the agent cannot see everything"
        if self.contained:
            yield f"{len(self.contained)} port{'s' * (len(self.contained) != 1)} cut off"


def look(now: datetime) -> Status:
    """Ask everyone, on this host. Raises Unreadable where not even the files can be looked at."""
    unseen: list[str] = []
    bulletin = _bulletin(unseen)
    with Tree() as tree:
        manager = _manager()
        try:
            unit = _unit(manager)
            policy, problem = _policy(tree, unseen)
            try:
                seen = observe_host(tree, manager)
            except Unavailable:
                seen = observe_host(tree, None)
        finally:
            if manager is not None:
                manager.close()
        unseen += (trouble.text for trouble in seen.troubles)
        unseen += (f"{path} cannot be read: {reason}" for path, reason in sorted(tree.denied.items()))
        findings: tuple[Finding, ...] = judge(seen, policy)
    is_alive = unit is not None and unit.active_state in ("active", "reloading") and (
        bulletin is not None and bulletin.pid == unit.pid)
    if unseen and is_alive and bulletin is not None:
        told = {drift.finding.fact for drift in bulletin.drifts}
        findings = (*(drift.finding for drift in bulletin.drifts), *(
            finding for finding in findings if finding.fact not in told))
    findings = tuple(drifts(findings))
    return Status(now, unit, is_alive, bulletin, policy, problem or (bulletin.policy_problem if bulletin else ""),
                  rows(seen, policy), findings, _contained(bulletin), _last(bulletin), tuple(unseen))


def rows(seen: Observation, policy: Policy | None) -> tuple[Row, ...]:
    """Each declared place, then each other one that some layer has. Pure."""
    declared = declared_bindings(policy) if policy is not None else ()
    wanted = {canonical(socket.address): (socket.address, socket.tls) for socket in declared}
    layers = {layer.name: layer for layer in seen.layers}
    places = dict(wanted)
    for layer in layers.values():
        for binding in layer.bindings:
            places.setdefault(binding.key, (binding.address, binding.tls))
    held = seen.listening.held_by_systemd if seen.listening is not None else ()
    for address in held:
        places.setdefault(canonical(address), (address, Tls.NONE))

    def cell(key: str, name: str) -> Cell | None:
        layer = layers.get(name)
        if layer is None:
            # No dockerd runs; or nobody would tell.
            return Cell() if name == RUNNING and seen.listening is not None else None
        for binding in layer.bindings if layer.starts else ():
            if binding.key == key:
                return Cell(binding.tls)
        return Cell(by_systemd=name == LISTENING and key in map(canonical, held))

    return tuple(Row(address, tls if key in wanted else None, tuple(cell(key, name) for name in LAYERS))
                 for key, (address, tls) in places.items())


def _manager() -> Manager | None:
    try:
        return Manager()
    except Unavailable:
        return None


def _unit(manager: Manager | None) -> Unit | None:
    if manager is None:
        return None
    try:
        state = manager.unit(AGENT)
    except (Refused, Unavailable):
        return None
    since = state.number("StateChangeTimestamp")
    return Unit(state.text("LoadState"), state.text("ActiveState"), state.text("Result"), state.number("MainPID"),
                datetime.fromtimestamp(since / 1e6, UTC) if since else None)


def _bulletin(unseen: list[str]) -> Bulletin | None:
    try:
        return published()
    except PermissionError as error:
        unseen.append(f"{error.filename} cannot be read: {error.strerror}")
        return None


def _policy(tree: Tree, unseen: list[str]) -> tuple[Policy | None, str]:
    """The policy file's word, and what is wrong with it."""
    try:
        return read_policy(tree, require_root_owned=True), ""
    except PolicyError as error:
        if POLICY_FILE in tree.denied:
            return None, ""
        return None, str(error)
    except Unreadable as error:
        unseen.append(str(error))
        return None, ""


def _contained(bulletin: Bulletin | None) -> tuple[str, ...]:
    """What is cut off: it stays so when the agent is stopped, and its own record tells of that."""
    if os.geteuid() == 0:
        return State().contained().addresses
    return bulletin.contained if bulletin is not None else ()


def _last(bulletin: Bulletin | None) -> Last | None:
    if bulletin is not None and bulletin.last is not None:
        return bulletin.last
    try:
        for record in read_journal("--reverse", f"--lines={LAST_ENTRIES}"):
            if record.event in CORRECTIONS and record.outcome is not None:
                return Last(record.at, record.event, record.outcome, record.message)
    except Unread:
        pass
    return None
