"""The man pages, made of what they are about: `man.py DIRECTORY`.

dockerd-guard(8) comes out of the command line's parser, dockerd-guard.yaml(5) out of the policy's JSON Schema,
which a test holds against the grammar. Only what neither knows is written here. Run while the package
is built, with the checkout on PYTHONPATH. Macros are man(7)'s.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dockerd_guard import __version__
from dockerd_guard.cli import DESCRIPTION, EPILOG, VERBS, parser

TOP = Path(__file__).resolve().parents[1]
SCHEMA = TOP / "packaging/policy.schema.json"
EXAMPLE = TOP / "config.example.yaml"

ABOUT = """\
Whoever reaches a Docker API without authentication is root on that host. dockerd-guard knows where dockerd really
listens, in four layers: what the files on disk say (configured), what systemd has in memory (loaded), what the dockerd
process was started with (running), and the sockets the kernel holds for it (listening). It checks them against a
policy, dockerd-guard.yaml(5), and can put right what differs. Each verb is one pipeline, stopped at a different
point: observe, judge, plan, gate, apply, verify.

As dockerd-guard.service it is an agent that looks again whenever something changes. In mode: observe it only reports,
in mode: enforce it corrects: by drop-ins of its own, through systemd, restarting dockerd only where the policy's
correct section allows. Its entries in the journal have the fields DOCKERD_GUARD_EVENT, _CAUSE, _RULE, _LAYER,
_SOCKET, _FILE, _LINE, _OUTCOME, _EPISODE and _EXPOSED, and show in docker.service's own log too.
"""

FILES = (
    ("/etc/dockerd-guard/config.yaml", "The policy. It must belong to root and be writable by root only."),
    ("/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf", "What a correction writes, while it is needed; "
     "likewise in docker.socket.d."),
    ("NAME.dockerd-guard-saved", "What stood in a file that had to give way. It is never deleted."),
    ("/var/lib/dockerd-guard", "The state of the agent, for root alone: a correction under way with what its files "
     "said before, past corrections and restarts, what is cut off, what daemon.json said when dockerd was started, "
     "and what was last found."),
    ("/usr/share/dockerd-guard/policy.schema.json", "The JSON Schema of the policy, for editors."),
    ("/usr/share/doc/dockerd-guard", "The documentation: policy, corrections, journal, metrics, rules."),
)

POLICY_ABOUT = """\
The policy of dockerd-guard(8): where the Docker API of this host is to listen, and what may be done about it when it
does not. It is read from /etc/dockerd-guard/config.yaml, which must belong to root and be writable by root only, as
must every directory above it. After a change: systemctl reload dockerd-guard. A mistake is told with its line and
column, and the last good policy stays in force. `dockerd-guard init` writes one from what the host does now.

It is one YAML document without anchors and tags. Unknown keys, duplicate keys and values of another type are mistakes.
Durations are written as in systemd.time(7), with a unit: 100ms, 5min, 1h 30min.
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
    codes = EPILOG.rpartition("exit codes: ")[2].strip()
    lines += [".fi", ".SH EXIT STATUS"]
    for code in codes.split("; "):
        number, _, means = code.partition(" ")
        lines += [".TP", f".B {number}", _text(_sentence(means))]
    lines += [".SH FILES"]
    for path, what in FILES:
        lines += [".TP", f".I {_text(path)}", _text(what)]
    lines += [".SH ENVIRONMENT", ".TP", ".B NO_COLOR", "Set to anything, no colour is used."]
    return _page(lines, "dockerd-guard.yaml(5)", "dockerd(8)", "systemd.socket(5)", "systemd.unit(5)", "journalctl(1)")


def policy_page() -> str:
    """dockerd-guard.yaml(5)."""
    schema = json.loads(SCHEMA.read_text())
    lines = [_title("DOCKERD-GUARD.YAML", 5), ".SH NAME",
             "dockerd\\-guard.yaml \\- where the Docker API of this host may be reached", ".SH SYNOPSIS",
             ".I /etc/dockerd\\-guard/config.yaml", ".SH DESCRIPTION", *_paragraphs(POLICY_ABOUT), ".SH KEYS"]
    lines += _keys(schema)
    lines += [".SH EXAMPLE", "Every key, those with a default commented out:", ".PP", ".nf"]
    lines += [_text(line) or "\\&" for line in EXAMPLE.read_text().splitlines()]
    lines += [".fi"]
    return _page(lines, "dockerd-guard(8)", "dockerd(8)", "systemd.socket(5)", "systemd.time(7)")


def _keys(schema: dict[str, Any]) -> Iterator[str]:
    """The keys of a mapping, each with those of the mapping that is its value, or that its items are."""
    required = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        yield from (".TP", f".B {_text(name)}:")
        notes = "".join((f" One of {', '.join(value['enum'])}." if "enum" in value else "",
                         " Required." if name in required else "",
                         f" Default: {_shown(value['default'])}." if value.get("default") not in (None, []) else "",
                         *(f" Example: {_shown(example)}." for example in value.get("examples", ())
                           if isinstance(example, str))))
        yield _text(value["description"] + notes)
        items = value.get("items", {})
        for inner in (value, items, *items.get("anyOf", ())):
            if "properties" in inner:
                yield ".RS"
                yield from _keys(inner)
                yield ".RE"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _synopsis(sub: ArgumentParser) -> Iterator[str]:
    for action in sub._actions:
        if "--help" not in action.option_strings:
            ellipsis = " ..." if action.nargs == "*" or type(action).__name__ == "_AppendAction" else ""
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
    """Words as roff shows them unchanged: a hyphen that can be copied, no line that begins as a request does.
    What stands between backticks is bold."""
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
