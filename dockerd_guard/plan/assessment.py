"""A host that was judged, planned for and decided about: the value that diff, fix, journal and status show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dockerd_guard.model.address import Scope, canonical, scope_of
from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.names import DROPIN_NAME, SERVICE
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import (
    CONFIGURED,
    LISTENING,
    LOADED,
    RUNNING,
    Configured,
    Layer,
    Observation,
    Running,
)
from dockerd_guard.plan.decide import Decision
from dockerd_guard.plan.gate import Hold
from dockerd_guard.plan.plan import Plan, make_plan
from dockerd_guard.policy.model import Policy, declared_bindings
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules._common import declared_places, namespace_of
from dockerd_guard.rules.judge import judge


class Assessment(NamedTuple):
    """One pass up to its decision."""

    seen: Observation
    policy: Policy
    findings: tuple[Finding, ...]
    plan: Plan
    decision: Decision


def not_listening(seen: Observation, policy: Policy) -> Hold | None:
    """Return why no dockerd listens on the declared sockets of the host, and the next step; None where it does, or was
    not seen.

    Neither `fix` nor the agent starts a docker.service that was stopped, or changes its network namespace.
    """
    if seen.loaded is None or seen.listening is None:
        return None
    if seen.running is not None:
        return _elsewhere(seen.running, seen.listening.layer, policy)
    declared = {canonical(socket.address): socket.address for socket in declared_bindings(policy)}
    if not declared:
        return None
    held = declared.keys() & set(map(canonical, seen.listening.held_by_systemd))
    unserved = ", ".join(address for key, address in declared.items() if key not in held)
    parts = [f"systemd listens for it on {', '.join(declared[key] for key in declared if key in held)}"] if held else []
    parts += [f"nothing listens on {unserved}"] if unserved else []
    state, next_step = _STATES.get(seen.loaded.active_state, _STATES["inactive"])
    return Hold(f"{SERVICE} {state}: {'; '.join(parts)}", next_step=next_step)


def _elsewhere(running: Running, listening: Layer, policy: Policy) -> Hold | None:
    addresses = [socket.address for key, socket in declared_places(policy).items() if namespace_of(listening, key)]
    if not addresses:
        return None
    return Hold(f"{SERVICE} listens on {', '.join(addresses)} in the network namespace {running.namespace}, not in "
                "that of the host", next_step=f"Take the network namespace out of {SERVICE} "
                "(NetworkNamespacePath=, PrivateNetwork=), or the address out of the policy")


_STATES = {
    "inactive": ("is not running", f"`systemctl start {SERVICE}`, if Docker should run on this host"),
    "failed": ("has failed", f"`systemctl status {SERVICE}` shows why; then `systemctl start {SERVICE}`"),
    "activating": ("is starting", "Wait"),
}
"""What to report of docker.service, and the next step, by its ActiveState."""


def other_ways(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return the addresses that the network can reach and on which another program than the dockerd of docker.service
    listens for the API. No correction closes them."""
    return tuple(dict.fromkeys(
        finding.socket for finding in findings
        if finding.code in ("DG107", "DG108", "DG110") and finding.layer in (RUNNING, LISTENING)
        and finding.socket is not None and finding.socket.startswith("tcp://")
        and scope_of(finding.socket) is not Scope.LOOPBACK))


def plan_for(seen: Observation, policy: Policy) -> Plan:
    """Return the plan for an observation, made with the same versions and the same environment of PID 1."""
    known = seen.configured

    def observe(rootfs: Rootfs) -> Configured:
        return observe_configured(rootfs, dockerd=known.known_dockerd, systemd=known.systemd_version,
                                  manager_environment=known.manager_environment)

    return make_plan(known, seen.rootfs, policy, observe)


def annotate_fixability(assessment: Assessment) -> tuple[Finding, ...]:
    """Return the findings, each with the `fix` that the decision really brings for it.

    A rule sees one thing, the decision all of them: what is held fixes nothing, and where the plan sets the command
    line anew, whatever was wrong with the old one is gone.
    """
    seen, policy, findings, plan, decision = assessment
    if not decision.actions.anything:
        return tuple(finding._replace(fix=None) for finding in findings)
    left: set[str] | None = None
    if plan.changes:
        with seen.rootfs.changed({change.path: change.after for change in plan.changes}) as corrected:
            left = {finding.fact for finding in judge(seen._replace(rootfs=corrected, configured=plan.after), policy)
                    if finding.layer == CONFIGURED}
    return tuple(finding._replace(fix=_fix(finding, left, assessment)) for finding in findings)


def _fix(finding: Finding, left: set[str] | None, assessment: Assessment) -> Fix | None:
    """`left`: the facts that would still be true of the files, None where these stay as they are."""
    seen, _, _, plan, decision = assessment
    is_restart_held = decision.required.starts_dockerd and decision.hold is not None
    if is_restart_held and finding.socket is not None:
        return None
    if finding.layer != CONFIGURED:
        is_fixed = decision.actions.reload if finding.layer == LOADED else decision.actions.starts_dockerd or (
            not decision.required.starts_dockerd)
        return finding.fix if is_fixed else None
    if left is None or finding.fact in left:
        return None
    if finding.fix is not None:
        return finding.fix
    if any(not change.path.endswith(f"/{DROPIN_NAME}") for change in plan.changes):
        return "unsafe"
    stops = decision.required.starts_dockerd and seen.running is not None and not seen.running.daemon.live_restore
    return "disruptive" if stops else "safe"
