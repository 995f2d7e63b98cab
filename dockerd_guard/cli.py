"""The command line. Each verb is the one pipeline, stopped at a different point.

`lint` and `sockets` work with the standard library and PyYAML alone, and start in a tenth of a second:
so everything else is imported where it is needed.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NamedTuple

from dockerd_guard.later import DISPENSABLE, SELDOM_USED, do_without, put_off
from dockerd_guard.policy import POLICY_FILE, Policy, PolicyError, load_policy, read_policy
from dockerd_guard.tree import Tree, Unreadable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from dockerd_guard.dockerd.version import Version
    from dockerd_guard.judge.finding import Finding
    from dockerd_guard.observe.observation import Observation

OK, FOUND, UNANSWERED = 0, 1, 2
"""Exit codes: nothing wrong; findings; the question could not be answered. An agent that ends by a mistake
of its own has EX_SOFTWARE (sysexits.h) instead, since systemd does not start it again after 2."""

HELP_COLUMNS = 80

FIX_WAIT_S = 60.0
"""How long `fix` waits for the agent, which may be correcting the host just now."""

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


class Unanswerable(Exception):
    """The question cannot be answered: why, for people, on one or more lines."""


class Look(NamedTuple):
    """One host as it was asked about: its root as given, what was seen, and the policy for it."""

    root: str
    seen: Observation
    policy: Policy | None
    policy_is_outside: bool

    def read(self, path: str) -> bytes:
        """The content of a file that a finding points to."""
        if self.policy_is_outside and self.policy is not None and path == self.policy.file:
            with Tree() as host:
                return host.read(os.path.abspath(path))
        return self.seen.tree.read(path)

    @property
    def outside(self) -> frozenset[str]:
        """Files that findings may name and that do not lie below the root."""
        return frozenset([self.policy.file] if self.policy_is_outside and self.policy is not None else ())


class Verb(NamedTuple):
    """A word of the command line: what it answers, its options, and the function that does it."""

    name: str
    summary: str
    run: Callable[[Namespace], int]
    options: Callable[[ArgumentParser], None]
    description: str = ""


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    # One look at one host ends before there is garbage worth collecting: 8 ms of 140.
    gc.disable()
    put_off(*SELDOM_USED)
    do_without(*DISPENSABLE)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not cost the answer.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            options = parser().parse_args(argv)
            code: int = options.run(options)
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


def say(message: str) -> None:
    """Tell something beside the answer, each line with our name."""
    from dockerd_guard.report.text import clean

    sys.stdout.flush()
    for line in message.split("\n"):
        print(f"dockerd-guard: {clean(line)}", file=sys.stderr)


# -- verbs ----------------------------------------------------------------------------------------


def sockets(options: Namespace) -> int:
    """Where does Docker listen, and which line made it so."""
    from dockerd_guard.report import json, text

    def tell(look: Look) -> int:
        if options.format == "json":
            print(json.dump(json.sockets(look.seen), root=_name(options, look)))
        else:
            _print(text.sockets(look.seen))
        return OK

    return _each(options, tell, with_policy=False)


def lint(options: Namespace) -> int:
    """What is wrong."""
    from dockerd_guard.judge.judge import judge
    from dockerd_guard.report import json

    sarif_runs = []

    def tell(look: Look) -> int:
        found = judge(look.seen, look.policy)
        if found and look.policy is not None:
            from dockerd_guard.pipeline import plan_for, promised  # a host that complies needs no plan

            found = promised(found, look.seen, look.policy, plan_for(look.seen, look.policy))
        if options.format == "json":
            print(json.dump(json.findings(found), root=_name(options, look)))
        elif options.format == "github":
            from dockerd_guard.report import github

            _print(github.commands(found, look.root, look.outside))
        elif options.format == "sarif":
            from dockerd_guard.report import sarif

            sarif_runs.append(sarif.Run(look.root, found, look.outside))
        else:
            _lint_text(found, look)
        return FOUND if found else UNANSWERED if look.seen.troubles else OK

    code = _each(options, tell, with_policy=True)
    if options.format == "sarif":
        from dockerd_guard.report import sarif

        print(json.dump(sarif.log(sarif_runs)))
    return code


def _lint_text(found: tuple[Finding, ...], look: Look) -> None:
    from dockerd_guard.report import text

    _print(text.findings(found, look.read, colour=text.wants_colour(sys.stdout)))
    if look.seen.troubles and not found:
        print("nothing wrong as far as could be seen")
    else:
        print(text.summary(found))


def explain(options: Namespace) -> int:
    """What a rule or an event of the journal says, why, and what to do."""
    from dockerd_guard.judge.rules import TITLES, page
    from dockerd_guard.report import events
    from dockerd_guard.report.journal import Event

    titles = {str(event): title for event, (title, _) in events.pages().items()}
    if not options.code:
        _print(f"{code}  {title}" for code, title in {**TITLES, **titles}.items())
        return OK
    for code in options.code:
        if code.upper() not in TITLES and code.lower() not in titles:
            raise Unanswerable(f"there is no rule or event {code}; `dockerd-guard explain` lists them all")
    for number, code in enumerate(options.code):
        text = page(code.upper()) if code.upper() in TITLES else events.page(Event(code.lower()))
        print("\n" * (number > 0) + text, end="")
    return OK


def diff(options: Namespace) -> int:
    """What would be changed, and what it costs. Changes nothing."""
    from dockerd_guard.correct.network import Here
    from dockerd_guard.correct.state import State
    from dockerd_guard.observe.engine import container_names
    from dockerd_guard.pipeline import api_addresses, assess
    from dockerd_guard.report import json, plan

    def tell(look: Look) -> int:
        policy = needed(look.policy)
        found = assess(look.seen, policy, State(), Here())
        stops = found.cost == "containers"
        containers = tuple(name for address in api_addresses(look.seen)[:1] if stops
                           for name in container_names(address))
        if options.format == "json":
            print(json.dump(plan.diff_json(found, containers), root=_name(options, look)))
        else:
            print(plan.diff_text(found, containers), end="")
        return FOUND if found.plan.changes or found.plan.obstacles or found.needs.anything else OK

    return _each(options, tell, with_policy=True)


def fix(options: Namespace) -> int:
    """Change it, once: the agent's own pass."""
    from dockerd_guard.correct.correction import Means, recover
    from dockerd_guard.correct.network import Here
    from dockerd_guard.correct.state import Busy, State, alone
    from dockerd_guard.observe.live import observe_host
    from dockerd_guard.pipeline import assess, carry_out, leave_word, looks_at
    from dockerd_guard.report import json, plan
    from dockerd_guard.systemd.manager import Manager, Refused, Unavailable

    if os.geteuid() != 0:
        raise Unanswerable("fix writes below /etc and restarts services: run it as root")
    state = State()
    try:
        policy = load_policy(options.policy or POLICY_FILE, require_root_owned=True)
        with alone(state.directory, FIX_WAIT_S), Manager() as manager, Tree() as tree:
            if done := recover(state, manager):
                print(done, file=sys.stderr)
            found = assess(observe_host(tree, manager), policy, state, network := Here())
            with looks_at(manager) as look:
                means = Means(manager, state, look, network)
                outcome = carry_out(found, means)
                leave_word(found, outcome, means)
    except (Busy, OSError, PolicyError, Refused, Unavailable, Unreadable) as error:
        raise Unanswerable(str(error)) from None
    if options.format == "json":
        print(json.dump(plan.outcome_json(outcome)))
    else:
        print(plan.outcome_text(outcome), end="")
    return OK if outcome.done else FOUND


