"""Templates of configuration files: Jinja2, Go templates, ERB, `${VAR}`; read as far as their text is certain.

An expression is replaced by a value of the kind that its place needs, so that the rest can be judged: an address that
is reserved for documentation, a port, a word. What the values really are is not known, and is reported.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from types import MappingProxyType
from typing import Literal, NamedTuple

from dockerd_guard.observe import template_values
from dockerd_guard.observe.template_tags import LOG_TAG, SUFFIXES, Language, Tag, is_setting_at, language_of, tags_of

Syntax = Literal["json", "unit", "environment"]

MAX_EXPRESSIONS = 200
"""Expressions in one file; that there are more is one that decides where dockerd listens."""

MAX_RENDERINGS = 16
"""Combinations of alternatives of one file; of a long file fewer."""

MAX_RENDERED = 400_000
"""Characters of all combinations."""

MAX_BRANCHES = 1_000

MAX_EXPRESSION = 4_000
"""Characters of an expression that is looked into."""

_INSERTS = re.compile(r"(?:include|extends|call|render)\b")
"""Tags that insert text of another file."""

_SET = re.compile(
    r"(?:set[ \t]{1,8})?(\$?[A-Za-z_]\w{0,100})[ \t]{0,8}:?=[ \t]{0,8}(?:\"([^\"]{0,4000})\"|'([^']{0,4000})')\Z")
"""A variable of a template and its literal value."""

_OPENS = ("if", "unless", "with", "range", "for")
_CONDITION = re.compile(r"(?:if|unless|else|elif|elsif|elseif|end)")
_ASSIGNS = re.compile(r"(?:range[ \t]|with[ \t])?\$?\w{1,100}[^=\n]{0,100}=(?!=)|range\b|with\b")

_KEY = re.compile(r'[^"\n]{0,60}"\s{0,8}:')
_BRANCH = re.compile(
    r"[-~=+]*\s*(if|unless|with|range|for|else|elif|elsif|elseif|endif|endfor|endmacro|endset|end)\b|[-\s]*\}")
_DEFINITION = re.compile(
    r"[-+\s]{0,80}(?:macro\s{1,80}(\w{1,80})|set\s{1,80}(\w{1,80})\s{0,80}(?:\|[^=]{0,200})?[-+\s]{0,80}\Z|"
    r"define\s{1,80}\"([^\"]{1,80})\")")
"""A tag after which text is defined, up to its end, and not output."""

_QUOTED = r"""(?:"((?:[^"\\]|\\.){0,4000})"|'((?:[^'\\]|\\.){0,4000})'|`([^`]{0,4000})`)"""
_TEXTS = re.compile(_QUOTED, re.DOTALL)
_TEXT = re.compile(rf"[-~+=\s]{{0,80}}{_QUOTED}[-~+\s]{{0,80}}\Z", re.DOTALL)
"""An expression that is a text."""

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "v": "\v", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL)
_ADDS_KEY = re.compile(r'"\s{0,80}:')
_LAST_KEY = re.compile(r'"([A-Za-z0-9_-]{1,80})"\s{0,80}:')
_JINJA = re.compile(
    rf"\{{%|(?!{LOG_TAG})\{{\{{[-\s]*[A-Za-z_]|<%|"
    r"\{\{[-\s]*\(?\$?\.(?:Values|Release|Chart|Files|Capabilities|Template|Subcharts)\b")
"""Tags of templates, and objects of Helm."""

_BLANKED = re.compile(r"[^\n]")
_BEGINS_VALUE = re.compile(r"(?:[:\[,-]|\A)[ \t]{0,200}\Z")
_END_OF_LINE = re.compile(r"[ \t]{0,200}(?:#[^\n]{0,400})?(?:\r?\n|\Z)")
_END_OF_VALUE = re.compile(rf"[ \t]{{0,200}}:\s|{_END_OF_LINE.pattern}")
_TRAILING_COMMA = re.compile(r",(?=\s*[\]}])")

