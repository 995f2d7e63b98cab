"""The stage `judge`: an observation and a policy in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules import unused_waiver
from dockerd_guard.rules.registry import RULES, TITLES


def judge(seen: Observation, policy: Policy | None, today: date | None = None) -> tuple[Finding, ...]:
    """Run all rules, take away what the policy waives (as of `today`), and sort by file and line."""
    findings = [finding for rule in RULES for finding in rule.check(seen, policy)]
    if policy is not None and policy.waive:
        findings = list(unused_waiver.apply(findings, policy, TITLES, today or date.today()))
    return tuple(sorted(map(_placed, findings), key=_order))


def drifts(findings: Iterable[Finding]) -> Iterator[Finding]:
    """What of it is drift: nothing that is only a hint, and a place that the policy does not declare (DG101)
    once, not again for each thing that is wrong with it."""
    found = tuple(findings)
    undeclared = {finding.socket for finding in found if finding.code == "DG101"}
    for finding in found:
        if finding.severity != "info" and not (
                finding.code in ("DG103", "DG104") and finding.socket in undeclared):
            yield finding


def _placed(finding: Finding) -> Finding:
    """What systemd has in memory stands in no line: there, a location says so by line 0."""
    if finding.location is not None and finding.location.line == 0:
        return finding._replace(location=None)
    return finding


def _order(finding: Finding) -> tuple[str, int, int, str, str]:
    return finding.order
