"""Mutation test of the decisions: is every operator, branch, condition and constant noticed by the unit tests alone?

    python3 -m tests.mutation [MODULE]... [--sample N] [--seed S] [--jobs N] [--list]

Each mutant is one change of the module's syntax tree. It is compiled in a forked process before anything has imported
the module, and the unit tests named in TESTS run there until the first failure, those first that noticed the mutants
before it. Exit code 1: mutants survived.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]
UNIT = "tests/unit"

TESTS = {
    "gate": ("test_gate.py", "test_splay.py"),
    "backoff": ("test_backoff.py",),
    "decide": ("test_restart_facts.py", "test_decide.py", "test_decide_memory.py", "test_decide_inputs.py",
               "test_forecast.py", "test_occupied_paths.py", "test_splay.py", "test_slots.py", "test_openings.py",
               "test_probation.py", "test_unrun_commands.py"),
    "inputs": ("test_decide_inputs.py", "test_restart_facts.py"),
    "actions": ("test_actions.py", "test_decide.py"),
    "splay": ("test_splay.py",),
    "slots": ("test_slots.py",),
    "occupied": ("test_occupied_paths.py",),
    "pending_changes": ("test_pending_changes.py", "test_unrun_commands.py"),
    "facts": ("test_restart_facts.py", "test_unrun_commands.py", "test_occupied_paths.py"),
    "unrun_commands": ("test_unrun_commands.py",),
    "probation": ("test_probation.py", "test_actions.py", "test_decide.py", "test_decide_memory.py"),
}
"""The modules of plan/ and the unit tests that must notice every change of them."""

TIMEOUT_S = 120.0
"""A mutant whose tests take longer has been noticed: it does not end."""

EQUIVALENT: dict[str, str] = {
    "decide: without `hold is not None`: if hold is not None and hold.until is not None:":
        "where nothing may be done, something is held",
    "decide: without `seen.loaded is not None`: was_starting = ": "where dockerd is seen to run, systemd is asked",
    "probation: without `seen.loaded is not None`: is_started_since = ":
        "has_failed() says so of a unit that is loaded",
    "actions: without `seen.loaded is not None`: is_same = ":
        "has_failed() says so of a unit that is loaded",
    "decide: Lt -> LtE: is_starting = seen.running is not None and age_s": "no moment is exact",
    "decide: if True: elif result.interference:": "no file has an empty path",
    r"inputs: '\n' -> other text: return hashlib.sha256(": "any separator does",
    "inputs: 'utf-8' -> other text: return hashlib.sha256(": "the name of a codec is normalized",
    "inputs: ' ' -> other text: yield f\"{path} {seen.": "any separator does",
    "inputs: ' ' -> other text: yield f\"{path} {found": "any separator does",
    "inputs: ' ' -> other text: contents = (f\"{path} {": "any separator does",
    "inputs: ' ' -> other text: yield f\"{change.path} {": "any separator does",
    "inputs: ' ' -> other text: yield f\"{seen.loaded.acti": "any separator does",
    "pending_changes: '' -> other text: where = ": "every word of a command has a location",
    "pending_changes: 'link=' -> other text: LINK = ": "any prefix does",
    "pending_changes: 40 -> 41: MAX_LINKS = ": "Linux refuses so many links",
    "slots: without `fleet is None`: if refusal is None or fleet is None:":
        "a slot is refused only where the policy has a fleet",
    "slots: 20 -> 21: longest_s = min(": "both are far beyond the longest time",
    "slots: ' ' -> other text: share = ": "any separator does",
    "slots: 0 -> 1: share = ": "any byte does",
    "slots: 255 -> 256: share = ": "the share is smaller by less than a hundredth",
    "splay: ' ' -> other text: return int.from_bytes(": "any separator does",
    "unrun_commands: 0 -> 1: started_ns = ": "nothing was loaded in the first nanosecond",
    "unrun_commands: 'inactive' -> other text: is_started = ": "any word but `active` does",
    "splay: 'utf-8' -> other text: return hashlib.sha256(": "the name of a codec is normalized",
    "splay: 'surrogateescape' -> other text: return hashlib.sha256(": "no policy has a surrogate",
}
"""Mutants that change nothing that can be observed, as the beginning of `module: change: source line`, and why."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.Mod: ast.Mult,
}

SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """One change: what it is, at which line, and the number of the mutation of that node."""

    module: str
    what: str
    line: int
    source: str
    node: int
    variant: int

    @property
    def key(self) -> str:
        """What EQUIVALENT calls it: it survives edits elsewhere in the file."""
        return f"{self.module}: {self.what}: {self.source}"

    @property
    def is_equivalent(self) -> bool:
        """Whether it is listed in EQUIVALENT."""
        return any(self.key.startswith(known) for known in EQUIVALENT)

    def __str__(self) -> str:
        return f"plan/{self.module}.py:{self.line}: {self.what}: {self.source}"


def path_of(module: str) -> Path:
    """The source of a module of plan/."""
    return ROOT / "dockerd_guard/plan" / f"{module}.py"


# --- mutations ------------------------------------------------------------------------------------


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:  # noqa: PLR0912 -- one branch for each kind of node
    """The mutations of one node, each with a description."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                changed = copy.deepcopy(node)
                changed.ops[index] = other()
                yield f"{type(operator).__name__} -> {other.__name__}", changed
    elif isinstance(node, ast.BoolOp):
        changed_operator = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        what = f"{type(node.op).__name__} -> {type(changed_operator).__name__}"
        yield what, ast.BoolOp(changed_operator, node.values)
        for value in node.values:
            rest = [other for other in node.values if other is not value]
            yield f"without `{ast.unparse(value)}`", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", node.operand
    elif isinstance(node, (ast.If, ast.IfExp)):
        for outcome in (True, False):
            changed_if = copy.copy(node)
            changed_if.test = _kept_walrus(node.test, outcome)
            yield f"{'if' if isinstance(node, ast.If) else 'if expression'} {outcome}", changed_if
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            changed_for = copy.copy(node)
            changed_for.ifs = node.ifs[:index] + node.ifs[index + 1:]
            yield f"without if {ast.unparse(node.ifs[index])}", changed_for
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        other_operator = OPERATORS[type(node.op)]
        what = f"{type(node.op).__name__} -> {other_operator.__name__}"
        yield what, ast.BinOp(node.left, other_operator(), node.right)
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _kept_walrus(test: ast.expr, value: bool) -> ast.expr:
    """The test as a constant, still evaluated where it assigns names."""
    if not any(isinstance(each, ast.NamedExpr) for each in ast.walk(test)):
        return ast.Constant(value)
    return ast.Subscript(ast.Tuple([test, ast.Constant(value)], ast.Load()), ast.Constant(1), ast.Load())


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield f"{value} -> {not value}", ast.Constant(not value)
    elif isinstance(value, (int, float)):
        yield f"{value} -> {value + 1}", ast.Constant(value + 1)
    elif isinstance(value, str):
        yield f"{value!r} -> other text", ast.Constant(f"{value}~")


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.func, ast.Name) and node.func.id in SWAPPED:
        yield f"{node.func.id} -> {SWAPPED[node.func.id]}", ast.Call(
            ast.Name(SWAPPED[node.func.id], ast.Load()), node.args, node.keywords)
    if isinstance(node.func, ast.Attribute) and node.func.attr == "_replace":
        for keyword in node.keywords:
            rest = [other for other in node.keywords if other is not keyword]
            yield f"_replace without {keyword.arg}", ast.Call(node.func, node.args, rest)


def _is_left_out(node: ast.AST) -> bool:
    """Docstrings, annotations and imports are no code."""
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or isinstance(
        node, (ast.Import, ast.ImportFrom))


class _Walker(ast.NodeTransformer):
    """Visits the nodes that are mutated in a fixed order; replaces the one that is chosen."""

    def __init__(self, chosen: tuple[int, int] | None = None) -> None:
        self.chosen = chosen
        self.found: list[tuple[int, int, str, int]] = []
        self._number = 0
        self._line = 0

    def visit(self, node: ast.AST) -> ast.AST:
        if _is_left_out(node):
            return node
        self._line = getattr(node, "lineno", self._line)
        self._number += 1
        number, line = self._number, self._line
        for variant, (what, changed) in enumerate(variants(node)):
            if self.chosen == (number, variant):
                return ast.fix_missing_locations(ast.copy_location(changed, node))
            self.found.append((number, variant, what, line))
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            if isinstance(value, list):
                value[:] = [self.visit(each) if isinstance(each, ast.AST) else each for each in value]
            elif isinstance(value, ast.AST):
                setattr(node, field, self.visit(value))
        return node


def mutants(module: str) -> list[Mutant]:
    """All mutants of a module."""
    text = path_of(module).read_text(encoding="utf-8")
    walker = _Walker()
    walker.visit(ast.parse(text))
    lines = text.splitlines()
    return [Mutant(module, what, line, lines[line - 1].strip(), node, variant)
            for node, variant, what, line in walker.found]


# --- running them ---------------------------------------------------------------------------------


class _MutatedModule(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports one module from a changed syntax tree."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = f"dockerd_guard.plan.{mutant.module}"
        self._mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self._name else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        path = path_of(self._mutant.module)
        tree = _Walker((self._mutant.node, self._mutant.variant)).visit(ast.parse(path.read_text(encoding="utf-8")))
        assert isinstance(tree, ast.Module)
        module.__file__ = str(path)
        exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), module.__dict__)


def preload() -> None:
    """Import what takes long and no mutant changes: everything below plan/."""
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401

    import dockerd_guard.observe.live
    import dockerd_guard.policy.reader
    import dockerd_guard.rules.judge  # noqa: F401

    assert not any(name.startswith("dockerd_guard.plan") for name in sys.modules)


class _Order:
    """A plugin of pytest: runs some tests first, and writes the name of one that fails to a file descriptor."""

    def __init__(self, first: Sequence[str], failed_fd: int) -> None:
        self._first = {name: number for number, name in enumerate(first)}
        self._failed_fd = failed_fd

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._first.get(item.nodeid, len(self._first)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self._failed_fd, report.nodeid.encode())


def run_tests(mutant: Mutant | None, tests: tuple[str, ...], *plugins: _Order) -> int:
    """In a forked process: the exit code of the tests, 1 as soon as one fails."""
    import pytest

    if mutant is not None:
        sys.meta_path.insert(0, _MutatedModule(mutant))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no",
                            *(f"{ROOT}/{UNIT}/{name}" for name in tests)], plugins=plugins))


class _Running(NamedTuple):
    mutant: Mutant
    begun: float
    failed_fd: int


def survivors(chosen: list[Mutant], jobs: int, log: bool) -> list[Mutant]:
    """Run the tests on each mutant; returns those that no test noticed."""
    left, running, found = list(reversed(chosen)), dict[int, _Running](), []
    noticed: list[str] = []
    while left or running:
        while left and len(running) < jobs:
            mutant = left.pop()
            failed_fd, write_fd = os.pipe()
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    code = run_tests(mutant, TESTS[mutant.module], _Order(noticed, write_fd))
                finally:
                    os._exit(code)
            os.close(write_fd)
            running[pid] = _Running(mutant, time.monotonic(), failed_fd)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            for pid, other in running.items():
                if time.monotonic() - other.begun > TIMEOUT_S:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            continue
        mutant, _, failed_fd = running.pop(pid)
        with os.fdopen(failed_fd) as failed:
            if name := failed.read():
                noticed = [name, *(other for other in noticed if other != name)]
        if os.waitstatus_to_exitcode(status) == 0:
            found.append(mutant)
            if log:
                print(f"survived: {mutant}", flush=True)
    return found


def main() -> int:
    """Run, print the survivors; the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []], help="modules of plan/ (default: all)")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many mutants, chosen by the seed")
    parser.add_argument("--from-line", type=int, default=0, metavar="N", help="only mutants from this line on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args()
    every = [mutant for module in options.modules or TESTS for mutant in mutants(module)]
    stale = [known for known in EQUIVALENT if known.partition(":")[0] in (options.modules or TESTS)
             and not any(mutant.key.startswith(known) for mutant in every)]
    chosen = [mutant for mutant in every if not mutant.is_equivalent]
    equivalent = len(every) - len(chosen)
    chosen = [mutant for mutant in chosen if mutant.line >= options.from_line]
    if options.sample:
        chosen = random.Random(options.seed).sample(chosen, min(options.sample, len(chosen)))
    if options.list:
        print(*chosen, sep="\n")
        return 0
    begun = time.monotonic()
    preload()
    tests = dict.fromkeys(name for module in options.modules or TESTS for name in TESTS[module])
    pid = os.fork()
    if not pid:
        os._exit(run_tests(None, tuple(tests)))
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        print("the tests fail without any mutant", file=sys.stderr)
        return 2
    found = survivors(chosen, options.jobs, log=True)
    for key in sorted(stale):
        print(f"listed as equivalent, but there is no such mutant: {key}")
    print(f"{len(chosen)} mutants, {len(chosen) - len(found)} noticed, {len(found)} survived, "
          f"{equivalent} equivalent, "
          f"{time.monotonic() - begun:.0f} s")
    return 1 if found or stale else 0


if __name__ == "__main__":
    sys.exit(main())
