"""The stage `judge`: an observation and a policy in, findings out."""

from __future__ import annotations

from datetime import date

from dockerd_guard.judge import dg501
from dockerd_guard.judge.finding import Finding
from dockerd_guard.judge.rules import RULES, TITLES
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy import Policy


def judge(seen: Observation, policy: Policy | None, today: date | None = None) -> tuple[Finding, ...]:
    """Run all rules, take away what the policy waives (as of `today`), and sort by file and line."""
    findings = [finding for rule in RULES for finding in rule.check(seen, policy)]
    if policy is not None and policy.waive:
        findings = list(dg501.apply(findings, policy, TITLES, today or date.today()))
    return tuple(sorted(map(_placed, findings), key=_order))


def _placed(finding: Finding) -> Finding:
    """What systemd has in memory stands in no line: there, a location says so by line 0."""
    if finding.location is not None and finding.location.line == 0:
        return finding._replace(location=None)
    return finding


def _order(finding: Finding) -> tuple[str, int, int, str, str]:
    return finding.order
