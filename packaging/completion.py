"""Writes the completion for bash, zsh and fish: `completion.py DIRECTORY`.

It is made of the command line's parser. The values of an option are its choices, or follow from its metavar: FILE, DIR,
CODE. Run while the package is built, with the checkout on PYTHONPATH. Keys of the policy are completed in an editor, by
the JSON Schema.
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dockerd_guard.cli import VERBS, parser
from dockerd_guard.report.journal import Event
from dockerd_guard.rules.registry import TITLES

PROGRAM = "dockerd-guard"
FUNCTION = "_dockerd_guard"

FILES = "FILE"
DIRECTORIES = "DIR"
WORDS = {"CODE": (*TITLES, *Event)}
"""Values by metavar."""


class Option(NamedTuple):
    """An option, or an operand (without names). `takes` is FILES, DIRECTORIES, another metavar, or the empty string if
    there is no value. `words` are the possible values, empty if they cannot be listed."""

    names: tuple[str, ...]
    summary: str
    takes: str
    words: tuple[str, ...]
    repeats: bool


class Command(NamedTuple):
    """A verb with its options. The name of the program itself is the empty string."""

    name: str
    summary: str
    options: tuple[Option, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """All names of the options."""
        return tuple(name for option in self.options for name in option.names)

    @property
    def operands(self) -> tuple[str, ...]:
        """All possible operands."""
        return tuple(word for option in self.options if not option.names for word in option.words)


def commands(root: ArgumentParser) -> tuple[Command, ...]:
    """The program, then each verb."""
    verbs: dict[str, ArgumentParser] = next(
        action.choices for action in root._actions if isinstance(action.choices, dict))
    summaries = {verb.name: verb.summary for verb in VERBS}
    own = tuple(_option(action) for action in root._actions if action.choices is not verbs)
    return (Command("", "", own),
            *(Command(name, summaries[name], tuple(map(_option, sub._actions))) for name, sub in verbs.items()))


def _option(action: Action) -> Option:
    words = tuple(map(str, action.choices)) if action.choices is not None else ()
    takes = str(action.metavar or action.dest) if action.nargs != 0 else ""
    summary = "" if action.help in (None, SUPPRESS) else str(action.help).partition(" (default")[0]
    return Option(tuple(action.option_strings), summary, takes, words or WORDS.get(takes, ()),
                  type(action).__name__ in ("_AppendAction", "_ExtendAction"))


def bash(found: tuple[Command, ...]) -> str:
    """For bash, without the bash-completion library, whose functions differ between releases."""
    program, *verbs = found
    names = " ".join(verb.name for verb in verbs)
    lines = [
        f"# bash completion for {PROGRAM}, generated from its parser.",
        "",
        f"{FUNCTION}() {{",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb= words= i",
        "    # --format=text is three words, since = is in COMP_WORDBREAKS.",
        "    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        f'        case ${{COMP_WORDS[i]}} in {names.replace(" ", "|")}) verb=${{COMP_WORDS[i]}}; break ;; esac',
        "    done",
        "    case $verb:$prev in",
    ]
    for verb in verbs:
        for option in verb.options:
            if option.names and option.takes:
                patterns = "|".join(f"{verb.name}:{name}" for name in option.names)
                lines.append(f"        {patterns}) {_bash_value(option)} ;;")
    lines += ["    esac", "    case $verb in"]
    lines += [f"        {verb.name}) words='{' '.join((*verb.flags, *verb.operands))}' ;;" for verb in verbs]
    files = [verb.name for verb in verbs if any(not option.names and option.takes == FILES for option in verb.options)]
    lines += [
        f"        *) words='{' '.join((names, *program.flags))}' ;;",
        "    esac",
        f"    if [[ {' || '.join(f'$verb == {name}' for name in files)} ]] && [[ $cur != -* ]]; then",
        '        compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return',
        "    fi",
        '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")',
        "}",
        f"complete -F {FUNCTION} {PROGRAM}",
    ]
    return "\n".join(lines) + "\n"


def _bash_value(option: Option) -> str:
    if option.takes in (FILES, DIRECTORIES):
        kind = "f" if option.takes == FILES else "d"
        return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -{kind} -- "$cur"); return'
    if not option.words:
        return "return"
    return f"""mapfile -t COMPREPLY < <(compgen -W '{' '.join(option.words)}' -- "$cur"); return"""


def zsh(found: tuple[Command, ...]) -> str:
    """For zsh, by _arguments (zshcompsys(1))."""
    program, *verbs = found
    lines = [
        f"#compdef {PROGRAM}",
        f"# zsh completion for {PROGRAM}, generated from its parser.",
        "",
        "local curcontext=$curcontext state line ret=1",
        "local -a verbs",
        "",
        f"_arguments -C {' '.join(_zsh_option(option) for option in program.options)} \\",
        "  '1:verb:->verb' '*::argument:->argument' && ret=0",
        "case $state in",
        "  verb)",
        "    verbs=(",
        *(f"      '{verb.name}:{_quoted(verb.summary)}'" for verb in verbs),
        "    )",
        "    _describe verb verbs && ret=0 ;;",
        "  argument)",
        "    case $words[1] in",
    ]
    for verb in verbs:
        lines.append(f"      {verb.name}) _arguments \\")
        lines += [f"        {_zsh_option(option)} \\" for option in verb.options]
        lines.append("        && ret=0 ;;")
    lines += ["    esac ;;", "esac", "return ret"]
    return "\n".join(lines) + "\n"


def _zsh_option(option: Option) -> str:
    value = ""
    if option.takes:
        action = {FILES: "_files", DIRECTORIES: "_files -/"}.get(option.takes, f"({' '.join(option.words)})")
        value = f":{option.takes}:{action if action != '()' else ' '}"
    if not option.names:
        return f"'*{value}'"
    summary = _quoted(option.summary).replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    equals = "=" if option.takes else ""
    if len(option.names) == 1:
        return f"'{'*' if option.repeats else ''}{option.names[0]}{equals}[{summary}]{value}'"
    others = " ".join(option.names)
    return f"'({others})'{{{','.join(option.names)}}}'[{summary}]{value}'"


def fish(found: tuple[Command, ...]) -> str:
    """For fish: one complete(1) command for each word."""
    program, *verbs = found
    lines = [f"# fish completion for {PROGRAM}, generated from its parser.", f"complete -c {PROGRAM} -f"]
    lines += [f"complete -c {PROGRAM} -n __fish_use_subcommand {_fish_option(option)}" for option in program.options]
    for verb in verbs:
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {verb.name} -d '{_quoted(verb.summary)}'")
        lines += [f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {verb.name}' {_fish_option(option)}"
                  for option in verb.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    words = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.names and option.takes:
        words.append({FILES: "-r -F", DIRECTORIES: "-x -a '(__fish_complete_directories)'"}.get(option.takes, "-x"))
    if not option.names and option.takes == FILES:
        words.append("-F")
    if option.words:
        words.append(f"-a '{' '.join(option.words)}'")
    return " ".join((*words, f"-d '{_quoted(option.summary)}'"))


def _quoted(text: str) -> str:
    """Text for single quotes in zsh and fish: an apostrophe becomes a typographic one."""
    return text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}").replace("`", "")


def write(directory: Path) -> Iterator[Path]:
    """Write the three files, each under the name that its shell looks for. Yields their paths."""
    found = commands(parser())
    for name, text in ((f"{PROGRAM}.bash", bash(found)), (f"_{PROGRAM}", zsh(found)), (f"{PROGRAM}.fish", fish(found))):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / name
        path.write_text(text, encoding="utf-8")
        yield path


if __name__ == "__main__":
    print(*write(Path(sys.argv[1])), sep="\n")
