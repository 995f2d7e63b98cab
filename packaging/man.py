"""Writes the man pages: `man.py DIRECTORY`.

dockerd-guard(8) is made of the command line's parser, dockerd-guard.yaml(5) of the table of keys
(dockerd_guard/policy/keys.py). Run while the package is built, with the checkout on PYTHONPATH. The macros are those of
man(7).
"""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator
from pathlib import Path

from dockerd_guard import __version__
from dockerd_guard.cli import DESCRIPTION, EPILOG, VERBS, parser
from dockerd_guard.policy.keys import FIRST_VERSION, PolicyKey, keys_in
from dockerd_guard.policy.schema import text_of, written

TOP = Path(__file__).resolve().parents[1]
EXAMPLE = TOP / "config.example.yaml"

ABOUT = """\
Whoever can reach a Docker API without authentication is root on that host. dockerd-guard determines where dockerd
listens, in four layers: the files on disk (configured), the units that systemd has loaded (loaded), the arguments of
the dockerd process (running), and the sockets that the kernel holds for it (listening). It compares them with a policy,
dockerd-guard.yaml(5), and can correct differences. The verbs are one pipeline that stops at different points: observe,
judge, plan, decide, apply, verify, record.

As dockerd-guard.service it is an agent that checks again whenever something changes. With mode: observe it only
reports; with mode: enforce it corrects: it writes drop-ins of its own, reloads systemd, and restarts dockerd only where
the correct section of the policy allows it. Its journal entries have the fields DOCKERD_GUARD_EVENT, _CAUSE, _RULE,
_LAYER, _SOCKET, _FILE, _LINE, _OUTCOME, _EPISODE and _EXPOSED, and are also shown in the log of docker.service.
"""

FILES = (
    ("/etc/dockerd-guard/config.yaml", "The policy. It must be owned by root and writable by root only."),
    ("/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf", "The drop-in of a correction, while it is needed; "
     "also in docker.socket.d."),
    ("NAME.dockerd-guard-saved", "The previous content of a file that was moved or edited. It is never deleted."),
    ("/var/lib/dockerd-guard", "State of the agent, readable by root only: the correction in progress with the "
     "previous content of its files, past corrections and restarts, blocked addresses, daemon.json as it was when "
     "dockerd was started, and the last findings."),
    ("/usr/share/dockerd-guard/policy.schema.json", "JSON Schema of the policy, for editors."),
    ("/usr/share/doc/dockerd-guard", "Documentation: policy, corrections, journal, metrics, rules."),
)

POLICY_ABOUT = """\
The policy of dockerd-guard(8): where the Docker API of this host listens, and how drift is corrected. The file is
/etc/dockerd-guard/config.yaml. The file and every directory above it must be owned by root and writable by root only.
A saved file takes effect at once: run `dockerd-guard check FILE` on a copy before. If the file is invalid, the errors
are reported with line and column, and the previous policy stays in force. `systemctl reload dockerd-guard` fails if the
file is invalid, and returns when a valid one is in force. `dockerd-guard check --print` prints the effective policy
with all defaults. `dockerd-guard init` writes a policy that matches the current state of the host.

The file is a single YAML document without anchors and tags. Unknown keys, duplicate keys and values of the wrong type
are errors. Durations have a unit, as in systemd.time(7): 100ms, 5min, 1h 30min.
"""


def command_page() -> str:
    """dockerd-guard(8)."""
    root = parser()
    verbs: dict[str, ArgumentParser] = next(
        action.choices for action in root._actions if isinstance(action.choices, dict))
    lines = [_title("DOCKERD-GUARD", 8), ".SH NAME",
             _text(f"dockerd-guard - {DESCRIPTION.partition('.')[0].replace('Keeps', 'keep')}"),
             ".SH SYNOPSIS"]
    for name, sub in verbs.items():
        lines += [f".B dockerd\\-guard {name}", *_synopsis(sub), ".br"]
    lines += [".SH DESCRIPTION", *_paragraphs(ABOUT), ".SH VERBS"]
    for verb in VERBS:
        sub = verbs[verb.name]
        lines += [f".SS {_text(verb.name)}", _text(_sentence(verb.description or verb.summary))]
        for action in sub._actions:
            if "--help" not in action.option_strings:
                lines += [".TP", _option(action), _text(_sentence(_help(action)))]
    lines += [".SH EXAMPLES", ".nf"]
    lines += [_text(line.strip()) for line in EPILOG.split("\n") if line.startswith("  ")]
    for verb in VERBS:
        for words, what in verb.examples:
            lines += [_text(f"dockerd-guard {words}"), _text(f"    {what}")]
    codes = EPILOG.rpartition("exit codes: ")[2].strip()
    lines += [".fi", ".SH EXIT STATUS"]
    for code in codes.split("; "):
        number, _, means = code.partition(" ")
        lines += [".TP", f".B {number}", _text(_sentence(means))]
    lines += [".SH FILES"]
    for path, what in FILES:
        lines += [".TP", f".I {_text(path)}", _text(what)]
    lines += [".SH ENVIRONMENT", ".TP", ".B NO_COLOR", "If set, no colours are used."]
    return _page(lines, "dockerd-guard.yaml(5)", "dockerd(8)", "systemd.socket(5)", "systemd.unit(5)", "journalctl(1)")


