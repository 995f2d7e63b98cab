"""Templates of configuration files: Jinja2, Go templates, ERB, `${VAR}`; read as far as their text is certain.

An expression is replaced by a value of the kind that its place needs, so that the rest can be judged: an address that
is reserved for documentation, a port, a word. What the values really are is not known, and is reported.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Syntax = Literal["json", "unit", "environment"]

SUFFIXES = (".j2", ".jinja", ".jinja2", ".tmpl", ".tpl", ".tftpl", ".gotmpl", ".erb", ".epp", ".in", ".template")

MAX_EXPRESSIONS = 200
"""Expressions in one file; that there are more is one that decides where dockerd listens."""

MAX_RENDERINGS = 16
"""Combinations of alternatives of one file; of a long file fewer."""

MAX_RENDERED = 400_000
"""Characters of all combinations."""

MAX_BRANCHES = 1_000

_OPENERS = {"{{": "}}", "{%": "%}", "{#": "#}", "<%": "%>", "${": "}"}
_OPENER = re.compile(r"\{\{|\{%|\{#|<%|\$\{")
_CONTROL = re.compile(
    r"(?:/\*|if\b|else\b|elif\b|elseif\b|end\b|endif\b|endfor\b|range\b|with\b|define\b|block\b|break\b)")
_INSERTS = re.compile(r"(?:include|extends|call|render)\b")
"""Tags that insert text of another file."""

_SET = re.compile(
    r"(?:set[ \t]{1,8})?(\$?[A-Za-z_]\w{0,100})[ \t]{0,8}:?=[ \t]{0,8}(?:\"([^\"]{0,4000})\"|'([^']{0,4000})')\Z")
"""A variable of a template and its literal value."""

_CONDITION = re.compile(r"(?:if|unless|else|elif|elsif|elseif|end)")
_ASSIGNS = re.compile(r"(?:range[ \t]|with[ \t])?\$?\w{1,100}[^=\n]{0,100}=(?!=)|range\b|with\b")

_KEY = re.compile(r'[^"\n]{0,60}"\s{0,8}:')
_BRANCH = re.compile(r"[-~=+]*\s*(if|unless|with|range|for|else|elif|elsif|elseif|endif|endfor|end)\b|[-\s]*\}")
_LAST_KEY = re.compile(r'"([A-Za-z0-9_-]{1,80})"\s{0,80}:')
_JINJA = re.compile(r"\{%|\{\{[-\s]*[A-Za-z_]|<%")
_TRAILING_COMMA = re.compile(r",(?=\s*[\]}])")

_BOOLEANS = frozenset((
    "debug", "tls", "tlsverify", "live-restore", "ipv6", "iptables", "ip6tables", "icc", "ip-masq", "ip-forward",
    "userland-proxy", "experimental", "selinux-enabled", "no-new-privileges", "raw-logs", "rootless",
))
_LISTS = frozenset((
    "dns", "dns-opts", "dns-search", "registry-mirrors", "insecure-registries", "exec-opts", "storage-opts", "labels",
    "authorization-plugins", "hosts", "default-address-pools",
))
_NUMBERS = frozenset((
    "mtu", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "shutdown-timeout",
    "network-control-plane-mtu", "network-diagnostic-port", "cpu-rt-period", "cpu-rt-runtime",
))
_MAPS = frozenset(("log-opts", "default-ulimits", "runtimes", "features", "builder", "proxies"))
_DECIDES = frozenset(("hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"))
"""Keys of daemon.json that decide where dockerd listens and who may connect."""

_OTHER_OPTION = re.compile(r"--(?!host\b|H\b|tls|config-file)[a-z0-9-]{1,60}[= ][\"']?[^\s\"']{0,200}\Z")
_HOST_OPTION = re.compile(r"(?:(?:-H|--host)(?:[= ]\s{0,8})?|ListenStream\s{0,8}=\s{0,8})[\"']?\Z")
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
    found = [first]
    if any(branch for path in first.branches for _, branch in path):
        found.append(render(name, text, syntax, None))
    chosen: list[dict[int, int]] = [{}]
    is_complete = len(first.branches) < MAX_BRANCHES
    most = max(3, min(MAX_RENDERINGS, MAX_RENDERED // max(len(text), 1)))
    for path in first.branches:
        if any(all(choice.get(block, 0) == branch for block, branch in path) for choice in chosen):
            continue
        if len(found) >= most:
            is_complete = False
            break
        chosen.append(dict(path))
        found.append(render(name, text, syntax, chosen[-1]))
    if not is_complete:
        unread = Expression("the other alternatives", 1, "", True)
        found[0] = first._replace(expressions=(*first.expressions, unread))
    return found


def render(name: str, text: str, syntax: Syntax, choice: Mapping[int, int] | None = MappingProxyType({})) -> Rendered:
    """Replace the expressions. Of the alternatives of a block keep the one that `choice` has for its number, or else
    the first; the last of each if `choice` is None. Linear time.

    `${VAR}` is an expression in JSON, and in files that Terraform renders; elsewhere it is systemd's. Without the name
    of a template, systemd may read a unit as it is: no tag of several lines hides what is in them.
    """
    is_named = name.lower().endswith(SUFFIXES)
    return _Renderer(text, syntax, choice, braces=syntax == "json" or name.endswith((".tftpl", ".tpl")),
                     spans_lines=is_named or syntax == "json").run()


class _Block(NamedTuple):
    """An open block: its number, its current branch and whether that or one around it is dropped, and the number of
    parts and expressions before it."""

    number: int
    branch: int
    is_dropped: bool
    parts: int
    expressions: int


class _Renderer:
    def __init__(self, text: str, syntax: Syntax, choice: Mapping[int, int] | None, *, braces: bool,
                 spans_lines: bool) -> None:
        self.text = text
        self.braces = braces
        self.spans_lines = spans_lines
        self.syntax = syntax
        self.choice = choice
        self.parts: list[str] = []
        self.length = 0
        self.starts: list[int] = []
        self.origins: list[int] = []
        self.expressions: list[Expression] = []
        self.line = 1
        self.tail = ""
        """The current line as far as it is rendered."""
        self.values: dict[str, str] = {}
        """Variables that the template sets."""
        self.inserted = 0
        self.last_key = ""
        self.previous = ""
        """The last character that is no blank."""
        self.open: list[_Block] = []
        self.blocks = 0
        self.branches: list[Path] = []

    def run(self) -> Rendered:
        position = 0
        for start, end, opener in self._tags():
            self._literal(position, start)
            content = self.text[start + len(opener):end - len(_OPENERS[opener])]
            if self._is_set(opener, content):
                self._blank(start, end)
            elif (value := self._known(opener, content)) is not None:
                self._emit(value, start)
                self._blank(start, end)
            elif opener in ("{%", "<%", "{{") and self._is_control(opener, content):
                self._blank(start, end)
                self._control(content)
            elif opener == "{#":
                self._blank(start, end)
            else:
                self._expression(start, end)
            position = end
        self._literal(position, len(self.text))
        text = "".join(self.parts)
        if self.syntax == "json":
            text = _TRAILING_COMMA.sub(" ", text)
        return Rendered(text, tuple(self.expressions), tuple(self.starts) or (0,), tuple(self.origins) or (0,),
                        tuple(self.branches))

    def _is_set(self, opener: str, content: str) -> bool:
        """Whether a tag sets a variable to a literal value. The values of others that it may change are forgotten."""
        inner = content.strip("-~+ \t\n")
        found = _SET.match(inner) if opener in ("{%", "<%", "{{") else None
        if self._is_dropped or opener in ("{#", "${"):
            return found is not None
        if found is not None:
            self.values[found[1]] = found[2] if found[2] is not None else found[3]
        elif _CONDITION.match(inner) is None and (opener != "{{" or _ASSIGNS.match(inner) is not None):
            for name in re.findall(r"\$?\w+", inner if not inner.startswith("=") else ""):
                self.values.pop(name, None)
        return found is not None

    def _known(self, opener: str, content: str) -> str | None:
        """The value of an expression that is a variable set before; None for any other."""
        name = content.strip("-~+= \t\n")
        if opener not in ("{{", "<%") or self._is_dropped or name not in self.values:
            return None
        self.inserted += len(self.values[name])
        return self.values[name] if self.inserted <= MAX_RENDERED else None

    def _tags(self) -> Iterator[tuple[int, int, str]]:
        position, found_tags = 0, 0
        unclosed: dict[str, int] = {}
        """For each opener, up to where there is no end of it."""
        while (found := _OPENER.search(self.text, position)) is not None:
            opener = found[0]
            position = found.end()
            if position <= unclosed.get(opener, 0) or (opener == "${" and not self.braces):
                continue
            limit = len(self.text) if self.spans_lines else self.text.find("\n", position)
            limit = limit if limit >= 0 else len(self.text)
            end = self.text.find(_OPENERS[opener], position, limit)
            if end < 0:
                unclosed[opener] = limit
                continue
            position = end + len(_OPENERS[opener])
            found_tags += 1
            if found_tags > 50 * MAX_EXPRESSIONS:
                return
            yield found.start(), position, opener

    @staticmethod
    def _is_control(opener: str, content: str) -> bool:
        inner = content.strip("-~+ \t\n")
        if opener == "{%":
            return _INSERTS.match(inner) is None
        if opener == "<%":
            return not content.lstrip("-").startswith("=")
        return _CONTROL.match(inner) is not None

    def _control(self, content: str) -> None:
        found = _BRANCH.match(content)
        word = found[1] if found is not None else None
        if found is not None and word is None:
            word = "else" if "else" in content else "end"
        if word in ("if", "unless", "with", "range", "for"):
            is_dropped = self._is_dropped or (self.choice is not None and self.choice.get(self.blocks, 0) != 0)
            self.open.append(_Block(self.blocks, 0, is_dropped, len(self.parts), len(self.expressions)))
            self.blocks += 1
            self._note_branch()
        elif word in ("else", "elif", "elsif", "elseif") and self.open:
            block = self.open[-1]
            if self.choice is None:
                # The parts of the branch before this one become blank; lines and offsets stay.
                for index in range(block.parts, len(self.parts)):
                    self.parts[index] = re.sub(r"[^\n]", " ", self.parts[index])
                del self.expressions[block.expressions:]
                self.tail = ""
                self.open[-1] = block._replace(branch=block.branch + 1, parts=len(self.parts))
            else:
                branch = block.branch + 1
                is_dropped = self.choice.get(block.number, 0) != branch or (
                    len(self.open) > 1 and self.open[-2].is_dropped)
                self.open[-1] = block._replace(branch=branch, is_dropped=is_dropped)
            self._note_branch()
        elif word is not None and word.startswith("end") and self.open:
            self.open.pop()

    def _note_branch(self) -> None:
        if len(self.branches) < MAX_BRANCHES:
            self.branches.append(tuple((block.number, block.branch) for block in self.open[-20:]))

    def _literal(self, start: int, end: int) -> None:
        if start < end:
            text = self.text[start:end]
            self._emit(re.sub(r"[^\n]", " ", text) if self._is_dropped else text, start)
            self.line += text.count("\n")

    def _blank(self, start: int, end: int) -> None:
        lines = self.text.count("\n", start, end)
        self._emit("\n" * lines, start)
        self.line += lines

    def _emit(self, text: str, origin: int) -> None:
        self.starts.append(self.length)
        self.origins.append(origin)
        self.parts.append(text)
        self.length += len(text)
        self.tail = (self.tail + text).rpartition("\n")[2][-1000:]
        if self.syntax == "json":
            for found in _LAST_KEY.finditer(text):
                self.last_key = found[1]
        stripped = text.rstrip()
        self.previous = stripped[-1:] or self.previous

    def _expression(self, start: int, end: int) -> None:
        text = self.text[start:end]
        if len(self.expressions) >= MAX_EXPRESSIONS or self._is_dropped:
            if len(self.expressions) == MAX_EXPRESSIONS:
                self.expressions.append(Expression("more expressions", self.line, "", True))
            self._blank(start, end)
            return
        value, decides = (self._in_json if self.syntax == "json" else self._in_unit)(self.text[end:end + 80])
        self.expressions.append(Expression(" ".join(text.split())[:80], self.line, value, decides))
        self._emit(value + "\n" * text.count("\n"), start)
        self.line += text.count("\n")

    def _in_json(self, following: str) -> tuple[str, bool]:
        key, decides = self.last_key, self.last_key in _DECIDES
        quotes = self.tail.replace("\\\\", "").replace('\\"', "").count('"')
        if quotes % 2:
            before = self.tail.rpartition('"')[2]
            if _KEY.match(following) is not None and key not in _MAPS:
                return f"unknown{self._number}", True
            return self._in_host(before, following) if key == "hosts" else (f"unknown{self._number}", decides)
        if not self.previous:
            return "{}", True
        if self.previous == ":":
            value = ("false" if key in _BOOLEANS else "[]" if key in _LISTS else "{}" if key in _MAPS
                     else "0" if key in _NUMBERS else '""')
            return value, decides
        if key == "hosts" and self.previous in "[,":
            return f'"unix:///run/unknown{self._number}.sock"', True
        return "", True

    def _in_unit(self, following: str) -> tuple[str, bool]:
        tail = self.tail
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
