"""The verb `status`: the current state of this host and its agent.

There are four sources, each of which may fail: systemd for the agent's unit, the agent's status file in /run, our own
observation of the host (complete only as root), and the journal for the last correction. Failures are reported; if a
running agent has observed everything, its status is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dockerd_guard.agent.status_file import published
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.commands._common import (
    FOUND,
    OK,
    UNANSWERED,
    Unanswerable,
    observe_probed,
    print_lines,
    terminal,
)
from dockerd_guard.commands._journal import AGENT, JournalUnavailable, read_journal
from dockerd_guard.model.address import Tls, canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED, LAYERS, LISTENING, LOADED, RUNNING, Observation
from dockerd_guard.policy.model import POLICY_FILE, Policy, PolicyError, declared_bindings
from dockerd_guard.policy.reader import read_policy
from dockerd_guard.report import json_output
from dockerd_guard.report.agent_status import RESULT_EVENTS, AgentStatus, LastCorrection
from dockerd_guard.report.status import NO_POLICY, AgentUnit, Cell, Row, Status, is_complete, lines, to_json
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.judge import drifts, judge
from dockerd_guard.systemd.manager import Manager, Refused, Unavailable

if TYPE_CHECKING:
    from types import SimpleNamespace


LAST_ENTRIES = 200
"""How many entries are searched for the last correction."""


def look(now: datetime) -> Status:
    """Collect the status of this host. Raises Unreadable if its files cannot be read."""
    unseen: list[str] = []
    agent_status = _agent_status(unseen)
    with Rootfs() as rootfs:
        manager = _manager(unseen)
        try:
            unit = _unit(manager)
            policy, problem = _policy(rootfs, unseen)
            try:
                seen = observe_probed(rootfs, manager)
            except Unavailable:
                seen = observe_probed(rootfs, None)
        finally:
            if manager is not None:
                manager.close()
        unseen += (trouble.text for trouble in seen.troubles)
        # Before the rules, which also look where nothing has to be readable.
        denied = frozenset(rootfs.denied)
        unseen += (f"{path}: {reason}" for path, reason in sorted(rootfs.denied.items()))
        findings = judge(seen, policy)
    is_alive = unit is not None and unit.active_state in ("active", "reloading") and (
        agent_status is not None and agent_status.pid == unit.pid)
    agents = None
    if unseen and is_alive and agent_status is not None:
        agents = tuple(drift.finding for drift in agent_status.drifts)
    findings = tuple(drifts(merged(findings, agents, denied)))
    table = rows(seen, policy, is_partial=bool(denied - {POLICY_FILE}))
    problem = problem or (agent_status.policy_problem if agent_status else "")
    return Status(now, unit, is_alive, agent_status, policy, problem, table, findings,
                  _contained(agent_status, is_alive=is_alive), _last(agent_status), tuple(unseen))


def merged(
    own: Iterable[Finding], agents: tuple[Finding, ...] | None, denied: frozenset[str]
) -> tuple[Finding, ...]:
    """The findings of a running agent, if they are needed, and those of this process that it does not have. Pure.

    dockerd and systemd read the files in `denied` as root: that this process cannot read one is no finding. What the
    other files say alone may be wrong, so that the agent's findings replace it.
    """
    if agents is None:
        return tuple(finding for finding in own if finding.location is None or finding.location.file not in denied)
    known = {finding.fact for finding in agents}
    return (*agents, *(finding for finding in own if not denied and finding.fact not in known))


def rows(seen: Observation, policy: Policy | None, *, is_partial: bool = False) -> tuple[Row, ...]:
    """The declared sockets, then the others of any layer. A declared one is of the host: the same address of another
    network namespace is a row of its own. `is_partial`: a file could not be read, and may configure more sockets.
    Pure."""
    declared = declared_bindings(policy) if policy is not None else ()
    wanted = {canonical(socket.address): (socket.address, socket.tls) for socket in declared}
    layers = {layer.name: layer for layer in seen.layers}
    places = dict(wanted)
    elsewhere: dict[tuple[str, str], str] = {}
    for layer in layers.values():
        for binding in layer.bindings:
            places.setdefault(binding.key, (binding.address, binding.tls))
            if binding.namespace and binding.key in wanted:
                elsewhere[binding.key, binding.namespace] = binding.address
    namespaces = {binding.key: binding.namespace for name in (RUNNING, LISTENING) if name in layers
                  for binding in layers[name].bindings}
    held = seen.listening.held_by_systemd if seen.listening is not None else ()
    for address in held:
        places.setdefault(canonical(address), (address, Tls.NONE))

    def cell(key: str, name: str, namespace: str = "") -> Cell | None:
        layer = layers.get(name)
        if layer is None:
            # Either no dockerd is running, or this layer is unknown.
            return Cell() if name == RUNNING and seen.listening is not None else None
        for binding in layer.bindings if layer.starts else ():
            if binding.key == key and (key not in wanted or binding.namespace == namespace):
                return Cell(binding.tls)
        if is_partial and name in (CONFIGURED, LOADED):
            return None
        return Cell(by_systemd=name == LISTENING and not namespace and key in map(canonical, held))

    return (*(Row(address, tls if key in wanted else None, tuple(cell(key, name) for name in LAYERS),
                  "" if key in wanted else namespaces.get(key, ""))
              for key, (address, tls) in places.items()),
            *(Row(address, None, tuple(cell(key, name, namespace) for name in LAYERS), namespace)
              for (key, namespace), address in elsewhere.items()))


def _manager(unseen: list[str]) -> Manager | None:
    try:
        return Manager()
    except Unavailable as error:
        unseen.append(f"systemd: {error}")
        return None


def _unit(manager: Manager | None) -> AgentUnit | None:
    if manager is None:
        return None
    try:
        state = manager.unit(AGENT)
    except (Refused, Unavailable):
        return None
    since = state.number("StateChangeTimestamp")
    return AgentUnit(state.text("LoadState"), state.text("ActiveState"), state.text("Result"), state.number("MainPID"),
                datetime.fromtimestamp(since / 1e6, UTC) if since else None)


def _agent_status(unseen: list[str]) -> AgentStatus | None:
    try:
        return published()
    except PermissionError as error:
        unseen.append(f"{error.filename} cannot be read: {error.strerror}")
        return None


def _policy(rootfs: Rootfs, unseen: list[str]) -> tuple[Policy | None, str]:
    """The policy, and why it is invalid."""
    try:
        return read_policy(rootfs, require_root_owned=True), ""
    except PolicyError as error:
        if POLICY_FILE in rootfs.denied:
            return None, ""
        if rootfs.stat_if_possible(POLICY_FILE, follow=False) is None:
            return None, NO_POLICY
        return None, str(error)
    except Unreadable as error:
        unseen.append(str(error))
        return None, ""


def _contained(agent_status: AgentStatus | None, *, is_alive: bool) -> tuple[str, ...]:
    """The blocked addresses. The state file is valid even if the agent is stopped; a running agent cannot write it
    on a full disk, or while another dockerd-guard corrects the host."""
    if os.geteuid() == 0 and not is_alive:
        return StateFiles().load().contained.addresses
    return agent_status.contained if agent_status is not None else ()


def _last(agent_status: AgentStatus | None) -> LastCorrection | None:
    if agent_status is not None and agent_status.last is not None:
        return agent_status.last
    try:
        for record in read_journal("--reverse", f"--lines={LAST_ENTRIES}"):
            if record.event in RESULT_EVENTS and record.outcome is not None:
                return LastCorrection(record.at, record.event, record.outcome, record.message)
    except JournalUnavailable:
        pass
    return None


def run(options: SimpleNamespace) -> int:
    """Print the state of this host and of the agent. Returns the exit code."""
    try:
        found = look(datetime.now(UTC))
    except Unreadable as error:
        raise Unanswerable(str(error)) from None
    if options.format == "json":
        print(json_output.dump(to_json(found)))
    else:
        print_lines(lines(found, **terminal()))
    return FOUND if found.wrong else OK if is_complete(found) else UNANSWERED
