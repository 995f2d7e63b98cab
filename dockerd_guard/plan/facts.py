"""What the gate decides on, of one observation. Pure."""

from __future__ import annotations

from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.gate import RestartFacts
from dockerd_guard.plan.memory import Memory
from dockerd_guard.plan.occupied import occupied
from dockerd_guard.plan.pending_changes import pending_changes
from dockerd_guard.plan.plan import Plan
from dockerd_guard.plan.unrun_commands import socket_commands, socket_dependents


def restart_facts(seen: Observation, plan: Plan, required: Actions, memory: Memory) -> RestartFacts:
    """Return what the gate decides on."""
    loaded = seen.loaded
    is_active = seen.running is not None
    facts = RestartFacts(
        is_active, seen.engine, loaded.dependents if loaded else (),
        commands=socket_commands(seen, plan.base, required), of_sockets=socket_dependents(seen, required),
        occupied=occupied(seen, plan) if required.anything else ())
    if not required.starts_dockerd:
        return facts
    in_swarm = seen.engine is not None and seen.engine.engine is not None and seen.engine.engine.in_swarm
    return facts._replace(
        next_live_restore=plan.after.daemon.live_restore,
        pending_changes=pending_changes(seen, plan.base, memory.start, in_swarm=in_swarm),
        refusals=tuple(finding.message for finding in plan.refusals))
