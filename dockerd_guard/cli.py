"""The command line. Each verb is the one pipeline, stopped at a different point.

`lint` and `sockets` work with the standard library and PyYAML alone, and start in a tenth of a second:
so everything else is imported where it is needed.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.commands._common import FOUND, UNANSWERED, Unanswerable, say
from dockerd_guard.lazy_imports import DEFERRED, DISABLED, defer, disable
from dockerd_guard.policy.model import POLICY_FILE

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from dockerd_guard.dockerd.version import Version


HELP_COLUMNS = 80

DESCRIPTION = """\
Keeps the Docker API listening where a YAML policy says, and nowhere else.

  dockerd-guard init                 write a policy from what this host does now
  dockerd-guard sockets              where does Docker listen, and which line made it so
  dockerd-guard lint                 what is wrong with that, and which line is to blame
  dockerd-guard diff                 what would be changed, and what that costs
  dockerd-guard fix                  change it, once
  dockerd-guard run                  the agent: look again whenever something changes, for ever
  dockerd-guard status               how this host stands, and the agent on it
  dockerd-guard history              what became of this host: each drift, its outcome, how long it was exposed
  dockerd-guard explain DG103        what a finding or an event of the journal means, and what to do
"""

EPILOG = """\
examples:
  dockerd-guard sockets --root /srv/images/web1             look at a root directory; needs no root rights
  dockerd-guard lint --policy config.yaml --format github   annotate a pull request
  dockerd-guard lint --root a --root b --format json        one JSON object a line, one for each root

exit codes: 0 nothing wrong; 1 findings; 2 the question could not be answered (usage, policy, unreadable file);
70 the agent met a mistake of its own
"""


class Verb(NamedTuple):
    """A verb of the command line. `dockerd_guard.commands.NAME` runs it."""

    name: str
    summary: str
    options: Callable[[ArgumentParser], None]
    description: str = ""


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    # One look at one host ends before there is garbage worth collecting: 8 ms of 140.
    gc.disable()
    defer(*DEFERRED)
    disable(*DISABLED)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not cost the answer.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            options = parser().parse_args(argv)
            code: int = import_module(f"dockerd_guard.commands.{options.verb}").run(options)
        finally:
            gc.enable()
            # Here, also where argparse leaves (--help), a reader that has left is an answer of its own.
            sys.stdout.flush()
    except Unanswerable as error:
        say(str(error))
        return UNANSWERED
    except BrokenPipeError:
        # The reader has seen enough (`| head`).
        _tell_no_more()
        return FOUND
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _tell_no_more()
            say(f"the answer is not whole: {error.strerror}")
            return UNANSWERED
        # A mistake of ours, and no answer: Python's own exit code would say "findings".
        import traceback

        traceback.print_exc()
        return UNANSWERED
    return code


def _tell_no_more() -> None:
    """Let what is still to be written to standard output go nowhere, also at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- verbs ----------------------------------------------------------------------------------------


# -- looking --------------------------------------------------------------------------------------


# -- options --------------------------------------------------------------------------------------


def _sockets_options(parser: ArgumentParser) -> None:
    _look_options(parser, ("text", "json"))


def _lint_options(parser: ArgumentParser) -> None:
    _policy_option(parser)
    _look_options(parser, ("text", "json", "sarif", "github"))


def _policy_option(parser: ArgumentParser) -> None:
    parser.add_argument("--policy", metavar="FILE",
                        help=f"the policy (default: {POLICY_FILE} of the root, where there is one)")


def _own_policy_option(parser: ArgumentParser) -> None:
    parser.add_argument("--policy", metavar="FILE", help=f"the policy, which must be root's (default: {POLICY_FILE})")


def _fix_options(parser: ArgumentParser) -> None:
    _own_policy_option(parser)
    _format_option(parser)


def _run_options(parser: ArgumentParser) -> None:
    _own_policy_option(parser)
    parser.add_argument("--log-format", choices=("auto", "journald", "console", "json"), default="auto",
                        help="log to journald, as lines on standard error, or as JSON lines on standard output "
                             "(default: auto: journald, and console too on a terminal)")


