"""Tags of template languages: which of them a file has, and where they are.

A suffix that names one language means the tags of that language only: Jinja prints `<%` as it is. Any other file may
have been written for one of several languages, or for none: there, a tag that takes in settings or a host is no tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Role = Literal["output", "control", "comment"]
Family = Literal["jinja", "go", "erb", "terraform", "variable"]

SUFFIXES = (".j2", ".jinja", ".jinja2", ".tmpl", ".tpl", ".tftpl", ".gotmpl", ".erb", ".epp", ".in", ".template")

MAX_TAGS = 10_000


class Mark(NamedTuple):
    """The end of a tag that begins in some way, what it does, and whose it is. What a tag of Go or ERB does depends on
    what it contains."""

    end: str
    role: Role
    family: Family


_JINJA = {"{{": Mark("}}", "output", "jinja"), "{%": Mark("%}", "control", "jinja"),
          "{#": Mark("#}", "comment", "jinja")}
_GO = {"{{": Mark("}}", "output", "go")}
_ERB = {"<%": Mark("%>", "control", "erb")}
_BRACES = {"${": Mark("}", "output", "terraform")}
_TERRAFORM = {**_BRACES, "%{": Mark("}", "control", "terraform")}
_MIXED = {**_JINJA, **_GO, **_ERB}
_GO_CONTROL = re.compile(
    r"(?:if|else|elif|elseif|end|endif|endfor|range|with|define|block|break)\b")

_NOT_ESCAPED = {"<%": "<%(?!%)", "${": r"(?<!\$)\$\{", "%{": r"(?<!%)%\{"}
"""`<%%` of ERB, and `$${` and `%%{` of Terraform, are text."""

_HEADER = re.compile(r"#jinja2:([^\n]{0,2000})")
"""Options of Jinja in the first line (Ansible, lib/ansible/template: JINJA2_OVERRIDE)."""

_HEADER_OPTION = re.compile(
    r"""\s{0,8}(?:(?P<role>variable|block|comment)_(?P<end>start|end)_string\s{0,8}:\s{0,8}"""
    r"""(?:'(?P<single>[^'\s]{1,8})'|"(?P<double>[^"\s]{1,8})")"""
    r"""|(?P<flag>trim_blocks|lstrip_blocks)\s{0,8}:\s{0,8}(?P<value>True|False))\s{0,8}(?:,|\Z)""")
_HEADER_ROLES: Mapping[str, Role] = {"variable": "output", "block": "control", "comment": "comment"}

_VARIABLE = re.compile(r"@[A-Za-z_][A-Za-z0-9_-]{0,80}@")
"""A variable of autoconf, Meson and CMake in a file `*.in`."""

LOG_TAG = (r"\{\{[^{}\n]{0,200}(?<![\w)])\.(?:(?:Image)?(?:Full)?(?:ID|Name)|DaemonName)\b[^{}\n]{0,200}\}\}")
"""An expression in the tag of a log, which dockerd replaces (docs.docker.com/engine/logging/log_tags)."""

_SETTING = re.compile(
    r'^[ \t]{0,80}(?:Exec[A-Za-z]{0,40}|Listen[A-Za-z]{0,40}|Environment(?:File)?|Service|BindTo[A-Za-z]{0,40}'
    r"|(?:export[ \t]{1,8})?(?:DOCKER\w{0,60}|OPTIONS|other_args))[ \t]{0,8}=|"
    r'"(?:hosts|tls|tlsverify|tlscacert|tlscert|tlskey)"\s{0,80}:|^[ \t]{0,80}\[(?:Service|Socket|Unit)\]',
    re.MULTILINE)
"""A setting that may decide where dockerd listens, or the section of one."""

_HOST = re.compile(r"""(?<![\w-])(?:-[A-Za-z]{0,8}H|--host)(?![a-z-])|\btcp:""")
"""A host of dockerd among its options."""


