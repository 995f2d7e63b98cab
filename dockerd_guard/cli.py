"""The command line. Each verb runs the pipeline up to a certain stage.

`lint` and `sockets` need only the standard library and PyYAML and start in a tenth of a second: everything else is
imported where it is used.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.commands._common import FOUND, UNANSWERED, Unanswerable, say
from dockerd_guard.lazy_imports import DEFERRED, DISABLED, defer, disable
from dockerd_guard.policy.model import POLICY_FILE

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from dockerd_guard.dockerd.version import Version


HELP_COLUMNS = 80

DESCRIPTION = """\
Keeps the sockets of the Docker API as declared in a YAML policy.

  dockerd-guard init                 write a policy from the current state of this host
  dockerd-guard check                check the policy alone, and show what it means
  dockerd-guard sockets              show where Docker listens, and the configuring lines
  dockerd-guard lint                 report problems with file and line
  dockerd-guard diff                 show the changes that would fix this host, and their cost
  dockerd-guard fix                  apply these changes once
  dockerd-guard run                  run the agent: check and correct on every change
  dockerd-guard status               show the state of this host and of its agent
  dockerd-guard history              list past drifts with their outcome and exposure time
  dockerd-guard fleet                show which hosts of the fleet restart Docker, and which wait
  dockerd-guard explain DG103        explain a rule or a journal event
"""

EPILOG = """\
examples:
  dockerd-guard sockets --root /srv/images/web1             check a root directory; no root privileges needed
  dockerd-guard lint roles/docker/                          judge the files of a repository
  dockerd-guard lint --policy config.yaml --format github   annotate a pull request
  dockerd-guard lint --root a --root b --format json        one line of JSON for each root

exit codes: 0 no findings; 1 findings; 2 no answer is possible (usage, invalid policy, unreadable file, no
configuration of dockerd); 70 internal error of the agent
"""


class Verb(NamedTuple):
    """A verb of the command line. `dockerd_guard.commands.NAME` runs it."""

    name: str
    summary: str
    options: Callable[[ArgumentParser], None]
    description: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    """Command lines without the name of the program, each with what it does."""


def main(argv: list[str] | None = None) -> int:
    """Run a command line. Returns the exit code."""
    # A single observation creates little garbage; collecting it would take 8 of 140 ms.
    gc.disable()
    defer(*DEFERRED)
    disable(*DISABLED)
    _open_missing()
    for stream in (sys.stdout, sys.stderr):
        # Output must not fail on characters that the terminal cannot show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            # Not argparse's own type, which would keep that module.
            options = parser().parse_args(argv, SimpleNamespace())
            code: int = import_module(f"dockerd_guard.commands.{options.verb}").run(options)
        finally:
            gc.enable()
            # Flush here, so that a closed pipe is handled also after --help.
            sys.stdout.flush()
    except Unanswerable as error:
        say(str(error))
        return UNANSWERED
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`).
        _discard_stdout()
        return FOUND
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _discard_stdout()
            say(f"incomplete output: {error.strerror}")
            return UNANSWERED
        # Internal error: Python's own exit code 1 would mean findings.
        import traceback

        traceback.print_exc()
        return UNANSWERED
    return code


def _open_missing() -> None:
    """Open the standard streams that were closed from the start (`>&-`), for which Python has None. A file that is
    opened later would get their number."""
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _discard_stdout() -> None:
    """Redirect standard output to /dev/null, also for the flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- options --------------------------------------------------------------------------------------


def _sockets_options(parser: ArgumentParser) -> None:
    _look_options(parser, ("text", "json"))
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="also show what each statement about the running dockerd rests on")


