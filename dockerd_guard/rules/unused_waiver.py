"""Apply the waivers of a policy. DG501: a waiver that is expired or matches nothing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from datetime import date

from dockerd_guard.model.address import canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.observe.observation import CONFIGURED
from dockerd_guard.policy.model import Policy, Waiver

CODE = "DG501"
TITLE = "a waiver that is expired or matches nothing"


def apply(
    findings: Iterable[Finding], policy: Policy, codes: Container[str], today: date
) -> Iterator[Finding]:
    """Yield the findings that no waiver in effect matches, and one finding for each expired or unused waiver."""
    used: set[Waiver] = set()
    for finding in findings:
        waiver = waiver_of(finding, policy)
        if waiver is not None:
            used.add(waiver)
        if waiver is None or _is_expired(waiver, today):
            yield finding
    for waiver in policy.waive:
        message = without_effect(waiver, codes, today)
        if not message and waiver not in used:
            message = f"the waiver for {waiver.rule}{waiver.scope} matches no finding: remove it"
        if message:
            yield Finding(CODE, "warning", message, CONFIGURED, waiver.location, None, waiver.address)


def without_effect(waiver: Waiver, codes: Container[str], today: date) -> str:
    """Return why a waiver has no effect on any host; the empty string if it can have one."""
    if waiver.rule not in codes:
        return f"the waiver for {waiver.rule} has no effect: there is no such rule"
    if _is_expired(waiver, today):
        return f"the waiver for {waiver.rule}{waiver.scope} has expired: its last day was {waiver.until}"
    return ""


def waiver_of(finding: Finding, policy: Policy) -> Waiver | None:
    """Return the first waiver that matches a finding, expired or not."""
    return next((waiver for waiver in policy.waive if _matches(waiver, finding)), None)


def is_waived(finding: Finding, policy: Policy, today: date) -> bool:
    """Whether a waiver in effect matches a finding."""
    waiver = waiver_of(finding, policy)
    return waiver is not None and not _is_expired(waiver, today)


def _is_expired(waiver: Waiver, today: date) -> bool:
    return waiver.until is not None and waiver.until < today


def _matches(waiver: Waiver, finding: Finding) -> bool:
    if waiver.rule != finding.code or waiver.unit not in (None, finding.unit) or (
            waiver.container not in (None, finding.container)):
        return False
    if waiver.image is not None and finding.image != waiver.image and not finding.image.startswith(
            (f"{waiver.image}:", f"{waiver.image}@")):
        return False
    return waiver.address is None or (
        finding.socket is not None and canonical(waiver.address) == canonical(finding.socket)
    )
