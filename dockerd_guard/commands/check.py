"""The verb `check`: the policy alone. Nothing of the host is read but this file."""

from __future__ import annotations

import os
import sys
from datetime import date
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import OK, Unanswerable, print_lines, say
from dockerd_guard.policy.model import POLICY_FILE, Policy, PolicyError
from dockerd_guard.policy.nodes import MAX_POLICY_BYTES
from dockerd_guard.policy.reader import ownership_problems, parse_policy, read_policy
from dockerd_guard.report import effective_policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules import unused_waiver
from dockerd_guard.rules.registry import TITLES

if TYPE_CHECKING:
    from types import SimpleNamespace

    from dockerd_guard.policy.model import PolicyProblem

STDIN = "-"


def run(options: SimpleNamespace) -> int:
    """Check a policy, and print what it means or its effective values. Returns the exit code."""
    try:
        path = POLICY_FILE if options.file is None else options.file
        policy = _read_stdin() if path == STDIN else read(os.path.abspath(path))
    except (PolicyError, OSError) as error:
        raise Unanswerable(str(error)) from None
    for waiver in policy.waive:
        if message := unused_waiver.without_effect(waiver, TITLES, date.today()):
            say(f"{waiver.location}: warning: {message}")
    if options.print:
        print(effective_policy.as_yaml(policy), end="")
    elif not options.quiet:
        print_lines(effective_policy.meaning(policy))
    return OK


def read(path: str) -> Policy:
    """The policy at an absolute path of this host. Raises PolicyError with the errors of its owner, mode and text.

    The directories above the policy of the agent are checked too. Another file is still to be installed, so its
    directories do not matter, and owner and mode are those that it will have only if root runs the check.
    """
    problems: list[PolicyProblem] = []
    policy = None
    with Rootfs() as rootfs:
        try:
            policy = read_policy(rootfs, path)
        except PolicyError as error:
            problems += error.problems
        entry = rootfs.stat(path)
        if path == POLICY_FILE:
            problems += ownership_problems(rootfs, frozenset(rootfs.consulted))
        elif entry is not None and entry.is_file and os.geteuid() == 0:
            problems += ownership_problems(rootfs, (entry.path,))
    if policy is None or problems:
        raise PolicyError(problems)
    return policy


def _read_stdin() -> Policy:
    return parse_policy(sys.stdin.buffer.read(MAX_POLICY_BYTES + 1), "<stdin>")
