"""YAML nodes with their locations, and the typed getters that read a policy from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple, NoReturn, TypeVar

from dockerd_guard.model.location import Location
from dockerd_guard.policy.model import PolicyError, PolicyProblem
from dockerd_guard.policy.values import parse_duration, quoted

MAX_POLICY_BYTES = 256 * 1024
MAX_PROBLEMS = 50
"""Problems reported at most."""

MAX_DEPTH = 6
"""Deeper nesting than any policy has; what is deeper is not read on."""

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
T = TypeVar("T")

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "yes", "on"))
_FALSE = frozenset(("false", "no", "off"))

# Patterns are compiled where they are first used: a lint without a policy needs none of them.
_NUMBER = r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?\Z"
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


def described(node: Node) -> str:
    """What stands there, in words."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    if not node.quoted and node.text in _NULL:
        return "nothing"
    if not node.quoted and node.text.lower() in _TRUE | _FALSE:
        return f"the boolean {node.text}"
    if not node.quoted and re.match(_NUMBER, node.text):
        return f"the number {node.text}"
    return quoted(node.text)


def nearest(word: str, names: Collection[str]) -> str:
    """`; did you mean X?`, or what there is when nothing is near."""
    import difflib

    names = [str(name) for name in names]
    near = difflib.get_close_matches(word[:40].lower(), names, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(names)}"


class _Build:
    """Makes nodes of events."""

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
        """Begin a collection; gives how deep it lies."""
        self.add(node)
        self._open.append((node, []))
        return len(self._open)

    def close(self) -> None:
        self._open.pop()