def init(options: Namespace) -> int:
    """Write a policy from what this host does now."""
    from dockerd_guard.operator.init import adopt, write
    from dockerd_guard.report.policy import summary

    options.root = [options.root] if options.root else []
    target = options.output or ("-" if options.root else POLICY_FILE)
    try:
        with Tree(*options.root) as tree:
            found, text = adopt(look_at(tree, options, with_policy=False).seen)
    except OSError as error:
        raise Unanswerable(f"{''.join(options.root) or '/'}: {error.strerror or error}") from None
    except (PolicyError, Unreadable) as error:
        raise Unanswerable(str(error)) from None
    if target == "-":
        print(text, end="")
        return OK
    try:
        saved = write(target, text, force=options.force)
    except FileExistsError:
        raise Unanswerable(
            f"{target} is there already, and is no regular file" if options.force else
            f"{target} is there already: `init --output -` shows what would be written, `init --force` writes it and "
            "keeps what is there under another name") from None
    except OSError as error:
        raise Unanswerable(f"{target}: {error.strerror or error}") from None
    except PolicyError as error:
        raise Unanswerable(f"{target} is written, but the agent would not take it:\n{error}") from None
    _print(summary(found, target, saved))
    return OK


def status(options: Namespace) -> int:
    """How this host stands, and the agent on it."""
    from datetime import UTC, datetime

    from dockerd_guard.operator.status import look
    from dockerd_guard.report import json
    from dockerd_guard.report import status as report

    try:
        found = look(datetime.now(UTC))
    except Unreadable as error:
        raise Unanswerable(str(error)) from None
    if options.format == "json":
        print(json.dump(report.to_json(found)))
    else:
        _print(report.lines(found, **_terminal()))
    return FOUND if found.wrong else OK if report.is_sure(found) else UNANSWERED