class Tag(NamedTuple):
    """A tag from `start` to `end`, what stands between its marks, and how many blanks around it vanish with it."""

    start: int
    end: int
    role: Role
    family: Family
    content: str
    before: int = 0
    after: int = 0
    is_certain: bool = True
    """Whether it is a tag whatever it contains."""


class Language(NamedTuple):
    """The tags of a file, by their beginning."""

    marks: Mapping[str, Mark]
    spans_lines: bool
    is_certain: bool = True
    """Whether the file has the tags of this language and of no other."""

    trims_blocks: bool = False
    """Whether the newline after a tag that outputs nothing vanishes."""

    has_variables: bool = False
    """Whether `@NAME@` is a variable."""

    has_log_tags: bool = False
    """Whether dockerd may read the file as it is, with expressions of its own."""

    start: int = 0
    """Where the template begins, after the options of the first line."""

    unread_options: str = ""
    """Options in the first line of which is not known what they do."""


def language_of(name: str, text: str, *, is_json: bool) -> Language:
    """The language of a template. Without the name of one, systemd may read a unit as it is: no tag of several lines
    hides what is in them. `${VAR}` is systemd's own, except in JSON and in files that Terraform renders."""
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    if suffix in (".j2", ".jinja", ".jinja2"):
        return _jinja(text)
    if suffix in (".erb", ".epp"):
        return Language(_ERB, spans_lines=True)
    if suffix == ".gotmpl":
        return Language(_GO, spans_lines=True)
    marks = dict(_MIXED)
    if suffix in (".tftpl", ".tpl"):
        marks |= _TERRAFORM
    elif is_json:
        marks |= _BRACES
    spans_lines = suffix in (".tftpl", ".tpl", ".tmpl", ".template") or is_json
    return Language(marks, spans_lines, is_certain=False, trims_blocks=True, has_variables=suffix == ".in",
                    has_log_tags=not suffix)


def _jinja(text: str) -> Language:
    """Jinja as Ansible's module `template` uses it, which sets trim_blocks, with the options of the first line."""
    header = _HEADER.match(text)
    if header is None:
        return Language(_JINJA, spans_lines=True, trims_blocks=True)
    marks = {mark.role: [start, mark.end] for start, mark in _JINJA.items()}
    trims_blocks, position = True, 0
    while (found := _HEADER_OPTION.match(header[1], position)) is not None and found.end() > position:
        if found["role"] is not None:
            marks[_HEADER_ROLES[found["role"]]][found["end"] == "end"] = found["single"] or found["double"]
        elif found["flag"] == "trim_blocks":
            trims_blocks = found["value"] == "True"
        position = found.end()
    unread = header[0] if header[1][position:].strip() or len({start for start, _ in marks.values()}) < 3 else ""
    return Language({start: Mark(end, role, "jinja") for role, (start, end) in marks.items()}, spans_lines=True,
                    trims_blocks=trims_blocks, start=min(header.end() + 1, len(text)), unread_options=unread)


def tags_of(text: str, language: Language) -> Iterator[Tag]:
    """The tags of a text, in order, up to MAX_TAGS. Linear time."""
    # The longest beginning first: `[%=` before `[%`.
    alternatives = "|".join(_NOT_ESCAPED.get(start, re.escape(start))
                            for start in sorted(language.marks, key=len, reverse=True))
    opener = re.compile(f"{alternatives}|{_VARIABLE.pattern}" if language.has_variables else alternatives)
    log_tag = re.compile(LOG_TAG)
    end_of_raw = _end_of_raw(language)
    finder = _Finder(text)
    position, found_tags = language.start, 0
    while (found := opener.search(text, position)) is not None and found_tags < MAX_TAGS:
        position = found.end()
        if language.has_log_tags and log_tag.match(text, found.start()) is not None:
            continue
        mark = language.marks.get(found[0])
        if mark is None:
            found_tags += 1
            yield Tag(found.start(), position, "output", "variable", found[0])
            continue
        end = finder.find(mark.end, position)
        limit = len(text) if language.spans_lines else finder.find("\n", position)
        if end >= limit:
            continue
        role = _role(mark, text[position:min(end, position + 200)])
        takes_in = (role != "comment" or not language.is_certain) and finder.next(_SETTING, position) < end
        if not language.is_certain and (takes_in or finder.next(_HOST, position) < end):
            continue
        content = text[position:end]
        tag = Tag(found.start(), end + len(mark.end), role, mark.family, content,
                  is_certain=not takes_in)
        tag = _with_trims(tag, text, language)
        found_tags += 1
        yield tag
        position = tag.end + tag.after
        if end_of_raw is not None and tag.role == "control" and content.strip("-+ \t\r\n") == "raw":
            end_found = end_of_raw.search(text, position)
            if end_found is None:
                return
            position = end_found.start()


