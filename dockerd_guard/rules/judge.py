"""Run the rules on an observation and a policy, and return findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules import unused_waiver
from dockerd_guard.rules.registry import RULES, TITLES

MAX_FINDINGS = 200
"""Findings of one rule. A file can hold as many causes as it has bytes, and nobody reads that many."""

MAX_MESSAGE = 1000
"""Characters of a message, which may quote an address or an error of dockerd of any length."""


def judge(seen: Observation, policy: Policy | None, today: date | None = None) -> tuple[Finding, ...]:
    """Return the findings of all rules, without those that the policy waives on `today`, sorted by file and line."""
    findings = [finding for rule in RULES for finding in limited(rule.CODE, rule.check(seen, policy))]
    if policy is not None and policy.waive:
        findings = list(unused_waiver.apply(findings, policy, TITLES, today or date.today()))
    return tuple(sorted(map(_without_line_zero, findings), key=lambda finding: finding.order))


def limited(code: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield at most MAX_FINDINGS findings of a rule, and then one that says that there are more."""
    for number, finding in enumerate(found):
        if number == MAX_FINDINGS:
            message = f"there are more than {MAX_FINDINGS} findings of {code}; the others are not shown"
            yield Finding(code, "error", message, finding.layer, finding.location)
            return
        if len(finding.message) > MAX_MESSAGE:
            finding = finding._replace(message=f"{finding.message[:MAX_MESSAGE]}…")  # noqa: PLW2901
        yield finding


def drifts(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Return the findings that are drift.

    Findings of severity info are not. DG103 and DG104 are left out for an address that has DG101, so that an
    undeclared address is one drift.
    """
    collected = tuple(findings)
    undeclared = {finding.socket for finding in collected if finding.code == "DG101"}
    for finding in collected:
        if finding.severity != "info" and not (
                finding.code in ("DG103", "DG104") and finding.socket in undeclared):
            yield finding


def _without_line_zero(finding: Finding) -> Finding:
    """Remove a location with line 0: systemd has the setting in memory, and no line of a file is known."""
    if finding.location is not None and finding.location.line == 0:
        return finding._replace(location=None)
    return finding