def _lint_options(parser: ArgumentParser) -> None:
    _policy_option(parser)
    _look_options(parser, ("text", "json", "sarif", "github"))
    parser.add_argument("files", nargs="*", metavar="FILE",
                        help="judge these files and directories instead of this host; - is standard input")
    parser.add_argument("--no-host", dest="host", action="store_false",
                        help="never judge this host: without FILE and --root, judge the current directory")
    parser.add_argument("--allow-empty", action="store_true",
                        help="exit with 0 also if a directory or root contains no configuration of dockerd")
    parser.add_argument("--stdin-filename", metavar="FILE", help="the name of the file that - stands for")
    parser.add_argument("--fix", action="store_true",
                        help="edit the given files where that cannot open or close a socket that works")
    parser.add_argument("--diff", action="store_true", help="show what --fix would change, as a unified diff")
    parser.add_argument("--select", action="extend", type=_codes, default=[], metavar="CODES",
                        help="report only these rules; codes or their beginnings, separated by commas: DG1,DG204")
    parser.add_argument("--ignore", action="extend", type=_codes, default=[], metavar="CODES",
                        help="do not report these rules")
    parser.add_argument("--fail-on", choices=("error", "warning", "info"), default="warning",
                        help="exit with 1 for findings of this severity or worse (default: warning)")
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 also if there are findings")
    parser.add_argument("--no-comments", dest="comments", action="store_false",
                        help="report also what a comment in a file ignores")
    parser.add_argument("--statistics", action="store_true", help="count the findings of each rule")
    parser.add_argument("--quiet", action="store_true", help="print findings and errors only")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto",
                        help="use colours (default: auto: on a terminal, unless NO_COLOR is set)")


def _policy_option(parser: ArgumentParser) -> None:
    parser.add_argument("--policy", metavar="FILE",
                        help=f"the policy (default: {POLICY_FILE} of this host, if it exists; none with --root)")


def _own_policy_option(parser: ArgumentParser) -> None:
    parser.add_argument("--policy", metavar="FILE", help=f"the policy, owned by root (default: {POLICY_FILE})")


def _fix_options(parser: ArgumentParser) -> None:
    _own_policy_option(parser)
    _format_option(parser)


def _run_options(parser: ArgumentParser) -> None:
    _own_policy_option(parser)
    parser.add_argument("--log-format", choices=("auto", "journald", "console", "json"), default="auto",
                        help="log to journald, as lines on standard error, or as JSON lines on standard output "
                             "(default: auto: journald, and console too on a terminal)")


