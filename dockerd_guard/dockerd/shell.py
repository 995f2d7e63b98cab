"""`sh -c SCRIPT` as far as it is one simple command: dash(1), POSIX shell grammar.

Quotes, variables of the environment, assignments, `exec`, redirections and commands before the last
one are read; anything that has to be run to be known ($(...), globs, if, loops) is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dockerd_guard.dockerd.flags import Word

_PART = re.compile(
    r"(?P<blank>[ \t]+)|(?P<single>'[^']*')|(?P<escape>\\(?s:.))"
    r"|(?P<variable>\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\}))"
    r"|(?P<open>\")|(?P<end>\n|;|&&|\|\||\||&)|(?P<redirect>(?:>>|>&|<&|>\||>|<))"
    r"|(?P<plain>[^\s'\"\\$`;&|<>(){}*?#\[\]~!]+|[{}#\[\]~!])")
_QUOTED = re.compile(r"(?P<text>[^\"\\$`]+)|(?P<escape>\\[\"\\$`\n])|(?P<backslash>\\)"
                     r"|(?P<variable>\$(?:[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\}))|(?P<close>\")")
_ASSIGNMENT = r"[A-Za-z_][A-Za-z0-9_]*="
_KEYWORDS = frozenset((
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}", "!",
    "[[", "function", "trap", "eval", "source", ".", "set", "shift",
))
Result = tuple[tuple[Word, ...], Mapping[str, str], bool]


def script_command(words: tuple[Word, ...], environ: Mapping[str, str]) -> Result:
    """The command a shell ends up running, its environment, and whether that is certain."""
    at = 1
    while at < len(words) and words[at].text[:1] in ("-", "+") and "c" not in words[at].text.lstrip("-"):
        at += 2 if words[at].text in ("-o", "+o") else 1
    if at + 1 >= len(words) or not re.fullmatch(r"-[a-z]*c[a-z]*", words[at].text):
        return (), environ, False
    script = words[at + 1]
    commands = _commands(script, environ)
    if not commands:
        return (), environ, False
    changed = dict(environ)
    simple = len(commands) == 1
    for number, command in enumerate(commands):
        if not command or command[0].text in _KEYWORDS:
            return (), environ, False
        place = 0
        here = dict(changed)
        while place < len(command) and re.match(_ASSIGNMENT, command[place].text):
            name, _, value = command[place].text.partition("=")
            here[name] = value
            place += 1
        rest = command[place:]
        if rest and rest[0].text == "export":
            for word in rest[1:]:
                name, equals, value = word.text.partition("=")
                if equals:
                    changed[name] = value
            continue
        if not rest:
            changed = here
            continue
        if rest[0].text == "exec":
            rest = rest[1:]
            return tuple(rest), here, simple or number == len(commands) - 1
        if "dockerd" in rest[0].text or number == len(commands) - 1:
            # What ran before may have failed, or have changed what is found.
            return tuple(rest), here, simple
    return (), environ, False


def _commands(script: Word, environ: Mapping[str, str]) -> list[list[Word]] | None:  # noqa: PLR0912, PLR0915
    """The script's simple commands in order, or None where it is more than that."""
    text = script.text
    commands: list[list[Word]] = [[]]
    current = ""
    begun: int | None = None
    literal = True
    skip_target = False
    at = 0

    def finish() -> None:
        nonlocal current, begun, literal, skip_target
        if begun is not None:
            if skip_target:
                skip_target = False
            else:
                place = script.offset + begun if literal else script.offset
                commands[-1].append(Word(current, script.argument, place))
        current, begun, literal = "", None, True

    while at < len(text):
        if text[at] == "#" and begun is None:
            at = (text.find("\n", at) + 1 or len(text) + 1) - 1
            continue
        found = _PART.match(text, at)
        if found is None:
            return None
        kind = found.lastgroup
        at = found.end()
        if kind in ("blank", "end"):
            finish()
            if kind == "end":
                if found[0] == "|":
                    # Only what comes first listens; the rest reads its output.
                    break
                if commands[-1]:
                    commands.append([])
            continue
        if kind == "redirect":
            if begun is not None and current.isdigit():
                begun = None
            finish()
            skip_target = True
            continue
        if begun is None:
            begun = found.start()
        if kind == "plain":
            current += found[0]
            continue
        literal = False
        if kind == "single":
            current += found[0][1:-1]
        elif kind == "escape":
            current += "" if found[0] == "\\\n" else found[0][1]
        elif kind == "variable":
            value = environ.get(found[0].strip("${}"), "")
            if re.search(r"[*?\[]", value):
                return None
            parts = re.split(r"[ \t\n]+", value)
            current += parts[0]
            if not current and len(parts) == 1 and not _more(text, at):
                begun, literal = None, True
            for part in parts[1:]:
                place = begun
                finish()
                current, begun, literal = part, place, False
            if not current and len(parts) > 1 and not _more(text, at):
                begun, literal = None, True
        else:
            quoted, at = _double(text, at, environ)
            if quoted is None:
                return None
            current += quoted
    finish()
    return [command for command in commands if command]


def _more(text: str, at: int) -> bool:
    return at < len(text) and text[at] not in " \t\n;&|<>"


def _double(text: str, at: int, environ: Mapping[str, str]) -> tuple[str | None, int]:
    value = ""
    while at < len(text):
        found = _QUOTED.match(text, at)
        if found is None:
            return None, at
        at = found.end()
        kind = found.lastgroup
        if kind == "close":
            return value, at
        if kind == "escape":
            value += "" if found[0] == "\\\n" else found[0][1]
        elif kind == "variable":
            value += environ.get(found[0].strip("${}"), "")
        else:
            value += found[0]
    return None, at
