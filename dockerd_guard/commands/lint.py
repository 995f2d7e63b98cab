"""The verb `lint`: the findings of all rules."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING

from dockerd_guard.commands import _subjects
from dockerd_guard.commands._common import (
    FOUND,
    NO_POLICY,
    OK,
    UNANSWERED,
    Unanswerable,
    look_at,
    print_lines,
    say,
    unit_note,
    with_root,
)
from dockerd_guard.model.finding import SEVERITIES
from dockerd_guard.policy.model import PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report import json_output
from dockerd_guard.report.lint_result import LintResult
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.registry import TITLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

    from dockerd_guard.commands._fix_files import Edited
    from dockerd_guard.commands._subjects import Judged
    from dockerd_guard.model.finding import Finding


def run(options: SimpleNamespace) -> int:
    """Print the findings of each root, or of the files. Returns the exit code."""
    if not options.host and not options.root:
        options.files = options.files or ["."]
    worst = OK
    results: list[LintResult] = []
    if len(options.root) > 1 or options.files:
        gc.enable()
    if (wrong := _wrong_usage(options)) is not None:
        results.append(_no_result("", wrong))
        _print(results[0], options)
        worst = UNANSWERED
    elif options.diff:
        return _print_diff(options)
    for root in () if wrong is not None else options.root or ("/",):
        result = _result_of_files(options)[0] if options.files else _result_of_root(root, options)
        _print(result, options)
        results.append(result)
        worst = max(worst, _exit_code(result, options))
    if options.format == "sarif":
        from dockerd_guard.report import sarif

        print(json_output.dump(sarif.log(results)))
    return worst


def _exit_code(result: LintResult, options: SimpleNamespace) -> int:
    severities = SEVERITIES[:SEVERITIES.index(options.fail_on) + 1]
    if any(finding.severity in severities for finding in result.findings) and result.judged:
        return OK if options.exit_zero else FOUND
    return UNANSWERED if result.unanswered else OK


def _result_of_root(root: str, options: SimpleNamespace) -> LintResult:
    try:
        with Rootfs(root) as rootfs:
            look = look_at(rootfs, options, with_policy=True)
            if options.root:
                from dockerd_guard.commands import _tree

                judged = _tree.judge_root(look, options)
            else:
                judged = _subjects.judge_host(look)
            if look.seen.configured.service.unit.load_state in ("masked", "error"):
                judged = judged._replace(notes=(*judged.notes, *unit_note(look)))
            if NO_POLICY in look.notes and not options.quiet:
                say(NO_POLICY)
            notes = (note for note in look.notes if note != NO_POLICY)
            judged = judged._replace(notes=(*notes, *judged.notes))
            return _result(root, judged, options, look.read, look.outside, has_policy=look.policy is not None)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _no_result(root, f"{root}: {error.strerror or error}")
    except (Unanswerable, PolicyError, Unreadable) as error:
        return _no_result(root, str(error))


def _result_of_files(options: SimpleNamespace) -> tuple[LintResult, tuple[Edited, ...]]:
    """The result, and the edits of --fix, which are made unless --diff is given."""
    from dockerd_guard.commands import _arguments, _files, _fix_files

    try:
        policy = load_policy(options.policy, require_root_owned=False) if options.policy is not None else None
        arguments = _arguments.Arguments(options.files, options.stdin_filename)
        judged = _files.judge_arguments(arguments, policy, options)
        outside = frozenset((*arguments.contents, *([policy.file] if policy is not None else ())))

        def read(path: str) -> bytes:
            if path in arguments.contents:
                return arguments.contents[path]
            with Rootfs() as host:
                return host.read(os.path.abspath(path))

        result = _result("", judged, options, read, outside, has_policy=policy is not None)
        fixed = _fix_files.fixed(result.findings, result.read, arguments.is_given)
        result = result._replace(findings=fixed.findings)
        refusals = fixed.refusals if options.fix or options.diff else ()
        if options.fix and not options.diff and fixed.edits:
            written, failures = _fix_files.write(fixed.edits)
            refusals = (*refusals, *failures)
            if written:
                say(f"fixed {', '.join(written)}")
                options.fix = False
                result = _result_of_files(options)[0]
        return result._replace(notes=(*result.notes, *refusals)), fixed.edits
    except (Unanswerable, PolicyError, Unreadable) as error:
        return _no_result("", str(error)), ()


def _print_diff(options: SimpleNamespace) -> int:
    """Print what --fix would change, as a unified diff. Returns 1 if there is anything, and else as without --diff."""
    from dockerd_guard.report.text import clean, defused

    result, edits = _result_of_files(options)
    # patch(1) needs tabs and carriage returns as they are.
    shown = clean if sys.stdout.isatty() else defused
    for edit in edits:
        print_lines(shown(line) for line in edit.diff().split("\n")[:-1])
    for text in (*result.notes, *result.unanswered):
        say(text)
    if edits:
        return OK if options.exit_zero else FOUND
    if result.findings:
        say(f"--fix would change nothing; findings without --diff: {len(result.findings)}")
    return _exit_code(result, options)


def _no_result(root: str, why: str) -> LintResult:
    return LintResult(root, unanswered=tuple(why.split("\n")), judged=False)


def _result(  # noqa: PLR0913 -- the parts of a result
    root: str, judged: Judged, options: SimpleNamespace, read: Callable[[str], bytes], outside: frozenset[str],
    *, has_policy: bool,
) -> LintResult:
    """The result without the findings that options and comments leave out."""
    findings = judged.findings
    notes, unanswered = judged.notes, judged.unanswered
    if options.allow_empty:
        notes += judged.empty
    else:
        unanswered = judged.empty + unanswered
    ignored: tuple[tuple[Finding, str], ...] = ()
    if options.comments:
        from dockerd_guard.rules import ignore_comments

        found = ignore_comments.apply(findings, judged.files, read, TITLES, has_policy=has_policy)
        findings, ignored = found.findings, found.ignored
    kept = tuple(finding for finding in findings if _is_selected(finding.code, options))
    ignored = tuple(entry for entry in ignored if _is_selected(entry[0].code, options))
    return LintResult(root, kept, outside, notes, unanswered, judged.judged, ignored,
                      len(findings) - len(kept), _kept_contents((*kept, *(finding for finding, _ in ignored)), read),
                      next(iter(judged.files), ""))


def _kept_contents(findings: tuple[Finding, ...], read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Read the files of these findings while the root is open. Returns a function for their contents."""
    contents: dict[str, bytes] = {}
    for file in {finding.location.file for finding in findings if finding.location is not None}:
        with contextlib.suppress(OSError, Unreadable):
            contents[file] = read(file)

    def kept(path: str) -> bytes:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path]

    return kept


