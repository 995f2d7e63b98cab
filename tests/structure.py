"""Check the structure of the package: direction of imports, circles; file lengths, of tests too. Part of `make lint`.

`python3 -m tests.structure` prints each violation and exits with 1. `--picture` prints the rooms and their imports as
a Mermaid graph (docs/architecture.md).
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "dockerd_guard"
CODE = (PACKAGE, "packaging", "tests")
MAX_LINES = 500

ROOMS = (
    "model", "rootfs", "lazy_imports", "systemd", "dockerd", "policy", "fleet", "observe", "rules", "plan", "apply",
    "containment", "nethelper", "report", "agent", "commands", "cli", "__main__",
)
"""From the bottom to the top: a room imports only rooms that come before it."""

SEPARATE = (("systemd", "dockerd"), ("dockerd", "systemd"))
"""These pairs must not import each other, whatever their order."""


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module of the package that a file imports, also within functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            for name in node.names:
                yield node.lineno, f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == PACKAGE:
                    yield node.lineno, name.name


def room_of(module: str) -> str:
    """The room of a module, the empty string for the package itself (`__version__`)."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def module_of(file: Path, root: Path) -> str:
    """The dotted name of a file."""
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def edges(root: Path) -> dict[str, dict[str, int]]:
    """For each module, the modules that it imports and the line of the import."""
    files = {module_of(file, root): file for file in sorted((root / PACKAGE).rglob("*.py"))}
    found: dict[str, dict[str, int]] = {}
    for module, file in files.items():
        found[module] = {}
        for line, name in imports(file):
            target = name if name in files else name.rpartition(".")[0]
            if target in files and target not in (PACKAGE, module):
                found[module].setdefault(target, line)
    return found


def circles(graph: dict[str, dict[str, int]]) -> Iterator[tuple[str, ...]]:
    """Each circle of imports once, as the modules on it."""
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        state[module] = 1
        for target in graph[module]:
            if state.get(target) == 1:
                yield path[path.index(target):]
            elif target not in state:
                yield from visit(target, (*path, target))
        state[module] = 2

    for module in graph:
        if module not in state:
            yield from visit(module, (module,))


def violations(root: Path) -> Iterator[str]:
    """Everything that breaks the structure, one line each."""
    graph = edges(root)
    for module, targets in graph.items():
        room, path = room_of(module), module.replace(".", "/") + ".py"
        for target, line in targets.items():
            other = room_of(target)
            if not room or not other or room == other:
                continue
            if ROOMS.index(other) > ROOMS.index(room):
                yield f"{path}:{line}: {room} must not import {other}, which is above it"
            elif (room, other) in SEPARATE:
                yield f"{path}:{line}: {room} and {other} must not import each other"
    for circle in circles(graph):
        yield f"circle of imports: {' -> '.join((*circle, circle[0]))}"
    for file in sorted(file for top in CODE for file in (root / top).rglob("*.py")):
        if (lines := len(file.read_text().splitlines())) > MAX_LINES:
            yield f"{file.relative_to(root)}: {lines} lines; at most {MAX_LINES} are allowed"
        if file.parent == root / PACKAGE and file.stem not in (*ROOMS, "__init__"):
            yield f"{file.relative_to(root)}: not a room of tests/structure.py"


def picture(root: Path) -> str:
    """The rooms and their imports as a Mermaid graph."""
    graph = edges(root)
    arrows = sorted({(room_of(module), room_of(target)) for module, targets in graph.items() for target in targets
                     if room_of(module) != room_of(target) and room_of(module) and room_of(target)})
    return "\n".join(("```mermaid", "graph TD", *(f"    {here} --> {there}" for here, there in arrows), "```"))


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Check the structure of the package.")
    parser.add_argument("--picture", action="store_true", help="print the rooms as a Mermaid graph")
    options = parser.parse_args()
    root = Path(__file__).parent.parent
    if options.picture:
        print(picture(root))
        return 0
    found = list(violations(root))
    print("\n".join(found) or "structure: no violation")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