class NodeReader:
    """Takes a document apart; keeps what is wrong and goes on."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[PolicyProblem] = []

    def wrong(self, location: Location, message: str) -> None:
        self.problems.append(PolicyProblem(location, message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise PolicyError(self.problems)

    def fatal(self, location: Location, message: str) -> NoReturn:
        self.wrong(location, message)
        raise PolicyError(self.problems)

    # text -> nodes

    def text(self, data: bytes) -> str:
        start = Location(self.file)
        if len(data) > MAX_POLICY_BYTES:
            self.fatal(start, f"is larger than {MAX_POLICY_BYTES >> 10} KiB")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[:error.start].decode("utf-8", "replace")
            self.fatal(self._at(before, len(before)), f"not UTF-8: byte 0x{data[error.start]:02x}")
        if unprintable := re.search(_UNPRINTABLE, text):
            self.fatal(self._at(text, unprintable.start()),
                       f"YAML allows no control character {unprintable[0]!r}")
        return text

    def _at(self, text: str, index: int) -> Location:
        line = text.count("\n", 0, index) + 1
        column = index - (text.rfind("\n", 0, index) + 1) + 1
        return Location(self.file, line, column, column + 1)

    def document(self, text: str) -> Node:
        """The one document of the file; raises PolicyError for what is no YAML or not of our grammar."""
        import yaml

        build = _Build()
        started = False
        try:
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                location = self._span(event)
                if isinstance(event, yaml.DocumentStartEvent):
                    if started:
                        self.fatal(location, "a second document begins here; a policy is one document")
                    started = True
                elif getattr(event, "anchor", None) is not None:
                    self.fatal(location, "anchors and aliases (&name, *name) have no place in a policy; "
                                         "write the value itself")
                elif getattr(event, "tag", None) is not None:
                    self.fatal(location, "tags (!name) have no place in a policy; write the plain value")
                elif isinstance(event, yaml.ScalarEvent):
                    build.add(ScalarNode(location, event.value, bool(event.style)))
                elif isinstance(event, yaml.CollectionStartEvent):
                    sequence = isinstance(event, yaml.SequenceStartEvent)
                    if build.open(ListNode(location, []) if sequence else MappingNode(location, [])) > MAX_DEPTH:
                        self.fatal(location, "nested deeper than any policy is")
                elif isinstance(event, yaml.CollectionEndEvent):
                    build.close()
        except yaml.YAMLError as error:
            # The libyaml of PyYAML 6.0.4 refuses more than 1000 open brackets while it looks ahead on a line for a key,
            # before it gives the events of the outer ones: that line is read again with commas for the rest of it.
            if "nesting depth" in (getattr(error, "problem", None) or ""):
                index: int = error.problem_mark.index  # type: ignore[attr-defined]
                self.document(text[:index] + "," * len(text[index:].partition("\n")[0]) + "\n")
            self._not_yaml(error, text)
        if build.root is None:
            self.fatal(Location(self.file), "is empty; expected a mapping that begins with 'version: 1'")
        return build.root

    def _span(self, event: object) -> Location:
        """Where an event stands, on its first line."""
        start, end = event.start_mark, event.end_mark  # type: ignore[attr-defined]
        column = start.column + 1
        end_column = end.column + 1 if end.line == start.line else column + 1
        return Location(self.file, start.line + 1, column, max(end_column, column + 1))

    def _not_yaml(self, error: Exception, text: str) -> NoReturn:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        location = Location(self.file)
        said = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
        if mark is not None:
            location = Location(self.file, mark.line + 1, mark.column + 1, mark.column + 2)
            line = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
            if "\t" in line[:mark.column + 1]:
                said += "; YAML indents by spaces, this line has a tab"
        self.fatal(location, f"not YAML: {said}")

    # nodes -> values; each gives `default` after saying what is wrong

    def mapping(self, node: Node, what: str, required: Collection[str],
                optional: Collection[str]) -> dict[str, Node]:
        """The values of a mapping by key; only known keys, each once."""
        names = [*required, *optional]
        if not isinstance(node, MappingNode):
            self.wrong(node.location, f"expected {what}, a mapping with {', '.join(names)}; "
                                      f"found {described(node)}")
            return {}
        found: dict[str, Node] = {}
        first: dict[str, Location] = {}
        for key, value in node.items:
            if not isinstance(key, ScalarNode):
                self.wrong(key.location, f"expected the name of a key of {what}; found {described(key)}")
            elif key.text not in names:
                self.wrong(key.location, f"unknown key {quoted(key.text)} in {what}"
                                         f"{nearest(key.text, names)}")
            elif key.text in first:
                self.wrong(key.location, f"duplicate key {key.text!r}, already given in line "
                                         f"{first[key.text].line}")
            else:
                first[key.text] = key.location
                found[key.text] = value
        for name in required:
            if name not in first:
                self.wrong(node.location, f"the key {name!r} is missing in {what}")
        return found

    def list(self, node: Node, what: str) -> list[Node]:
        if isinstance(node, ListNode):
            return node.items
        self.wrong(node.location, f"expected a list of {what}; found {described(node)}")
        return []

    def word(self, node: Node, expected: str) -> str | None:
        """The text of a scalar that is neither empty nor a boolean; numbers are text here."""
        if isinstance(node, ScalarNode) and node.text and (
            node.quoted or (node.text not in _NULL and node.text.lower() not in _TRUE | _FALSE)
        ):
            return node.text
        self.wrong(node.location, f"expected {expected}; found {described(node)}")
        return None

    def parsed(self, node: Node, expected: str, parse: Callable[[str], T], default: T) -> T:
        """A word through a parser that raises ValueError with what is wrong, if it knows more."""
        text = self.word(node, expected)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            more = f": {error}" if str(error) else ""
            self.wrong(node.location, f"expected {expected}; found {described(node)}{more}")
            return default

    def one_of(self, node: Node, names: Collection[str], default: str) -> str:
        expected = f"one of {', '.join(names)}"
        text = self.word(node, expected)
        if text is None or text in names:
            return text or default
        self.wrong(node.location, f"expected {expected}; found {described(node)}{nearest(text, names)}")
        return default

    def boolean(self, node: Node, default: bool) -> bool:
        if isinstance(node, ScalarNode) and not node.quoted and node.text.lower() in _TRUE | _FALSE:
            return node.text.lower() in _TRUE
        self.wrong(node.location, f"expected true or false; found {described(node)}")
        return default

    def duration(self, node: Node, within_s: tuple[float, float], default: float) -> float:
        def parse(text: str) -> float:
            seconds = parse_duration(text)
            if not within_s[0] <= seconds <= within_s[1]:
                raise ValueError(f"it must be from {within_s[0]:g}s to {within_s[1]:g}s")
            return seconds

        return self.parsed(node, "a duration such as 100ms, 5min or 1h", parse, default)
