"""YAML as nodes that keep their locations, read from its events. JSON is read as YAML."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_DEPTH = 40
MAX_NODES = 400_000  # what an alias stands for counts each time

MERGE = "<<"


class Scalar(NamedTuple):
    """A value: its text, line and column from 1, and, for a literal block, the indentation of its lines. `last_line`
    is where it ends. `is_known` is false for an alias of a list or mapping, and for binary data that is none. A key of
    a mapping has the `tag` of its value."""

    text: str
    line: int
    column: int
    indent: int | None = None
    last_line: int = 0
    is_known: bool = True
    tag: str = ""


Node = Scalar | list[Any] | dict[str, Any]
"""A list of nodes, or a mapping of keys to pairs of the key's Scalar and a node."""


class UnreadableYaml(Exception):
    """The file is not YAML or JSON. `line` is where."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Builder:
    """Builds the nodes of YAML documents from their events."""

    def __init__(self, lines: list[str], *, has_alternatives: bool) -> None:
        self.lines = lines
        self.has_alternatives = has_alternatives
        self.stack: list[tuple[list[Any] | dict[str, Any], Scalar | None]] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        """Each with the number of its nodes."""
        self.begun: list[tuple[str | None, int]] = []
        """The anchor of each open list or mapping, and the number of nodes before it."""
        self.alternatives: dict[int, list[tuple[Scalar, Node]]] = {}
        """By open mapping: keys that it has more than once, with all values but the last one."""
        self.count = 0

    def add(self, event: Any) -> Node | None:
        """Take an event; return the root of a document that it completes."""
        import yaml

        if isinstance(event, yaml.CollectionEndEvent):
            done, _ = self.stack.pop()
            anchor, before = self.begun.pop()
            if isinstance(done, dict):
                self._join_alternatives(done)
                _merge(done)
            if anchor is not None:
                self.anchors[anchor] = done, self.count - before
            return done if not self.stack else None
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = _scalar(event, self.lines)
            self.count += 1
            if event.anchor is not None:
                self.anchors[event.anchor] = node, 1
        elif isinstance(event, yaml.AliasEvent):
            mark = event.start_mark
            place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            # An alias within what it stands for is not known.
            node, count = self.anchors.get(str(event.anchor), (Scalar("", *place, is_known=False), 1))
            self.count += count
            if self.count > MAX_NODES:
                raise UnreadableYaml(f"more than {MAX_NODES:,} values with those of its aliases", place[0])
            self._put(node, "")
            return None
        elif isinstance(event, yaml.CollectionStartEvent):
            self.anchors.pop(str(event.anchor), None)
            self.begun.append((event.anchor, self.count))
            self.count += 1
            node = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        else:
            return None
        self._put(node, event.tag or "")
        if not isinstance(node, Scalar):
            if len(self.stack) >= MAX_DEPTH:
                raise UnreadableYaml(f"nested more than {MAX_DEPTH} levels deep", 1)
            self.stack.append((node, None))
        return None

    def _put(self, node: Node, tag: str) -> None:
        if not self.stack:
            return
        parent, key = self.stack[-1]
        if isinstance(parent, list):
            parent.append(node)
        elif key is None:
            self.stack[-1] = parent, node if isinstance(node, Scalar) else Scalar("", 1, 1)
        else:
            if self.has_alternatives and key.text in parent and key.text != MERGE:
                self.alternatives.setdefault(id(parent), []).append(parent[key.text])
            parent[key.text] = (key._replace(tag=tag) if tag else key, node)
            self.stack[-1] = parent, None

    def _join_alternatives(self, node: dict[str, Any]) -> None:
        """Give a key that a mapping has more than once all of its values."""
        for key, value in reversed(self.alternatives.pop(id(node), ())):
            last, others = node[key.text]
            node[key.text] = last._replace(tag=last.tag and key.tag), self._either(value, others)

    def _either(self, first: Node, second: Node) -> Node:
        if first is second:
            return first
        self.count += 1 if isinstance(first, Scalar) else len(first)
        if self.count > MAX_NODES:
            raise UnreadableYaml(f"more than {MAX_NODES:,} values with those of its alternatives", 1)
        if isinstance(first, list) and isinstance(second, list):
            return [*first, *second]
        if isinstance(first, dict) and isinstance(second, dict):
            common = {key: (second[key][0], self._either(first[key][1], second[key][1]))
                      for key in first.keys() & second.keys()}
            return first | second | common
        if isinstance(first, Scalar) and isinstance(second, Scalar) and first.text != second.text:
            return second._replace(text=f"{{{{ {first.text} or {second.text} }}}}", is_known=False)
        return first if isinstance(second, Scalar) else second


def _merge(node: dict[str, Any]) -> None:
    """Put the keys of merged mappings (`<<`) into a mapping that does not have them."""
    merged = node.get(MERGE, (None, None))[1]
    mappings = merged if isinstance(merged, list) else [merged]
    if all(isinstance(mapping, dict) and MERGE not in mapping for mapping in mappings):
        del node[MERGE]
        node |= {key: value for mapping in reversed(mappings) for key, value in mapping.items() if key not in node}


def documents(text: str, *, has_alternatives: bool = False) -> Iterator[Node]:
    """Yield the root of each document. Of a key that a mapping has more than once the last value counts, or all of them
    if the text may be a template with alternatives. Raises UnreadableYaml."""
    import yaml

    builder = _Builder(text.split("\n"), has_alternatives=has_alternatives)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            root = builder.add(event)
            if root is not None:
                yield root
    except UnicodeEncodeError as error:
        raise UnreadableYaml("not UTF-8", text.count("\n", 0, error.start) + 1) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or "not YAML")
        raise UnreadableYaml(problem, mark.line + 1 if mark is not None else 1) from None


def _scalar(event: Any, lines: list[str]) -> Scalar:
    line, column = event.start_mark.line + 1, event.start_mark.column + 1
    # A block ends at the beginning of the line after it.
    last = event.end_mark.line + (event.end_mark.column > 0)
    if event.tag == "tag:yaml.org,2002:binary":
        data = decoded_base64(event.value)
        return Scalar((data or b"").decode("utf-8", "surrogateescape"), line, column, None, last, data is not None)
    if event.style != "|":
        return Scalar(event.value, line, column + (event.style in ("'", '"') and "\n" not in event.value), None, last)
    for following in range(line, min(line + 1000, len(lines))):
        if lines[following].strip():
            indent = len(lines[following]) - len(lines[following].lstrip(" "))
            return Scalar(event.value, line + 1, 1, indent, max(line, last))
    return Scalar(event.value, line + 1, 1, 0, last)


def value_of(node: Node, key: str) -> Node | None:
    found = node.get(key) if isinstance(node, dict) else None
    return found[1] if found is not None else None


def text_of(node: Node | None) -> str:
    return node.text if isinstance(node, Scalar) else ""


def items_of(node: Node | None) -> list[Any]:
    return node if isinstance(node, list) else []


def decoded_base64(text: str) -> bytes | None:
    """Decode base64 with white space; None if it is something else, as the expression of a template."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None