def _format_option(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to tell it (default: text)")


def _diff_options(parser: ArgumentParser) -> None:
    _policy_option(parser)
    _look_options(parser, ("text", "json"))


def _init_options(parser: ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", help="look at the files below DIR, not at this host")
    parser.add_argument("--output", metavar="FILE",
                        help=f"where to write it, - for standard output (default: {POLICY_FILE}; with --root: -)")
    parser.add_argument("--force", action="store_true",
                        help="replace a file that is there; it is kept as FILE.dockerd-guard-saved")
    _docker_version_option(parser)


def _history_options(parser: ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME",
                        help="what began or lasted after that (systemd.time(7)): yesterday, '2 weeks ago', 2026-11-23")
    _format_option(parser)
    parser.add_argument("--plot", metavar="FILE", help="write a picture instead, as SVG; - for standard output")


def _explain_options(parser: ArgumentParser) -> None:
    parser.add_argument("code", nargs="*", metavar="CODE",
                        help="a rule, as DG103, or an event of the journal, as held; without one, all of them")


VERBS: tuple[Verb, ...] = (
    Verb("init", "write a policy from what this host does now", _init_options,
         "Writes a policy that declares what this host does now, in mode: observe. What is dangerous is marked, "
         "with the safer line beside it. Never replaces a file without --force."),
    Verb("sockets", "where does Docker listen, and which line made it so", _sockets_options,
         "Where the Docker API listens: by the files on disk and, on a live host, as systemd has loaded it, "
         "as dockerd was started, and by the sockets of the kernel."),
    Verb("lint", "what is wrong, and which line is to blame", _lint_options,
         "What is wrong with where the Docker API listens. Without a policy, only the rules that need none "
         "apply."),
    Verb("diff", "what would be changed, and what that costs", _diff_options,
         "The changes that would make this host comply with its policy, as a unified diff; and what they "
         "cost: nothing, a reload, a restart, or containers. Changes nothing. Exit code 1 when there is "
         "something to change."),
    Verb("fix", "change it, once", _fix_options,
         "Makes this host comply with its policy, as `diff` says, as far as the policy's `correct` section "
         "allows now: writes, reloads, restarts, looks whether every declared socket answers and no other "
         "listens, and puts everything back if not."),
    Verb("run", "the agent: look again whenever something changes, for ever", _run_options,
         "The agent, as dockerd-guard.service runs it. Stops at SIGTERM, reads its policy again at SIGHUP."),
    Verb("status", "how this host stands, and the agent on it", _format_option,
         "One screen: the agent, its policy, each declared socket in all layers, what is wrong, held or cut off, and "
         "the last correction. Without root it says what it could not see. Exit code 1: something is not in order."),
    Verb("history", "what became of this host: each drift, its outcome, how long it was exposed",
         _history_options,
         "What the agent's entries in the journal come to: one line for each drift, with the file and line, the cause, "
         "the outcome, and how long the Docker API was open to the network."),
    Verb("explain", "what a finding or an event means, and what to do", _explain_options,
         "The page of a rule: what it says, why, a bad and a good example, how to mend it. Or that of an event of the "
         "journal: cause, consequence, next step."),
)


def parser() -> ArgumentParser:
    """The whole grammar of the command line; completion and the man page are made of it too."""
    from argparse import ArgumentParser, HelpFormatter, RawDescriptionHelpFormatter
    from functools import partial

    from dockerd_guard import __version__

    # Without a width argparse asks the terminal for it, help or not, and loads four compressors for that.
    help_, raw_help = (partial(kind, width=HELP_COLUMNS) for kind in (HelpFormatter, RawDescriptionHelpFormatter))
    whole = ArgumentParser("dockerd-guard", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                           formatter_class=raw_help)
    whole.add_argument("--version", action="version", version=f"dockerd-guard {__version__}")
    verbs = whole.add_subparsers(title="verbs", metavar="VERB", required=True, prog="dockerd-guard")
    for verb in VERBS:
        sub = verbs.add_parser(verb.name, help=verb.summary, description=verb.description or verb.summary,
                               allow_abbrev=False, formatter_class=help_)
        sub.set_defaults(verb=verb.name, root=[], policy=None)
        verb.options(sub)
    return whole


def _look_options(parser: ArgumentParser, formats: tuple[str, ...]) -> None:
    parser.add_argument("--root", action="append", metavar="DIR",
                        help="look at the files below DIR, not at this host; may be given several times")
    parser.add_argument("--format", choices=formats, default="text", help="how to tell it (default: text)")
    _docker_version_option(parser)


def _docker_version_option(parser: ArgumentParser) -> None:
    parser.add_argument("--docker-version", type=_version, metavar="V",
                        help="read as dockerd V does (default: as the one installed there, else the newest)")


def _version(text: str) -> Version:
    from argparse import ArgumentTypeError

    from dockerd_guard.dockerd.version import Version

    try:
        return Version.parse(text)
    except ValueError:
        raise ArgumentTypeError(f"no version of dockerd: {text!r}; expected one such as 26.1.5") from None