def _end_of_raw(language: Language) -> re.Pattern[str] | None:
    """The end of text of Jinja that is no template. In a file that may have no tags at all, there is none."""
    return next((re.compile(rf"{re.escape(start)}[-+]?\s{{0,80}}endraw\s{{0,80}}[-+]?{re.escape(mark.end)}")
                 for start, mark in language.marks.items()
                 if mark.role == "control" and mark.family == "jinja" and language.is_certain), None)


class _Finder:
    """Where the next text or match is, at positions that only grow: looked for once until it is passed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[str, int] = {}

    def find(self, what: str, position: int) -> int:
        """The position of the next such text; the end if there is none."""
        if self.found.get(what, -1) < position:
            found = self.text.find(what, position)
            self.found[what] = found if found >= 0 else len(self.text)
        return self.found[what]

    def next(self, pattern: re.Pattern[str], position: int) -> int:
        """The position of the next match; the end if there is none."""
        if self.found.get(pattern.pattern, -1) < position:
            found = pattern.search(self.text, position)
            self.found[pattern.pattern] = found.start() if found is not None else len(self.text)
        return self.found[pattern.pattern]


def is_setting_at(text: str, position: int) -> bool:
    """Whether a line begins there with a setting that may decide where dockerd listens."""
    return _SETTING.match(text, position) is not None


def _role(mark: Mark, content: str) -> Role:
    inner = content.lstrip("-+ \t\n")
    if mark.family == "go":
        return "comment" if inner.startswith("/*") else "control" if _GO_CONTROL.match(inner) is not None else "output"
    if mark.family == "erb":
        return "output" if inner.startswith("=") else "comment" if inner.startswith("#") else "control"
    return mark.role


def _with_trims(tag: Tag, text: str, language: Language) -> Tag:
    """The tag with the blanks that it removes: `{%-`, `-%}`, `~}`, and the newline after a tag that outputs nothing.

    Who writes `{%-` does not expect trim_blocks. In a file that may have no tags, only a line with nothing else
    vanishes: a comment must not take in the line after it.
    """
    line = text[max(0, tag.start - 400):tag.start]
    indent = len(line) - len(line.rstrip(" \t"))
    is_alone = line[:len(line) - indent].endswith("\n") and text.startswith("\n", tag.end)
    sign = "~" if tag.family == "terraform" else "-"
    is_signed = tag.content.startswith(sign), len(tag.content) > 1 and tag.content.endswith(sign)
    trims_blocks = language.trims_blocks and tag.family == "jinja" and not tag.content.endswith("+")
    if not language.is_certain:
        vanishes = is_alone and tag.role != "output" and (any(is_signed) or trims_blocks)
        return tag._replace(before=indent, after=1) if vanishes else tag
    before = after = 0
    if is_signed[0]:
        before = indent if tag.family == "erb" else len(line) - len(line.rstrip())
    if is_signed[1]:
        # ERB removes one newline only, and other languages all blanks.
        blanks = re.compile(r"\r?\n" if tag.family == "erb" else r"\s{0,400}").match(text, tag.end)
        after = len(blanks[0]) if blanks is not None else 0
    elif trims_blocks and tag.role != "output" and not is_signed[0] and text.startswith("\n", tag.end):
        after = 1
        # The indentation of a tag that is alone on its line is nothing that a parser sees.
        before = indent if is_alone else 0
    return tag._replace(before=before, after=after)