def history(options: Namespace) -> int:
    """What became of this host, by the agent's entries in the journal."""
    from datetime import UTC, datetime

    from dockerd_guard.operator import history as journal
    from dockerd_guard.report import history as report
    from dockerd_guard.report import json

    try:
        since = journal.moment(options.since) if options.since is not None else None
        found = journal.history(journal.read_journal(), datetime.now(UTC), since)
    except ValueError as error:
        raise Unanswerable(str(error)) from None
    except journal.Unread as error:
        hint = "" if os.geteuid() == 0 else "\nroot may read it, and so may the group systemd-journal"
        raise Unanswerable(f"{error}{hint}") from None
    if options.plot is not None:
        from dockerd_guard.report import timeline

        _put(options.plot, timeline.svg(found, os.uname().nodename))
    elif options.format == "json":
        print(json.dump(report.to_json(found)))
    else:
        _print(report.lines(found, **_terminal()))
    return OK


def _put(path: str, text: str) -> None:
    if path == "-":
        print(text, end="")
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Unanswerable(f"{path}: {error.strerror or error}") from None


def _terminal() -> dict[str, Any]:
    """How wide standard output is (None: no terminal), and whether it takes colour."""
    import shutil

    from dockerd_guard.report.text import wants_colour

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return {"columns": columns, "colour": wants_colour(sys.stdout)}


def run(options: Namespace) -> int:
    """The agent."""
    from dockerd_guard.agent.loop import run as run_agent

    gc.enable()
    try:
        return run_agent(options.policy or POLICY_FILE)
    except Exception:
        import traceback

        traceback.print_exc()
        return os.EX_SOFTWARE


def needed(policy: Policy | None) -> Policy:
    """The policy, where there is no doing without one. Raises Unanswerable."""
    if policy is None:
        raise Unanswerable(f"no policy: write one to {POLICY_FILE}, or name it with --policy")
    return policy


# -- looking --------------------------------------------------------------------------------------


def _each(options: Namespace, tell: Callable[[Look], int], *, with_policy: bool) -> int:
    """Look at each root and tell of it; the worst exit code of all."""
    worst = OK
    if len(options.root) > 1:
        gc.enable()
    for root in options.root or ("/",):
        if len(options.root) > 1 and options.format == "text":
            print(f"{root}:")
        try:
            with Tree(root) as tree:
                worst = max(worst, tell(look_at(tree, options, with_policy=with_policy)))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            worst = _no_answer(options, root, f"{root}: {error.strerror or error}")
        except (Unanswerable, PolicyError, Unreadable) as error:
            worst = _no_answer(options, root, str(error))
    return worst


def _no_answer(options: Namespace, root: str, why: str) -> int:
    if len(options.root) > 1:
        why = "\n".join(f"{root}: {line}" for line in why.split("\n"))
        if options.format == "json":
            from dockerd_guard.report import json

            print(json.dump({"schema": json.SCHEMA, "error": why}, root=root))
    say(why)
    return UNANSWERED