_OTHER_OPTION = re.compile(r"--(?!host\b|H\b|tls|config-file)[a-z0-9-]{1,60}[= ][\"']?[^\s\"']{0,200}\Z")
_HOST_OPTION = re.compile(r"(?:(?:-H|--host)(?:[= ]\s{0,8})?|ListenStream\s{0,8}=\s{0,8})[\"']?\Z")
_COMMENT = re.compile(
    r"\|\s{0,8}comment\s{0,8}(?:\(\s{0,8}[\"'](?:plain|erlang|c|cblock|xml)[\"']\s{0,8}\)\s{0,8})?[-+]?\s{0,8}\Z")
"""The filter of Ansible that makes comments (lib/ansible/plugins/filter/core.py)."""

_COMMAND = re.compile(r"\s{0,80}Exec[A-Za-z]{1,40}\s{0,8}=\s{0,8}[-@:+!|]{0,8}[\"']?\Z")
_PATH = re.compile(r"(?:/[\w.+-]{1,80}){1,8}(?![\w/{$<@.])")
"""The rest of the path of a command, after its directory."""

_CONTAINERD_ADDRESS = re.compile(r"\s{0,80}tcp_address\s{0,80}=\s{0,80}[\"']([^\"']{0,200})\Z")
_ENVIRONMENT = re.compile(r"\s{0,80}Environment\s{0,8}=\s{0,8}[\"']?\Z")
_DECIDING_SETTING = re.compile(
    r"\s{0,80}(?:Exec[A-Za-z]*|Listen[A-Za-z]*|EnvironmentFile|Environment\s{0,8}=.{0,400}-H|Service|(?:export\s+)?"
    r"(?:DOCKER\w*|OPTIONS|other_args)\s{0,8}=)")


class Expression(NamedTuple):
    """One expression: its text, its line, what replaces it, and whether it decides where dockerd listens."""

    text: str
    line: int
    value: str
    decides: bool


Path = tuple[tuple[int, int], ...]
"""An alternative: the number of each block around it, from the outermost, and which of its branches."""


class Rendered(NamedTuple):
    """A template with its expressions replaced. `starts` and `origins` are offsets of pieces in it and in the
    source. `branches` are all alternatives of the source."""

    text: str
    expressions: tuple[Expression, ...]
    starts: tuple[int, ...]
    origins: tuple[int, ...]
    branches: tuple[Path, ...]

    def origin(self, offset: int) -> int:
        """Return the offset in the source of an offset in the rendered text."""
        index = bisect_right(self.starts, offset) - 1
        following = self.origins[index + 1] if index + 1 < len(self.origins) else offset + self.origins[index]
        return min(self.origins[index] + offset - self.starts[index], max(following, self.origins[index]))


def is_template(name: str, text: str, syntax: Syntax) -> bool:
    """Whether a file is a template: by its name, or because it contains what neither systemd nor dockerd would.

    `{{.Name}}` without such a name is dockerd's own, as in the tag of a log. No JSON begins with `{{`.
    """
    return name.lower().endswith(SUFFIXES) or _JINJA.search(text) is not None or (
        syntax == "json" and ("${" in text or text.lstrip().startswith("{{")))


def renderings(name: str, text: str, syntax: Syntax) -> list[Rendered]:
    """Render a template so that each of its alternatives is in one of the results."""
    first = render(name, text, syntax)
    is_changed = any(branch for path in first.branches for _, branch in path)
    return _alternatives([first, render(name, text, syntax, None)] if is_changed else [first],
                         partial(render, name, text, syntax), len(text))


def of_yaml(name: str, text: str) -> list[Rendered]:
    """Return the alternatives of a template of YAML, in which every character stays in its place; those that differ
    from the text. What a tag drops is blank, and an expression where YAML would read its marks is a word."""
    language = language_of(name, text, is_json=False)

    def rendered(choice: Mapping[int, int]) -> Rendered:
        return _YamlRenderer(text, "unit", choice, language).run()

    found = _alternatives([rendered({})], rendered, len(text))
    return found if len(found) > 1 or found[0].text != text else []


