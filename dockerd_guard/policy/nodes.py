"""YAML text as nodes with their locations.

`read_document` reads PyYAML's events and not its values, so every word keeps its location, no value is converted
(`10:20` stays text), and aliases are not expanded.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import PolicyError, PolicyProblem
from dockerd_guard.policy.values import quoted

MAX_POLICY_BYTES = 256 * 1024
MAX_PROBLEMS = 50
"""Errors reported at most."""

MAX_DEPTH = 6
"""Nested mappings and lists at most."""


class ScalarNode(NamedTuple):
    location: Location
    text: str
    quoted: bool


class ListNode(NamedTuple):
    location: Location
    items: list[Node]


class MappingNode(NamedTuple):
    location: Location
    items: list[tuple[Node, Node]]


Node = ScalarNode | ListNode | MappingNode

NULL_WORDS = frozenset(("", "~", "null", "Null", "NULL"))
TRUE_WORDS = frozenset(("true", "yes", "on"))
FALSE_WORDS = frozenset(("false", "no", "off"))
"""In any case (YAML 1.1)."""

# Compiled on first use: `lint` without a policy needs none of them.
_NUMBER = r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?\Z"
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


class Problems:
    """The errors found so far in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[PolicyProblem] = []

    def add(self, location: Location, message: str) -> None:
        """Add an error. Raises PolicyError when there are MAX_PROBLEMS."""
        self.found.append(PolicyProblem(location, message))
        if len(self.found) >= MAX_PROBLEMS:
            raise PolicyError(self.found)

    def fatal(self, location: Location, message: str) -> NoReturn:
        """Add an error after which reading cannot continue. Raises PolicyError."""
        self.add(location, message)
        raise PolicyError(self.found)


def describe(node: Node) -> str:
    """The node in the words of an error message: `a list`, `the number 5`, `'text'`."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    if not node.quoted and node.text in NULL_WORDS:
        return "nothing"
    if not node.quoted and node.text.lower() in TRUE_WORDS | FALSE_WORDS:
        return f"the boolean {node.text}"
    if not node.quoted and re.match(_NUMBER, node.text):
        return f"the number {node.text}"
    return quoted(node.text)


def read_document(data: bytes, problems: Problems) -> Node:
    """The root node of a file that is one YAML document. Raises PolicyError."""
    return _parse(_decode(data, problems), problems)


def _decode(data: bytes, problems: Problems) -> str:
    """The text of a file: UTF-8, printable, not too long. Raises PolicyError."""
    if len(data) > MAX_POLICY_BYTES:
        problems.fatal(Location(problems.file), f"larger than {MAX_POLICY_BYTES >> 10} KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[:error.start].decode("utf-8", "replace")
        problems.fatal(_location(problems.file, before, len(before)), f"not UTF-8: byte 0x{data[error.start]:02x}")
    if unprintable := re.search(_UNPRINTABLE, text):
        problems.fatal(_location(problems.file, text, unprintable.start()),
                       f"control character {unprintable[0]!r} is not allowed in YAML")
    return text


def _location(file: str, text: str, index: int) -> Location:
    line = text.count("\n", 0, index) + 1
    column = index - (text.rfind("\n", 0, index) + 1) + 1
    return Location(file, line, column, column + 1)


class _Builder:
    """Builds nodes from events."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[tuple[ListNode | MappingNode, list[Node]]] = []

    def add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent, key = self._open[-1]
        if isinstance(parent, ListNode):
            parent.items.append(node)
        elif key:
            parent.items.append((key.pop(), node))
        else:
            key.append(node)

    def open(self, node: ListNode | MappingNode) -> int:
        """Begin a list or mapping; returns its depth."""
        self.add(node)
        self._open.append((node, []))
        return len(self._open)

    def close(self) -> None:
        self._open.pop()


def _parse(text: str, problems: Problems) -> Node:
    import yaml

    builder = _Builder()
    has_started = False
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            location = _span(event, problems.file)
            if isinstance(event, yaml.DocumentStartEvent):
                if has_started:
                    problems.fatal(location, "second YAML document; a policy is a single document")
                has_started = True
            elif getattr(event, "anchor", None) is not None:
                problems.fatal(location, "anchors and aliases (&name, *name) are not allowed in a policy; "
                                         "write the value itself")
            elif getattr(event, "tag", None) is not None:
                problems.fatal(location, "tags (!name) are not allowed in a policy; write the plain value")
            elif isinstance(event, yaml.ScalarEvent):
                builder.add(ScalarNode(location, event.value, bool(event.style)))
            elif isinstance(event, yaml.CollectionStartEvent):
                is_list = isinstance(event, yaml.SequenceStartEvent)
                if builder.open(ListNode(location, []) if is_list else MappingNode(location, [])) > MAX_DEPTH:
                    problems.fatal(location, f"nested more than {MAX_DEPTH} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                builder.close()
    except yaml.YAMLError as error:
        # The libyaml of PyYAML 6.0.4 rejects more than 1000 open brackets while it looks ahead on a line for a key,
        # before it returns the events of the outer ones: read again with commas in place of the rest of that line.
        if "nesting depth" in (getattr(error, "problem", None) or ""):
            index: int = error.problem_mark.index  # type: ignore[attr-defined]
            _parse(text[:index] + "," * len(text[index:].partition("\n")[0]) + "\n", problems)
        _not_yaml(error, text, problems)
    if builder.root is None:
        problems.fatal(Location(problems.file), "empty file; expected a mapping that begins with 'version: 1'")
    return builder.root


def _span(event: object, file: str) -> Location:
    """The part of an event on its first line."""
    start, end = event.start_mark, event.end_mark  # type: ignore[attr-defined]
    column = start.column + 1
    end_column = end.column + 1 if end.line == start.line else column + 1
    return Location(file, start.line + 1, column, max(end_column, column + 1))


def _not_yaml(error: Exception, text: str, problems: Problems) -> NoReturn:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    location = Location(problems.file)
    message = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
    if mark is not None:
        location = Location(problems.file, mark.line + 1, mark.column + 1, mark.column + 2)
        line = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
        if "\t" in line[:mark.column + 1]:
            message += "; this line contains a tab, YAML indents with spaces"
    problems.fatal(location, f"not YAML: {message}")