def policy_page() -> str:
    """dockerd-guard.yaml(5)."""
    lines = [_title("DOCKERD-GUARD.YAML", 5), ".SH NAME",
             "dockerd\\-guard.yaml \\- policy of dockerd\\-guard", ".SH SYNOPSIS",
             ".I /etc/dockerd\\-guard/config.yaml", ".SH DESCRIPTION", *_paragraphs(POLICY_ABOUT), ".SH KEYS"]
    lines += _keys("")
    lines += [".SH EXAMPLE", "Every key; optional keys are commented out:", ".PP", ".nf"]
    lines += [_text(line) or "\\&" for line in EXAMPLE.read_text().splitlines()]
    lines += [".fi"]
    return _page(lines, "dockerd-guard(8)", "dockerd(8)", "systemd.socket(5)", "systemd.time(7)")


def _keys(name: str) -> Iterator[str]:
    """The keys of a mapping, each followed by the keys below it."""
    for key in keys_in(name).values():
        yield from (".TP", f".B {_text(key.word)}:", _text(" ".join((text_of(key), *_notes(key)))))
        for below in (key.name, f"{key.name}[]"):
            if keys_in(below):
                yield ".RS"
                yield from _keys(below)
                yield ".RE"


def _notes(key: PolicyKey) -> Iterator[str]:
    """Values, default and example of a key, in sentences."""
    if key.values:
        yield f"One of {', '.join(key.values)}."
    if key.is_required:
        yield "Required."
    if key.default not in (None, ()):
        yield f"Default: {written(key)}."
    if key.example:
        yield f"Example: {key.example}."
    if key.since != FIRST_VERSION:
        yield f"Since version {key.since}."


def _synopsis(sub: ArgumentParser) -> Iterator[str]:
    for action in sub._actions:
        if "--help" not in action.option_strings:
            repeats = action.nargs == "*" or type(action).__name__ in ("_AppendAction", "_ExtendAction")
            ellipsis = " ..." if repeats else ""
            yield f"[{_option(action).removeprefix('.BR ')}]{ellipsis}" if not action.option_strings else \
                f"[\\fB{_text(action.option_strings[-1])}\\fR{_value(action)}]{ellipsis}"


def _option(action: Action) -> str:
    if not action.option_strings:
        return f"\\fI{action.metavar or action.dest}\\fR"
    return ", ".join(f"\\fB{_text(name)}\\fR{_value(action)}" for name in action.option_strings)


def _value(action: Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return " " + "|".join(f"\\fB{choice}\\fR" for choice in action.choices)
    return f" \\fI{action.metavar or action.dest.upper()}\\fR"


def _help(action: Action) -> str:
    return "" if action.help in (None, SUPPRESS) else str(action.help)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}".rstrip(".") + "."


def _title(name: str, section: int) -> str:
    kind = {5: "File formats", 8: "System administration"}[section]
    return f'.TH {_text(name)} {section} "" "dockerd\\-guard {__version__}" "{kind}"\n.ad l\n.nh'


def _paragraphs(words: str) -> Iterator[str]:
    for number, paragraph in enumerate(words.strip().split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _page(lines: list[str], *others: str) -> str:
    references = [f".BR {_text(name)} ({section})" for name, section in
                  (re.fullmatch(r"(.*)\((\d)\)", other).groups() for other in others)]  # type: ignore[union-attr]
    return "\n".join([*lines, ".SH SEE ALSO", ",\n".join(references)]) + "\n"


def _text(words: str) -> str:
    """Text that roff shows unchanged: hyphens that can be copied, no line that begins like a request. Text between
    backticks is bold."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'", "\\(aq")) else escaped


def write(directory: Path) -> Iterator[Path]:
    """Write both pages."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("dockerd-guard.8", command_page()), ("dockerd-guard.yaml.5", policy_page())):
        path = directory / name
        path.write_text(text, encoding="utf-8")
        yield path


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
