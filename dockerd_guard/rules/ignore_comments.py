"""Comments in unit and environment files that ignore findings: `# dockerd-guard: ignore=DG103 REASON`.

A comment is about the next assignment, with its continuation lines. Only `lint` reads them: the agent takes waivers
from the policy alone, which root owns. A comment that ignores nothing is DG501.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED
from dockerd_guard.rootfs import Unreadable
from dockerd_guard.rules.unused_waiver import CODE
from dockerd_guard.systemd.syntax import lines_of

_MARK = b"dockerd-guard:"
_COMMENT = re.compile(r"([ \t]{0,80}[#;][ \t]{0,80})dockerd-guard:[ \t]{0,80}ignore[ \t]{0,8}=[ \t]{0,8}(\S+)(.*)")

NEED_POLICY = frozenset(("DG101", "DG102", "DG402", "DG501"))
"""Rules that report nothing without a policy."""


class IgnoreComment(NamedTuple):
    """One comment. It is about the lines from `first` to `last`, 0 if no assignment follows."""

    location: Location
    codes: tuple[str, ...]
    reason: str
    first: int
    last: int


class Ignored(NamedTuple):
    """The remaining findings, and those that a comment ignores, each with its reason."""

    findings: tuple[Finding, ...]
    ignored: tuple[tuple[Finding, str], ...]


def read_comments(data: bytes, file: str) -> Iterator[IgnoreComment]:
    """Yield the comments of a unit file or environment file."""
    if _MARK not in data:
        return
    lines = lines_of(file, data.decode("utf-8", "surrogateescape"))
    following = _next_assignments(lines)
    for number, line in enumerate(lines, 1):
        found = _COMMENT.match(line)
        if found is None:
            continue
        codes = tuple(code.upper() for code in found[2].strip(":,").split(",") if code)
        column = len(found[1]) + 1
        first, last = following[number - 1]
        yield IgnoreComment(Location(file, number, column, len(line.rstrip()) + 1), codes, _reason(found[3]),
                            first, last)


def _reason(text: str) -> str:
    """The text after the codes; empty if it has no letter or digit, as white space and invisible characters."""
    return text.strip(" \t\r:-") if any(char.isalnum() for char in text) else ""


def _next_assignments(lines: list[str]) -> list[tuple[int, int]]:
    """Return for each line the first and last number of the lines of the assignment that follows it; (0, 0) if none."""
    found = [(0, 0)] * len(lines)
    following, last = (0, 0), 0
    for index in range(len(lines) - 1, -1, -1):
        found[index] = following
        text = lines[index].strip()
        if not text or text[0] in "#;":
            # A comment may stand within a continued assignment.
            last = last if text and last else 0
            continue
        continues = lines[index].endswith("\\") and last
        last = last if continues else index + 1
        following = (index + 1, last)
    return found


def apply(
    findings: Iterable[Finding], files: Iterable[str], read: Callable[[str], bytes], codes: Collection[str],
    *, has_policy: bool,
) -> Ignored:
    """Divide the findings by the comments in these files, and add DG501 for each comment without effect."""
    findings = tuple(findings)
    comments = [comment for file in dict.fromkeys(files) for comment in _comments(file, read)]
    used: set[tuple[Location, str]] = set()
    kept: list[Finding] = []
    ignored: list[tuple[Finding, str]] = []
    for finding in findings:
        matching = [comment for comment in comments if comment.reason and _matches(comment, finding)]
        used.update((comment.location, finding.code) for comment in matching)
        if matching:
            ignored.append((finding, matching[0].reason))
        else:
            kept.append(finding)
    for comment in comments:
        for code in comment.codes:
            if not comment.reason:
                text = f"this comment does not ignore {_shown(code)}: it gives no reason after the code"
            elif code not in codes:
                text = f"this comment ignores {_shown(code)}, which is no rule"
            elif (comment.location, code) not in used and (has_policy or code not in NEED_POLICY):
                text = f"this comment ignores {code}, which is not reported here: remove it"
            else:
                continue
            kept.append(Finding(CODE, "warning", text, CONFIGURED, comment.location))
    return Ignored(tuple(sorted(kept, key=_order)), tuple(ignored))


def _shown(code: str) -> str:
    return code if re.fullmatch(r"DG[0-9]{1,3}", code) else "a code"


def _comments(file: str, read: Callable[[str], bytes]) -> Iterator[IgnoreComment]:
    if file.endswith(".json"):
        return
    try:
        data = read(file)
    except (OSError, Unreadable):
        return
    yield from read_comments(data, file)


def _matches(comment: IgnoreComment, finding: Finding) -> bool:
    where = finding.location
    return (where is not None and where.file == comment.location.file and finding.code in comment.codes
            and comment.first <= where.line <= comment.last)


def _order(finding: Finding) -> tuple[str, int, int, str, str]:
    return finding.order
