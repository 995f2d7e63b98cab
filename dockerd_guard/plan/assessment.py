"""A host that was judged, planned for and decided about: the value that diff, fix, journal and status show."""

from __future__ import annotations

from typing import NamedTuple

from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import CONFIGURED, LOADED, Configured, Observation
from dockerd_guard.plan.decide import Decision
from dockerd_guard.plan.plan import Plan, make_plan
from dockerd_guard.policy.model import Policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge


class Assessment(NamedTuple):
    """One pass up to its decision."""

    seen: Observation
    policy: Policy
    findings: tuple[Finding, ...]
    plan: Plan
    decision: Decision


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