def _format_option(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output format (default: text)")


def _diff_options(parser: ArgumentParser) -> None:
    _policy_option(parser)
    _look_options(parser, ("text", "json"))


def _init_options(parser: ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", help="read the files below DIR instead of this host")
    parser.add_argument("--output", metavar="FILE",
                        help=f"output file, - for standard output (default: {POLICY_FILE}; with --root: -)")
    parser.add_argument("--force", action="store_true",
                        help="replace an existing file; it is kept as FILE.dockerd-guard-saved")
    _docker_version_option(parser)


def _check_options(parser: ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE",
                        help=f"the policy, - for standard input (default: {POLICY_FILE})")
    parser.add_argument("--print", action="store_true",
                        help="print the effective policy with all defaults, as YAML")
    parser.add_argument("--quiet", action="store_true", help="print errors and warnings only")


def _history_options(parser: ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME",
                        help="only drifts that lasted until this time or later (systemd.time(7)): yesterday, "
                             "'2 weeks ago', 2026-11-23")
    journals = parser.add_mutually_exclusive_group()
    journals.add_argument("--journal", metavar="DIR",
                          help="read the journal files in DIR, by host, such as those that other hosts upload: "
                               "/var/log/journal/remote")
    journals.add_argument("--merge", action="store_true",
                          help="read all journals of this host, by host: its own and uploaded ones")
    _format_option(parser)
    parser.add_argument("--plot", metavar="FILE", help="write a timeline as SVG; - for standard output")


def _explain_options(parser: ArgumentParser) -> None:
    parser.add_argument("code", nargs="*", metavar="CODE",
                        help="a rule such as DG103 or a journal event such as held; without it, list all")


def _fleet_options(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("show", "resume"), default="show",
                        help="resume: end the stop of the group, and release a slot that this host has kept")
    _policy_option(parser)
    _format_option(parser)


VERBS: tuple[Verb, ...] = (
    Verb("init", "write a policy from the current state of this host", _init_options,
         "Writes a policy that declares the current sockets of this host, with mode: observe. Dangerous sockets are "
         "marked, with a safer alternative. Never replaces a file without --force.",
         (
             ("init", "write /etc/dockerd-guard/config.yaml"),
             ("init --output -", "show what it would write"),
             ("init --root /srv/images/web1", "read an image instead of this host"),
         )),
    Verb("check", "check the policy alone, and show what it means", _check_options,
         "Checks the syntax, the owner and the mode of a policy, and shows what it requires and permits. Only the file "
         "is read, not the configuration of Docker. Exit code 2 if the agent would refuse the file. If FILE is not the "
         f"policy of the agent ({POLICY_FILE}), its directories are not checked, and its owner and mode only by root. "
         "With standard input, only the text is checked. `systemctl reload dockerd-guard` runs this first and fails "
         "without effect if the policy is invalid.",
         (
             ("check", "the policy of the agent"),
             ("check new.yaml", "a copy, before it is installed"),
             ("check --print", "the policy with all defaults, as YAML"),
         )),
    Verb("sockets", "show where Docker listens, and the configuring lines", _sockets_options,
         "Shows where the Docker API listens according to the files on disk and, on a live host, according to "
         "systemd, the arguments of the running dockerd, and the kernel.",
         (
             ("sockets", "all layers of this host"),
             ("sockets --root /srv/images/web1", "the files of an image; needs no root privileges"),
             ("sockets --format json", "for programs"),
         )),
    Verb("lint", "report problems with file and line", _lint_options,
         "Reports problems with the sockets of the Docker API: on this host, below --root, or in files and "
         "directories, where stock units take the place of what is missing. Without a policy, only rules that need no "
         "policy apply; the policy of a tree is used only if --policy names it. Exit code 0 means that a configuration "
         "of dockerd was judged; 2 that there was none, or that the files do not show where it listens. A comment "
         "`# dockerd-guard: ignore=DG103 REASON` above an assignment of a unit or environment file ignores findings "
         "about it.",
         (
             ("lint", "this host"),
             ("lint override.conf daemon.json", "files as they would be together on a host"),
             ("lint roles/docker/", "a role, an image directory, a whole repository"),
             ("lint - --stdin-filename docker.socket", "standard input, for editors"),
             ("lint --root /srv/images/web1 --policy policy.yaml", "an image with a policy"),
             ("lint --format sarif . > lint.sarif", "code scanning; --format github annotates"),
             ("lint --no-host --allow-empty", "a hook for every repository (docs/ci.md)"),
             ("lint --select DG1 --fail-on error", "rules DG1xx; warnings do not fail"),
             ("lint --fix --diff .", "show edits that are safe"),
         )),
    Verb("diff", "show the changes that would fix this host, and their cost", _diff_options,
         "Shows the changes that would make this host comply with its policy as a unified diff, and their cost: "
         "nothing, a reload, a restart, or a stop of containers. Changes nothing. Exit code 1 if there are "
         "changes, or if a declared socket is missing; 2 if the sockets of dockerd cannot be read.",
         (
             ("diff", "this host under /etc/dockerd-guard/config.yaml"),
             ("diff --policy new.yaml", "try a policy before it is installed"),
             ("diff --root /srv/images/web1 --policy new.yaml", "an image"),
         )),
    Verb("fix", "apply these changes once", _fix_options,
         "Makes this host comply with its policy as shown by `diff`, as far as the `correct` section of the "
         "policy allows now: writes files, reloads, restarts, verifies that every declared socket answers and no "
         "other listens, and rolls back on failure.",
         (
             ("diff", "what fix would do"),
             ("fix", "do it"),
         )),
    Verb("run", "run the agent: check and correct on every change", _run_options,
         "Runs the agent, as dockerd-guard.service does. Stops on SIGTERM, reloads the policy on SIGHUP.",
         (
             ("run", "run the agent in this terminal"),
             ("run --log-format json", "with JSON lines on standard output"),
         )),
    Verb("status", "show the state of this host and of its agent", _format_option,
         "Shows the agent, its policy, each socket in all layers, problems, held corrections, blocked ports, and the "
         "last correction. Without root it lists what it cannot read. Exit code 1 if there are problems.",
         (
             ("status", "this host"),
             ("status --format json", "for programs"),
         )),
    Verb("history", "list past drifts with their outcome and exposure time", _history_options,
         "Lists drifts from the agent's journal entries: one line for each, with file and line, cause, outcome, and "
         "how long the Docker API was open to the network. With --journal or --merge, those of many hosts. Exit code 2 "
         "also if the output is not complete.",
         (
             ("history --since yesterday", "drifts of the last day"),
             ("history --journal /var/log/journal/remote", "drifts of all hosts that upload their journal"),
             ("history --plot drift.svg", "a timeline"),
         )),
    Verb("fleet", "show which hosts of the fleet restart Docker, and which wait", _fleet_options,
         "Asks the lock service of `correct.fleet` which hosts have a slot and which wait for one, since when, and "
         "what stopped the group. Exit code 1 if the group is stopped.",
         (
             ("fleet", "the group of this host"),
             ("fleet resume", "let the hosts of a stopped group restart Docker again"),
         )),
    Verb("explain", "explain a rule or a journal event", _explain_options,
         "Prints the page of a rule: reason, bad and good example, fix. Or that of a journal event: cause, "
         "consequence, next step.",
         (
             ("explain", "list rules and journal events"),
             ("explain DG103", "one rule"),
             ("explain held", "one journal event"),
         )),
)


def parser() -> ArgumentParser:
    """The argument parser; completion and the man page are generated from it too."""
    from argparse import ArgumentParser, RawDescriptionHelpFormatter
    from functools import partial

    from dockerd_guard import __version__

    # Without a width argparse queries the terminal through shutil, which imports four compression modules.
    raw_help = partial(RawDescriptionHelpFormatter, width=HELP_COLUMNS)
    whole = ArgumentParser("dockerd-guard", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                           formatter_class=raw_help)
    whole.add_argument("--version", action="version", version=f"dockerd-guard {__version__}")
    verbs = whole.add_subparsers(title="verbs", metavar="VERB", required=True, prog="dockerd-guard")
    for verb in VERBS:
        sub = verbs.add_parser(verb.name, help=verb.summary, description=_filled(verb.description or verb.summary),
                               epilog=_examples(verb), allow_abbrev=False, formatter_class=raw_help)
        sub.set_defaults(verb=verb.name, root=[], policy=None)
        verb.options(sub)
    return whole


def _filled(text: str) -> str:
    """Text in lines of a terminal, without the module textwrap, which a start needs for nothing else."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= HELP_COLUMNS - 2:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def _examples(verb: Verb) -> str:
    """The examples of a verb, each followed by what it does."""
    return "examples:\n" + "\n".join(f"  dockerd-guard {words}\n      {what}" for words, what in verb.examples)


def _look_options(parser: ArgumentParser, formats: tuple[str, ...]) -> None:
    parser.add_argument("--root", action="append", metavar="DIR",
                        help="read the files below DIR instead of this host; may be repeated")
    parser.add_argument("--format", choices=formats, default="text", help="output format (default: text)")
    _docker_version_option(parser)


def _docker_version_option(parser: ArgumentParser) -> None:
    parser.add_argument("--docker-version", type=_version, metavar="V",
                        help="interpret as dockerd V (default: the installed version, else the newest)")


def _codes(text: str) -> list[str]:
    """The codes of rules in a list separated by commas."""
    return [code for word in text.split(",") if (code := word.strip().upper())]


def _version(text: str) -> Version:
    from argparse import ArgumentTypeError

    from dockerd_guard.dockerd.version import Version

    try:
        return Version.parse(text)
    except ValueError:
        raise ArgumentTypeError(f"invalid dockerd version: {text!r}; expected a version such as 26.1.5") from None
