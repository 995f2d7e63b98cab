"""The verb `lint`: the findings of all rules."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dockerd_guard.commands._common import FOUND, OK, UNANSWERED, Look, each, print_lines, root_name
from dockerd_guard.report import json_output
from dockerd_guard.rules.judge import judge

if TYPE_CHECKING:
    from argparse import Namespace

    from dockerd_guard.model.finding import Finding


def run(options: Namespace) -> int:
    """Print the findings of each root. Returns the exit code."""
    sarif_runs = []

    def show(look: Look) -> int:
        findings = judge(look.seen, look.policy)
        if findings and look.policy is not None:
            # Without findings no plan is needed, which makes a cold start faster.
            from dockerd_guard.plan.assessment import annotate_fixability, plan_for

            findings = annotate_fixability(findings, look.seen, look.policy, plan_for(look.seen, look.policy))
        if options.format == "json":
            print(json_output.dump(json_output.findings(findings), root=root_name(options, look)))
        elif options.format == "github":
            from dockerd_guard.report import github

            print_lines(github.commands(findings, look.root, look.outside))
        elif options.format == "sarif":
            from dockerd_guard.report import sarif

            sarif_runs.append(sarif.Run(look.root, findings, look.outside))
        else:
            _print_text(findings, look)
        return FOUND if findings else UNANSWERED if look.seen.troubles else OK

    code = each(options, show, with_policy=True)
    if options.format == "sarif":
        from dockerd_guard.report import sarif

        print(json_output.dump(sarif.log(sarif_runs)))
    return code


def _print_text(findings: tuple[Finding, ...], look: Look) -> None:
    from dockerd_guard.report import text

    print_lines(text.findings(findings, look.read, colour=text.wants_colour(sys.stdout)))
    if look.seen.troubles and not findings:
        print("nothing wrong in what could be observed")
    else:
        print(text.summary(findings))