def _is_selected(code: str, options: SimpleNamespace) -> bool:
    return (not options.select or code.startswith(tuple(options.select))) and not (
        options.ignore and code.startswith(tuple(options.ignore)))


def _wrong_usage(options: SimpleNamespace) -> str | None:
    """Why these options have no answer."""
    if options.files and options.root:
        return "--root takes the place of files as arguments: use one of them"
    if options.stdin_filename is not None and "-" not in options.files:
        return "--stdin-filename names standard input, which is read for the argument -"
    if (options.fix or options.diff) and (not options.files or "-" in options.files):
        return "--fix and --diff need files as arguments; on a host use `dockerd-guard diff` and `dockerd-guard fix`"
    if options.diff and options.format != "text":
        return f"--diff prints a unified diff and no {options.format}: use one of --diff and --format"
    # Codes and prefixes that match no rule.
    for option, codes in (("--select", options.select), ("--ignore", options.ignore)):
        for code in codes:
            if not any(known.startswith(code) for known in TITLES):
                from difflib import get_close_matches

                near = get_close_matches(code, TITLES, 1, 0.7)
                hint = f"; did you mean {near[0]}?" if near and option == "--select" else ""
                return f"{option}: no rule {code}{hint}; `dockerd-guard explain` lists the rules"
    return None


# -- output ---------------------------------------------------------------------------------------


def _print(result: LintResult, options: SimpleNamespace) -> None:
    is_one = len(options.root) <= 1
    if options.format == "json":
        value = json_output.lint_result(result)
        if options.statistics:
            value["statistics"] = _counts(result)
        print(json_output.dump(value, root=None if is_one else result.root))
    elif options.format == "github":
        from dockerd_guard.report import github

        print_lines(github.commands(result))
    elif options.format == "text":
        if not is_one:
            from dockerd_guard.report.text import clean

            print(f"{clean(result.root)}:")
        _print_text(result, options)
    if not options.quiet or options.format != "text":
        for note in result.notes:
            say(note)
    for text in result.unanswered:
        say(text if is_one or result.judged else with_root(result.root, text))


def _counts(result: LintResult) -> dict[str, int]:
    codes = [finding.code for finding in result.findings]
    return {code: codes.count(code) for code in sorted(set(codes))}


def _print_text(result: LintResult, options: SimpleNamespace) -> None:
    from dockerd_guard.report import text

    columns = None
    if sys.stdout.isatty():
        import shutil

        columns = shutil.get_terminal_size().columns
    if options.statistics:
        print_lines(text.statistics(result.findings, TITLES))
    else:
        print_lines(text.findings(result.findings, result.read, colour=text.wants_colour(sys.stdout, options.color),
                                  columns=columns))
    if options.quiet or (not result.judged and not result.findings):
        return
    if result.unanswered and not (result.findings or result.ignored or result.hidden):
        print("nothing wrong in what could be observed")
    else:
        print_lines(text.folded(text.summary(
            result.findings, len(result.ignored), result.hidden,
            "lint --fix" if options.files else "fix"), columns))