def look_at(tree: Tree, options: Namespace, *, with_policy: bool) -> Look:
    """Observe a root, and find the policy for it. Raises Unanswerable or PolicyError."""
    is_live = not options.root
    policy, outside = policy_for(tree, options.policy) if with_policy else (None, False)
    observe = observe_live if is_live else observe_files
    seen = observe(tree, options.docker_version)
    if tree.denied:
        raise Unanswerable("\n".join(f"{path}: {reason}" for path, reason in sorted(tree.denied.items())))
    for trouble in seen.troubles:
        say(trouble.text)
    unit = seen.configured.service.unit
    if unit.load_state in ("not-found", "masked", "error"):
        say(f"{unit.reason or unit.name + ' is ' + unit.load_state}"
            + (f" (below {tree.root})" if not is_live else ""))
    return Look(tree.root, seen, policy, outside)


def policy_for(tree: Tree, path: str | None) -> tuple[Policy | None, bool]:
    """The policy at a path of this machine or else the tree's own, if there is one; and whether it
    lies outside the tree. Raises PolicyError."""
    if path is not None:
        return load_policy(path, require_root_owned=False), True
    if tree.stat(POLICY_FILE) is not None:
        return read_policy(tree), False
    say(f"no policy at {POLICY_FILE}: only the rules that need none apply")
    return None, False


def observe_files(tree: Tree, dockerd: Version | None) -> Observation:
    """The configured layer alone."""
    from dockerd_guard.observe.configured import observe_configured
    from dockerd_guard.observe.observation import Observation

    return Observation(tree, observe_configured(tree, dockerd=dockerd))


def observe_live(tree: Tree, dockerd: Version | None) -> Observation:
    """All layers of this host that can be asked."""
    from dockerd_guard.observe.live import observe_host
    from dockerd_guard.systemd.manager import Manager, Unavailable

    try:
        with Manager() as manager:
            return observe_host(tree, manager, dockerd=dockerd)
    except Unavailable:
        return observe_host(tree, None, dockerd=dockerd)


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
    Verb("init", "write a policy from what this host does now", init, _init_options,
         "Writes a policy that declares what this host does now, in mode: observe. What is dangerous is marked, "
         "with the safer line beside it. Never replaces a file without --force."),
    Verb("sockets", "where does Docker listen, and which line made it so", sockets, _sockets_options,
         "Where the Docker API listens: by the files on disk and, on a live host, as systemd has loaded it, "
         "as dockerd was started, and by the sockets of the kernel."),
    Verb("lint", "what is wrong, and which line is to blame", lint, _lint_options,
         "What is wrong with where the Docker API listens. Without a policy, only the rules that need none "
         "apply."),
    Verb("diff", "what would be changed, and what that costs", diff, _diff_options,
         "The changes that would make this host comply with its policy, as a unified diff; and what they "
         "cost: nothing, a reload, a restart, or containers. Changes nothing. Exit code 1 when there is "
         "something to change."),
    Verb("fix", "change it, once", fix, _fix_options,
         "Makes this host comply with its policy, as `diff` says, as far as the policy's `correct` section "
         "allows now: writes, reloads, restarts, looks whether every declared socket answers and no other "
         "listens, and puts everything back if not."),
    Verb("run", "the agent: look again whenever something changes, for ever", run, _own_policy_option,
         "The agent, as dockerd-guard.service runs it. Stops at SIGTERM, reads its policy again at SIGHUP."),
    Verb("status", "how this host stands, and the agent on it", status, _format_option,
         "One screen: the agent, its policy, each declared socket in all layers, what is wrong, held or cut off, and "
         "the last correction. Without root it says what it could not see. Exit code 1: something is not in order."),
    Verb("history", "what became of this host: each drift, its outcome, how long it was exposed", history,
         _history_options,
         "What the agent's entries in the journal come to: one line for each drift, with the file and line, the cause, "
         "the outcome, and how long the Docker API was open to the network."),
    Verb("explain", "what a finding or an event means, and what to do", explain, _explain_options,
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
        sub.set_defaults(run=verb.run, root=[], policy=None)
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


def _name(options: Namespace, look: Look) -> str | None:
    return look.root if len(options.root) > 1 else None


def _print(lines: Iterable[str] | Iterator[str]) -> None:
    for line in lines:
        print(line)