def is_certain(name: str) -> bool:
    """Whether a file has the name of a template in one language, so that it is not read as it is."""
    return language_of(name, "", is_json=False).is_certain


def _alternatives(
    found: list[Rendered], rendered: Callable[[Mapping[int, int]], Rendered], size: int
) -> list[Rendered]:
    """Add to the first alternatives so that each branch of a text of this size is in one of them."""
    first = found[0]
    chosen: list[dict[int, int]] = [{}]
    is_complete = len(first.branches) < MAX_BRANCHES
    most = max(3, min(MAX_RENDERINGS, MAX_RENDERED // max(size, 1)))
    for path in first.branches:
        if any(all(choice.get(block, 0) == branch for block, branch in path) for choice in chosen):
            continue
        if len(found) >= most:
            is_complete = False
            break
        chosen.append(dict(path))
        found.append(rendered(chosen[-1]))
    if not is_complete:
        unread = Expression("the other alternatives", 1, "", True)
        found[0] = first._replace(expressions=(*first.expressions, unread))
    return found


def render(name: str, text: str, syntax: Syntax, choice: Mapping[int, int] | None = MappingProxyType({})) -> Rendered:
    """Replace the expressions. Of the alternatives of a block keep the one that `choice` has for its number, or else
    the first; the last of each if `choice` is None. Linear time."""
    return _Renderer(text, syntax, choice, language_of(name, text, is_json=syntax == "json")).run()


class _Block(NamedTuple):
    """An open block: its number, its current branch and whether that or one around it is dropped, and what was
    rendered before it. A definition, and what is in it, has no number."""

    number: int | None
    branch: int
    is_dropped: bool
    before: _Place


class _Place(NamedTuple):
    """How far a text is rendered."""

    parts: int = 0
    expressions: int = 0
    line: int = 1
    tail: str = ""
    """The current line as far as it is rendered."""
    is_continued: bool = False
    """Whether the line before it ends with a backslash."""
    last_key: str = ""
    previous: str = ""
    """The last character that is no blank."""


class _Renderer:
    def __init__(self, text: str, syntax: Syntax, choice: Mapping[int, int] | None, language: Language) -> None:
        self.text = text
        self.language = language
        self.syntax = syntax
        self.choice = choice
        self.parts: list[str] = []
        self.origins: list[int] = []
        self.expressions: list[Expression] = []
        self.place = _Place()
        self.values: dict[str, str] = {}
        """Variables that the template sets."""
        self.defined: set[str] = set()
        """Names of the texts that the template defines: macros, blocks of `set`."""
        self.inserted = 0
        self.open: list[_Block] = []
        self.blocks = 0
        self.branches: list[Path] = []

    def run(self) -> Rendered:
        if self.language.unread_options:
            self.expressions.append(Expression(_shown(self.language.unread_options), 1, "", True))
        position = self.language.start
        for tag in self._tags():
            self._literal(position, tag.start - tag.before)
            position = tag.end + tag.after
            self._tag(tag)
        self._literal(position, len(self.text))
        if any(block.number is None for block in self.open):
            self.expressions.append(Expression("a definition without an end", self.place.line, "", True))
        text = "".join(self.parts)
        starts = tuple(accumulate(map(len, self.parts[:-1]), initial=0)) if self.parts else (0,)
        if self.syntax == "json":
            text = _TRAILING_COMMA.sub(" ", text)
        return Rendered(text, tuple(self.expressions), starts, tuple(self.origins) or (0,), tuple(self.branches))

    def _tags(self) -> Iterator[Tag]:
        return tags_of(self.text, self.language)

    def _tag(self, tag: Tag) -> None:
        if self._is_set(tag):
            pass
        elif (value := self._known(tag)) is not None:
            self._emit(value, max(self.text.find(value, tag.start, tag.end), tag.start))
        elif not tag.is_certain:
            self._add(tag, "", decides=True)
        elif tag.role == "output" or (tag.role == "control" and _INSERTS.match(tag.content.strip("-~+ \t\n"))):
            self._expression(tag)
        elif tag.role == "control":
            self._control(tag.content)
        place = self.place
        if (tag.after or tag.before) and self.syntax != "json" and (place.is_continued or place.tail.strip()) and (
                is_setting_at(self.text, tag.end + tag.after)):
            # Jinja joins the lines as Ansible sets it up, and not by default.
            self._add(tag, "", decides=True)

    def _is_set(self, tag: Tag) -> bool:
        """Whether a tag sets a variable to a literal value. The values of others that it may change are forgotten."""
        inner = tag.content.strip("-~+ \t\n")
        found = _SET.match(inner) if tag.role != "comment" and tag.family in ("jinja", "go", "erb") else None
        if self._is_dropped or tag.role == "comment" or tag.family in ("terraform", "variable"):
            return found is not None
        if found is not None:
            self.values[found[1]] = found[2] if found[2] is not None else found[3]
        elif _CONDITION.match(inner) is None and (tag.role != "output" or _ASSIGNS.match(inner) is not None):
            for name in re.findall(r"\$?\w+", inner if not inner.startswith("=") else ""):
                self.values.pop(name, None)
        return found is not None

    def _known(self, tag: Tag) -> str | None:
        """The value of an expression that is a text or a variable set before; None for any other."""
        if tag.role != "output" or self._is_dropped:
            return None
        name = tag.content.strip("-~+= \t\n")
        value = self.values.get(name) if tag.family != "terraform" else None
        if value is None and (found := _TEXT.match(tag.content)) is not None:
            value = _unescaped(next(text for text in found.groups() if text is not None))
        self.inserted += len(value or "")
        return value if self.inserted <= MAX_RENDERED else None

    def _control(self, content: str) -> None:
        found = _BRANCH.match(content)
        word = found[1] if found is not None else None
        if found is not None and word is None:
            word = "else" if "else" in content else "end"
        is_within = bool(self.open) and self.open[-1].number is None
        definition = _DEFINITION.match(content) if self.language.is_certain else None
        if definition is not None or (is_within and word in _OPENS):
            self.defined |= {name for name in definition.groups() if name} if definition is not None else set()
            self.open.append(_Block(None, 0, is_dropped=True, before=self._here))
        elif word in _OPENS:
            is_dropped = self._is_dropped or (self.choice is not None and self.choice.get(self.blocks, 0) != 0)
            self.open.append(_Block(self.blocks, 0, is_dropped, self._here))
            self.blocks += 1
            self._note_branch()
        elif word in ("else", "elif", "elsif", "elseif") and self.open and not is_within:
            self._next_branch(self.open[-1])
            self._note_branch()
        elif word is not None and word.startswith("end") and self.open and (
                is_within or word not in ("endmacro", "endset")):
            self.open.pop()

    def _next_branch(self, block: _Block) -> None:
        branch = block.branch + 1
        if self.choice is None:
            # The branch before this one is taken back.
            del self.parts[block.before.parts:]
            del self.origins[block.before.parts:]
            del self.expressions[block.before.expressions:]
            self.place = block.before
            self.open[-1] = block._replace(branch=branch)
        else:
            is_dropped = self.choice.get(block.number or 0, 0) != branch or (
                len(self.open) > 1 and self.open[-2].is_dropped)
            self.open[-1] = block._replace(branch=branch, is_dropped=is_dropped)

    def _note_branch(self) -> None:
        if len(self.branches) < MAX_BRANCHES:
            self.branches.append(tuple((block.number or 0, block.branch) for block in self.open[-20:]))

    def _literal(self, start: int, end: int) -> None:
        if start < end and not self._is_dropped:
            self._emit(self.text[start:end], start)

    def _emit(self, text: str, origin: int) -> None:
        self.origins.append(origin)
        self.parts.append(text)
        place = self.place
        before, newline, tail = (place.tail + text).rpartition("\n")
        keys = _LAST_KEY.findall(text) if self.syntax == "json" else []
        self.place = place._replace(
            line=place.line + text.count("\n"), tail=tail[-1000:], last_key=keys[-1] if keys else place.last_key,
            is_continued=before.endswith("\\") if newline else place.is_continued,
            previous=text.rstrip()[-1:] or place.previous)

    @property
    def _here(self) -> _Place:
        return self.place._replace(parts=len(self.parts), expressions=len(self.expressions))

    def _add(self, tag: Tag, value: str, *, decides: bool) -> None:
        """Add an expression, and what replaces it."""
        if len(self.expressions) >= MAX_EXPRESSIONS or self._is_dropped:
            if len(self.expressions) == MAX_EXPRESSIONS:
                self.expressions.append(Expression("more expressions", self.place.line, "", True))
            return
        text = self.text[tag.start:tag.end]
        self.expressions.append(Expression(_shown(text), self.place.line, value, decides))
        self._emit(value, tag.start)

    def _expression(self, tag: Tag) -> None:
        following = self.text[tag.end:tag.end + 80]
        if self.syntax == "json":
            value, decides = self._in_json(tag, following)
        elif (harmless := self._harmless(tag, following)) is not None:
            value, decides = harmless, False
        else:
            value, decides = self._in_unit(following)
        self._add(tag, value, decides=decides or self._may_add_settings(tag.content))

    def _may_add_settings(self, content: str) -> bool:
        """Whether the text of an expression may contain settings, wherever it stands: a text with a line break and
        `=`, or with a key of JSON; a text that the template defines."""
        if len(content) > MAX_EXPRESSION or (self.defined and not self.defined.isdisjoint(
                re.findall(r"\w+", content))):
            return True
        texts = "".join(map("".join, _TEXTS.findall(content)))
        unescaped = _unescaped(texts)
        if self.syntax == "json":
            return _ADDS_KEY.search(unescaped) is not None
        return "=" in unescaped and "\n" in unescaped

    def _in_json(self, tag: Tag, following: str) -> tuple[str, bool]:
        key, previous = self.place.last_key, self.place.previous
        decides = key in template_values.DECIDES
        quotes = self.place.tail.replace("\\\\", "").replace('\\"', "").count('"')
        if quotes % 2:
            return self._in_text(key, following)
        if not previous:
            return "{}", True
        if previous == ":":
            return template_values.value_of(key), decides
        if template_values.is_separator("".join(map("".join, _TEXTS.findall(tag.content)))):
            return "", False
        if previous in "[," and template_values.is_list(key):
            socket = f"unix:///run/unknown{self._number}.sock"
            return f'"{socket if key == "hosts" else template_values.text_of(key, "", "", self._number)}"', decides
        return "", True

    def _in_text(self, key: str, following: str) -> tuple[str, bool]:
        """An expression within a text of JSON."""
        before = self.place.tail.rpartition('"')[2]
        if _KEY.match(following) is not None and key not in template_values.MAPS:
            return f"unknown{self._number}", True
        if key == "hosts":
            return self._in_host(before, following)
        return template_values.text_of(key, before, following, self._number), key in template_values.DECIDES

    def _in_unit(self, following: str) -> tuple[str, bool]:
        tail = self.place.tail
        if "tcp://" in tail and not re.search(r"[\s\"']", tail.rpartition("tcp://")[2]):
            return self._in_host("tcp://" + tail.rpartition("tcp://")[2], following)
        if _HOST_OPTION.search(tail):
            return self._in_host("", following)
        if (address := _CONTAINERD_ADDRESS.match(tail)) is not None:
            is_whole = not address[1] and not following.startswith(":")
            return ("", True) if is_whole else self._in_host(f"tcp://{address[1]}", following)
        if not tail.strip() or _ENVIRONMENT.match(tail) is not None:
            return f"UNKNOWN{self._number}=" * bool(tail.strip()), True
        if _OTHER_OPTION.search(tail) or not _DECIDING_SETTING.match(tail):
            return f"unknown{self._number}", False
        return "", True

    def _harmless(self, tag: Tag, following: str) -> str | None:
        """What replaces comments and the directory of a command in a unit, which decide nothing; None for others."""
        if not self.place.tail.strip() and tag.family == "jinja" and _COMMENT.search(tag.content) is not None:
            return "#"
        is_directory = _COMMAND.match(self.place.tail) is not None and _PATH.match(following) is not None
        return "/usr/bin" if is_directory else None

    def _in_host(self, before: str, following: str) -> tuple[str, bool]:
        """An expression within a host, after `before`."""
        if not before and following.startswith("://"):
            return "tcp", False
        if re.fullmatch(r"(tcp:)?//[^\s]*:", before):
            return str(49000 + self._number), False
        if before.startswith("tcp://") or (not before and re.match(r":[0-9{$]", following)):
            return f"192.0.2.{self._number}", False
        return f"unix:///run/unknown{self._number}.sock" if not before else f"unknown{self._number}", True

    @property
    def _is_dropped(self) -> bool:
        return bool(self.open) and self.open[-1].is_dropped

    @property
    def _number(self) -> int:
        return len(self.expressions) + 1


class _YamlRenderer(_Renderer):
    """Keeps lines and columns, so that what carries the text needs no other places."""

    def _tags(self) -> Iterator[Tag]:
        return (tag._replace(before=0, after=0) for tag in super()._tags())

    def _literal(self, start: int, end: int) -> None:
        text = self.text[start:end]
        self._emit(_BLANKED.sub(" ", text) if self._is_dropped else text, start)

    def _tag(self, tag: Tag) -> None:
        text = self.text[tag.start:tag.end]
        is_output = tag.role == "output" and not self._is_dropped
        line = self.place.tail
        is_alone = not line.strip() and _END_OF_LINE.match(self.text, tag.end) is not None
        is_unknown = not tag.is_certain or (is_output and is_alone and _COMMENT.search(tag.content) is None) or (
            tag.role == "control" and _INSERTS.match(tag.content.strip("-~+ \t\n")) is not None)
        if is_unknown and len(self.expressions) < MAX_EXPRESSIONS and not self._is_dropped:
            self.expressions.append(Expression(_shown(text), self.place.line, "", True))
        if tag.role == "control":
            self._control(tag.content)
        if not is_output or is_alone:
            text = _BLANKED.sub(" ", text)
        elif tag.family != "terraform" and (_BEGINS_VALUE.search(line) is not None or tag.family == "erb"):
            is_whole = _BEGINS_VALUE.search(line) is not None and _END_OF_VALUE.match(self.text, tag.end) is not None
            word = re.sub(r"[^\w\n]", "_", text, flags=re.ASCII)
            text = f"{{{{{word[2:-2]}}}}}" if is_whole else f"${word[1:]}"
        self._emit(text, tag.start)


def _shown(text: str) -> str:
    return " ".join(text[:400].split())[:80]


def _unescaped(text: str) -> str:
    """A text of a template without its escapes, of whatever language."""
    def character(found: re.Match[str]) -> str:
        number = next((int(digits, 16) for digits in found.group(1, 2, 3) if digits), None)
        if number is None:
            if found[5] is not None:
                return _ESCAPES.get(found[5], found[5])
            number = int(found[4], 8)
        return chr(number) if number < 0xD800 else ""

    return _ESCAPE.sub(character, text)
